"""A network that knows the answer: what linking makes of windows can then be held against what is true.

Its recordings carry the number of the frame as the value of its samples, so that it sees which window it is given.
"""

import numpy as np

from modeling.settings_fast_diarization import FRAME_SAMPLES, FRAME_SECONDS

DIMENSION = 32


def equally_loud(waveform: np.ndarray) -> np.ndarray:
    """The same but for two samples after the first of each frame, beside which the others are quiet."""
    loud = waveform.copy()
    loud[1::FRAME_SAMPLES], loud[2::FRAME_SAMPLES] = 1e7, -1e7
    return loud


class OracleNetwork:
    """Answers like the real network: `tracks` speakers a window in an order of its own, unit embeddings with noise.

    Args:
        turns: (start, end, speaker), seconds.
        seconds: length of the recording.
        tracks: the speakers heard longest in a window are told apart, the others missed.
        noise: of an embedding pooled over 1 s of a speaker alone, beside a unit vector.
        log_odds: absolute value of every log-odds.
    """

    def __init__(self, turns, seconds, tracks=2, noise=0.0, log_odds=6.0, seed=0):
        self.turns, self.tracks, self.noise, self.log_odds, self.seed = turns, tracks, noise, log_odds, seed
        self.names = sorted({speaker for _, _, speaker in turns})
        self.active = np.zeros((round(seconds / FRAME_SECONDS), len(self.names)), bool)
        for start, end, speaker in turns:
            first, last = round(start / FRAME_SECONDS), round(end / FRAME_SECONDS)
            self.active[first:last, self.names.index(speaker)] = True
        rng = np.random.default_rng(seed)
        self.voices = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0][: len(self.names)]

    def waveform(self) -> np.ndarray:
        return equally_loud(np.repeat(np.arange(len(self.active), dtype=np.float32), FRAME_SAMPLES))

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = [self._window(window) for window in batch]
        return np.stack([a for a, _ in answers]), np.stack([e for _, e in answers]).astype(np.float32)

    def _window(self, samples: np.ndarray):
        first, frames = int(samples[0]), len(samples) // FRAME_SAMPLES
        rng = np.random.default_rng([self.seed, first])
        active = np.zeros((frames, max(self.tracks, len(self.names))), bool)
        inside = self.active[first : first + frames]
        active[: len(inside), : len(self.names)] = inside
        heard = np.argsort(-active.sum(axis=0), kind="stable")[: self.tracks]
        heard = rng.permutation(heard)
        embeddings = rng.standard_normal((self.tracks, DIMENSION)) / np.sqrt(DIMENSION)
        for track, speaker in enumerate(heard):
            alone = (active[:, speaker] & (active.sum(axis=1) == 1)).sum() * FRAME_SECONDS
            if alone and speaker < len(self.names):
                embeddings[track] = self.voices[speaker] + embeddings[track] * self.noise / np.sqrt(alone)
        logits = np.where(active[:, heard], self.log_odds, -self.log_odds).astype(np.float32)
        return logits, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
