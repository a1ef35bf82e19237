"""Where answers go: a directory that can be written, found out before hours of work and not after."""

import tempfile
from pathlib import Path


class OutputError(ValueError):
    """A place where nothing can be written; the message is one line with the remedy."""


def make_directory(directory: Path, flag: str) -> None:
    """Make a directory, if it is not there, and try whether a file can be written to it.

    Args:
        flag: that named it, for the message.

    Raises:
        OutputError: nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise OutputError(f"{flag} {directory}: {error.strerror}; name a directory that can be written") from error
