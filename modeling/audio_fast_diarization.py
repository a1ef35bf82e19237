"""Reading of recordings: any container and codec FFmpeg knows, as mono 16 kHz blocks in bounded memory."""

import contextlib
import io
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np

SAMPLING_RATE = 16_000
LARGEST = 2.0**31  # of a float sample; files with the scale of integers exist
OPTIONS = {"protocol_whitelist": "none"}
"""A playlist must not make FFmpeg open further files or addresses."""
Source = str | os.PathLike | bytes | BinaryIO


class AudioError(ValueError):
    """A recording that cannot be read; the message is one line, the recording's name and the reason."""


class AudioWarning(UserWarning):
    """A recording that is not read whole; the message is one line, the recording's name and the damage."""


def audio_blocks(source: Source, block_seconds: float = 30.0) -> Iterator[np.ndarray]:
    """
    Streams a recording of any length, rate, channel count and codec, video files included. Channels are
    averaged and rates converted by FFmpeg's resampler, whose state runs through the blocks: where they are cut
    changes no sample.

    Args:
        source: path, encoded bytes, or binary file object (which is left open).
        block_seconds: length of every block but the last.

    Yields:
        float32 waveforms of shape (samples,), mono 16 kHz, full scale [-1, 1].

    Raises:
        AudioError: no such file, not a recording, no audio track, no samples.

    Warns:
        AudioWarning: truncated or damaged recording (what is readable is yielded); NaN or infinite samples
            (made 0).
    """
    block = round(block_seconds * SAMPLING_RATE)
    if block < 1:
        raise ValueError(f"block_seconds must be positive, got {block_seconds}")
    name = _name(source)
    empty = True
    with _open(source, name) as container:
        pieces = itertools.groupby(_decoded(container, name), key=lambda piece: piece[0])
        waveforms = (_resample((mono for _, mono in group), rate) for rate, group in pieces)
        for waveform in _regroup(itertools.chain.from_iterable(waveforms), block):
            empty = False
            yield waveform
    if empty:
        raise AudioError(f"{name}: the audio track has no samples that can be read")


def load_audio(source: Source) -> np.ndarray:
    """The whole recording as one waveform: [`audio_blocks`] joined, with the same errors and warnings."""
    return np.concatenate(list(audio_blocks(source)))


def declared_seconds(source: str | os.PathLike) -> float | None:
    """The length written in a file, if it can be read and says so; the samples may be fewer."""
    try:
        with _open(source, _name(source)) as container:
            return _declared_seconds(container, container.streams.best("audio"))
    except AudioError:
        return None


def to_mono_16k(array: np.ndarray, sampling_rate: int) -> np.ndarray:
    """
    Args:
        array: (samples,), (channels, samples) or (samples, channels), the shorter axis being the channels;
            floats with full scale [-1, 1], or integers of 8, 16 or 32 bit (unsigned ones have zero at half scale).
        sampling_rate: of `array`, in Hertz.

    Returns:
        float32 waveform of shape (samples,), mono 16 kHz: the mean of the channels, NaN and infinity made 0.

    Raises:
        AudioError: shape, type or rate are not those of audio, or there are no samples.

    Warns:
        AudioWarning: NaN or infinite samples.
    """
    array = np.asarray(array)
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"array: expected the shape (samples,) or (channels, samples), got {array.shape}")
    if array.dtype.kind != "f" and not (array.dtype.kind in "iu" and array.dtype.itemsize <= 4):
        raise AudioError(f"array: expected float or 8, 16 or 32 bit integer samples, got {array.dtype}")
    if not 1000 <= sampling_rate == int(sampling_rate):
        raise AudioError(f"array: expected a sampling rate in whole Hertz, at least 1000, got {sampling_rate}")
    channels = np.atleast_2d(array)
    mono, removed = _mono(channels if channels.shape[0] <= channels.shape[1] else channels.T)
    _warn_removed("array", removed)
    waveform = np.concatenate([np.zeros(0, np.float32), *_resample([mono], int(sampling_rate))])
    if waveform.size == 0:
        raise AudioError(f"array: {mono.size} samples at {sampling_rate} Hz are too few to resample")
    return waveform


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "audio"


@contextlib.contextmanager
def _open(source: Source, name: str):
    """FFmpeg's container of the recording; whatever hinders it becomes one `AudioError`."""
    av = _pyav()
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, bytes):
                source = io.BytesIO(source)
            elif isinstance(source, str | os.PathLike):
                source = stack.enter_context(open(source, "rb"))
            elif not hasattr(source, "read") or isinstance(source, io.TextIOBase):
                raise AudioError(f"expected a path, bytes or a binary file, got {type(source).__name__}")
            container = stack.enter_context(av.open(source, metadata_errors="replace", options=OPTIONS))
        except av.InvalidDataError as error:
            raise AudioError(f"{name}: {_unreadable(source)}") from error
        except (OSError, av.FFmpegError) as error:
            raise AudioError(f"{name}: {error.strerror}") from error
        if container.streams.best("audio") is None:
            raise AudioError(f"{name}: no audio track")
        yield container


def _unreadable(file: BinaryIO) -> str:
    if file.seekable() and file.seek(0, os.SEEK_END) == 0:
        return "the file is empty"
    return "not a recording that FFmpeg knows, or damaged beyond reading"


def _pyav():
    try:
        import av
    except ImportError as error:
        raise ImportError("reading and resampling audio needs PyAV: pip install av") from error
    return av


def _decoded(container, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of sampling rate and float32 mono samples; damage met on the way is warned of at the end."""
    stream = container.streams.best("audio")
    damage = []
    seconds, removed = 0.0, 0
    for frame in _frames(container, stream, damage):
        try:
            samples = frame.to_ndarray()
        except ValueError as error:
            raise AudioError(f"{name}: samples of the format {frame.format.name} cannot be read") from error
        mono, bad = _mono(samples if frame.format.is_planar else samples.reshape(frame.samples, -1).T)
        seconds += frame.samples / frame.sample_rate
        removed += bad
        yield frame.sample_rate, mono
    _warn_removed(name, removed)
    declared = _declared_seconds(container, stream) or seconds
    if damage or seconds < declared - 1:
        whole = f" of {declared:.1f} s" if seconds < declared - 0.1 else ""
        _warn(f"{name}: seems truncated or damaged, {seconds:.1f} s{whole} could be read")


def _frames(container, stream, damage: list) -> Iterator:
    """Every frame FFmpeg can decode; packets that are cut short or fail are noted in `damage`."""
    av = _pyav()
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                damage.append(packet)
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                damage.append(error)
    except av.FFmpegError as error:
        damage.append(error)


def _declared_seconds(container, stream) -> float | None:
    """The length written in the file, if any; for raw AAC FFmpeg only guesses it from the bit rate."""
    if container.format.name in ("aac", "loas"):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def _mono(channels: np.ndarray) -> tuple[np.ndarray, int]:
    """(channels, samples) of any type to the float32 mean of the channels, and how many samples were made 0."""
    if channels.dtype.kind == "f":
        good = np.abs(channels) <= LARGEST
        if not good.all():
            channels = np.where(good, channels, 0)
        return channels.mean(axis=0, dtype=np.float32), good.size - np.count_nonzero(good)
    full_scale = 2.0 ** (8 * channels.dtype.itemsize - 1)
    zero = full_scale if channels.dtype.kind == "u" else 0.0
    return (channels.mean(axis=0, dtype=np.float32) - np.float32(zero)) / np.float32(full_scale), 0


def _resample(pieces: Iterable[np.ndarray], sampling_rate: int) -> Iterator[np.ndarray]:
    if sampling_rate == SAMPLING_RATE:
        yield from pieces
        return
    av = _pyav()
    resampler = av.AudioResampler("fltp", "mono", SAMPLING_RATE)
    for piece in _regroup(pieces, sampling_rate):  # the cost is per call, so a second at a time
        frame = av.AudioFrame.from_ndarray(piece[None], "fltp", "mono")
        frame.sample_rate = sampling_rate
        yield from (resampled.to_ndarray()[0] for resampled in resampler.resample(frame))
    yield from (resampled.to_ndarray()[0] for resampled in resampler.resample(None))


def _regroup(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of `size`, the last one shorter."""
    held, length = [], 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            joined = np.concatenate(held)
            whole = length - length % size
            yield from np.split(joined[:whole], whole // size)
            held, length = [joined[whole:]], length - whole
    if length:
        yield np.concatenate(held)


def _warn_removed(name: str, count: int):
    if count:
        _warn(f"{name}: {count} samples were NaN, infinite or beyond {LARGEST:g} and were made 0")


def _warn(message: str):
    warnings.warn(message, AudioWarning, stacklevel=2)
