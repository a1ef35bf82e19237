"""Lines on standard output and standard error, also where nobody reads them any more."""

import os
import sys
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Print at once; what reads the pipe may have left (`| head -1`), then this and all further lines are dropped.

    Args:
        stream: standard output by default.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def warn(message: object) -> None:
    """A warning in one line on standard error."""
    say(" ".join(["warning:", *str(message).split()]), sys.stderr)


def report(error: object) -> None:
    """An error in one line on standard error."""
    say(" ".join(["error:", *str(error).split()]), sys.stderr)
