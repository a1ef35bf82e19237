"""Errors of one recording's turns, in time that grows with their number and not with its square.

The seconds are those of pyannote.metrics, which compares every turn with all before it: 37 s for 5 000 turns, many
hours for a day of speech. Here time is cut at every boundary, and what holds in each stretch is counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pyannote.core import Annotation, Segment
from scipy.optimize import linear_sum_assignment

DIGITS = 6
"""Of times in seconds: pyannote.core knows no shorter turns either."""
TIE = 1e-9
"""Seconds: of mappings with as much time in common, the one with the larger Jaccard indices is taken."""


@dataclass(frozen=True)
class Turns:
    """Starts and ends (turns, 2) in seconds, and the number of each one's speaker (turns,) of `count`.

    Nobody speaks twice at once: turns of one speaker that overlap or touch are one.
    """

    spans: np.ndarray
    speakers: np.ndarray
    count: int

    @classmethod
    def of(cls, annotation: Annotation) -> "Turns":
        """Speakers in the order of their names."""
        rows = [(turn, label) for turn, _, label in annotation.itertracks(yield_label=True)]
        number = {label: index for index, label in enumerate(sorted({label for _, label in rows}, key=str))}
        speakers = np.array([number[label] for _, label in rows], int)
        return cls(*_merged(to_spans(turn for turn, _ in rows), speakers), len(number))

    def of_anyone(self) -> "Turns":
        """All turns as those of one speaker."""
        return Turns(*_merged(self.spans, np.zeros_like(self.speakers)), min(self.count, 1))

    def seconds(self, edges: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """(speakers,) time of each, where a stretch from one edge to the next counts for `seconds`."""
        until = np.concatenate([[0.0], np.cumsum(seconds)])
        first, last = until[np.searchsorted(edges, self.spans)].T
        return np.bincount(self.speakers, last - first, self.count).round(DIGITS)


def to_spans(segments: Iterable[Segment]) -> np.ndarray:
    """(segments, 2) starts and ends in seconds."""
    return np.array([(s.start, s.end) for s in segments], float).reshape(-1, 2).round(DIGITS)


def turn_errors(
    reference: Turns, hypothesis: Turns, regions: np.ndarray, collar: float = 0.0, skip_overlap: bool = False
) -> dict[str, float]:
    """
    Args:
        reference, hypothesis: their turns.
        regions: to score, (regions, 2) starts and ends in seconds.
        collar: seconds not scored around each boundary of a reference turn, in total.
        skip_overlap: leaves out where two or more reference speakers speak.

    Returns:
        in seconds `speech` (of every reference speaker), `missed_speech`, `false_alarm` and `confusion`, under the
        mapping of speakers with the most time in common; `reference_speakers` and `hypothesis_speakers`, how many
        speak in the regions; `scored_speakers`, those of the reference who speak where it is scored, and `jaccard`,
        the sum of their Jaccard error rates (Ryant et al., DIHARD II, 2019).
    """
    around = (reference.spans.reshape(-1, 1) + np.array([-collar, collar]) / 2).round(DIGITS)
    edges = np.unique(np.concatenate([reference.spans, hypothesis.spans, regions, around]))
    inside = np.diff(edges) * (_depth(regions, edges) > 0)
    speakers, found = _depth(reference.spans, edges), _depth(hypothesis.spans, edges)
    seconds = np.where(_depth(around, edges) > 0, 0.0, inside) if collar else inside
    seconds = np.where(speakers > 1, 0.0, seconds) if skip_overlap else seconds
    common = _in_common(reference, hypothesis, edges, seconds)
    of_reference, of_hypothesis = reference.seconds(edges, seconds), hypothesis.seconds(edges, seconds)
    union = of_reference[:, None] + of_hypothesis - common
    index = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    pairs = linear_sum_assignment(common + TIE * index, maximize=True)
    sums = {
        "speech": seconds @ speakers,
        "missed_speech": seconds @ np.maximum(speakers - found, 0),
        "false_alarm": seconds @ np.maximum(found - speakers, 0),
        "confusion": seconds @ np.minimum(speakers, found) - common[pairs].sum(),
    }
    scored = int(np.count_nonzero(of_reference))
    return {name: round(float(value), DIGITS) for name, value in sums.items()} | {
        "reference_speakers": int(np.count_nonzero(reference.seconds(edges, inside))),
        "hypothesis_speakers": int(np.count_nonzero(hypothesis.seconds(edges, inside))),
        "scored_speakers": scored,
        "jaccard": float(scored - index[pairs].sum()),
    }


def _merged(spans: np.ndarray, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spans and speakers with those of one speaker that overlap or touch put together, by speaker and start."""
    if not len(spans):
        return spans, speakers
    order = np.lexsort((spans[:, 0], speakers))
    spans, speakers = spans[order], speakers[order]
    times, places = np.unique(spans, return_inverse=True)
    places = places.reshape(-1, 2) + len(times) * speakers[:, None]  # one speaker's time after another's
    latest = np.maximum.accumulate(places[:, 1])
    begins = np.flatnonzero(np.r_[True, places[1:, 0] > latest[:-1]])
    ends = times[latest[np.r_[begins[1:], len(spans)] - 1] % len(times)]
    return np.stack([spans[begins, 0], ends], axis=1), speakers[begins]


def _depth(spans: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many spans cover each stretch from one edge to the next."""
    places = np.searchsorted(edges, spans)
    counts = [np.bincount(places[:, side], minlength=len(edges)) for side in (0, 1)]
    return np.cumsum(counts[0] - counts[1])[:-1]


def _in_common(reference: Turns, hypothesis: Turns, edges: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(reference speakers, hypothesis speakers) time in which both speak."""
    if reference.count < hypothesis.count:
        return _in_common(hypothesis, reference, edges, seconds).T
    common = np.zeros((reference.count, hypothesis.count))
    for number in range(hypothesis.count):
        active = _depth(hypothesis.spans[hypothesis.speakers == number], edges)
        common[:, number] = reference.seconds(edges, seconds * active)
    return common
