"""Command lines: hyphens for underscores, examples kept as written, and what follows a lone `--`."""

import argparse
import sys
from collections.abc import Sequence


class FlagParser(argparse.ArgumentParser):
    """A parser whose flags may be written with hyphens too, and whose description is shown as it is."""

    def __init__(self, **keywords):
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False} | keywords)

    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        flags, rest = split_flags(args)
        return super().parse_known_args(flags + (["--", *rest] if "--" in args else []), namespace)


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
