"""Lines on standard output and standard error, also where nobody reads them any more."""

import os
import sys
from typing import TextIO

from common.errors import plain


class OutputLost(OSError):
    """Standard output cannot be written to, as on a full disk; the message is one line."""


def say(text: str, stream: TextIO | None = None) -> None:
    """Print at once; what reads the pipe may have left (`| head -1`), then this and all further lines are dropped.

    Args:
        stream: standard output by default.

    Raises:
        OutputLost: it cannot be written to. What cannot be written to standard error is dropped.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # or Python would try again as it ends, and fail
        os.close(nowhere)
        if stream is not sys.stderr and not isinstance(error, BrokenPipeError):
            raise OutputLost(f"standard output: {error.strerror}") from error


def warn(message: object) -> None:
    """A warning in one line on standard error."""
    say(" ".join(["warning:", *str(message).split()]), sys.stderr)


def report(error: object) -> None:
    """An error in one line on standard error."""
    say(" ".join(["error:", *plain(error).split()]), sys.stderr)
