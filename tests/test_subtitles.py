"""Cues that a person can read, as SRT and WebVTT, with words and without."""

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from diarization.formats import to_json, to_txt
from diarization.subtitles import LEAST_SECONDS, MOST_SECONDS, to_cues, to_srt, to_vtt
from modeling.segments_fast_diarization import Segment
from modeling.transcripts_fast_diarization import parse_transcript
from modeling.words_fast_diarization import Word, join_words

TALK = [Segment(0, 4, "A", 0.9), Segment(4, 6, "B <&>", 0.8)]
WORDS = [
    Word("Hello", 0.5, 0.9, "A"),
    Word("there.", 1.0, 1.5, "A"),
    Word("1 < 2", 4.1, 4.5, "B <&>"),
    Word("-->", 4.5, 5.2, "B <&>"),
]


def at(start: float, *texts: str, speaker: str = "A", step: float = 0.4) -> list[Word]:
    return [
        Word(t, round(start + n * step, 3), round(start + n * step + 0.9 * step, 3), speaker)
        for n, t in enumerate(texts)
    ]


def test_words_as_subtitles_transcript_and_json():
    assert to_srt("call", TALK, WORDS) == (
        "1\n00:00:00,500 --> 00:00:01,500\nA: Hello there.\n\n2\n00:00:04,100 --> 00:00:05,200\nB <&>: 1 < 2 ->\n\n"
    )
    assert to_vtt("call", TALK, WORDS) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\n<v A>Hello there.\n\n"
        "00:00:04.100 --> 00:00:05.200\n<v B &lt;&amp;&gt;>1 &lt; 2 --&gt;\n\n"
    )
    assert to_txt("call", TALK, WORDS) == "[0:00] A: Hello there.\n\n[0:04] B <&>: 1 < 2 -->\n"
    told = json.loads(to_json("call", TALK, {"num_speakers_requested": 2}, WORDS))
    assert told["num_speakers_requested"] == 2 and len(told["segments"]) == 2
    assert told["turns"][0] == {"start": 0.5, "end": 1.5, "speaker": "A", "text": "Hello there."}
    assert told["words"][1] == {"word": "there.", "start": 1.0, "end": 1.5, "speaker": "A"}
    assert "words" not in json.loads(to_json("call", TALK))


def test_words_of_nobody_have_no_speaker():
    words = [Word("Hello", 0, 1)]
    assert to_srt("call", [], words).endswith("\nHello\n\n") and to_txt("call", [], words) == "[0:00] Hello\n"
    assert to_vtt("call", [], words).endswith("01.000\nHello\n\n")
    assert (
        to_srt("call", []) == to_txt("call", []) == to_txt("call", [], []) == "" and to_vtt("call", []) == "WEBVTT\n\n"
    )


def test_long_turns_are_cut_at_sentences_clauses_and_before_they_are_too_long():
    text = "We met them on Monday. After that, nobody ever heard from them again until the winter"
    sentences = at(0, *text.split())
    assert [cue.text for cue in to_cues(TALK, sentences)] == [
        "We met them on Monday.",
        "After that, nobody ever heard from them again until the winter",
    ]
    slow = at(0, "one", "two", "three,", "four", "five", "six", "seven", step=1.5)
    assert [cue.text for cue in to_cues(TALK, slow)] == ["one two three,", "four five six seven"]


def test_a_cue_is_shown_long_enough_to_be_read_unless_the_next_one_begins():
    brief = [*at(0, "Yes.", step=0.2), *at(0.5, "No.", speaker="B", step=0.2), *at(9, "Well.", step=0.2)]
    assert [(cue.start, cue.end) for cue in to_cues(TALK, brief)] == [(0, 0.5), (0.5, 1.5), (9, 10)]
    endless = [Word("Thanks", 0, 28, "A")]
    assert [(cue.start, cue.end) for cue in to_cues(TALK, endless)] == [(0, MOST_SECONDS)]


def test_without_words_scraps_join_their_neighbours():
    scraps = [
        Segment(0, 5, "A", 0.9),
        Segment(5.3, 5.5, "A", 0.9),
        Segment(5.7, 9, "A", 0.9),
        Segment(9.1, 9.3, "B", 0.9),
    ]
    scraps += [Segment(9.4, 9.6, "A", 0.9), Segment(20, 20.2, "A", 0.9), Segment(20.3, 25, "A", 0.9)]
    assert [(cue.start, cue.end, cue.speaker) for cue in to_cues(scraps)] == [
        (0, 5.5, "A"),
        (5.7, 9, "A"),
        (9.1, 9.3, "B"),
        (9.4, 9.6, "A"),
        (20, 25, "A"),
    ]
    assert "\nA\n\n" in to_srt("call", scraps) and "\n<v B>B\n\n" in to_vtt("call", scraps)


texts = st.one_of(
    st.sampled_from(["yes", "no.", "well,", "\u4f60", "a-b", "<i>", "-->", "&amp;"]),
    st.text("ab", min_size=1, max_size=30),
)
gaps, lengths = st.floats(0, 3), st.floats(0, 4)
streams = st.lists(st.tuples(texts, gaps, lengths, st.sampled_from(["A", "A", "A", "B b"])), max_size=40)


def of_stream(stream) -> list[Word]:
    words, clock = [], 0.0
    for text, gap, length, speaker in stream:
        words.append(Word(text, round(clock + gap, 3), round(clock + gap + length, 3), speaker))
        clock = words[-1].end
    return words


@settings(max_examples=150, deadline=None)
@given(streams)
def test_cues_can_be_read(stream):
    words = of_stream(stream)
    cues = to_cues([], words)
    assert join_words(w.text for w in words) == join_words(cue.text for cue in cues)
    for cue, after in zip(cues, [*cues[1:], None]):
        assert 0 <= cue.end - cue.start <= MOST_SECONDS + 1e-6
        alone = cue.end - cue.start > LEAST_SECONDS - 1e-6
        assert alone or after.start - cue.start < LEAST_SECONDS
        near = after and after.speaker == cue.speaker and after.start - cue.end < 1e-6
        if near and after.end - cue.start <= MOST_SECONDS and len(cue.text) + len(after.text) < 20:
            assert alone, "short and beside one of the same speaker with which it would fit"
    for cue in to_srt("call", [], words).split("\n\n"):
        lines = cue.split("\n")[2:]
        assert len(lines) <= 2 and all(len(line) <= 42 for line in lines)


@settings(max_examples=150, deadline=None)
@given(streams)
def test_voices_and_text_of_webvtt_can_be_read_back(stream):
    words = of_stream(stream)
    text = to_vtt("call", [], words)
    read = [piece.text for passage in parse_transcript(text) for piece in passage.words]
    assert "".join(read) == "".join(join_words(w.text for w in words).split())
    assert all(re.match(r"<v (A|B b)>\S", block.split("\n")[1]) for block in text.split("\n\n")[1:-1])
