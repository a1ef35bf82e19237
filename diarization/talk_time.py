"""How long and how often each speaker speaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from modeling.segments_fast_diarization import Segment


@dataclass(frozen=True)
class TalkTime:
    """`share` is that of the speech of all speakers, 0 to 1; `turns` are stretches without a segment of another."""

    speaker: str
    seconds: float
    share: float
    turns: int


def talk_times(segments: Sequence[Segment]) -> list[TalkTime]:
    """Of each speaker, by name."""
    ordered = sorted(segments, key=lambda s: (s.start, s.end))
    total = sum(s.end - s.start for s in ordered)
    begun = [s.speaker for s in ordered[:1]] + [b.speaker for a, b in pairwise(ordered) if a.speaker != b.speaker]
    found = []
    for name in sorted({s.speaker for s in ordered}):
        seconds = sum(s.end - s.start for s in ordered if s.speaker == name)
        share = seconds / total if total else 0.0
        found.append(TalkTime(name, round(seconds, 3), round(share, 4), begun.count(name)))
    return found
