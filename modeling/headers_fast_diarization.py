"""What the first bytes of a recording say about its length, and where they cannot be trusted."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

HEAD_BYTES = 2**16
WAVE = (b"RIFF", b"RIFX", b"RF64", b"BW64")
PLAIN_WAVE_FORMATS = (1, 3, 6, 7, 0xFFFE)
"""Tags of PCM, float, A-law, mu-law and extensible: as many bytes a second as the header says."""
CHUNKS_AFTER_DATA = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"JUNK", b"PAD ", b"iXML", b"_PMX", b"smpl", b"fact")
MOST_CHUNKS = 1000
"""Looked at in a WAV, of which sound programs write a handful."""
QUICKTIME_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


@dataclass
class Header:
    """
    Args:
        file: what FFmpeg is to read.
        seconds: the length written in the header of a WAV.
        exact: whether the length that FFmpeg gives can be one that is written in the file.
        too_short: the header of a WAV declares less than there is.
        options: for FFmpeg's demuxer.
        right: a WAV of plain samples that has as many as it says.
        quicktime: MP4 and its relatives.
        empty: there is nothing in the file.
    """

    file: BinaryIO
    seconds: float | None = None
    exact: bool = True
    too_short: bool = False
    options: dict[str, str] = field(default_factory=dict)
    right: bool = False
    quicktime: bool = False
    empty: bool = False

    @property
    def seekable(self) -> bool:
        return not isinstance(self.file, Pipe)

    @property
    def shorter_than_data(self) -> bool:
        return self.too_short or getattr(self.file, "goes_on", False)


class Pipe:
    """A file that can be read once, its beginning put back before it.

    Args:
        data_end: where the data of a WAV end, if a chunk follows there or nothing does; else all is data.
    """

    def __init__(self, file: BinaryIO, head: bytes, data_end: int | None = None):
        self.file, self.ahead, self.position, self.data_end = file, head, 0, data_end
        self.goes_on = False

    def read(self, size: int = -1) -> bytes:
        at_end = self.data_end is not None and self.position >= self.data_end
        if at_end:
            self._fill(9)
            if is_chunk(self.ahead) or is_chunk(self.ahead[1:]) or len(self.ahead) < 8:
                return b""
            self.goes_on, self.data_end = True, None
        elif self.data_end is not None and size >= 0:
            size = min(size, self.data_end - self.position)
        part = self.ahead[:size] if self.ahead else self.file.read(size)
        self.ahead = self.ahead[len(part) :] if self.ahead else b""
        self.position += len(part)
        return part

    def _fill(self, size: int):
        while len(self.ahead) < size and (more := self.file.read(size - len(self.ahead))):
            self.ahead += more


def read_header(file: BinaryIO) -> Header:
    """Look at the first bytes of a binary file, which is then as it was, or wrapped where it cannot be gone back in."""
    seekable = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek")
    if seekable:
        file.seek(0)
    head = b""
    while len(head) < HEAD_BYTES and (more := file.read(HEAD_BYTES - len(head))):
        head += more

    def read_at(at: int, size: int) -> bytes:
        if not seekable:
            return head[at : at + size]
        file.seek(at)
        return file.read(size)

    if head[:4] in WAVE and head[8:12] == b"WAVE":
        size = file.seek(0, os.SEEK_END) if seekable else None
        header = _wave(file, head, read_at, size)
    elif head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0):
        header = Header(file, exact=_counts_its_frames(read_at))
    else:
        header = Header(file, quicktime=head[4:8] in QUICKTIME_ATOMS, empty=not head)
    if seekable:
        file.seek(0)
    elif not isinstance(header.file, Pipe):
        header.file = Pipe(file, head)
    return header


def is_placeholder(size: int) -> bool:
    """Whether a size is one of those that programs write which do not know it beforehand, as into a pipe."""
    return size == 0 or 0x7FFF0000 <= size <= 0x80000000 or size >= 0xFFFF0000


def is_chunk(ahead: bytes) -> bool:
    """Whether a chunk known to follow the data of a WAV, or an ID3 tag, begins so."""
    return ahead[:4] in CHUNKS_AFTER_DATA or ahead[:3] == b"TAG"


def _wave(file: BinaryIO, head: bytes, read_at: Callable[[int, int], bytes], file_size: int | None) -> Header:
    order = ">" if head[:4] == b"RIFX" else "<"
    at, bytes_a_second, long_size = 12, 0, None
    for _ in range(MOST_CHUNKS):
        chunk = read_at(at, 8)
        if len(chunk) < 8:
            return Header(file)
        name, size = chunk[:4], struct.unpack(f"{order}I", chunk[4:])[0]
        if name == b"fmt " and len(values := read_at(at + 8, 16)) == 16:
            tag, _, _, rate, _, _ = struct.unpack(f"{order}HHIIHH", values)
            bytes_a_second = rate if tag in PLAIN_WAVE_FORMATS else 0
        elif name == b"ds64":
            long_size = struct.unpack("<Q", read_at(at + 16, 8).ljust(8, b"\0"))[0]
        elif name == b"data":
            break
        at += 8 + size + size % 2
    else:
        return Header(file)
    start = at + 8
    if size == 0xFFFFFFFF and long_size:
        size = long_size
    elif is_placeholder(size) and (
        file_size is None or (start + size > file_size if size else not _ends_in_chunks(read_at, start))
    ):
        return Header(file, exact=False, options={"ignore_length": "1"})
    seconds = size / bytes_a_second if bytes_a_second else None
    if file_size is None:
        return Header(Pipe(file, head, start + size), seconds, exact=False, options={"ignore_length": "1"})
    if start + size < file_size and not _ends_in_chunks(read_at, start + size):
        return Header(file, exact=False, too_short=True, options={"ignore_length": "1"})
    return Header(file, seconds, right=seconds is not None and start + size <= file_size)


def _ends_in_chunks(read_at: Callable[[int, int], bytes], at: int) -> bool:
    """Whether from there on a WAV has only chunks, or nothing."""
    for _ in range(MOST_CHUNKS):
        ahead = read_at(at, 9)
        if ahead[:1] == b"\0" and at % 2:
            at, ahead = at + 1, read_at(at + 1, 9)
        if len(ahead) < 8 or is_chunk(ahead):
            return True
        size = struct.unpack("<I", ahead[4:8])[0]
        at += 8 + size
        if not (ahead[:4].isascii() and ahead[:4].decode().isprintable() and read_at(at - 1, 1)):
            return False
        at += size % 2
    return True


def _counts_its_frames(read_at: Callable[[int, int], bytes]) -> bool:
    """Whether an MP3 says how many frames it has; else its length is guessed from its bit rate."""
    at, tag = 0, read_at(0, 10)
    if tag[:3] == b"ID3" and len(tag) == 10:
        at = 10 + sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0)))
    first = read_at(at, 2048)
    found = max(first.find(b"Xing"), first.find(b"Info"))
    return b"VBRI" in first or (found >= 0 and bool(first[found + 7 : found + 8].ljust(1, b"\0")[0] & 1))
