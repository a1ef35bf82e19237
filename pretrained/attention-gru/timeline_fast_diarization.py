"""Samples of one track put where its time stamps say: holes become silence, overlaps are cut, broken clocks bridged."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

JITTER_SECONDS, START_JITTER_SECONDS = 0.1, 0.001
"""Stamps that differ by less from the samples counted are rounded ones, as in FFmpeg's `aresample=async=1`."""
LONGEST_STEP_BACK = 10.0
"""A stamp that lies farther back is a clock that began anew, as in FFmpeg's `dts_delta_threshold`."""
LONGEST_HOLE, MOST_SILENCE = 3_600.0, 12 * 3_600.0
"""Seconds of silence put in for one hole and for all of them; a stamp beyond is damaged."""
SILENCE_TOGETHER = 1.0


@dataclass
class Frame:
    """Decoded samples (channels, samples) at `rate` Hz, and the second of the recording their stamp says, if any."""

    samples: np.ndarray
    rate: int
    stamp: float | None

    @property
    def seconds(self) -> float:
        return self.samples.shape[1] / self.rate


class Timeline:
    """
    Places decoded frames by these rules:

    - The first frame begins where its stamp says; what lies before 0 is not heard.
    - Later stamps are followed once they differ from the samples counted by more than `JITTER_SECONDS`, and the stamp
      after agrees: one stamp alone is damaged. What comes late is preceded by silence of that length. What comes early
      loses its beginning: what was there first stays.
    - Stamps farther back than `LONGEST_STEP_BACK`, or ahead than `LONGEST_HOLE`, are a clock that was set: the samples
      follow those before, and later stamps count from there.

    Args:
        restarts: stamps of the container begin anew now and then (Ogg, MPEG): every step back is a clock that was set.
    """

    def __init__(self, restarts: bool = False):
        self.restarts = restarts
        self.longest_step_back = JITTER_SECONDS if restarts else LONGEST_STEP_BACK
        self.held: Frame | None = None
        self.elapsed, self.counted, self.rate = 0.0, 0, 1
        self.shift = 0.0
        self.holes, self.silence, self.cut, self.broken = 0, 0.0, 0.0, 0

    @property
    def position(self) -> float:
        """Seconds placed so far."""
        return self.elapsed + self.counted / self.rate

    def push(self, frame: Frame) -> Iterator[tuple[int, np.ndarray]]:
        """Rate and samples (channels, samples), silence included, of the frame before."""
        before, self.held = self.held, frame
        if before is not None:
            yield from self._place(before, frame.stamp)

    def flush(self) -> Iterator[tuple[int, np.ndarray]]:
        """The last frame."""
        if self.held is not None:
            yield from self._place(self.held, None)
            self.held = None

    def _place(self, frame: Frame, following: float | None) -> Iterator[tuple[int, np.ndarray]]:
        if frame.rate != self.rate:
            self.elapsed, self.counted, self.rate = self.position, 0, frame.rate
        samples, late = frame.samples, self._late(frame, following)
        if late > 0:
            missing = round(late * self.rate)
            while missing:
                silence = np.zeros((len(samples), min(missing, round(SILENCE_TOGETHER * self.rate))), np.float32)
                missing -= silence.shape[1]
                yield from self._count(silence)
        elif late < 0:
            samples = samples[:, round(-late * self.rate) :]
        yield from self._count(samples)

    def _count(self, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        if samples.shape[1]:
            self.counted += samples.shape[1]
            yield self.rate, samples

    def _late(self, frame: Frame, following: float | None) -> float:
        """Seconds by which the frame is moved back in time, or, negative, by which its beginning is cut."""
        if frame.stamp is None:
            return 0.0
        at_start = self.position == 0
        late = frame.stamp - self.shift - self.position
        if abs(late) <= (START_JITTER_SECONDS if at_start else JITTER_SECONDS):
            return 0.0
        if following is not None:
            then = following - self.shift - self.position - frame.seconds
            if abs(then) < abs(then - late):
                return 0.0
        farthest_back = LONGEST_STEP_BACK if at_start else self.longest_step_back
        if late > LONGEST_HOLE or self.silence + late > MOST_SILENCE or late < -farthest_back:
            self.shift += late
            self.broken += late > 0 or not self.restarts
            return 0.0
        if not at_start:
            self.holes += late > 0
            self.silence += max(late, 0.0)
            self.cut += min(max(-late, 0.0), frame.seconds)
        return late
