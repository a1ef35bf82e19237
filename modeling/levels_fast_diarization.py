"""How loud each frame is: the network hears every window at one level, and so finds the people next door too."""

import numpy as np

from .settings_fast_diarization import FRAME_SAMPLES

SMOOTHED_FRAMES = 31
"""Over which the level of a recording is averaged: pauses between the words of somebody present are shorter."""
SILENCE = 1e-12


def frame_levels(windows: np.ndarray) -> np.ndarray:
    """(windows, samples) -> (windows, frames) levels in dB, around each frame."""
    windows = windows - windows.mean(axis=1, keepdims=True)
    frames = windows[:, : windows.shape[1] // FRAME_SAMPLES * FRAME_SAMPLES].reshape(len(windows), -1, FRAME_SAMPLES)
    powers = np.einsum("wfs,wfs->fw", frames, frames) / FRAME_SAMPLES
    return smoothed_decibels(powers, SMOOTHED_FRAMES).T


def smoothed_decibels(powers: np.ndarray, frames: int) -> np.ndarray:
    """(frames, tracks) powers -> levels in dB of their means over an odd number of frames around each."""
    sums = np.concatenate([np.zeros((1, powers.shape[1])), powers.cumsum(axis=0, dtype=np.float64)])
    at = np.arange(len(powers))
    first, last = (np.clip(at + by, 0, len(powers)) for by in (-(frames // 2), frames // 2 + 1))
    return 10 * np.log10((sums[last] - sums[first]).clip(min=0) / (last - first)[:, None] + SILENCE)


class Loudness:
    """The mean level of all speech of a recording so far."""

    def __init__(self):
        self.energy, self.frames = 0.0, 0

    def add(self, activity: np.ndarray, levels: np.ndarray):
        """
        Args:
            activity: (frames, speakers).
            levels: (frames,) in dB.
        """
        speech = levels[activity.max(axis=1) >= 0.5].astype(np.float64)
        self.energy += float((10 ** (speech / 10)).sum())
        self.frames += len(speech)

    @property
    def decibels(self) -> float:
        """Minus infinity before anybody speaks."""
        return 10 * np.log10(self.energy / self.frames + SILENCE) if self.frames else -np.inf
