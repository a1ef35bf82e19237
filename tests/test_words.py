"""Words given to speakers: the rules by known answers and under random input, and real calls."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.segments_fast_diarization import Segment, exclusive_segments
from modeling.transcripts_fast_diarization import Passage, Piece, read_transcript
from modeling.words_fast_diarization import PAUSE_SECONDS, Speech, assign_words, join_words, spoken_turns

TALK = [Segment(0, 4, "A", 0.9), Segment(3, 6, "B", 0.8), Segment(8, 10, "A", 0.9)]
CALLS = sorted((Path(__file__).resolve().parent.parent.parent / "shared/conversations").glob("*/hvb_*.words.json"))


def given_to(*words: tuple[float, float], segments=TALK) -> str:
    """The speakers of words at these times, in order."""
    transcript = read_transcript([{"word": f"w{n}", "start": s, "end": e} for n, (s, e) in enumerate(words)])
    found = assign_words(transcript, segments)
    assert [word.text for word in found] == [f"w{n}" for n in range(len(words))]
    return "".join(word.speaker for word in found)


@pytest.mark.parametrize(
    ("words", "speakers"),
    [
        ([(1, 2), (4.5, 5), (9, 9.5)], "ABA"),
        ([(2, 2.5), (3.2, 3.5), (3.6, 3.9), (4.2, 4.5)], "AAAB"),  # in overlap who speaks continues
        ([(4.5, 5), (3.8, 3.9)], "BB"),  # and it is the speaker of the word before, whatever the order of turns
        ([(3.7, 4.2)], "B"),  # across a change whoever covers more: 0.3 s of A, 0.5 s of B
        ([(2.5, 3.2)], "A"),
        ([(6.2, 6.5), (7.6, 7.9)], "BA"),  # in a gap the nearest
        ([(5.5, 5.9), (7, 7)], "BB"),  # in its very middle the one who spoke before
        ([(5, 5), (6, 6), (8, 8)], "BBA"),  # words without length
        ([(3.5, 3.5)], "A"),
        ([(100, 101)], "A"),  # beyond the end
        ([(9, 3)], "A"),  # an end before the start
    ],
)
def test_rules(words, speakers):
    assert given_to(*words) == speakers


def test_a_segment_is_split_where_speakers_change_and_silence_is_left_out():
    segments = [Segment(0, 1, "A", 0.9), Segment(4, 6, "B", 0.9)]
    (passage,) = read_transcript([{"text": "aaaaa bbbbb ccccc", "start": 0, "end": 6}])
    words = assign_words([passage], segments)
    assert [(w.text, w.start, w.end, w.speaker) for w in words] == [
        ("aaaaa", 0, 1, "A"),
        ("bbbbb", 4, 5, "B"),
        ("ccccc", 5, 6, "B"),
    ]
    assert [w.start for w in assign_words([passage], [])] == [0, 2, 4], "evenly where there is no speech"
    brief = [Segment(0, 0.02, "A", 0.9)]
    assert [w.start for w in assign_words([passage], brief)] == [0, 2, 4], "nobody says 15 letters in 20 ms"


def test_words_without_times_take_those_of_their_neighbours():
    rows = [{"word": "in", "start": 1.0, "end": 1.2}, {"word": "2016"}, {"word": "and", "start": 3.0, "end": 3.1}]
    words = assign_words(read_transcript({"segments": [{"text": "x", "start": 1.0, "end": 4.0, "words": rows}]}), TALK)
    assert [(w.start, w.end) for w in words] == [(1.0, 1.2), (1.2, 3.0), (3.0, 3.1)]
    words = assign_words(read_transcript(rows), TALK)
    assert [(w.start, w.end) for w in words] == [(1.0, 1.2), (1.2, pytest.approx(1.2 + 4 / 15, abs=1e-3)), (3.0, 3.1)]
    words = assign_words(read_transcript([{"word": "so"}, *rows]), TALK)
    assert words[0].text == "so" and words[0].end <= 1.0


def test_small_steps_back_keep_the_order_of_the_text():
    assert given_to((1.0, 1.2), (1.5, 1.8), (1.3, 1.4), (2.0, 2.1)) == "AAAA"
    words = assign_words(read_transcript([{"word": "w", "start": at, "end": at} for at in (9, 5)]), TALK)
    assert [(word.start, word.speaker) for word in words] == [(5, "B"), (9, "A")], "a large step is another stream"


def test_the_turn_of_an_interruption():
    segments = [Segment(0, 10, "A", 0.9), Segment(4, 5, "B", 0.9)]
    words = read_transcript([{"word": "w", "start": at, "end": at + 0.4} for at in (3, 4.1, 4.5, 6)])
    assert {w.speaker for w in assign_words(words, segments)} == {"A"}


def test_turns_end_where_the_speaker_changes_or_pauses():
    transcript = read_transcript([{"word": w, "start": s, "end": s + 0.5} for w, s in zip("abcd", (0, 1, 4.5, 8))])
    turns = spoken_turns(assign_words(transcript, TALK))
    assert [(t.start, t.end, t.speaker, t.text) for t in turns] == [
        (0, 1.5, "A", "a b"),
        (4.5, 5, "B", "c"),
        (8, 8.5, "A", "d"),
    ]
    assert turns[0].as_dict() == {
        "start": 0,
        "end": 1.5,
        "speaker": "A",
        "text": "a b",
        "words": [{"word": "a", "start": 0, "end": 0.5}, {"word": "b", "start": 1, "end": 1.5}],
    }
    pause = read_transcript(
        [{"word": "a", "start": 0, "end": 1}, {"word": "b", "start": 1.1 + PAUSE_SECONDS, "end": 4}]
    )
    assert len(spoken_turns(assign_words(pause, TALK[:1]))) == 2


def test_without_speech_the_words_stay():
    words = assign_words(read_transcript([{"word": "a", "start": 0, "end": 1}]), [])
    assert [(w.text, w.speaker) for w in words] == [("a", None)]
    assert spoken_turns([]) == assign_words([], TALK) == []


times = st.floats(0, 60).map(lambda t: round(t, 2))
turns = st.builds(
    lambda start, length, speaker, confidence: Segment(start, round(start + length, 2), speaker, confidence),
    times,
    st.floats(0, 15),
    st.sampled_from("ABCD"),
    st.floats(0, 1).map(lambda c: round(c, 4)),
)
words = st.builds(Piece, st.text("abc", min_size=1, max_size=8), st.none() | times, st.none() | times)
passages = st.builds(Passage, times, st.none() | times, st.lists(words, min_size=1, max_size=8).map(tuple))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(passages, max_size=8), st.lists(turns, max_size=12))
def test_no_word_is_lost_and_none_is_without_a_speaker(transcript, segments):
    found = assign_words(transcript, segments)
    assert Counter(w.text for w in found) == Counter(piece.text for passage in transcript for piece in passage.words)
    assert all(w.start <= w.end for w in found) and [w.start for w in found] == sorted(w.start for w in found)
    speakers = {s.speaker for s in segments if s.end > s.start}
    assert all(w.speaker in speakers for w in found) if speakers else all(w.speaker is None for w in found)
    for word in found:  # by another way: sums over the turns one by one
        mine, best = (covered(word, segments, names) for names in (word.speaker, speakers))
        assert mine >= best - 0.011
    together = [w for turn in spoken_turns(found) for w in turn.words]
    assert together == found


def covered(word, segments, speakers) -> float:
    """Seconds of a word, in steps of 10 ms, in which the speaker, or the one of several who does most, is active."""
    steps = word.start + 0.005 + 0.01 * np.arange(round((word.end - word.start) / 0.01))
    totals = [
        np.any([(s.start <= steps) & (steps < s.end) for s in segments if s.speaker == name], axis=0).sum()
        for name in speakers or ()
    ]
    return 0.01 * max(totals, default=0)


@settings(max_examples=150, deadline=None)
@given(st.lists(turns, max_size=12))
def test_nobody_overlaps_in_an_exclusive_timeline_and_no_speech_is_lost(segments):
    found = exclusive_segments(segments)
    assert all(before.end <= after.start for before, after in zip(found, found[1:]))
    assert all(segment.end > segment.start for segment in found)
    whole, left = Speech(segments), Speech(found)
    assert whole.starts.tolist() == left.starts.tolist() and whole.ends.tolist() == left.ends.tolist()
    for piece in found:
        assert any(
            s.start <= piece.start
            and piece.end <= s.end
            and (s.speaker, s.confidence) == (piece.speaker, piece.confidence)
            for s in segments
        )
    assert exclusive_segments(found) == found


def test_who_speaks_keeps_the_time_and_the_surer_one_goes_on():
    assert exclusive_segments(TALK) == [TALK[0], Segment(4, 6, "B", 0.8), TALK[2]]
    three = [Segment(0, 2, "A", 0.5), Segment(1, 4, "B", 0.6), Segment(1.5, 5, "C", 0.7)]
    assert exclusive_segments(three) == [three[0], Segment(2, 5, "C", 0.7)]
    assert exclusive_segments([Segment(0, 4, "A", 0.5), Segment(0, 2, "B", 0.9)]) == [
        Segment(0, 2, "B", 0.9),
        Segment(2, 4, "A", 0.5),
    ]
    assert exclusive_segments([]) == exclusive_segments([Segment(1, 1, "A", 0.9)]) == []


@pytest.mark.skipif(not CALLS, reason="needs the calls with true words of ../shared/conversations")
def test_with_the_true_turns_nearly_every_word_of_real_calls_is_right():
    """Turns of the true speakers, and the words' own times: only in overlapped speech can a word be wrong."""
    wrong = total = 0
    for file in CALLS:
        items = [item for item in json.loads(file.read_text()) if "word" in item]
        segments = [Segment(item["start"], item["end"], item["speaker"], 1.0) for item in items]
        found = assign_words(read_transcript(items), segments)
        assert join_words(w.text for w in found) == " ".join(item["word"] for item in items)
        for word, item in zip(found, items):
            total += 1
            if word.speaker != item["speaker"]:
                wrong += 1
                assert covered(word, segments, [word.speaker]) > 0
    assert total > 700 and wrong / total < 0.05
