"""Scores over several shifts of the windows, by hand."""

import json
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pyannote.core import Annotation, Timeline
from pyannote.core import Segment as Interval
from two_tones import write_model, write_recording

from data.rttm import write_rttm
from evaluation.__main__ import main
from evaluation.scoring import score_recordings, windows_of
from evaluation.shifts import shift_samples, shifted, shifted_back, spread
from evaluation.sources import Reference
from evaluation.systems import Ours
from evaluation.tables import result_tables
from modeling.segments_fast_diarization import Segment
from modeling.settings_fast_diarization import FRAME_SAMPLES, LinkingSettings
from publishing.results_tables import key_rates, recordings_table


def one_speaker(seconds: float, uri: str = "call") -> Annotation:
    return Annotation.from_records([(Interval(0, seconds), 0, "a")], uri=uri)


def deaf_after_silence() -> Ours:
    """Windows of 3 s side by side, in which samples above 0 are speech, but none in a window that begins with 0."""

    def network(windows):
        heard = (windows.reshape(len(windows), -1, FRAME_SAMPLES) > 0).all(axis=2) & (windows[:, :1] > 0)
        logits = np.stack([np.where(heard, 9.0, -9.0), np.full(heard.shape, -9.0)], axis=2)
        return logits.astype(np.float32), np.tile(np.eye(2, dtype=np.float32), (len(windows), 1, 1))

    system = Ours.__new__(Ours)
    system.name, system.network, system.num_speakers = "deaf", network, 2
    system.settings = LinkingSettings(sliding_window_seconds=3.0, hop_seconds=3.0, min_solo_seconds=0.1)
    return system


def test_shifts_are_parts_of_a_hop():
    assert shift_samples(LinkingSettings(hop_seconds=0.5), 1) == [0]
    assert shift_samples(LinkingSettings(hop_seconds=0.5), 4) == [0, 2000, 4000, 6000]
    assert shifted(np.ones(3, np.float32), 2).tolist() == [0, 0, 1, 1, 1]


def test_times_are_those_of_the_recording_and_none_lies_before_it():
    found = [Segment(0.0, 0.4, "a", 1.0), Segment(0.2, 1.5, "a", 0.9), Segment(2.0, 3.0, "b", 0.8)]
    assert shifted_back(found, 8000) == [Segment(0.0, 1.0, "a", 0.9), Segment(1.5, 2.5, "b", 0.8)]
    assert shifted_back(found, 0) == found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_mean_lies_in_the_range(values):
    mean, low, high = spread(values)
    assert low - 1e-9 <= mean <= high + 1e-9 and {low, high} <= set(values)


def test_mean_and_range_by_hand():
    # 6 s of one speaker. Shifted by 1 and 2 s the first window begins with silence and is missed: 2 and 1 of 6 s.
    reference = Reference("call", np.ones(6 * 16_000, np.float32), one_speaker(6))
    result, _ = score_recordings([deaf_after_silence()], [reference], shifts=3)
    whole = result["deaf"]["whole"]["unknown"]
    assert whole["total"]["diarization_error_rate"] == 0
    shifts = whole["shifts"]
    assert shifts["seconds"] == [0, 1, 2]
    for rates in (shifts["total"], shifts["recordings"]["call"]):
        assert rates["diarization_error_rate"] == pytest.approx([0, 2 / 6, 1 / 6])
    assert shifts["total"]["missed_speech"] == pytest.approx([0, 2 / 6, 1 / 6])
    assert shifts["recordings"]["call"]["hypothesis_speakers"] == [1, 1, 1]
    assert shifts["total"]["count_exact"] == shifts["total"]["count_within_one"] == [1, 1, 1]
    once, _ = score_recordings([deaf_after_silence()], [reference])
    assert "shifts" not in once["deaf"]["whole"]["unknown"]
    assert once["deaf"]["whole"]["unknown"] == {name: value for name, value in whole.items() if name != "shifts"}


def test_tables_show_mean_and_range():
    references = [Reference(name, np.ones(6 * 16_000, np.float32), one_speaker(6, name)) for name in "ab"]
    references += [Reference("tone", np.ones(6 * 16_000, np.float32), Annotation(uri="tone"))]
    parts, _ = score_recordings([deaf_after_silence()], references, shifts=3)
    parts = json.loads(json.dumps(parts))
    result = {"kind": "recordings", "title": "Calls", "settings": "", "each": True, "parts": {"all": parts}}
    text = result_tables(result)
    assert "number of speakers unknown; right in 67 % of recordings, within one in 100 %:" in text
    assert "Over 3 shifts by up to 2 s of silence before the start:" in text
    assert "| a | 16.7 (0.0 to 33.3) | 1.0 (1.0 to 1.0) |" in text
    assert "| tone | 5.0 (4.0 to 6.0) s of false alarm | 1.0 (1.0 to 1.0) |" in text
    # 6, 4 and 5 s of the tone are false alarm, 0, 4 and 2 s of both calls missed, of 12 s of speech.
    assert (
        "| total | 58.3 (50.0 to 66.7) | exact in 66.7 (66.7 to 66.7) %, within one in 100.0 (100.0 to 100.0) % |"
        in text
    )
    assert "| tone | 0.0 | - | - | 6.0 s, 60.0 s a minute | - | - | 1 (0) |" in text
    found = {key.on: str(key) for key in key_rates([result], "deaf")}
    assert found["a"] == found["b"] == "16.7 [0.0 to 33.3]" and "tone" not in found, "there is no rate without speech"
    assert "tone" not in recordings_table([result])


def test_windows_of_regions_lie_in_one_of_them():
    turns, waveform = one_speaker(20), np.arange(20 * 16_000, dtype=np.float32)
    regions = Timeline([Interval(1, 5.5), Interval(10, 13), Interval(14, 16)])
    ((windows, references),) = windows_of(waveform, turns, 0.5, regions=regions)
    assert (windows[:, 0] / 16_000).tolist() == [1, 1.5, 2, 2.5, 10]
    assert len(references) == 5
    assert list(windows_of(waveform, turns, 0.5, regions=Timeline([Interval(0, 2)]))) == []


@pytest.mark.slow
def test_the_command_scores_regions_and_shifts(tmp_path, monkeypatch, capsys):
    model = write_model(tmp_path / "model")
    calls = tmp_path / "calls"
    calls.mkdir()
    write_recording(calls / "call.wav")
    soundfile.write(calls / "quiet.wav", np.zeros(80_000), 16_000)
    (calls / "quiet.rttm").touch()
    write_rttm(calls / "call.rttm", [one_speaker(4)])
    (calls / "all.uem").write_text("call 1 0 7\nquiet 1 0 5\n")
    arguments = [str(calls), "--model", str(model), "--hop", "1", "--output", str(tmp_path / "scores")]
    told = ["--uem", str(calls / "all.uem"), "--num-speakers", "unknown", "--shifts"]
    for shifts in ("2", "1"):
        monkeypatch.setattr(sys, "argv", ["evaluation", *arguments, *told, shifts])
        assert main() == 0
        said = capsys.readouterr().out
        # 5 to 7 s is a second speaker that the reference does not have.
        assert "| call | 4.0 | 50.0 (0.0) | 0.0 (0.0) | 50.0 (0.0) | 0.0 (0.0) | 0.0 (0.0) | 2 (1) |" in said
        assert "| quiet | 0.0 | - | - | 0.0 s, 0.0 s a minute | - | - | 0 (0) |" in said
        assert ("Over 2 shifts by up to 0.25 s" in said) == (shifts == "2")
        assert "Only the regions of all.uem." in said
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    (system,) = scores["parts"]["all recordings"].values()
    assert system["whole"]["unknown"]["total"]["count_exact"] == 0.5
    assert system["windows"]["groups"]["all_windows"]["windows"] == 5 + 3
    for flag in ("--uem", "--shifts"):
        monkeypatch.setattr(sys, "argv", ["evaluation", "voices", "--model", str(model), flag, "1"])
        assert main() == 2
        assert f"{flag} does not apply to voices" in capsys.readouterr().err
