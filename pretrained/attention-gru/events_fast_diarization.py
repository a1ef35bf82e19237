"""Events of a live stream, of which anyone can keep the timeline: turns, and what becomes known of them later.

Every event is a dict that goes into a line of JSON, with a `revision` that counts up from 1:

    {"event": "turn", "revision": 7, "id": 3, "start": 4.5, "end": 6.0, "speaker": "SPEAKER_01", "confidence": 0.93}
    {"event": "relabel", "revision": 8, "ids": [1, 3], "speaker": "SPEAKER_00"}
    {"event": "end", "revision": 9, "seconds": 61.5}

A `turn` is new or, if its id is known, has grown: it replaces the one before. A `relabel` gives turns to another
speaker, or a speaker the name of somebody known. After `end` nobody speaks and nothing follows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .segments_fast_diarization import Segment, join_segments
from .settings_fast_diarization import SAMPLING_RATE

TOUCHING = 1e-6
OPEN_TURNS = 32
"""The latest turns, among which is the one that goes on."""


@dataclass
class Turn:
    """A turn as it is known now; `speaker` and `tracklet` are the diarizer's numbers."""

    id: int
    start: float
    end: float
    speaker: int
    confidence: float
    tracklet: int
    revision: int


class LiveEvents:
    """The events of a [`StreamingDiarizer`], and the timeline that they amount to.

    A turn goes to another speaker when the tracklet it belongs to does. Unlike the diarizer itself this keeps every
    turn, some hundred bytes each.

    Example:

    ```python
    >>> live = pipe.stream(voices="voices.safetensors").events()
    >>> for samples in microphone:
    ...     for event in live.push(samples):
    ...         print(json.dumps(event))
    >>> live.finish()
    >>> live.segments
    ```
    """

    def __init__(self, diarizer):
        self.diarizer = diarizer
        self.diarizer.log = []
        self.turns: list[Turn] = []
        self.moves: dict[tuple[int, int], tuple[int, float]] = {}
        self.revision = 0

    def push(self, samples: np.ndarray) -> list[dict]:
        """The events since, given the samples that follow; as of the diarizer's `push`."""
        self.diarizer.push(samples)
        return self.take()

    def take(self) -> list[dict]:
        """The events of what was pushed to the diarizer itself since."""
        log, self.diarizer.log = self.diarizer.log, []
        return [event for kind, *values in log for event in getattr(self, f"_{kind}")(*values)]

    def finish(self) -> list[dict]:
        """The last events, at the end of the stream."""
        self.diarizer.flush()
        events = self.take()
        return [*events, self._event("end", seconds=round(self.diarizer.heard / SAMPLING_RATE, 3))]

    @property
    def segments(self) -> list[Segment]:
        """The timeline so far, by start, with the turns of a speaker that touch put together."""
        return join_segments(self._segment(turn) for turn in self.turns)

    def history(self, since: int = 0) -> list[dict]:
        """The turns that changed after a revision, as `turn` events of theirs: for whom joins late or comes back."""
        changed = sorted((turn for turn in self.turns if turn.revision > since), key=lambda turn: turn.revision)
        return [self._as_event(turn) for turn in changed]

    def _piece(self, start: float, end: float, speaker: int, confidence: float, tracklet: int) -> list[dict]:
        """A piece of speech, which begins a turn or lets one go on; what it is from may have moved meanwhile."""
        for before in (speaker, -1):
            after, until = self.moves.get((tracklet, before), (speaker, 0.0))
            speaker = after if start < until else speaker
        for turn in reversed(self.turns[-OPEN_TURNS:]):
            if (turn.speaker, turn.tracklet) == (speaker, tracklet) and abs(turn.end - start) < TOUCHING:
                lengths = turn.end - turn.start, end - start
                turn.confidence = float(np.average([turn.confidence, confidence], weights=lengths))
                turn.end = end
                break
        else:
            turn = Turn(len(self.turns), start, end, speaker, confidence, tracklet, 0)
            self.turns.append(turn)
        self.revision += 1
        turn.revision = self.revision
        return [self._as_event(turn)]

    def _moved(self, tracklets: Mapping[int, tuple[int, int]], until: float) -> list[dict]:
        """Tracklets that went from one speaker to another, or from none: who they were taken for was a guess.

        Args:
            until: what was heard up to these seconds may come out under the speaker before.
        """
        moved: dict[int, list[Turn]] = {}
        for tracklet, (before, after) in tracklets.items():
            of_tracklet = {at: (after, limit) for at, (_, limit) in self.moves.items() if at[0] == tracklet}
            self.moves |= of_tracklet | {(tracklet, before): (after, until)}
        for turn in self.turns:
            before, after = tracklets.get(turn.tracklet, (turn.speaker, turn.speaker))
            if before in (turn.speaker, -1) and turn.speaker != after:
                turn.speaker = after
                moved.setdefault(after, []).append(turn)
        return [self._relabel(turns, speaker) for speaker, turns in moved.items()]

    def _named(self, speaker: int) -> list[dict]:
        """A speaker who has another name now."""
        turns = [turn for turn in self.turns if turn.speaker == speaker]
        return [self._relabel(turns, speaker)] if turns else []

    def _folded(self, numbers: np.ndarray) -> list[dict]:
        """Tracklets that were put together, their new numbers by the old ones."""
        for turn in self.turns:
            turn.tracklet = int(numbers[turn.tracklet]) if turn.tracklet >= 0 else -1
        self.moves = {}
        return []

    def _relabel(self, turns: list[Turn], speaker: int) -> dict:
        event = self._event("relabel", ids=[turn.id for turn in turns], speaker=self.diarizer.name_of(speaker))
        for turn in turns:
            turn.revision = self.revision
        return event

    def _event(self, kind: str, **values) -> dict:
        self.revision += 1
        return {"event": kind, "revision": self.revision, **values}

    def _as_event(self, turn: Turn) -> dict:
        return {"event": "turn", "revision": turn.revision, "id": turn.id, **vars(self._segment(turn))}

    def _segment(self, turn: Turn) -> Segment:
        return Segment(turn.start, turn.end, self.diarizer.name_of(turn.speaker), round(turn.confidence, 4))


def replay(events: Iterable[Mapping]) -> list[Segment]:
    """The timeline that events amount to, as of `LiveEvents.segments`.

    Raises:
        ValueError: an event of another kind, or of an earlier revision than the one before.
    """
    turns: dict[int, dict] = {}
    revision = 0
    for event in events:
        if event["revision"] < revision:
            raise ValueError(f"revision {event['revision']} came after {revision}; events must be in order")
        revision = event["revision"]
        if event["event"] == "turn":
            turns[event["id"]] = {name: event[name] for name in ("start", "end", "speaker", "confidence")}
        elif event["event"] == "relabel":
            for number in event["ids"]:
                turns[number]["speaker"] = event["speaker"]
        elif event["event"] != "end":
            raise ValueError(f"event must be turn, relabel or end, got {event['event']!r:.60}")
    return join_segments(Segment(**turn) for turn in turns.values())
