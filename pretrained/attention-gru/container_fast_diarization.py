"""Opening of recordings by FFmpeg: every refusal is one line, every declared length one that is known."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .headers_fast_diarization import Header, read_header

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
OPTIONS = {"protocol_whitelist": "none"}
"""A playlist must not make FFmpeg open further files or addresses."""
LENGTH_A_TRACK = {
    "flac",
    "wav",
    "w64",
    "aiff",
    "au",
    "caf",
    "avi",
    "mp3",
    "mov,mp4,m4a,3gp,3g2,mj2",
    "tta",
    "wv",
    "ape",
}
LENGTH_A_FILE = {"matroska,webm", "flv", "asf"}
"""Formats that declare lengths, of tracks or of the whole; of others FFmpeg guesses them, from a bit rate mostly."""
INDEX_AT_END = (
    "an MP4 whose index is at its end cannot be read through a pipe; give the file itself, or move the index to the "
    "front with ffmpeg -i IN -c copy -movflags +faststart OUT"
)
Source = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO


class AudioError(ValueError):
    """A recording that cannot be read; the message is one line, the recording's name and the reason."""


class AudioWarning(UserWarning):
    """A recording that is not read whole; the message is one line, the recording's name and the damage."""


class AudioNotice(UserWarning):
    """What of a recording is heard, where that needs saying; the message is one line."""


def pyav():
    """The module, or what to do where it is missing."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading and resampling audio needs PyAV: pip install av") from error
    return av


def check_rate(name: str, rate: float) -> None:
    """
    Raises:
        AudioError: a sampling rate that no recording has.
    """
    if not (LOWEST_RATE <= rate <= HIGHEST_RATE and rate == int(rate)):
        raise AudioError(
            f"{name}: expected a sampling rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, in whole Hertz, got {rate}"
        )


def source_name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "audio"


@dataclass
class Recording:
    """An open recording."""

    name: str
    container: object
    header: Header

    @property
    def start(self) -> float:
        """What the container's clock shows where a player begins, in seconds."""
        return (self.container.start_time or 0) / 1e6

    @property
    def restarts(self) -> bool:
        """Whether stamps of this container may begin anew in the middle, as those of Ogg and MPEG."""
        return bool(self.container.format.flags & pyav().format.Flags.ts_discont.value)

    @property
    def reason_for_silence(self) -> str:
        if self.header.quicktime and not self.header.seekable:
            return INDEX_AT_END
        return "no samples"

    @property
    def has_short_packets(self) -> bool:
        """Whether FFmpeg calls the last packet cut short although the data may end anywhere."""
        return self.container.format.name in ("wav", "au")

    def declared_end(self, stream) -> float | None:
        """The second of the recording at which a track ends, where that is written in the file."""
        kind, duration = self.container.format.name, stream.duration
        if self.header.seconds is not None:
            return self.header.seconds
        if self.header.exact and kind in LENGTH_A_TRACK and duration:
            begin = float((stream.start_time or 0) * stream.time_base) - self.start
            return max(begin, 0.0) + float(duration * stream.time_base)
        if kind not in LENGTH_A_FILE or duration:
            return None
        if tag := stream.metadata.get("DURATION"):
            with contextlib.suppress(ValueError):
                hours, minutes, seconds = map(float, tag.split(":"))
                return 3600 * hours + 60 * minutes + seconds - self.start
        return self.container.duration / 1e6 if self.container.duration and len(self.container.streams) == 1 else None


class SafelySought:
    """A binary file that refuses a place outside of it by a number: what is raised instead PyAV prints by itself."""

    def __init__(self, file: BinaryIO):
        self.file, self.read = file, file.read

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.file.seek(0, os.SEEK_CUR)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


@contextlib.contextmanager
def open_recording(source: Source) -> Iterator[Recording]:
    """
    Opens a path, encoded bytes, or a binary file, which is read from its beginning where it can be gone back in.

    Raises:
        AudioError: whatever hinders that.
    """
    av, name = pyav(), source_name(source)
    with contextlib.ExitStack() as stack:
        header = None
        try:
            header = read_header(stack.enter_context(_binary(source)))
            options = OPTIONS | header.options
            file = SafelySought(header.file) if header.seekable else header.file
            # Tags that are no UTF-8: PyAV reads them by itself from version 19 on.
            lenient = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
            container = stack.enter_context(av.open(file, options=options, **lenient))
        except (OSError, av.FFmpegError) as error:
            raise AudioError(f"{name}: {_reason(error, header)}") from error
        if not container.streams.audio:
            raise AudioError(f"{name}: no audio track")
        yield Recording(name, container, header)


def _binary(source: Source) -> contextlib.AbstractContextManager[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return open(source, "rb")  # noqa: SIM115 (closed by the caller)
    if not hasattr(source, "read") or isinstance(source, io.TextIOBase):
        raise AudioError(f"expected a path, bytes or a binary file, got {type(source).__name__}")
    return contextlib.nullcontext(source)


def _reason(error: Exception, header: Header | None) -> str:
    if header is None or not isinstance(error, pyav().InvalidDataError | EOFError):
        return error.strerror or str(error)
    if header.empty:
        return "the file is empty"
    if header.quicktime and not header.seekable:
        return INDEX_AT_END
    return "not a recording that FFmpeg knows, or damaged beyond reading"
