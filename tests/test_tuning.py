"""Choosing how windows are linked: what is wrong for the recordings at hand is left, what is right is kept."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from annotated_fixtures import talks, write_directory
from oracle_network import OracleNetwork
from pyannote.core import Segment as Interval
from pyannote.core import Timeline
from two_tones import write_model

import train
from data.annotated import open_source
from data.simulated_recordings import Recording
from evaluation import live, tuning
from modeling.settings_fast_diarization import LinkingSettings

TURNS = [(1.0, 9.0, "a"), (9.5, 13.0, "b"), (14.0, 22.0, "a"), (22.5, 25.0, "b")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def test_settings_that_hide_a_speaker_of_half_a_minute_are_left(monkeypatch):
    monkeypatch.setattr(tuning, "CANDIDATES", {"min_speaker_seconds": (3.0, 12.0), "onset": (0.5, 0.9)})
    network = OracleNetwork(TURNS, 30.0)
    hiding = LinkingSettings(min_speaker_seconds=20.0)
    trial = tuning.Trial(network, [Recording("half a minute", network.waveform(), TURNS)], hiding)
    assert trial.score(hiding, known=False)["count_exact"] == 0
    chosen = tuning.tune(trial, hiding)
    assert chosen == replace(hiding, min_speaker_seconds=3.0)
    assert tuning.cost(trial.score(chosen, known=False)) < 0.01


def test_of_two_equal_errors_the_right_number_of_speakers_is_cheaper():
    costs = [tuning.cost({"diarization_error_rate": 0.1, "count_exact": exact}) for exact in (1.0, 0.9, 0.5)]
    assert costs == sorted(costs) and costs[0] == 0.1


def test_who_speaks_outside_the_annotated_regions_is_not_counted():
    network = OracleNetwork(TURNS, 30.0)
    recording = Recording("call", network.waveform(), TURNS[:1])
    whole, region = (
        tuning.Trial(network, [recording], LinkingSettings(), [regions]).score(LinkingSettings(), known=False)
        for regions in (None, Timeline([Interval(0, 9.5)]))
    )
    assert (whole["count_exact"], region["count_exact"]) == (0, 1)


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (tuning, "--recordings 0", "--recordings must be at least 1, got 0"),
        (tuning, "--windows 100", "sliding_window_seconds must be a number from 0.5 to 60, got 100.0"),
        (tuning, "--windows 3 2 --hops 0.5 2.5", "hop_seconds must be in [0.02, sliding_window_seconds], got 2.5"),
        (live, "--recordings 0", "--recordings must be at least 1, got 0"),
        (live, "--minutes 0", "--minutes must be at least 0.1, got 0.0"),
        (live, "--latency 1 0.2", "latency_seconds"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_before_the_work(command, flags, message, model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "--model", str(model), *flags.split()])
    with pytest.raises(SystemExit, match=f"^error: .*{re.escape(message)}"):
        command.main()


def test_settings_are_written_into_a_directory_only(model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tuning", "--model", str(model / "model.onnx"), "--write"])
    with pytest.raises(SystemExit, match="error: --write needs a model directory with a config.json"):
        tuning.main()


def test_settings_are_chosen_on_held_out_recordings(model, tmp_path, monkeypatch, capsys):
    """Recordings of a directory, those held out alone, and only where they are annotated."""
    made = talks(4, seconds=8.0)
    write_directory(tmp_path / "calls", made)
    held_out = {c.name for c in open_source(str(tmp_path / "calls"), "validation").conversations(0)}
    (tmp_path / "calls" / "parts.uem").write_text("".join(f"{talk.name} 1 0 4\n" for talk in made))
    seen = []

    def tune(trial, settings):
        seen.append(trial)
        return settings

    monkeypatch.setattr(tuning, "tune", tune)
    flags = ["--recordings", str(tmp_path / "calls"), "--windows", "3", "--hops", "1"]
    monkeypatch.setattr(sys, "argv", ["tuning", "--model", str(model), *flags])
    tuning.main()
    (trial,) = seen
    assert {reference.uri for reference in trial.references} == held_out
    assert [region.extent().end for region in trial.regions] == [4.0]
    (talk,) = [talk for talk in made if talk.name in held_out]
    assert [(turn.start, speaker) for turn, _, speaker in trial.references[0].itertracks(yield_label=True)] == [
        (start, speaker) for start, _, speaker in talk.turns
    ]
    assert "1 held-out recordings, 0.1 minutes" in capsys.readouterr().out
    before = (model / "config.json").read_text()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--write"])
    tuning.main()
    assert "0.1 minutes of held-out recordings are too few to choose settings by" in capsys.readouterr().err
    assert len(seen) == 1 and (model / "config.json").read_text() == before


def test_recordings_that_are_not_annotated_are_refused(model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tuning", "--model", str(model), "--recordings", "demo"])
    with pytest.raises(SystemExit, match="error: corpus 'demo' has no annotated recordings; give a directory"):
        tuning.main()


def test_linking_is_tuned_on_the_recordings_of_the_user(tmp_path, monkeypatch):
    """In a process that runs in another directory."""
    monkeypatch.chdir(tmp_path)
    for directory in ("model", "calls"):
        Path(directory).mkdir()
    Path("model/config.json").write_text('{"sliding_window_seconds": 3.0, "hop_seconds": 0.5}')
    asked = []
    monkeypatch.setattr(
        train.subprocess, "run", lambda command, **_: asked.append(command) or SimpleNamespace(returncode=0)
    )
    train.tune_linking(Path("model"), ["calls", "ami"])
    (command,) = asked
    given = command[command.index("--model") :]
    assert given[:5] == ["--model", str(tmp_path / "model"), "--recordings", str(tmp_path / "calls"), "ami"]
