"""Channels to mono without loss: what is inverted is turned over, what carries no speech is left out."""

from collections.abc import Iterator

import numpy as np

SEGMENT_SECONDS = 2.0
"""Looked at together, and mixed alike."""
FRAME_SECONDS = 0.02
LEAST_VARIATION_DB = 6.0
"""Between quiet and loud frames of a segment. Noise and hum have 1 to 3 dB, speech in noise as loud as it 6."""
QUIETEST_DB = -50.0
"""Below the loudest channel: nobody is recorded there."""
KEPT_SEGMENTS = 30
"""A channel on which nobody spoke for so long is left out while others speak."""
INVERTED = -0.3
"""Correlation below which channels cancel each other."""
UNLIKE = 0.3
"""Correlation below which two channels are no recording of one scene."""
FORGETTING = 0.9


class Pieces:
    """The same samples (rows, samples) in pieces of one size, the last one shorter."""

    def __init__(self, size: int):
        self.size, self.length = size, 0
        self.held: list[np.ndarray] = []

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        self.held.append(samples)
        self.length += samples.shape[1]
        if self.length >= self.size:
            joined = np.concatenate(self.held, axis=1)
            whole = self.length - self.length % self.size
            for at in range(0, whole, self.size):
                yield joined[:, at : at + self.size]
            self.held, self.length = [joined[:, whole:]], self.length - whole

    def flush(self) -> Iterator[np.ndarray]:
        if self.length:
            yield np.concatenate(self.held, axis=1)
        self.held, self.length = [], 0


class Mixer:
    """
    Mixes (channels, samples) to (1, samples), the mean of the channels used, segment by segment. Used is a channel
    whose level varied as speech does in the last minute; where there is none, all are. Of two channels that are each
    other's inverse one is turned over. Where weights change, they do so gradually within a frame.

    Args:
        channels: how many, two or more.
        rate: in Hertz.
    """

    def __init__(self, channels: int, rate: int):
        self.rate, self.frame = rate, max(round(FRAME_SECONDS * rate), 1)
        self.pieces = Pieces(round(SEGMENT_SECONDS * rate))
        self.segments = 0
        self.weights: np.ndarray | None = None
        self.varied = np.full(channels, -KEPT_SEGMENTS - 1)
        self.loudest = np.full(channels, -np.inf)
        self.recent = np.zeros((channels, channels))
        self.whole = np.zeros((channels, channels))
        self.left_out = np.zeros(channels, int)
        self.turned = np.zeros(channels, int)

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        yield from map(self._mix, self.pieces.push(samples))

    def flush(self) -> Iterator[np.ndarray]:
        yield from map(self._mix, self.pieces.flush())

    @property
    def unlike(self) -> bool:
        """Whether there are two channels with speech on them that have little in common, as with one person each."""
        return len(self.varied) == 2 and min(self.varied) >= 0 and abs(_correlation(self.whole)[0, 1]) < UNLIKE

    def _mix(self, segment: np.ndarray) -> np.ndarray:
        self._look(segment)
        before, self.weights = self.weights, self._weigh()
        mixed = self.weights[None] @ segment
        if before is not None and not np.array_equal(before, self.weights):
            ramp = np.linspace(1, 0, min(self.frame, segment.shape[1]), endpoint=False, dtype=np.float32)
            mixed[:, : len(ramp)] += ramp * ((before - self.weights) @ segment[:, : len(ramp)])
        self.segments += 1
        return mixed

    def _look(self, segment: np.ndarray):
        """Levels and correlations of a segment, without what is steady and low: of the differences of its samples."""
        change = np.diff(segment, axis=1, prepend=segment[:, :1])
        frames = change[:, : change.shape[1] // self.frame * self.frame].reshape(len(change), -1, self.frame)
        if frames.shape[1]:
            level = 10 * np.log10(np.square(frames).mean(axis=2) + 1e-20)
            quiet, loud = np.percentile(level, [10, 97], axis=1)
            self.loudest = np.maximum(self.loudest, loud)
            speech = (loud - quiet >= LEAST_VARIATION_DB) & (loud > self.loudest.max() + QUIETEST_DB)
            self.varied[speech] = self.segments
        together = (change @ change.T).astype(np.float64)
        self.recent = FORGETTING * self.recent + together
        self.whole += together

    def _weigh(self) -> np.ndarray:
        used = self.varied >= self.segments - KEPT_SEGMENTS
        used &= self.loudest > self.loudest.max() + QUIETEST_DB
        if used.any():
            self.left_out[~used] += 1
        else:
            used[:] = True
        reference = np.argmax(np.where(used, self.recent.diagonal(), -1))
        inverted = used & (_correlation(self.recent)[reference] < INVERTED)
        if inverted[used.argmax()]:  # the first one stays as it is
            inverted = used & ~inverted
        self.turned[inverted] += 1
        return (np.where(inverted, -1, 1) * used / used.sum()).astype(np.float32)


def mix(channels: np.ndarray, rate: int) -> np.ndarray:
    """(channels, samples) to (samples,) as a [`Mixer`] does it."""
    if len(channels) == 1:
        return channels[0]
    mixer = Mixer(len(channels), rate)
    return np.concatenate([*mixer.push(channels), *mixer.flush()], axis=1)[0]


def _correlation(covariance: np.ndarray) -> np.ndarray:
    scale = np.sqrt(covariance.diagonal()) + 1e-12
    return covariance / np.outer(scale, scale)
