"""Statistics of turns: counted by hand, printed beside those of simulated conversations."""

import sys

import numpy as np
import pytest
from test_conversations import eight_people, turns

from data import turn_statistics
from data.conversations import (
    TURN_PLANS,
    Pool,
    plan_independent_turns,
    plan_windows,
)
from data.turn_statistics import measure, turns_of, window_shares


@pytest.fixture(scope="module")
def pool() -> Pool:
    return eight_people()


def test_statistics_of_a_conversation_counted_by_hand():
    #      A 0-4, B 3-5 (overlap 1), B 6-7 (pause 1), A 7.5-8 (gap .5), A begins after the end
    conversation = turns((0, 0.0, 4.0), (1, 3.0, 5.0), (1, 6.0, 7.0), (0, 7.5, 8.0), (0, 12.0, 13.0))
    found = measure(conversation, 10.0)
    assert found["turn_seconds"].tolist() == [4, 2, 1, 0.5]
    assert found["same_speaker_pause_seconds"].tolist() == [1]
    assert found["speaker_change_gap_seconds"].tolist() == [0.5]
    assert found["speaker_change_overlap_seconds"].tolist() == [1]
    assert found["speech_fraction"] == pytest.approx(0.65)
    assert found["overlap_fraction_of_speech"] == pytest.approx(1 / 6.5)
    assert found["probability_next_turn_is_other_speaker"] == pytest.approx(2 / 3)
    assert found["probability_change_overlaps"] == pytest.approx(1 / 2)


def test_turns_are_read_off_speech_activity():
    active = np.zeros((2, 2, 100), bool)
    active[0, 0, 10:20] = active[0, 1, 15:40] = active[0, 0, 90:] = True
    found = turns_of(active)
    real = found.end[0] > found.start[0]
    assert found.speaker[0][real].tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.start[0][real], [0.1, 0.9, 0.15])
    np.testing.assert_allclose(found.end[0][real], [0.2, 1.0, 0.4])
    assert not (found.end[1] > found.start[1]).any()


def test_window_shares_counted_by_hand():
    labels = np.zeros((4, 10, 2))
    labels[1, :5, 0] = labels[2, :5, 1] = labels[3, :5, 0] = labels[3, 4:, 1] = 1
    shares = window_shares(labels)
    assert (shares["none"], shares["one"], shares["two"]) == (0.25, 0.5, 0.25)
    assert shares["speech"] == pytest.approx(20 / 40) and shares["overlap"] == pytest.approx(1 / 20)


@pytest.mark.slow
def test_the_command_prints_simulated_beside_measured(monkeypatch, capsys, pool):
    monkeypatch.setattr(sys, "argv", ["conversations", "--dataset", "demo", "--windows", "64"])
    monkeypatch.setattr(turn_statistics, "CONVERSATIONS", 10)
    monkeypatch.setattr(turn_statistics, "open_corpus", lambda name, split: (name, split))
    monkeypatch.setattr(turn_statistics, "fill_pool", lambda corpus, size, speakers: pool)
    turn_statistics.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| seconds | 5 % | 25 % | 50 % | 75 % | 90 % | 95 % |"
    assert "| turn: primock57, measured | 0.59 | 1.12 | 2.65 | 5.61 | 10.00 | 15.15 |" in lines
    assert sum(line.startswith("| overlap at a change: ") for line in lines) == 5
    assert "| training, requested | 10.0 | 36.0 | 54.0 |  |  |" in lines
    assert len({line.count("|") for line in lines if line.startswith("| training")}) == 1
    monkeypatch.setattr(sys, "argv", ["conversations", "--windows", "64", "--num_speakers", "3"])
    turn_statistics.main()
    assert "| training, requested | 10.0 | 30.0 | 37.0 | 23.0 |  |  |" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--windows", "0"], "--windows must be at least 1, got 0"),
        (["--dataset", "/nowhere"], "/nowhere"),
        (["--num_speakers", "0"], "num_speakers must be a whole number from 1 to 8, got 0"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(monkeypatch, flags, message):
    monkeypatch.setattr(sys, "argv", ["conversations", *flags])
    with pytest.raises(SystemExit, match=message) as error:
        turn_statistics.main()
    assert str(error.value).startswith("error: ") and "\n" not in str(error.value)


def test_independent_turns_are_in_order_cover_the_time_and_never_overlap_their_own_speaker():
    turns = plan_independent_turns(np.random.default_rng(0), 40, 63.0, 3)
    assert (np.diff(turns.start, axis=1) >= 0).all() and (turns.end > turns.start).all()
    for speaker in range(3):
        for conversation in range(40):
            mine = turns.speaker[conversation] == speaker
            start, end = turns.start[conversation, mine], turns.end[conversation, mine]
            assert end[-1] > 63 and (start[1:] >= end[:-1]).all()
    lengths = (turns.end - turns.start)[:, :20]
    assert abs(lengths.mean() - 3.0) < 0.3


def test_windows_of_independent_turns_overlap_more_than_measured_ones():
    overlap = {}
    for turn_taking in TURN_PLANS:
        planned, begin = plan_windows(np.random.default_rng(1), 400, 3.0, 2, None, turn_taking)
        grid = begin[:, None] + np.arange(0, 3, 0.1)
        heard = (planned.start[..., None] <= grid[:, None]) & (grid[:, None] < planned.end[..., None])
        overlap[turn_taking] = (heard.sum(axis=1) > 1).mean()
    assert overlap["independent"] > 2 * overlap["measured"]
