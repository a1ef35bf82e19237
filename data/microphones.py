"""One microphone and one codec for all utterances of a pool.

Each speaker of a corpus was recorded by another microphone in another room, so two speakers of a simulated conversation
differ by much more than their voices, and a network learns to tell microphones apart. A real conversation often has a
single microphone. Here each utterance is filtered, in broad bands, towards the long-term average spectrum of its pool,
so that mostly the voices differ.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal

from data.acoustics import Augmentation
from data.codecs import CODECS, NARROW, transmit
from data.conversations import GRID, LEVEL, SAMPLING_RATE, Pool

TAPS = 255
FRAME = 512
BANDS = 16
LOWEST, HIGHEST = (2595 * np.log10(1 + frequency / 700) for frequency in (60, SAMPLING_RATE / 2))
EDGES = 700 * (10 ** (np.linspace(LOWEST, HIGHEST, BANDS + 1) / 2595) - 1)
"""Band edges in Hz, evenly spaced on the mel scale from 60 Hz up."""
FIRST_BINS = np.searchsorted(np.fft.rfftfreq(FRAME, 1 / SAMPLING_RATE), EDGES)
LARGEST_GAIN_DB = 15.0


@dataclass(frozen=True)
class Channel:
    """The channel shared by all speakers.

    Args:
        microphone: strength of the filters towards one microphone; `None` leaves each speaker's own.
        codec: one of `data.codecs.CODECS`, or `None`.
    """

    microphone: float | None
    codec: str | None


def draw_channel(rng: np.random.Generator, augmentation: Augmentation) -> Channel:
    """One microphone, one codec, both or neither."""
    microphone, codec = rng.random(2) < (augmentation.one_microphone, augmentation.codec)
    strength = rng.uniform(*augmentation.microphone_strength) if microphone else None
    return Channel(strength, list(CODECS)[rng.integers(len(CODECS))] if codec else None)


def distort(rng: np.random.Generator, pool: Pool, augmentation: Augmentation) -> None:
    """Draw the channel of a pool and apply it to its utterances, in place.

    Windows share the codec of their pool, applied to the speech only: encoding each window would cost more than
    everything else. A recording is one signal and is encoded as a whole (`Scenery.record`).
    """
    channel = draw_channel(rng, augmentation)
    if channel.microphone is not None:
        use_one_microphone(pool, channel.microphone)
    if channel.codec is not None:
        use_codec(pool, channel.codec)


def use_one_microphone(pool: Pool, strength: float) -> None:
    """Filter the utterances of a pool in place towards their average spectrum; levels and activity do not change.

    Args:
        strength: 0 changes nothing, 1 makes the average spectra of all utterances the same in every band.
    """
    spectra = np.stack([_band_levels(*speech) for speech in zip(pool.audio, pool.active)])
    gains = np.clip(strength * (spectra.mean(axis=0) - spectra), -LARGEST_GAIN_DB, LARGEST_GAIN_DB)
    for utterance, gain in enumerate(gains):
        heard = scipy.signal.oaconvolve(pool.audio[utterance], _filter(gain), mode="same")
        power = np.square(heard.reshape(-1, GRID)[pool.active[utterance]]).mean()
        pool.audio[utterance] = heard * np.float32(LEVEL / np.sqrt(power))


def use_codec(pool: Pool, name: str) -> None:
    """Encode and decode each utterance of a pool with one of `CODECS`, in place; telephones make the pool narrow."""
    pool.narrow = name in NARROW
    for utterance, waveform in enumerate(pool.audio):
        pool.audio[utterance] = transmit(waveform, name)


def _band_levels(waveform: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Average level of the speech in each band, in dB."""
    speech = waveform.reshape(-1, GRID)[active].reshape(-1)
    speech = speech[: len(speech) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(np.abs(scipy.fft.rfft(speech * np.hanning(FRAME).astype(np.float32)))).mean(axis=0)
    return 10 * np.log10(np.array([power[a:b].mean() for a, b in zip(FIRST_BINS, FIRST_BINS[1:])]) + 1e-9)


def _filter(gains: np.ndarray) -> np.ndarray:
    """A symmetric impulse response with the given gains in dB at the centres of the bands."""
    grid = np.linspace(0, SAMPLING_RATE / 2, 257)
    response = 10 ** (np.interp(grid, (EDGES[:-1] + EDGES[1:]) / 2, gains) / 20)
    taps = np.roll(np.fft.irfft(response), TAPS // 2)[:TAPS]
    return (taps * np.hanning(TAPS + 2)[1:-1]).astype(np.float32)
