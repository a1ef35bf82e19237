"""SRT and WebVTT with cues that a person can read: of words two lines and a few seconds, else one cue a turn."""

import html
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from modeling.segments_fast_diarization import Segment
from modeling.words_fast_diarization import PAUSE_SECONDS, Word, join_words, spoken_turns

LEAST_SECONDS, MOST_SECONDS = 1.0, 7.0
"""Of a cue with words; a shorter one stays until the next begins, `LEAST_SECONDS` at most."""
LINE_LETTERS, MOST_LINES = 42, 2
SENTENCE_ENDS, CLAUSE_ENDS = tuple(".?!\u2026\u3002\uff1f\uff01"), tuple(",;:\u2014\u3001\uff0c")


@dataclass(frozen=True)
class Cue:
    """What is shown from `start` to `end` (seconds); without text, that `speaker` speaks."""

    start: float
    end: float
    speaker: str | None
    text: str = ""


def to_srt(name: str, segments: Sequence[Segment], words: Sequence[Word] | None = None) -> str:
    """SubRip: `speaker: text`, or the speaker alone where there are no words."""
    lines = []
    for number, cue in enumerate(to_cues(segments, words), 1):
        text = _wrapped(_prefix(cue.speaker) + cue.text) if cue.text else _one_line(cue.speaker)
        text = text.replace("-->", "->")
        lines.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n")
    return "".join(lines)


def to_vtt(name: str, segments: Sequence[Segment], words: Sequence[Word] | None = None) -> str:
    """WebVTT (W3C) with the speaker as voice of each cue; without words the name is the text too."""
    lines = ["WEBVTT\n\n"]
    for cue in to_cues(segments, words):
        speaker = vtt_field(_one_line(cue.speaker))
        text = vtt_field(_wrapped(cue.text)) if cue.text else speaker
        voice = f"<v {speaker}>" if speaker else ""
        lines.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n\n")
    return "".join(lines)


def vtt_field(text: str) -> str:
    return html.escape(text, quote=False)


def to_cues(segments: Sequence[Segment], words: Sequence[Word] | None = None) -> list[Cue]:
    """
    Cues by start. Words are shown in `MOST_LINES` lines of `LINE_LETTERS` for up to `MOST_SECONDS`, cut at the ends of
    sentences where that can be. Without words each segment is a cue, one below `LEAST_SECONDS` put together with the
    one of the same speaker before or after it unless there is a pause or another speaker between.
    """
    if words is None:
        return _joined([Cue(s.start, s.end, s.speaker) for s in segments])
    cues = [
        Cue(part[0].start, max(w.end for w in part), turn.speaker, join_words(w.text for w in part))
        for turn in spoken_turns(words)
        for part in _parts(turn.words, _prefix(turn.speaker))
    ]
    following = [cue.start for cue in cues[1:]] + [float("inf")]
    shown = [max(cue.end, min(cue.start + LEAST_SECONDS, after)) for cue, after in zip(cues, following)]
    return [replace(cue, end=min(end, cue.start + MOST_SECONDS)) for cue, end in zip(cues, shown)]


def _joined(cues: Sequence[Cue]) -> list[Cue]:
    joined: list[Cue] = []
    for cue in cues:
        last = joined[-1] if joined else None
        near = last and last.speaker == cue.speaker and cue.start - last.end <= PAUSE_SECONDS
        if near and min(last.end - last.start, cue.end - cue.start) < LEAST_SECONDS:
            cue = replace(last, end=max(last.end, cue.end))
            joined.pop()
        joined.append(cue)
    return joined


def _parts(words: Sequence[Word], prefix: str) -> Iterator[Sequence[Word]]:
    """Consecutive words that fit into one cue each."""
    first = 0
    while first < len(words):
        last = first + 1
        while last < len(words) and _fits(words[first : last + 1], prefix):
            last += 1
        if last < len(words):
            last = _best_cut(words, first, last)
        yield words[first:last]
        first = last


def _best_cut(words: Sequence[Word], first: int, last: int) -> int:
    """Where to end a cue that begins at `first` and could hold the words before `last`."""
    whole = [
        at
        for at in range(first + 1, last + 1)
        if words[at - 1].end - words[first].start >= LEAST_SECONDS and words[-1].end - words[at].start >= LEAST_SECONDS
    ]
    for ends in (SENTENCE_ENDS, CLAUSE_ENDS):
        if cuts := [at for at in whole if words[at - 1].text.endswith(ends)]:
            return cuts[-1]
    return whole[-1] if whole else last


def _fits(words: Sequence[Word], prefix: str) -> bool:
    if max(word.end for word in words) - words[0].start > MOST_SECONDS:
        return False
    return len(textwrap.wrap(prefix + join_words(word.text for word in words), LINE_LETTERS)) <= MOST_LINES


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, LINE_LETTERS))


def _prefix(speaker: str | None) -> str:
    return f"{_one_line(speaker)}: " if speaker else ""


def _one_line(speaker: str | None) -> str:
    return " ".join((speaker or "").split())


def _clock(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
