"""Words of recognisers as they write them: every kind to the same words and times, everything else one line."""

import json
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.transcripts_fast_diarization import (
    Passage,
    WordsError,
    join_words,
    parse_transcript,
    read_transcript,
    split_words,
)
from modeling.words_fast_diarization import assign_words

# The words of every example: "Hello, it's 2016." from 0.5 s on, then "Yes." at 3 s.
TIMES = [("Hello,", 0.5, 0.9), ("it's", 1.0, 1.2), ("2016.", 1.2, 2.0), ("Yes.", 3.0, 3.4)]


@dataclass
class FasterWord:
    start: float
    end: float
    word: str
    probability: float = 0.9


@dataclass
class FasterSegment:
    id: int
    start: float
    end: float
    text: str
    tokens: list[int]
    words: list[FasterWord] | None


OldWord = namedtuple("OldWord", "start end word probability")
OldSegment = namedtuple("OldSegment", "id seek start end text tokens words")


def spaced(part: list) -> list[dict]:
    return [{"word": f" {w}", "start": s, "end": e, "probability": 0.9} for w, s, e in part]


def whisper_segment(number: int, start: float, end: float, text: str, **more) -> dict:
    told = {"temperature": 0.0, "avg_logprob": -0.2, "compression_ratio": 1.2, "no_speech_prob": 0.01}
    return (
        {"id": number, "seek": 0, "start": start, "end": end, "text": text, "tokens": [50364, 2425, 11]} | told | more
    )


def token(text: str, start: int, end: int) -> dict:
    return {"text": text, "timestamps": {}, "offsets": {"from": start, "to": end}, "id": 50364, "p": 0.9, "t_dtw": -1}


def faster(word=FasterWord, segment=FasterSegment):
    if segment is OldSegment:
        many = [
            OldSegment(1, 0, 0.5, 2.0, " Hello, it's 2016.", [50364], [word(s, e, f" {w}", 1) for w, s, e in TIMES])
        ]
        return (one for one in many)
    parts = [(0.5, 2.0, " Hello, it's 2016.", TIMES[:3]), (3.0, 3.4, " Yes.", TIMES[3:])]
    return (
        segment(n, start, end, text, [50364], [word(s, e, f" {w}") for w, s, e in part])
        for n, (start, end, text, part) in enumerate(parts)
    )


KINDS = {
    "openai-whisper": {
        "text": " Hello, it's 2016. Yes.",
        "segments": [
            whisper_segment(0, 0.5, 2.0, " Hello, it's 2016.", words=spaced(TIMES[:3])),
            whisper_segment(1, 3.0, 3.4, " Yes.", words=spaced(TIMES[3:])),
        ],
        "language": "en",
    },
    "OpenAI's API": {
        "task": "transcribe",
        "language": "english",
        "duration": 3.5,
        "text": "Hello, it's 2016. Yes.",
        "words": [{"word": w, "start": s, "end": e} for w, s, e in TIMES],
        "segments": [whisper_segment(0, 0.5, 3.4, " Hello, it's 2016. Yes.")],
    },
    "faster-whisper, a list": [
        {"start": 0.5, "end": 2.0, "text": " Hello, it's 2016.", "words": spaced(TIMES[:3])},
        {"start": 3.0, "end": 3.4, "text": " Yes.", "words": spaced(TIMES[3:])},
    ],
    "whisperX": {
        "segments": [
            {
                "start": 0.5,
                "end": 2.0,
                "text": " Hello, it's 2016.",
                "words": [{"word": w, "start": s, "end": e, "score": 0.8} for w, s, e in TIMES[:2]]
                + [{"word": "2016."}],
                "speaker": "SPEAKER_07",
            },
            {"start": 3.0, "end": 3.4, "text": "Yes.", "words": [{"word": "Yes.", "start": 3.0, "end": 3.4}]},
        ],
        "word_segments": [{"word": "Hello,", "start": 0.5, "end": 0.9, "score": 0.8}, {"word": "2016."}],
        "language": "en",
    },
    "whisper.cpp, full": {
        "systeminfo": "AVX = 1",
        "model": {"type": "base", "audio": {"ctx": 1500}},
        "params": {"language": "en", "translate": False},
        "result": {"language": "en"},
        "transcription": [
            {
                "timestamps": {"from": "00:00:00,500", "to": "00:00:02,000"},
                "offsets": {"from": 500, "to": 2000},
                "text": " Hello, it's 2016.",
                "tokens": [
                    token("[_BEG_]", 0, 0),
                    token(" Hel", 500, 700),
                    token("lo", 700, 850),
                    token(",", 850, 900),
                    token(" it", 1000, 1100),
                    token("'s", 1100, 1200),
                    token(" 2016", 1200, 1900),
                    token(".", 1900, 2000),
                    token("[_TT_75]", 2000, 2000),
                ],
            },
            {
                "timestamps": {"from": "00:00:03,000", "to": "00:00:03,400"},
                "offsets": {"from": 3000, "to": 3400},
                "text": " Yes.",
                "tokens": [token(" Yes", 3000, 3300), token(".", 3300, 3400)],
            },
        ],
    },
    "whisper.cpp, -ml 1": {
        "transcription": [
            {"timestamps": {"from": a, "to": b}, "text": text}
            for a, b, text in [
                ("00:00:00,500", "00:00:00,500", ""),
                ("00:00:00,500", "00:00:00,900", " Hello,"),
                ("00:00:01,000", "00:00:01,100", " it"),
                ("00:00:01,100", "00:00:01,200", "'s"),
                ("00:00:01,200", "00:00:02,000", " 2016."),
                ("00:00:03,000", "00:00:03,400", " Yes."),
            ]
        ]
    },
    "transformers, words": {
        "text": " Hello, it's 2016. Yes.",
        "chunks": [
            {"text": f" {w}", "timestamp": (s, None if w == "Yes." else e), "language": None} for w, s, e in TIMES
        ],
    },
    "transformers, characters": {
        "text": "",
        "chunks": [
            {"text": letter, "timestamp": (s + (e - s) * n / len(w), s + (e - s) * (n + 1) / len(w))}
            for word, s, e in TIMES
            for w in [word]
            for n, letter in enumerate(w)
        ],
    },
    "words alone": [{"text": w, "start": s, "end": e} for w, s, e in TIMES],
    "numbers of NumPy": [{"word": w, "start": np.float32(s), "end": np.float64(e)} for w, s, e in TIMES],
}
for at in (6, 11, 17):  # spaces between the words of letters
    KINDS["transformers, characters"]["chunks"].insert(at, {"text": " ", "timestamp": (None, None)})
SEGMENT_TIMES = {
    "openai-whisper": {
        "text": " Hello, it's 2016. Yes.",
        "segments": [whisper_segment(0, 0.5, 2.0, " Hello, it's 2016."), whisper_segment(1, 3.0, 3.4, " Yes.")],
    },
    "faster-whisper": list(
        FasterSegment(n, s, e, t, [1], None)
        for n, (s, e, t) in enumerate([(0.5, 2.0, " Hello, it's 2016."), (3.0, 3.4, " Yes.")])
    ),
    "whisper.cpp": {
        "transcription": [
            {"offsets": {"from": 500, "to": 2000}, "text": " Hello, it's 2016."},
            {"offsets": {"from": 3000, "to": 3400}, "text": " Yes."},
        ]
    },
    "transformers": {
        "text": " Hello, it's 2016. Yes.",
        "chunks": [
            {"timestamp": (0.5, 2.0), "text": " Hello, it's 2016."},
            {"timestamp": (3.0, None), "text": " Yes."},
        ],
    },
}
SUBTITLES = {
    "SRT": "1\n00:00:00,500 --> 00:00:02,000\nHello, it's\n2016.\n\n2\n00:00:03,000 --> 00:00:03,400\nYes.\n\n",
    "SRT of Windows, without the empty line": "\ufeff1\r\n00:00:00,500 --> 00:00:02,000\r\n<i>Hello</i>, it's 2016.\r\n"
    "2\r\n00:00:03,000 --> 00:00:03,400\r\n{\\an8}Yes.",
    "WebVTT": "WEBVTT - title\nKind: captions\n\nNOTE a remark\nof two lines\n\nSTYLE\n::cue { color: red }\n\n"
    "intro\n00:00.500 --> 00:02.000 align:start\n<v.loud Ann Lee>Hello, <c.yellow>it&#39;s</c> 2016.</v>\n\n"
    "00:00:03.000 --> 00:00:03.400\n<v Bob><00:00:03.100>Yes.\n",
}


def said(transcript: list[Passage]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in assign_words(transcript, [])]


@pytest.mark.parametrize("kind", KINDS)
def test_words_with_times_of_every_recogniser(kind, tmp_path):
    near = 0.14 if kind == "transformers, words" else 1e-3  # of which the last word's end is not known
    expected = [pytest.approx(time, abs=near) for _, *times in TIMES for time in times]
    forms = [read_transcript(KINDS[kind])]
    if kind != "numbers of NumPy":
        Path(tmp_path, "asr.json").write_text(json.dumps(KINDS[kind]))
        forms += [read_transcript(tmp_path / "asr.json"), read_transcript(str(tmp_path / "asr.json"))]
    for transcript in forms:
        words = said(transcript)
        assert [text for text, *_ in words] == [text for text, *_ in TIMES]
        assert [time for _, *times in words for time in times] == expected


@pytest.mark.parametrize(("word", "segment"), [(FasterWord, FasterSegment), (OldWord, OldSegment)])
def test_objects_of_faster_whisper_as_they_come(word, segment):
    assert said(read_transcript(faster(word, segment))) == TIMES


@pytest.mark.parametrize("kind", SEGMENT_TIMES)
def test_segments_without_times_of_words(kind):
    transcript = read_transcript(SEGMENT_TIMES[kind])
    assert [(p.start, [word.text for word in p.words]) for p in transcript] == [
        (0.5, ["Hello,", "it's", "2016."]),
        (3.0, ["Yes."]),
    ]
    words = said(transcript)
    assert words[:3] == [("Hello,", 0.5, 1.1), ("it's", 1.1, 1.5), ("2016.", 1.5, 2.0)], "15 letters in 1.5 s"


@pytest.mark.parametrize("kind", SUBTITLES)
def test_subtitles(kind, tmp_path):
    transcript = parse_transcript(SUBTITLES[kind])
    assert [(p.start, p.end, join_words(w.text for w in p.words)) for p in transcript] == [
        (0.5, 2.0, "Hello, it's 2016."),
        (3.0, 3.4, "Yes."),
    ]
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "asr.srt").write_text(SUBTITLES[kind].lstrip("\ufeff"), encoding=encoding)
        assert read_transcript(tmp_path / "asr.srt") == transcript


def test_what_our_own_json_holds_can_be_read_again():
    ours = {"recording": "call", "segments": [{"start": 0, "end": 9, "speaker": "A", "confidence": 0.9}], "turns": []}
    assert said(read_transcript(ours | {"words": [{"word": w, "start": s, "end": e} for w, s, e in TIMES]})) == TIMES
    with pytest.raises(WordsError, match="segments without text"):
        read_transcript(ours)


def test_scripts_without_spaces_are_letters_that_join_again():
    assert split_words("你好。 Hello 世界") == ["你", "好", "。", "Hello", "世", "界"]
    assert join_words(["你", "好", "。", "Hello", "there", "世", "界"]) == "你好。 Hello there 世界"
    words = read_transcript({"segments": [{"start": 0, "end": 3, "text": "今日は"}]})[0].words
    assert [word.text for word in words] == ["今", "日", "は"]
    tokens = [token("[_BEG_]", 0, 0), token("今日", 300, 800), token("は", 800, 1000)]
    item = {"offsets": {"from": 0, "to": 1000}, "text": "今日は", "tokens": tokens}
    assert said(read_transcript({"transcription": [item]})) == [("今日", 0.3, 0.8), ("は", 0.8, 1.0)]


def test_tokens_that_are_parts_of_letters_give_way_to_the_text(tmp_path):
    item = {
        "offsets": {"from": 0, "to": 1000},
        "text": " Gr\u00fc\u00dfe",
        "tokens": [token(" Gr@", 0, 1), token("@", 1, 2)],
    }
    content = json.dumps({"transcription": [item]}, ensure_ascii=False).encode().replace(b"@", b"\xc3")
    (tmp_path / "asr.json").write_bytes(content)
    assert said(read_transcript(tmp_path / "asr.json")) == [("Gr\u00fc\u00dfe", 0.0, 1.0)]


@pytest.mark.parametrize(
    "nothing", [{"text": "", "segments": []}, {"text": "", "chunks": []}, {"transcription": []}, [], "WEBVTT\n"]
)
def test_a_recogniser_that_heard_nothing(nothing):
    assert (parse_transcript(nothing) if isinstance(nothing, str) else read_transcript(nothing)) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "asr.json: empty"),
        ("Hello there", "asr.json: text that begins 'Hello there'"),
        ('{"segments": [', "asr.json: incomplete or invalid JSON"),
        ("[" * 100_000, "asr.json: JSON that is nested too deeply"),
        ("[" + "1" * 5_000 + "]", "asr.json: incomplete or invalid JSON"),
        ('{"text": "Hello"}', "asr.json: an object of 'text', without words that have times"),
        ('{"results": {"channels": []}}', "asr.json: an object of 'results', without words"),
        ('{"segments": "none"}', "asr.json: an object of 'segments', without words"),
        ("{}", "asr.json: an object of no keys"),
        ("[1, 2]", "asr.json[0] is 1; expected text with start and end"),
        ('[{"start": 0, "end": 1}]', "asr.json[0] has no text"),
        ('[{"word": "a"}, {"word": "b"}]', "asr.json: text without times"),
        ('{"segments": [{"text": "a", "start": "soon"}]}', "asr.json: segments[0].start is 'soon'; expected seconds"),
        ('[{"word": "a", "start": NaN}]', "asr.json[0].start is nan"),
        ('[{"word": "a", "start": Infinity}]', "asr.json[0].start is inf"),
        ('[{"word": "a", "start": true}]', "asr.json[0].start is True"),
        ('[{"word": "a", "start": 1' + "0" * 400 + "}]", "asr.json[0].start is 1000"),
        ('[{"word": ["a"], "start": 1}]', "asr.json[0]: its text is ['a']"),
        (
            '{"segments": [{"text": "a", "start": 0, "words": [{"word": "a", "start": {}}]}]}',
            "segments[0].words[0].start is",
        ),
        ("1\n00:00 --> soon\nHello\n", "asr.json:2: '00:00 --> soon' is not a time of SRT or WebVTT"),
        ("1\n999999:00:00,0 --> 999999:00:01,0\nHello\n", "asr.json:2 is 3599996400.0; expected seconds"),
    ],
)
def test_anything_else_is_one_line(content, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("asr.json").write_text(content)
    with pytest.raises(WordsError) as error:
        read_transcript("asr.json")
    message = str(error.value)
    assert message.startswith(found) or found in message
    assert "\n" not in message and len(message) < 500 and "accepted are JSON of whisper" in message


def test_text_in_another_encoding_is_told_and_not_guessed(tmp_path):
    (tmp_path / "asr.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nGr\u00fc\u00dfe\n".encode("cp1252"))
    with pytest.raises(WordsError, match="not UTF-8 text .*; save it as UTF-8"):
        read_transcript(tmp_path / "asr.srt")
    with pytest.raises(OSError):
        read_transcript(tmp_path / "absent.json")
    with pytest.raises(WordsError, match="int 3"):
        read_transcript(3)


numbers = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=12), st.booleans(), st.just("00:01,5"))
leaves = st.one_of(numbers, st.sampled_from([" hello", "it's", " ", "[_BEG_]", "今日", "\ud800", "a\nb --> c"]))
names = ["text", "word", "start", "end", "timestamp", "offsets", "timestamps", "from", "to", "words", "tokens"]
names += ["segments", "chunks", "transcription", "word_segments"]
trees = st.recursive(
    leaves, lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.sampled_from(names), inside), max_leaves=25
)
good = st.fixed_dictionaries(
    {"text": st.text(max_size=20)},
    optional={
        "start": st.floats(-5, 100),
        "end": st.one_of(st.none(), st.floats(-5, 100)),
        "words": st.lists(
            st.fixed_dictionaries(
                {"word": st.text(max_size=5)}, optional={"start": st.floats(0, 100), "end": st.floats(0, 100)}
            ),
            max_size=5,
        ),
    },
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.one_of(trees, st.lists(good, max_size=6), st.lists(good, max_size=6).map(lambda many: {"segments": many})))
def test_whatever_the_object_says_there_are_words_or_one_error(tree):
    for read in (lambda: read_transcript([tree]), lambda: read_transcript({"segments": tree}), lambda: _parsed(tree)):
        try:
            words = assign_words(read(), [])
        except WordsError as error:
            assert "\n" not in str(error)
            continue
        assert all(word.text.split() == [word.text] or " " in word.text for word in words)
        assert all(0 <= word.start <= word.end < 1e8 for word in words)
        assert [word.start for word in words] == sorted(word.start for word in words)
        "".join(word.text for word in words).encode()


def _parsed(tree) -> list[Passage]:
    return parse_transcript(json.dumps(tree))


pieces = [
    "1",
    "\n",
    "\n\n",
    "00:00:01,000",
    " --> ",
    "-->",
    "00:01.5",
    "Hello",
    "<v Ann>",
    "<b",
    "&amp;",
    "NOTE",
    "{\\",
]


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(pieces), max_size=25).map("".join)))
def test_whatever_the_text_says_there_are_words_or_one_error(text):
    for content in (text, f"WEBVTT\n\n{text}"):
        try:
            words = assign_words(parse_transcript(content), [])
        except WordsError as error:
            assert "\n" not in str(error)
            continue
        assert all(word.text and 0 <= word.start <= word.end for word in words)
