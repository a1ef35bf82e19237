"""Who said which word: a recogniser's words given to the speakers of a diarization, by these rules.

- A word is its speaker's whose turns cover the most of it. Where several cover it alike, in overlapped speech, the
  speaker of the word before continues.
- Where nobody speaks it is the nearest turn's, so that no word is without a speaker if there is one.
- The words of a segment without times of words share its time by their letters, silence left out unless they would
  have to be said faster than `MOST_LETTERS_A_SECOND`.
- Words keep the recogniser's order where a start lies up to `JITTER_SECONDS` before the last one; else they are put in
  order of time. An end before the start is the start. Words after the last turn are that turn's, at their own time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .segments_fast_diarization import Segment
from .settings_fast_diarization import FRAME_SECONDS
from .transcripts_fast_diarization import Passage, Piece, join_words

LETTERS_A_SECOND, MOST_LETTERS_A_SECOND = 15.0, 45.0
"""As people speak, for words whose end nobody knows, and as nobody does."""
JITTER_SECONDS = 1.0
PAUSE_SECONDS = 2.0
"""A longer one ends a turn though the speaker goes on."""


@dataclass(frozen=True)
class Word:
    """One word from `start` to `end` (seconds); `speaker` is `None` only where the recording has no speech."""

    text: str
    start: float
    end: float
    speaker: str | None = None


@dataclass(frozen=True)
class SpokenTurn:
    """Consecutive words of one speaker."""

    words: tuple[Word, ...]

    @property
    def speaker(self) -> str | None:
        return self.words[0].speaker

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return max(word.end for word in self.words)

    @property
    def text(self) -> str:
        return join_words(word.text for word in self.words)

    def as_dict(self) -> dict:
        """`start`, `end`, `speaker`, `text`, and `words` with their times."""
        words = [{"word": w.text, "start": w.start, "end": w.end} for w in self.words]
        return {"start": self.start, "end": self.end, "speaker": self.speaker, "text": self.text, "words": words}


def assign_words(transcript: Sequence[Passage], segments: Sequence[Segment]) -> list[Word]:
    """
    Args:
        transcript: of `read_transcript`.
        segments: who speaks when, overlapping or not.

    Returns:
        the words in order, each with its speaker.
    """
    words = _in_order(_timed(transcript, Speech(segments)))
    turns = {name: Speech(s for s in segments if s.speaker == name) for name in _by_start(segments)}
    if not words or not turns:
        return words
    starts, ends = np.array([w.start for w in words]), np.array([w.end for w in words])
    covered = np.stack([speech.until(ends) - speech.until(starts) for speech in turns.values()], axis=1)
    distances = np.stack([speech.distance(starts, ends) for speech in turns.values()], axis=1)
    scores = np.where(covered.max(axis=1, keepdims=True) > 1e-6, covered, -distances)
    alike = scores >= scores.max(axis=1, keepdims=True) - FRAME_SECONDS / 2
    names, current, found = list(turns), -1, []
    for word, candidates, best in zip(words, alike, scores.argmax(axis=1)):
        current = current if current >= 0 and candidates[current] else int(best)
        found.append(replace(word, speaker=names[current]))
    return found


def spoken_turns(words: Iterable[Word]) -> list[SpokenTurn]:
    """Consecutive words of one speaker with no pause above `PAUSE_SECONDS` between them."""
    turns: list[list[Word]] = []
    for word in words:
        last = turns[-1][-1] if turns else None
        if last is None or word.speaker != last.speaker or word.start - last.end > PAUSE_SECONDS:
            turns.append([])
        turns[-1].append(word)
    return [SpokenTurn(tuple(turn)) for turn in turns]


class Speech:
    """The union of segments, as a function of time."""

    def __init__(self, segments: Iterable[Segment]):
        spans = np.array([(s.start, s.end) for s in segments if s.end > s.start], float).reshape(-1, 2)
        spans = spans[np.argsort(spans[:, 0], kind="stable")]
        latest = np.maximum.accumulate(spans[:, 1])
        first = np.r_[True, spans[1:, 0] > latest[:-1]][: len(spans)]
        self.starts, self.ends = spans[first, 0], latest[np.r_[first[1:], True][: len(spans)]]
        self.before = np.r_[0.0, np.cumsum(self.ends - self.starts)]

    def until(self, times: np.ndarray) -> np.ndarray:
        """Seconds of speech before each of `times`."""
        if not len(self.starts):
            return np.zeros_like(times)
        edges = np.stack([self.starts, self.ends], axis=1).ravel()
        return np.interp(times, edges, np.stack([self.before[:-1], self.before[1:]], axis=1).ravel())

    def distance(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Seconds from each span to the nearest speech, 0 where they touch."""
        edges = np.r_[-np.inf, self.ends], np.r_[self.starts, np.inf]
        last = np.searchsorted(self.starts, ends, side="right")
        return np.minimum(np.maximum(starts - edges[0][last], 0), np.maximum(edges[1][last] - ends, 0))

    def spread(self, shares: np.ndarray, start: float, end: float) -> np.ndarray:
        """(parts, 2) start and end of parts that share the speech from `start` to `end`, or all of it if there is none.

        Args:
            shares: of each part; they sum to 1.
        """
        edges = np.r_[0.0, np.cumsum(shares)].clip(0, 1)
        inside = (self.ends > start) & (self.starts < end)
        starts, ends = self.starts[inside].clip(start, end), self.ends[inside].clip(start, end)
        if not len(starts):
            times = start + (end - start) * edges
            return np.stack([times[:-1], times[1:]], axis=1)
        before = np.r_[0.0, np.cumsum(ends - starts)]
        at = edges * before[-1]
        first = np.searchsorted(before[1:] - 1e-9, at[:-1], side="right").clip(max=len(starts) - 1)
        last = np.searchsorted(before[1:] + 1e-9, at[1:], side="left").clip(max=len(starts) - 1)
        return np.stack([starts[first] + at[:-1] - before[first], starts[last] + at[1:] - before[last]], axis=1)


def _by_start(segments: Sequence[Segment]) -> list[str]:
    spoken = sorted((s for s in segments if s.end > s.start), key=lambda s: (s.start, s.end))
    return list(dict.fromkeys(s.speaker for s in spoken))


def _timed(transcript: Sequence[Passage], speech: Speech) -> list[Word]:
    """Every word with times: its own, or a share of the time between its neighbours'."""
    words: list[Word] = []
    starts = [p.start if p.start is not None else p.words[0].start for p in transcript]
    for passage, start, after in zip(transcript, starts, _following(starts)):
        seconds = _letters(passage.words) / LETTERS_A_SECOND
        if start is None:
            known = next((piece.start for piece in passage.words if piece.start is not None), after)
            start = words[-1].end if words else max((known or 0.0) - seconds, 0.0)
        end = passage.end
        if end is None:
            end = start + seconds if after is None else min(start + seconds, max(after, start))
        words += _timed_passage(passage.words, start, max(end, start), speech)
    return words


def _timed_passage(pieces: Sequence[Piece], start: float, end: float, speech: Speech) -> list[Word]:
    words: list[Word] = []
    untimed: list[Piece] = []
    following = _following([piece.start for piece in pieces])
    for piece, after in zip(pieces, following):
        if piece.start is None:
            untimed.append(piece)
            continue
        words += _spread(untimed, words[-1].end if words else start, piece.start, speech)
        untimed = []
        stop = piece.start + _letters([piece]) / LETTERS_A_SECOND if piece.end is None else piece.end
        if piece.end is None:
            stop = min(stop, end if after is None else after)
        words.append(Word(piece.text, round(piece.start, 3), round(max(stop, piece.start), 3)))
    return words + _spread(untimed, words[-1].end if words else start, end, speech)


def _spread(pieces: Sequence[Piece], start: float, end: float, speech: Speech) -> list[Word]:
    if not pieces:
        return []
    letters, end = _letters(pieces), max(start, end)
    spoken = float(np.diff(speech.until(np.array([start, end])))[0])
    if letters > spoken * MOST_LETTERS_A_SECOND:
        speech = Speech([])
    spans = speech.spread(np.array([len(piece.text) for piece in pieces]) / letters, start, end)
    spans = spans.round(3).tolist()
    return [Word(piece.text, first, max(first, last)) for piece, (first, last) in zip(pieces, spans)]


def _following(starts: Sequence[float | None]) -> list[float | None]:
    """The next start that is known after each."""
    found: list[float | None] = [None]
    for start in reversed(starts[1:]):
        found.append(found[-1] if start is None else start)
    return found[::-1]


def _in_order(words: list[Word]) -> list[Word]:
    placed, latest = [], 0.0
    for word in words:
        if latest - JITTER_SECONDS <= word.start < latest:
            word = replace(word, start=latest, end=max(word.end, latest))
        placed.append(word)
        latest = word.start
    return sorted(placed, key=lambda word: word.start)


def _letters(pieces: Iterable[Piece]) -> int:
    return sum(len(piece.text) for piece in pieces)
