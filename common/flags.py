"""Command lines: hyphens for underscores, and what follows a lone `--`."""

from collections.abc import Sequence


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before a lone `--`, with `--num-speakers` as `--num_speakers`, and those after it as they are."""
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [_underscored(argument) for argument in arguments[:end]], arguments[end + 1 :]


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
