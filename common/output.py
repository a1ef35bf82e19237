"""Output directories, checked before hours of work and not after."""

import tempfile
from pathlib import Path


class OutputError(ValueError):
    """A directory that cannot be written; the message is one line with the remedy."""


def make_directory(directory: Path, flag: str) -> None:
    """Create a directory if it does not exist, and check that a file can be written to it.

    Args:
        flag: the flag that named it, for the message.

    Raises:
        OutputError: nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise OutputError(f"{flag} {directory}: {error.strerror}; name a directory that can be written") from error
