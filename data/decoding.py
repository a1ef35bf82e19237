"""Decoding of corpus rows: encoded bytes to a mono 16 kHz waveform, or the reason why the row cannot be used."""

import hashlib
import io
import warnings

import numpy as np
import soundfile

from modeling.audio_fast_diarization import (
    SAMPLING_RATE,
    AudioError,
    AudioNotice,
    AudioWarning,
    array_to_16k,
    audio_blocks,
)
from modeling.container_fast_diarization import HIGHEST_RATE, LOWEST_RATE
from modeling.headers_fast_diarization import read_header
from modeling.mixing_fast_diarization import mix

MAX_SECONDS = 60.0
LONGEST = 2**40
"""Samples: libsndfile takes the 0 of a FLAC that was written into a pipe for the largest number there is."""

MOST_A_SECOND = 4 * 96_000
"""Samples of all channels: more of them are decoded in pieces instead of at once."""


class RowError(ValueError):
    """A corpus row whose audio cannot be used; the message is the reason in a few words."""


def decode(audio: bytes) -> np.ndarray:
    """
    Args:
        audio: an encoded audio file of any kind that `audio_blocks` reads.

    Returns:
        float32 waveform of shape (samples,), mono 16 kHz, the first `MAX_SECONDS` of the row.

    Raises:
        RowError: the audio is corrupt, empty, silent throughout, or has NaN or infinite samples.
    """
    try:
        waveform = _by_libsndfile(audio)
        if waveform is None:
            with warnings.catch_warnings():
                warnings.simplefilter("error", AudioWarning)
                warnings.simplefilter("ignore", AudioNotice)
                waveform = next(audio_blocks(audio, MAX_SECONDS))
    except (AudioError, AudioWarning) as error:
        raise RowError(str(error).removeprefix("audio: ")) from error
    energy = np.dot(waveform, waveform)
    if not np.isfinite(energy):
        raise RowError("NaN or infinite samples")
    if energy == 0:
        raise RowError("silent throughout")
    return waveform


def open_with_libsndfile(audio: bytes) -> soundfile.SoundFile | None:
    """A file of a kind that libsndfile decodes as `audio_blocks` does, in a fraction of the time; else nothing.

    These are FLAC, Ogg Opus, Ogg Vorbis and PCM in WAV that say rightly how long they are.
    """
    is_ogg = audio[:4] == b"OggS" and audio[28:36].startswith((b"OpusHead", b"\x01vorbis"))
    if not (is_ogg or audio[:4] == b"fLaC" or (audio[:4] == b"RIFF" and read_header(io.BytesIO(audio)).right)):
        return None
    try:
        file = soundfile.SoundFile(io.BytesIO(audio))
    except soundfile.LibsndfileError:
        return None
    rate = file.samplerate
    if 0 < file.frames < LONGEST and LOWEST_RATE <= rate <= HIGHEST_RATE and rate * file.channels <= MOST_A_SECOND:
        return file
    file.close()
    return None


def _by_libsndfile(audio: bytes) -> np.ndarray | None:
    """The first `MAX_SECONDS` of a file that libsndfile decodes rightly and whole."""
    file = open_with_libsndfile(audio)
    if file is None:
        return None
    with file:
        wanted = min(file.frames, int(MAX_SECONDS * file.samplerate))
        try:
            channels = file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            channels = np.zeros((0, 1), np.float32)
        if file.format == "FLAC" and (len(channels) < wanted or not _is_intact(audio, file, channels)):
            raise RowError("damaged")  # FFmpeg would leave out what is
        if len(channels) < wanted:
            return None
        mono = mix(channels.T, file.samplerate)
        return mono if file.samplerate == SAMPLING_RATE else array_to_16k(mono, file.samplerate)


def _is_intact(audio: bytes, file: soundfile.SoundFile, channels: np.ndarray) -> bool:
    """By the digest in STREAMINFO, the first block: libFLAC gives silence for frames that are damaged."""
    digest = audio[26:42]
    if not any(digest) or file.subtype != "PCM_16" or len(channels) < file.frames:
        return True
    return hashlib.md5((channels * 32768).astype("<i2")).digest() == digest
