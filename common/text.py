"""Reading of text files that somebody else wrote: in bounded memory, whatever the path leads to."""

import os
import stat
from pathlib import Path

LARGEST = 100_000_000
"""Bytes; a million turns of RTTM are 70 million."""
PIECE = 1 << 20


class TextError(ValueError):
    """What is no text file, or too large; the message is one line that begins with the path."""


def read_text(path: str | Path, expected: str) -> str:
    """The text of a UTF-8 file or pipe, without a byte order mark.

    Args:
        expected: what the file should hold, for messages.

    Raises:
        OSError: the file cannot be read.
        TextError: a device, not UTF-8 text, or larger than `LARGEST`.
    """
    content = bytearray()
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise TextError(f"{path}: a device, not a file; expected {expected}")
        while part := file.read(PIECE):
            content += part
            if len(content) > LARGEST:
                raise TextError(f"{path}: more than {LARGEST // 1_000_000} MB; expected {expected}")
            if b"\0" in part:
                break
    try:
        text = content.decode("utf-8-sig")
        end = text.find("\0")
    except UnicodeDecodeError as error:
        text, end = content[: error.start].decode("utf-8-sig"), error.start
    if end >= 0:
        line = text[:end].count("\n") + 1
        raise TextError(f"{path}:{line}: not UTF-8 text; expected {expected}")
    return text
