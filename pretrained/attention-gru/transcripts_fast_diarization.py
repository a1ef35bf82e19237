"""What speech recognisers write, read as passages of words with times: JSON or its Python objects, SRT and WebVTT.

The kind is known by its content. openai-whisper, faster-whisper, whisperX, whisper.cpp, OpenAI's API and transformers'
pipeline are read, and what has their form: an object, or a list of them, with a text, a time, and perhaps words.
"""

import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

LARGEST = 100_000_000
"""Bytes of a file; the words of a thousand hours are about as many."""
LATEST = 10_000_000.0
"""Seconds, four months: a time beyond it is in another unit."""
ACCEPTED = (
    "accepted are JSON of whisper, faster-whisper, whisperX, whisper.cpp or transformers (segments, chunks, "
    "transcription or words with times), SRT and WebVTT"
)
LISTS = ("segments", "chunks", "transcription", "words", "word_segments")
"""Where an object keeps passages or words, in order of preference; words only if the segments have none."""
LONGEST_HALT = 0.1
"""Seconds between the parts of a word."""
SPECIAL = re.compile(r"\[_[^\]]{0,40}\]|<\|[^|]{0,40}\|>")
"""Tokens of whisper that are no text, as `[_BEG_]` and `<|en|>`."""
CLOCK = r"(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
CUE_TIME = re.compile(rf"\s*{CLOCK}\s*-->\s*{CLOCK}(?:\s.*)?")
TAGS = re.compile(
    r"</?(?:i|b|u|s|c|v|font|ruby|rt|lang)(?:[.\s][^<>]{0,200})?/?>|<[\d:.]{1,20}>|\{\\[^{}]{0,200}\}", re.I
)
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
)
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese and Japanese, with their punctuation."""
PIECES = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


class WordsError(ValueError):
    """Words that cannot be read; the message is one line: the file, what was found and what is accepted."""


@dataclass(frozen=True)
class Piece:
    """A word as a recogniser gave it; times in seconds, `None` where it gave none."""

    text: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Passage:
    """Words that follow each other, and the time they take together where that is known."""

    start: float | None
    end: float | None
    words: tuple[Piece, ...]


def read_transcript(given: object) -> list[Passage]:
    """
    Args:
        given: path of a JSON, SRT or WebVTT file, or what the recogniser returned in Python: a dict, or a list or
            other iterable of dicts or objects.

    Returns:
        passages in the order of the recogniser, none of them without words.

    Raises:
        OSError: the file cannot be read.
        WordsError: it is none of these, or has no times.
    """
    if isinstance(given, str | os.PathLike):
        name, text = os.fspath(given), _read(os.fspath(given))
        return parse_transcript(text, name)
    return _from_object(given, "words")


def parse_transcript(text: str, name: str = "words") -> list[Passage]:
    """`read_transcript` of the content of a file; `name` is for messages.

    Raises:
        WordsError: it is none of the kinds accepted.
    """
    begin = text.lstrip("\ufeff \t\r\n")
    if begin.startswith(("{", "[")):
        try:
            content = json.loads(begin)
        except RecursionError as error:
            raise WordsError(f"{name}: JSON that is nested too deeply; {ACCEPTED}") from error
        except ValueError as error:
            raise WordsError(f"{name}: incomplete or invalid JSON ({error}); {ACCEPTED}") from error
        return _from_object(content, name)
    if "-->" in text or begin.startswith("WEBVTT"):
        return _from_subtitles(text, name)
    found = f"text that begins {begin[:30]!r}" if begin else "empty"
    raise WordsError(f"{name}: {found}; {ACCEPTED}")


def split_words(text: str) -> list[str]:
    """Words between spaces; in scripts without spaces each letter is one."""
    return PIECES.findall(text)


def join_words(texts: Iterable[str]) -> str:
    """The text of words: a space between two, unless both are of a script without spaces."""
    return re.sub(rf"(?<=[{UNSPACED}]) (?=[{UNSPACED}])", "", " ".join(texts))


def _read(path: str) -> str:
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise WordsError(f"{path}: more than {LARGEST // 1_000_000} MB; {ACCEPTED}")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    is_json = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
    try:  # a token of whisper.cpp may be a part of a letter
        return content.decode(encoding, errors="replace" if is_json else "strict")
    except UnicodeDecodeError as error:
        raise WordsError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8; {ACCEPTED}") from error


def _from_object(given: object, name: str) -> list[Passage]:
    if isinstance(given, Mapping):
        found = {key: value for key in LISTS if isinstance(value := given.get(key), Sequence) and value}
        found = {key: value for key, value in found.items() if not isinstance(value, str)}
        if not found:
            return _nothing(given, name)
        key = next(iter(found))
        if key == "segments" and not any(_inner(item) for item in found[key]):
            has_text = any(_field(item, "text") for item in found[key])
            key = next((k for k in ("words", "word_segments") if k in found), key if has_text else "")
        if not key:
            raise WordsError(f"{name}: segments without text; {ACCEPTED}")
        return _passages(found[key], f"{name}: {key}")
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return _passages(given, name)
    raise WordsError(f"{name}: {type(given).__name__} {given!r:.60}; {ACCEPTED}")


def _nothing(given: Mapping, name: str) -> list[Passage]:
    """A recogniser that heard nothing returns empty lists."""
    if any(isinstance(given.get(key), list) for key in LISTS) and not str(given.get("text") or "").strip():
        return []
    keys = ", ".join(repr(key) for key in list(given)[:6]) or "no keys"
    raise WordsError(f"{name}: an object of {keys:.200}, without words that have times; {ACCEPTED}")


def _passages(items: Iterable, where: str) -> list[Passage]:
    rows: list[tuple[str, Passage | None]] = []
    for number, item in enumerate(items):
        place = f"{where}[{number}]"
        if isinstance(item, str | bytes | Real | None | list | tuple) and not hasattr(item, "_fields"):
            raise WordsError(f"{place} is {item!r:.60}; expected text with start and end; {ACCEPTED}")
        inner = _inner(item)
        if not inner and _field(item, "word") is _field(item, "text") is None:
            raise WordsError(f"{place} has no text; {ACCEPTED}")
        text, (start, end) = _text(item, place), _span(item, place)
        pieces = _pieces(inner, place)
        if not pieces or any("\ufffd" in piece.text for piece in pieces):
            pieces = [Piece(word) for word in split_words(SPECIAL.sub("", text))]
            pieces = [Piece(pieces[0].text, start, end)] if len(pieces) == 1 else pieces
        rows.append((text, Passage(start, end, tuple(pieces)) if pieces else None))
    passages = _whole_words(rows)
    if passages and all(p.start is None and all(w.start is None for w in p.words) for p in passages):
        raise WordsError(f"{where}: text without times; let the recogniser return them; {ACCEPTED}")
    return passages


def _whole_words(rows: list[tuple[str, Passage | None]]) -> list[Passage]:
    """Rows of one word each may be parts of words: where any has a space, one without continues the last."""
    spaced = any(text != text.strip() for text, passage in rows if passage is None or len(passage.words) == 1)
    whole: list[Passage] = []
    for (before, last), (text, passage) in pairwise([(" ", None), *rows]):
        if passage is None:
            continue
        if spaced and last and len(last.words) == len(passage.words) == 1 and _continues(before, text):
            (word,), (part,) = whole[-1].words, passage.words
            if None in (word.end, part.start) or part.start - word.end <= LONGEST_HALT:
                end = word.end if part.end is None else part.end
                passage = Passage(word.start, end, (Piece(word.text + part.text, word.start, end),))
                whole.pop()
        whole.append(passage)
    return whole


def _pieces(items: Iterable, where: str) -> list[Piece]:
    """Words of a segment, tokens that are parts of words put together."""
    found: list[tuple[str, Piece]] = []
    for number, item in enumerate(items):
        place = f"{where}.words[{number}]"
        text = _text(item, place)
        if SPECIAL.fullmatch(text.strip()) or not text:
            continue
        found.append((text, Piece(" ".join(text.split()), *_span(item, place))))
    spaced = any(text != text.strip() for text, _ in found)
    pieces: list[Piece] = []
    for (before, _), (text, piece) in pairwise([(" ", Piece("")), *found]):
        if not piece.text:
            continue
        if spaced and pieces and _continues(before, text):
            last = pieces.pop()
            piece = Piece(last.text + piece.text, last.start, piece.end if piece.end is not None else last.end)
        pieces.append(piece)
    return pieces


def _continues(before: str, text: str) -> bool:
    """Whether a token is a further part of the word of the token before."""
    apart = before[-1:].isspace() or text[:1].isspace()
    return not apart and not (re.match(f"[{UNSPACED}]", text) or re.search(f"[{UNSPACED}]$", before))


def _from_subtitles(text: str, name: str) -> list[Passage]:
    passages, lines = [], text.splitlines()
    times = {number: match for number, line in enumerate(lines) if (match := CUE_TIME.fullmatch(line))}
    for number, line in enumerate(lines):
        if "-->" in line and number not in times:
            raise WordsError(f"{name}:{number + 1}: {line.strip()[:60]!r} is not a time of SRT or WebVTT; {ACCEPTED}")
    for number, match in times.items():
        said = []
        for at in range(number + 1, len(lines)):
            if at in times and said and said[-1].strip().isdecimal():
                said.pop()  # the number of a cue that no empty line precedes
            if at in times or not lines[at].strip():
                break
            said.append(lines[at])
        start, end = (_seconds(_clock(match.groups()[i : i + 4]), 1.0, f"{name}:{number + 1}") for i in (0, 4))
        words = split_words(html.unescape(TAGS.sub("", " ".join(said))))
        if words:
            passages.append(Passage(start, end, tuple(map(Piece, words))))
    return passages


def _inner(item: object) -> list:
    """The words of a segment, or the tokens of whisper.cpp; those of whisper are numbers."""
    for name in ("words", "tokens"):
        inner = _field(item, name)
        if isinstance(inner, Iterable) and not isinstance(inner, str | bytes | Mapping):
            inner = list(inner)
            if inner and not any(isinstance(one, str | bytes | Real | None | list) for one in inner):
                return inner
    return []


def _field(item: object, name: str) -> object:
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)


def _text(item: object, where: str) -> str:
    """With the spaces around it, which tell words from parts of words."""
    text = next((value for name in ("word", "text") if (value := _field(item, name)) is not None), "")
    if not isinstance(text, str):
        raise WordsError(f"{where}: its text is {text!r:.60}; expected a string; {ACCEPTED}")
    return text.encode(errors="replace").decode()


def _span(item: object, where: str) -> tuple[float | None, float | None]:
    """Start and end in seconds, of the form that the recogniser uses."""
    start, end, unit = _field(item, "start"), _field(item, "end"), 1.0
    pair = _field(item, "timestamp")
    if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2:
        start, end = pair
    for name, scale in (("timestamps", 1.0), ("offsets", 1e-3)):
        inside = _field(item, name)
        if isinstance(inside, Mapping) and inside.get("from") is not None:
            start, end, unit = inside["from"], inside.get("to"), scale
    return _seconds(start, unit, f"{where}.start"), _seconds(end, unit, f"{where}.end")


def _seconds(value: object, unit: float, where: str) -> float | None:
    """Below 0 is 0: recognisers write a start just before the recording's."""
    if value is None:
        return None
    if isinstance(value, str) and (match := re.fullmatch(CLOCK, value.strip())):
        value = _clock(match.groups())
    if not isinstance(value, Real) or isinstance(value, bool) or not abs(value) <= LATEST / unit:
        raise WordsError(f"{where} is {value!r:.60}; expected seconds; {ACCEPTED}")
    return max(float(value) * unit, 0.0)


def _clock(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")
