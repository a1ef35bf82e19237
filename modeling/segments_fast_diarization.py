"""Segments of speakers, from activities by hysteresis and minimum durations."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .settings_fast_diarization import FRAME_SECONDS, LinkingSettings


@dataclass(frozen=True)
class Segment:
    """`speaker` is active from `start` to `end` (seconds); `confidence` is the share of it that is
    right, as far as the mean activity tells: 0 to 1, calibrated by `confidence_scale` and `confidence_offset`."""

    start: float
    end: float
    speaker: str
    confidence: float


Run = tuple[int, int, int, float]
"""First and past-the-end frame, speaker and confidence of a stretch of speech."""


def to_segments(blocks: Iterable[np.ndarray], settings: LinkingSettings) -> list[Segment]:
    """Consecutive (frames, speakers) activities -> segments, after hysteresis and minimum durations."""
    return segments_of(find_runs(blocks, settings))


def find_runs(blocks: Iterable[np.ndarray], settings: LinkingSettings) -> list[Run]:
    """Stretches of speech in (frames, speakers) activities given block by block, in order of start."""
    at, heard, edges = 0, 0.0, []
    for block in blocks:
        sums = heard + np.concatenate([np.zeros((1, block.shape[1])), block.cumsum(axis=0, dtype=np.float64)])
        for speaker, track in enumerate(block.T):
            edges += [[] for _ in range(speaker + 1 - len(edges))]
            under_way = bool(edges[speaker]) and edges[speaker][-1][0] == at
            runs = hysteresis(track, settings.onset, settings.offset, under_way)
            edges[speaker] += [(at + int(edge), float(sums[edge, speaker])) for edge in runs.ravel()]
        at, heard = at + len(block), sums[-1]
    found = []
    for speaker, sums in enumerate(map(dict, edges)):
        runs = np.array([edge for edge, _ in edges[speaker]], int).reshape(-1, 2)
        runs = join_runs(runs, settings.min_duration_off / FRAME_SECONDS)
        for first, end in runs[np.diff(runs)[:, 0] >= settings.min_duration_on / FRAME_SECONDS - 1e-6].tolist():
            activity = (sums[end] - sums[first]) / (end - first)
            found.append((first, end, speaker, float(to_confidence(activity, settings))))
    return sorted(found)


def to_confidence(activity: np.ndarray | float, settings: LinkingSettings) -> np.ndarray:
    """Of segments with these mean activities, by logistic calibration (Platt, 1999)."""
    active = activity**settings.confidence_scale * math.exp(settings.confidence_offset)
    return active / (active + (1 - np.minimum(activity, 1.0)) ** settings.confidence_scale)


def segments_of(runs: Iterable[Run]) -> list[Segment]:
    """Segments of runs in order of start; speakers are SPEAKER_00, SPEAKER_01, ... as they appear."""
    names: dict[int, str] = {}
    segments = []
    for first, end, speaker, confidence in runs:
        name = names.setdefault(speaker, speaker_name(len(names)))
        start, stop = round(first * FRAME_SECONDS, 3), round(end * FRAME_SECONDS, 3)
        segments.append(Segment(start, stop, name, round(confidence, 4)))
    return segments


def speaker_name(number: int) -> str:
    return f"SPEAKER_{number:02d}"


def renamed(segments: Iterable[Segment], names: Mapping[str, str]) -> list[Segment]:
    """The segments with other names for some speakers."""
    return [replace(segment, speaker=names.get(segment.speaker, segment.speaker)) for segment in segments]


def join_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Segments by start; those of one speaker that overlap or touch are one, with their mean confidence."""
    found: dict[str, list[Segment]] = {}
    for segment in sorted(segments, key=lambda s: (s.start, s.end)):
        turns = found.setdefault(segment.speaker, [])
        if turns and segment.start <= turns[-1].end:
            last = turns.pop()
            lengths = np.maximum([last.end - last.start, segment.end - segment.start], 1e-6)
            confidence = float(np.average([last.confidence, segment.confidence], weights=lengths))
            segment = replace(last, end=max(last.end, segment.end), confidence=round(confidence, 4))
        turns.append(segment)
    return sorted((s for turns in found.values() for s in turns), key=lambda s: (s.start, s.end, s.speaker))


def exclusive_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Segments by start of which no two overlap: while several people speak, the one who spoke before keeps the time.

    Who of several goes on when that one stops, or begins at the same time, is the one with the highest confidence. The
    time in which anyone speaks stays the same, and each segment lies within one of those given.
    """
    turns = sorted((s for s in segments if s.end > s.start), key=lambda s: (s.start, -s.confidence, s.end))
    found: list[Segment] = []
    active: list[Segment] = []
    current, coming = None, 0
    edges = sorted({edge for turn in turns for edge in (turn.start, turn.end)})
    for start, end in pairwise(edges):
        active = [turn for turn in active if turn.end > start]
        while coming < len(turns) and turns[coming].start <= start:
            active.append(turns[coming])
            coming += 1
        if current is not None and any(turn is current for turn in active):
            found[-1] = replace(found[-1], end=end)
        elif active:
            current = max(active, key=lambda turn: turn.confidence)
            found.append(replace(current, start=start, end=end))
    return found


def hysteresis(track: np.ndarray, onset: float, offset: float, active: bool = False) -> np.ndarray:
    """(runs, 2) first and past-the-end frame of each stretch that begins at `onset` and holds until below `offset`.

    `active` tells whether a stretch is under way before the first frame.
    """
    decided = np.flatnonzero((track >= onset) | (track < offset))
    state = np.full(len(track), active)
    latest = np.searchsorted(decided, np.arange(len(track)), side="right") - 1
    known = latest >= 0
    state[known] = track[decided[latest[known]]] >= onset
    return np.flatnonzero(np.diff(state.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)


def join_runs(runs: np.ndarray, shortest_pause: float) -> np.ndarray:
    """The runs with pauses shorter than `shortest_pause` frames filled, and runs that touch made one."""
    apart = runs[1:, 0] - runs[:-1, 1] >= max(shortest_pause, 1) - 1e-6
    return np.stack([runs[np.r_[True, apart][: len(runs)], 0], runs[np.r_[apart, True][: len(runs)], 1]], axis=1)
