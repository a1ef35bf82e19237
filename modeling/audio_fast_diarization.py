"""Reading of recordings: any container and codec FFmpeg knows, as mono 16 kHz blocks in bounded memory."""

import contextlib
import io
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np


SAMPLING_RATE = 16_000
MIN_SAMPLING_RATE = 1_000
Source = str | os.PathLike | bytes | BinaryIO


class AudioError(ValueError):
    """A recording that cannot be read; the message is one line with the recording's name and the reason."""


class AudioWarning(UserWarning):
    """A recording that is readable in part; the message is one line with the recording's name and the damage."""


def audio_blocks(source: Source, block_seconds: float = 30.0) -> Iterator[np.ndarray]:
    """
    Streams a recording of any length, rate, channel count and codec, video files included. Channels are averaged and
    rates converted by FFmpeg's resampler, whose state runs through the blocks: cutting changes no sample.

    Args:
        source: path, encoded bytes, or binary file object (left open).
        block_seconds: length of every block but the last.

    Yields:
        float32 waveforms of shape (samples,), mono 16 kHz, full scale [-1, 1].

    Raises:
        AudioError: no such file, not a recording, no audio track, no samples.

    Warns:
        AudioWarning: truncated or damaged recording (what is readable is yielded), NaN or infinite samples (made 0).
    """
    name = _name(source)
    with _open(source, name) as container:
        pieces = _mono_pieces(container, name)
        resampled = (
            block
            for rate, group in itertools.groupby(pieces, key=lambda piece: piece[0])
            for block in _resample((mono for _, mono in group), rate)
        )
        count = 0
        for block in _regroup(resampled, round(block_seconds * SAMPLING_RATE)):
            count += len(block)
            yield block
    if count == 0:
        raise AudioError(f"{name}: the audio track has no samples")


def load_audio(source: Source) -> np.ndarray:
    """The whole recording as one float32 waveform of shape (samples,), mono 16 kHz. See [`audio_blocks`]."""
    return np.concatenate(list(audio_blocks(source)))


def to_mono_16k(array: np.ndarray, sampling_rate: int) -> np.ndarray:
    """
    Args:
        array: (samples,), (channels, samples) or (samples, channels), the shorter axis being the channels; floats
            with full scale [-1, 1], or 8, 16 or 32 bit integers (unsigned ones are centred on half scale).
        sampling_rate: of `array`, in Hertz.

    Returns:
        float32 waveform of shape (samples,), mono 16 kHz: the mean of the channels, NaN and infinity made 0.

    Raises:
        AudioError: a shape, type or rate that is not audio, or no samples.

    Warns:
        AudioWarning: NaN or infinite samples.
    """
    array = np.asarray(array)
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"array: audio has shape (samples,) or (channels, samples), got {array.shape}")
    if not (array.dtype.kind == "f" or array.dtype.kind in "iu" and array.dtype.itemsize <= 4):
        raise AudioError(f"array: audio is float or 8, 16 or 32 bit integer, got {array.dtype}; convert it first")
    if sampling_rate < MIN_SAMPLING_RATE or sampling_rate != int(sampling_rate):
        raise AudioError(f"array: the sampling rate is a whole number of Hertz from {MIN_SAMPLING_RATE}, got {sampling_rate}")
    channels = array[None] if array.ndim == 1 else array if array.shape[0] <= array.shape[1] else array.T
    mono, bad = _to_mono(channels)
    _warn_of_bad_samples("array", bad)
    return np.concatenate([np.zeros(0, np.float32), *_resample([mono], int(sampling_rate))])


def _name(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "audio"


@contextlib.contextmanager
def _open(source: Source, name: str):
    """FFmpeg's container; every error of opening becomes one `AudioError`."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading recordings needs PyAV: pip install av") from error
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, (str, os.PathLike)):
                source = stack.enter_context(Path(source).open("rb"))
            elif isinstance(source, bytes):
                source = io.BytesIO(source)
            container = stack.enter_context(av.open(source))
        except (OSError, ValueError) as error:
            ...
        yield container
