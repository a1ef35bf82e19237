"""Speech activity of single-speaker utterances, from which the training labels are made."""

import numpy as np

FRAME = 160
BEFORE, AFTER = 3, 8
"""Frames added around loud ones: speech fades out more slowly than it starts (docs/SPEECH_ACTIVITY.md)."""
BRIDGE = 30
"""Shorter pauses count as speech: 95 % of pauses in the references of PriMock57 and VoxConverse exceed 0.4 s."""
MINIMUM = 5
RANGE_DB = 27
"""Frames further below the loud frames of an utterance are background, however quiet the others are."""


def speech_segments(waveform: np.ndarray) -> np.ndarray:
    """
    Args:
        waveform: float32 mono 16 kHz of shape (samples,), one person speaking.

    Returns:
        (segments, 2) int64 array of the first and the past-the-end sample of each stretch of speech, ascending and
        disjoint; empty for silence.
    """
    frames = len(waveform) // FRAME
    if frames < 2:
        return np.zeros((0, 2), np.int64)
    difference = np.zeros((frames, FRAME), waveform.dtype)
    np.subtract(waveform[1 : frames * FRAME], waveform[: frames * FRAME - 1], out=difference.reshape(-1)[:-1])
    energy = np.einsum("ij,ij->i", difference, difference)
    if not energy.any():
        return np.zeros((0, 2), np.int64)
    level = 10 * np.log10(energy + 1e-8 * energy.max())
    level = np.convolve(np.pad(level, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    floor, peak = np.percentile(level, [5, 95])
    runs = _runs(level > max(floor + 0.35 * (peak - floor), peak - RANGE_DB)) + [-BEFORE, AFTER]
    apart = runs[1:, 0] - runs[:-1, 1] > BRIDGE
    segments = np.stack([runs[np.r_[True, apart][: len(runs)], 0], runs[np.r_[apart, True][: len(runs)], 1]], axis=1)
    segments = segments[np.diff(segments)[:, 0] > BEFORE + AFTER + MINIMUM]
    return np.clip(segments * FRAME, 0, len(waveform))


def _runs(active: np.ndarray) -> np.ndarray:
    """(runs, 2) first and past-the-end index of each stretch of True."""
    return np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
