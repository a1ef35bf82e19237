"""WDER and cpWER: known answers, other ways to the same number, and the floor of real calls."""

import json
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_tones import write_model, write_recording

from evaluation import words as scores
from modeling.words_fast_diarization import Word

CALLS = Path(__file__).resolve().parent.parent.parent / "shared/conversations"
few = st.lists(st.sampled_from("abc"), max_size=6)


def slow_distance(one: list, other: list) -> int:
    if not one or not other:
        return len(one) + len(other)
    same = slow_distance(one[1:], other[1:]) + (one[0] != other[0])
    return min(same, slow_distance(one[1:], other) + 1, slow_distance(one, other[1:]) + 1)


@settings(max_examples=60, deadline=None)
@given(few, few)
def test_edit_distance_is_that_of_its_definition(one, other):
    assert scores.edit_distance(one, other) == slow_distance(one, other)


@settings(max_examples=60, deadline=None)
@given(st.lists(few, max_size=3), st.lists(few, max_size=3))
def test_fewest_edits_are_those_of_the_best_permutation(truth, found):
    size = max(len(truth), len(found))
    padded, other = ([*many, *[[]] * (size - len(many))] for many in (truth, found))
    best = min(sum(map(scores.edit_distance, padded, order)) for order in permutations(other))
    assert scores.fewest_edits(truth, found) == best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("xyz")), max_size=12))
def test_most_agreeing_is_that_of_the_best_assignment(pairs):
    truth, found = [a for a, _ in pairs], [b for _, b in pairs]
    names = sorted(set(found)) + ["", ""]
    best = max(sum(dict(zip("AB", order))[a] == b for a, b in pairs) for order in permutations(names, 2))
    assert scores.most_agreeing(truth, found) == best


def test_known_scores_and_the_floor():
    words = [Word(text, n, n + 1, speaker) for n, (text, speaker) in enumerate(zip("abcde", "AABBB"))]
    assert scores.count_errors(words, list("22111")) == Counter(
        words=5, wrong_words=0, wrong_edits=0, floor_wrong_words=2, floor_wrong_edits=4
    )
    assert scores.count_errors(words, list("22211"))["wrong_words"] == 1
    assert scores.count_errors(words, list("22211"))["wrong_edits"] == 2
    assert scores.count_errors(words, list("22311"))["wrong_edits"] == 2, "a speaker too many"


def test_the_command_scores_recordings_with_true_words(tmp_path, capsys):
    model = write_model(tmp_path / "model")
    write_recording(tmp_path / "call.wav")
    items = [{"word": f"w{n}", "start": n + 0.1, "end": n + 0.6, "speaker": "low"} for n in (0, 1, 10, 11)]
    items += [{"text": "four words to say", "start": 5, "end": 9, "speaker": "high"}]
    items += [{"word": "wrong", "start": 6, "end": 7, "speaker": "low"}]
    items += [{"word": "[noise]", "start": 12, "end": 13, "speaker": "high"}]
    (tmp_path / "call.words.json").write_text(json.dumps(items))
    assert scores.main([str(tmp_path), "--model", str(model)]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[2:5] for row in rows] == [[" 9 ", " 11.1 (44.4) ", " 22.2 (88.9) "]] * 4
    (tmp_path / "bad.words.json").write_text('[{"word": "a"}]')
    (tmp_path / "mute.words.json").write_text('[{"word": "a", "start": 0, "end": 1, "speaker": "A"}]')
    assert scores.main([str(tmp_path), "--model", str(model)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "expected a list of objects with word" in errors[0]
    assert "no recording mute beside it" in errors[1]
    assert scores.main([str(model), "--model", str(model)]) == 2
    assert "has no *.words.json" in capsys.readouterr().err


@pytest.mark.skipif(not CALLS.is_dir(), reason="needs the calls with true words of ../shared/conversations")
def test_words_of_a_real_call_are_far_better_than_one_speaker():
    file = next(CALLS.glob("*/hvb_00d676d7058c49bb.words.json"))
    words = scores.read_words(file)
    assert len(words) == 117 and Counter(word.speaker for word in words) == {"agent": 83, "caller": 34}
    assert scores.audio_of(file).suffix == ".flac"
    passages = scores.by_segment(words)
    assert sum(len(passage.words) for passage in passages) == 117 and len(passages) < 20
    assert all(passage.end - passage.start <= scores.LONGEST_SEGMENT for passage in passages)
