"""Choosing how windows are linked: what is wrong for the recordings at hand is left, what is right is kept."""

import sys
from dataclasses import replace

import pytest
from oracle_network import OracleNetwork

from data.recordings import Recording
from evaluation import live, tuning
from modeling.linking_fast_diarization import LinkingSettings

TURNS = [(1.0, 9.0, "a"), (9.5, 13.0, "b"), (14.0, 22.0, "a"), (22.5, 25.0, "b")]


def test_settings_that_hide_a_speaker_of_half_a_minute_are_left(monkeypatch):
    monkeypatch.setattr(tuning, "CANDIDATES", {"min_speaker_seconds": (3.0, 12.0), "onset": (0.5, 0.9)})
    network = OracleNetwork(TURNS, 30.0)
    hiding = LinkingSettings(min_speaker_seconds=20.0)
    trial = tuning.Trial(network, [Recording("half a minute", network.waveform(), TURNS)], hiding)
    assert trial.score(hiding, known=False)[1] == 0
    chosen = tuning.tune(trial, hiding)
    assert chosen == replace(hiding, min_speaker_seconds=3.0)
    assert tuning.cost(*trial.score(chosen, known=False)) < 0.01


def test_of_two_equal_errors_the_right_number_of_speakers_is_cheaper():
    total = {"diarization_error_rate": 0.1}
    assert tuning.cost(total, right=0.9) < tuning.cost(total, right=0.5)
    assert tuning.cost(total, right=1.0) == 0.1


@pytest.mark.parametrize("command", [tuning, live], ids=["tuning", "live"])
def test_no_recordings_are_refused_in_a_line(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "--model", "any", "--recordings", "0"])
    with pytest.raises(SystemExit, match="--recordings must be at least 1, got 0"):
        command.main()
