"""What a set sounds like in a few numbers, compared with a tolerance.

Processors and builds of the same libraries round differently, so a digest of samples would be refused everywhere but
where it was made. Levels in decibels, averaged over some windows, agree to a hundredth; another acoustic chain, or
background that is 3 dB louder, moves them by more than `TOLERANCE_DB`.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft

from data.conversations import SAMPLING_RATE

FRAME = 512
OCTAVES = np.searchsorted(np.fft.rfftfreq(FRAME, 1 / SAMPLING_RATE), (30, 125, 250, 500, 1000, 2000, 4000, 8000))
QUIET = 0.1
"""Share of frames that are quieter than what stands for the background."""
FLOOR = 1e-6
"""Of a level beside that of the whole waveform: what lies 60 dB below is no part of the fingerprint."""
WINDOWS_TOGETHER = 100
TOLERANCE_DB = 0.4


def levels(waveform: np.ndarray) -> np.ndarray:
    """Of a waveform (samples,), in dB: its level, and beside it those of its quiet frames and of seven octaves."""
    frames = waveform[: len(waveform) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(np.abs(scipy.fft.rfft(frames * np.hanning(FRAME).astype(np.float32)))) / FRAME**2
    every, quiet = power.sum(axis=1).mean(), np.quantile(power.sum(axis=1), QUIET)
    octaves = [power[:, low:high].sum(axis=1).mean() for low, high in zip(OCTAVES, OCTAVES[1:])]
    relative = np.array([quiet, *octaves]) / max(every, 1e-20) + FLOOR
    return 10 * np.log10([every + 1e-12, *relative])


def fingerprint(heard: Sequence[np.ndarray], together: int) -> list[str]:
    """The `levels` of some waveforms, means over so many of them, as a line of numbers each."""
    means = (np.mean(heard[first : first + together], axis=0) for first in range(0, len(heard), together))
    return [" ".join(f"{level:.2f}" for level in mean) for mean in means]


def difference_db(one: Sequence[str], other: Sequence[str]) -> float:
    """The largest difference between two fingerprints in dB; infinite where they are not of the same set."""
    a, b = ([[float(level) for level in line.split()] for line in lines] for lines in (one, other))
    if [len(line) for line in a] != [len(line) for line in b]:
        return float("inf")
    return max(np.abs(np.subtract(*lines)).max() for lines in zip(a, b))
