"""Who speaks when as the page keeps it for one visitor, and what the visitor may change in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modeling.counting_fast_diarization import CountEstimate
from modeling.segments_fast_diarization import Segment, join_segments
from modeling.transcripts_fast_diarization import Passage
from modeling.words_fast_diarization import Word, assign_words

LONGEST_NAME = 60
MOST_UNDONE = 50


class EditError(ValueError):
    """Why a change is not made; the message is one line for the visitor."""


@dataclass(frozen=True)
class Hypothesis:
    """Every change gives a new one.

    Args:
        name: of the recording, as its file without suffix.
        seconds: length of the recording.
        segments: by start.
        slots: the row and colour of each speaker, which stay whatever else changes.
        about: further facts for the JSON.
        count: how many speakers there may be; `None` if that is not known, as live.
        transcript: a recogniser's words, if given.
        peaks: loudness over time, one byte each, evenly spaced.
        sound: path of what the page plays, `None` if nothing is kept.
        earlier: segments and slots before each change.
    """

    name: str
    seconds: float
    segments: tuple[Segment, ...]
    slots: Mapping[str, int]
    about: Mapping = field(default_factory=dict)
    count: CountEstimate | None = None
    transcript: tuple[Passage, ...] | None = None
    peaks: bytes = b""
    sound: str | None = None
    earlier: tuple[tuple[tuple[Segment, ...], Mapping[str, int]], ...] = ()

    @classmethod
    def of(cls, name: str, seconds: float, segments: Iterable[Segment], **kept) -> "Hypothesis":
        """Speakers have their rows in order of their names."""
        segments = tuple(segments)
        names = sorted({s.speaker for s in segments})
        return cls(name, seconds, segments, {name: slot for slot, name in enumerate(names)}, **kept)

    @property
    def speakers(self) -> list[str]:
        """In the order of their rows."""
        return sorted({s.speaker for s in self.segments}, key=self.slots.__getitem__)

    def words(self) -> list[Word] | None:
        """Each word with its speaker."""
        return None if self.transcript is None else assign_words(self.transcript, self.segments)

    def edited(self, edit: Mapping) -> "Hypothesis":
        """
        Args:
            edit: from the browser, hence anything. `{"do": "rename", "speaker": name, "to": name}` merges two speakers
                if the new name is that of another; `{"do": "give", "speaker": name, "start": seconds, "end": seconds,
                "to": name}` gives what somebody says there to somebody else, or a new speaker if `to` is empty;
                `{"do": "undo"}` takes the last change back.

        Raises:
            EditError: no such change, a speaker who is not there, or a name that cannot be used.
        """
        match edit:
            case {"do": "undo"}:
                return self._undone()
            case {"do": "rename", "speaker": str(speaker), "to": str(to)}:
                start, end, name = 0.0, float("inf"), checked_name(to)
            case {
                "do": "give",
                "speaker": str(speaker),
                "start": float() | int(),
                "end": float() | int(),
                "to": str(to),
            }:
                start, end, name = edit["start"], edit["end"], checked_name(to) if to else self._free_name()
            case _:
                raise EditError("the page asked for a change that is not known; load it again")
        if speaker not in self.speakers:
            raise EditError(f"there is no speaker {speaker[:LONGEST_NAME]!r} any more")
        if name == speaker:
            return self
        slots = dict(self.slots)
        if name not in self.speakers:
            slots[name] = slots[speaker] if edit["do"] == "rename" else 1 + max(slots[there] for there in self.speakers)
        segments = tuple(join_segments(given(self.segments, speaker, start, end, name)))
        earlier = (*self.earlier, (self.segments, self.slots))[-MOST_UNDONE:]
        return replace(self, segments=segments, slots=slots, earlier=earlier)

    def _undone(self) -> "Hypothesis":
        if not self.earlier:
            raise EditError("there is no change to undo")
        segments, slots = self.earlier[-1]
        return replace(self, segments=segments, slots=slots, earlier=self.earlier[:-1])

    def _free_name(self) -> str:
        return next(name for name in (f"SPEAKER_{n:02d}" for n in range(1_000_000)) if name not in self.speakers)


def checked_name(name: str) -> str:
    """A speaker's name on one line, with single spaces.

    Raises:
        EditError: an empty name, a long one, or one with characters that cannot be shown.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise EditError(f"a name needs 1 to {LONGEST_NAME} printable characters")
    return name


def given(segments: Sequence[Segment], speaker: str, start: float, end: float, to: str) -> list[Segment]:
    """The segments with what `speaker` says from `start` to `end` given to another; those across an edge are cut."""
    found = []
    for s in segments:
        first, last = max(s.start, start), min(s.end, end)
        if s.speaker != speaker or not first < last:
            found.append(s)
            continue
        pieces = (s.start, first, speaker), (first, last, to), (last, s.end, speaker)
        found += [replace(s, start=round(a, 3), end=round(b, 3), speaker=name) for a, b, name in pieces if b - a > 5e-4]
    return found
