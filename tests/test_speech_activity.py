"""The energy rule behind the labels, and how its agreement with silero-vad is counted."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import speech_agreement
from data.corpora import open_corpus
from data.decoding import decode
from data.speech_activity import speech_segments
from data.speech_agreement import boundary_shifts, disagreement, frames_of

SECOND = 16_000


def tone(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, level) one after another, with a faint background."""
    rng = np.random.default_rng(0)
    pieces = [level * np.sin(np.arange(round(seconds * SECOND)) / 5) for seconds, level in parts]
    whole = np.concatenate(pieces)
    return (whole + 1e-4 * rng.standard_normal(len(whole))).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(before=st.floats(0.3, 1), length=st.floats(0.3, 2), after=st.floats(0.3, 1), gain=st.sampled_from([1e-3, 1, 3]))
def test_one_stretch_is_found_within_a_tenth_of_a_second_at_any_gain(before, length, after, gain):
    ((start, end),) = speech_segments(gain * tone((before, 0), (length, 0.1), (after, 0)))
    assert before - 0.1 < start / SECOND <= before
    assert before + length - 0.02 < end / SECOND < before + length + 0.12


@pytest.mark.parametrize(("pause", "count"), [(0.2, 1), (0.7, 2)])
def test_short_pauses_are_bridged_and_long_ones_kept(pause, count):
    assert len(speech_segments(tone((0.5, 0), (1, 0.1), (pause, 0), (1, 0.1), (0.5, 0)))) == count


@pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros(100), np.zeros(SECOND), np.full(SECOND, 0.3)])
def test_silence_has_none(waveform):
    assert speech_segments(waveform.astype(np.float32)).shape == (0, 2)


def test_labelled_frames_hold_the_energy():
    for row in list(open_corpus("demo", "validation").read(0))[:10]:
        waveform = decode(row.audio)
        speech = np.zeros(len(waveform), bool)
        for start, end in speech_segments(waveform):
            speech[start:end] = True
        assert np.square(waveform[speech]).mean() > 100 * np.square(waveform[~speech]).mean()


def test_frames_are_those_whose_middle_is_speech():
    assert frames_of(np.array([[0, 161], [640, 960]]), 1_280).tolist() == [True, False, True, False]
    assert frames_of(np.zeros((0, 2)), 640).tolist() == [False, False]


def test_disagreement_is_told_apart_by_where_it_lies():
    theirs, ours = np.zeros(200, bool), np.zeros(200, bool)
    theirs[50:150] = True
    ours[45:90] = ours[110:146] = True  # 5 early, 20 missed inside, 4 missed at the end
    shares = disagreement([ours], [theirs])
    assert shares["differ"] == pytest.approx(29 / 200)
    expected = {"extra at onset": 5, "missed inside": 20, "missed at end": 4}
    assert {name: round(200 * share) for name, share in shares.items() if share and name != "differ"} == expected
    assert boundary_shifts([ours], [theirs], 1).tolist() == pytest.approx([-0.1])
    assert boundary_shifts([ours], [theirs], -1).tolist() == pytest.approx([-0.08])


@pytest.mark.slow
def test_the_command_prints_agreement_and_cost(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speech_agreement", "--utterances", "4"])
    speech_agreement.main()
    said = capsys.readouterr().out
    assert said.startswith("4 utterances")
    agreement = float(said.split("| ours bridges 300 ms |")[1].split("|")[2])
    assert 0 < agreement < 15
    assert "| this rule |" in said
