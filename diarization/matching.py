"""Which speaker of a hypothesis is which of a reference."""

from collections.abc import Sequence

import numpy as np

from modeling.segments_fast_diarization import Segment

STEPS = 100_000
"""Of time, in which a recording of whatever length is compared."""


def match_speakers(segments: Sequence[Segment], reference: Sequence[Segment]) -> dict[str, str]:
    """The speaker of `reference` of each speaker of `segments`, one to one, so that they share the most time in all.

    Who shares no time with anybody left is not in it.
    """
    from scipy.optimize import linear_sum_assignment

    end = max((s.end for s in (*segments, *reference)), default=0.0) or 1.0
    (mine, found), (theirs, true) = (_activity(some, end) for some in (segments, reference))
    shared = found @ true.T
    return {mine[row]: theirs[column] for row, column in zip(*linear_sum_assignment(-shared)) if shared[row, column]}


def _activity(segments: Sequence[Segment], end: float) -> tuple[list[str], np.ndarray]:
    """Names, and whether each speaks: float32 (speakers, `STEPS`)."""
    names = sorted({s.speaker for s in segments})
    active = np.zeros((len(names), STEPS), np.float32)
    for s in segments:
        active[names.index(s.speaker), round(s.start / end * STEPS) : round(s.end / end * STEPS)] = 1
    return names, active
