"""The rebuilt whole-file pipeline on conversations whose speakers are known, and the benchmark beside it."""

import json
import sys

import numpy as np
import pytest
import soundfile
from pyannote.core import Annotation, Segment

import bench
from data.rttm import write_rttm
from evaluation import whole_file_peer
from evaluation.recording_scores import RecordingScores
from evaluation.whole_file_peer import FRAMES, WholeFilePeer

RATE = 16_000
TURNS = [(0.0, 6.0, 1), (7.0, 14.0, 2), (13.0, 20.0, 1), (21.0, 26.0, 3), (26.5, 33.0, 2)]
LEVELS = {1: 1, 2: 10, 3: 100}


def spoken(turns) -> np.ndarray:
    """Samples that tell who speaks: the sum of a number for each speaker."""
    waveform = np.zeros(int(34.2 * RATE), np.float32)
    for start, end, speaker in turns:
        waveform[int(start * RATE) : int(end * RATE)] += LEVELS[speaker]
    return waveform


class Told:
    """segmentation-3.0 that knows: speaker 3 and speaker 1, or 2 and 3, may swap tracks from window to window."""

    def __init__(self, file: str):
        self.calls = 0

    def activity(self, windows: np.ndarray, frames: int) -> np.ndarray:
        self.calls += 1
        centres = ((np.arange(frames) + 0.5) * windows.shape[1] / frames).astype(int)
        sums = windows[0, centres].round().astype(int)
        tracks = np.stack([sums // level % 10 > 0 for level in LEVELS.values()], axis=1)
        return np.roll(tracks, self.calls, axis=1)[None]


def embed(speech: np.ndarray) -> np.ndarray:
    sums = speech.round().astype(int)
    return np.array([np.mean(sums // level % 10 > 0) for level in LEVELS.values()])


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.setattr(whole_file_peer, "Segmentation3", Told)
    return WholeFilePeer("segmentation-3.0.onnx", embed)


def error(turns, hypothesis: Annotation) -> float:
    reference = Annotation(uri="call")
    for number, (start, end, speaker) in enumerate(turns):
        reference[Segment(start, end), number] = str(speaker)
    return RecordingScores().add(reference, hypothesis)["diarization_error_rate"]


def test_it_finds_who_speaks_when_overlaps_included(peer):
    found = peer.diarize("call", spoken(TURNS), {"unknown": None, "known": 3})
    assert {words: len(hypothesis.labels()) for words, hypothesis in found.items()} == {"unknown": 3, "known": 3}
    assert max(error(TURNS, hypothesis) for hypothesis in found.values()) < 0.01
    ends = [turn.end for turn in found["known"].get_timeline()]
    assert max(ends) <= 34.2


def test_a_known_number_of_speakers_joins_the_nearest(peer):
    assert len(peer.diarize("call", spoken(TURNS), {"known": 1})["known"].labels()) == 1


@pytest.mark.parametrize(("distance", "clusters"), [(0.4, 1), (0.5, 2)])
def test_clusters_are_joined_up_to_the_threshold(peer, distance, clusters):
    one, other = [1.0, 0.0], [1 - distance, (1 - (1 - distance) ** 2) ** 0.5]
    assert len(set(peer.cluster(np.array([one, one, other, other]), None))) == clusters


def test_silence_and_less_than_a_window_have_a_hypothesis(peer):
    assert not peer.diarize("call", np.zeros(RATE, np.float32), {"unknown": None})["unknown"]
    short = spoken(TURNS)[: 4 * RATE]
    assert peer.diarize("call", short, {"unknown": None})["unknown"].get_timeline().duration() == pytest.approx(4.0)
    assert FRAMES == 500


@pytest.mark.slow
def test_the_benchmark_gives_rates_and_processor_time_and_a_picture(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(3 * RATE), RATE)
        reference = Annotation(uri=name)
        reference[Segment(0.0, 3.0), 0] = "a"
        write_rttm(tmp_path / f"{name}.rttm", [reference])
    flags = ["peers", str(tmp_path), "--model", "pretrained/lightweight-cnn/model.onnx"]
    flags += ["--picture", str(tmp_path / "peers.png"), "--json", str(tmp_path / "peers.json")]
    monkeypatch.setattr(sys, "argv", ["bench.py", *flags])
    assert bench.main() == 0
    result = json.loads((tmp_path / "peers.json").read_text())
    system = result["systems"]["lightweight-cnn/model.onnx"]
    assert result["minutes"] == pytest.approx(0.1) and system["cpu_seconds_per_hour"] > 0
    for count in ("unknown", "known"):
        assert set(system[count]["recordings"]) == {"one", "two"}
        assert 0 <= system[count]["total"]["diarization_error_rate"] <= 1
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["bench.py", *flags[:4], "--segmentation", "x.onnx"])
    assert bench.main() == 1
    assert "--segmentation and --embedding are parts of one system" in capsys.readouterr().err
