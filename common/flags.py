"""Command lines: hyphens for underscores, examples kept as written, and what follows a lone `--`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence

from common.errors import unknown_argument

TOKEN = re.compile(r"hf_\w+")
"""What a token of the Hub looks like."""


class FlagParser(argparse.ArgumentParser):
    """A parser whose flags may be written with hyphens too, and whose description is shown as it is."""

    program: str | None = None
    """What the usage line calls the program; `None` for how it was started, as of `started_as`."""
    epilog_of_program: str | None = None
    """What is shown below the flags."""

    def __init__(self, **keywords):
        shown = {"formatter_class": argparse.RawDescriptionHelpFormatter, "prog": self.program or started_as()}
        shown |= {"epilog": self.epilog_of_program}
        super().__init__(**shown | {"allow_abbrev": False} | keywords)

    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        flags, rest = split_flags(args)
        return super().parse_known_args(flags + (["--", *rest] if "--" in args else []), namespace)

    def error(self, message: str):
        super().error(without_tokens(message))


def started_as() -> str:
    """`diarize.py` of a script, `python -m evaluation.tuning` of a module that was started by its name."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module is None:
        return os.path.basename(sys.argv[0])
    return f"python -m {module.name.removesuffix('.__main__')}"


def without_tokens(message: str) -> str:
    """The message of argparse without what may be a token: the values of unknown flags, and whatever looks like one."""
    _, _, unknown = message.partition("unrecognized arguments: ")
    flags = [word for word in unknown.split() if word.startswith("-")]
    return TOKEN.sub("hf_...", unknown_argument(flags[0]) if flags else message)


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
