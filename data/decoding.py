"""Decoding of corpus rows: encoded bytes to a mono 16 kHz waveform, or the reason why the row is of no use."""

import hashlib
import io
import warnings

import numpy as np
import soundfile

from modeling.audio_fast_diarization import SAMPLING_RATE, AudioError, AudioWarning, audio_blocks, to_mono_16k

MAX_SECONDS = 60.0
AUDIO_FILES = {".wav", ".flac", ".ogg", ".opus", ".m4a", ".mp3"}


class RowError(ValueError):
    """A corpus row whose audio cannot be used; the message is the reason in a few words."""


def decode(audio: bytes) -> np.ndarray:
    """
    Args:
        audio: an encoded audio file. libsndfile decodes what it knows (FLAC, Ogg Opus at its own rate, WAV, MP3),
            FFmpeg the rest (AAC in m4a).

    Returns:
        float32 waveform of shape (samples,), mono 16 kHz, the first `MAX_SECONDS` of the row.

    Raises:
        RowError: the audio is corrupt, empty, silent throughout, or has NaN or infinite samples.
    """
    try:
        waveform = _decode(audio)
    except (AudioError, AudioWarning) as error:
        raise RowError(str(error).removeprefix("audio: ")) from error
    energy = np.dot(waveform, waveform)
    if waveform.size == 0:
        raise RowError("no samples")
    if not np.isfinite(energy):
        raise RowError("NaN or infinite samples")
    if energy == 0:
        raise RowError("silent throughout")
    return waveform


def _decode(audio: bytes) -> np.ndarray:
    try:
        with soundfile.SoundFile(io.BytesIO(audio)) as file:
            channels = file.read(int(MAX_SECONDS * file.samplerate), dtype="float32", always_2d=True)
            sampling_rate = file.samplerate
            if file.format == "FLAC" and file.subtype == "PCM_16" and file.frames <= MAX_SECONDS * sampling_rate:
                _check_flac(audio, channels)
    except soundfile.LibsndfileError:
        if audio[:4] == b"fLaC":
            raise RowError("damaged") from None  # FFmpeg would leave out what is
        with warnings.catch_warnings():
            warnings.simplefilter("error", AudioWarning)
            return next(audio_blocks(audio, MAX_SECONDS))
    mono = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    return mono if sampling_rate == SAMPLING_RATE or mono.size == 0 else to_mono_16k(mono, sampling_rate)


def _check_flac(audio: bytes, channels: np.ndarray) -> None:
    """Compare with the digest in STREAMINFO, the first block: libFLAC gives silence for frames that are damaged."""
    digest = audio[26:42]
    if any(digest) and audio[:4] == b"fLaC" and hashlib.md5((channels * 32768).astype("<i2")).digest() != digest:
        raise RowError("damaged")
