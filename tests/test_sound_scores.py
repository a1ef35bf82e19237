"""Scores on non-speech sounds: known answers of detectors that are never and always wrong, and of calls."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.simulated_recordings import Recording
from data.sounds import level
from evaluation.renderings import RATE, RENDERINGS, resonate
from evaluation.results import Options, evaluate
from evaluation.sets import SetError, freeze
from evaluation.sounds import SoundSet, let_in, score_sounds
from evaluation.systems import Ours
from evaluation.tables import result_tables
from modeling.settings_fast_diarization import FRAME_SAMPLES, LinkingSettings

SET = str(Path(__file__).parent.parent / "evaluation/sets/sounds.json")


class Detector(Ours):
    """Takes every window louder than a threshold for one and the same speaker."""

    def __init__(self, threshold: float, name: str = "detector"):
        self.name, self.settings, self.threshold = name, LinkingSettings(speech_range_db=200), threshold

    def network(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        frames = windows.shape[1] // FRAME_SAMPLES
        loud = np.square(windows).reshape(len(windows), frames, -1).mean(axis=2) > self.threshold**2
        logits = np.full((len(windows), frames, 2), -6.0, np.float32)
        logits[..., 0] = np.where(loud, 6.0, -6.0)
        embeddings = np.zeros((len(windows), 2, 8), np.float32)
        embeddings[:, 0, 0] = embeddings[:, 1, 1] = 1
        return logits, embeddings


@pytest.fixture(scope="module")
def sounds():
    return SoundSet(SET, "demo", "validation", None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RENDERINGS)
def test_every_rendering_sounds_and_is_always_the_same(kind):
    wave = RENDERINGS[kind](7 * RATE)
    assert wave.shape == (7 * RATE,) and np.isfinite(wave).all() and level(wave) > 0
    np.testing.assert_array_equal(wave, RENDERINGS[kind](7 * RATE))


def test_what_is_struck_rings_at_its_frequency_for_its_time():
    strike = np.zeros(2 * RATE)
    strike[0] = 1
    wave = resonate(strike, [(1000, 0.5)])
    assert np.abs(np.fft.rfft(wave)).argmax() / 2 == pytest.approx(1000, abs=2)
    envelope = [np.abs(wave[at : at + 64]).max() for at in (800, 8800)]
    assert 20 * np.log10(envelope[0] / envelope[1]) == pytest.approx(60, abs=1)


def test_a_minute_is_loud_quieter_and_faint(sounds):
    wave = sounds.minute("tone")
    assert wave.shape == (60 * RATE,) and wave.dtype == np.float32
    peaks = [20 * np.log10(np.abs(part).max()) for part in np.split(wave, 3)]
    np.testing.assert_allclose(peaks, [-6, -20, -35], atol=0.2)


def test_who_hears_nothing_says_nothing_and_who_always_hears_speech_says_it_a_minute_a_minute(sounds):
    scores = score_sounds([Detector(2.0, "deaf"), Detector(0.0, "keen")], sounds, "tone")["tone"]
    assert scores == {
        "deaf": {"false_speech": 0, "speakers": 0},
        "keen": {"false_speech": pytest.approx(60, abs=0.1), "speakers": 1},
    }


def call() -> Recording:
    """Noise for speech, 10 s: A from 1 to 3, B from 3.5 to 5 and A from 8 to 9.5."""
    rng = np.random.default_rng(0)
    wave = 1e-4 * rng.standard_normal(10 * RATE)
    turns = [(1.0, 3.0, "A"), (3.5, 5.0, "B"), (8.0, 9.5, "A")]
    for start, end, _ in turns:
        wave[round(start * RATE) : round(end * RATE)] += 0.1 * rng.standard_normal(round((end - start) * RATE))
    return Recording("call", wave.astype(np.float32), turns)


def test_sounds_are_let_in_before_a_call_and_in_its_longest_silence():
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    full, gaps = let_in(call(), [tone, tone], -10.0)
    assert gaps == [(0, 2), (8.5, 10.5)]
    assert [(round(a, 6), round(b, 6), who) for a, b, who in full.turns] == [
        (3.0, 5.0, "A"),
        (5.5, 7.0, "B"),
        (12.0, 13.5, "A"),
    ]
    assert len(full.waveform) == 14 * RATE
    scale = 0.1 / level(full.waveform[3 * RATE : 5 * RATE])
    for start, end in gaps:
        inside = full.waveform[round(start * RATE) : round(end * RATE)]
        assert 20 * np.log10(level(inside) * scale / 0.1) == pytest.approx(-10, abs=0.2)
    for (start, end, _), (later, _, _) in zip(call().turns, full.turns):
        original = call().waveform[round(start * RATE) : round(end * RATE)]
        moved = full.waveform[round(later * RATE) :][: len(original)]
        np.testing.assert_allclose(moved * scale, original, atol=1e-3)


@pytest.mark.slow
def test_calls_of_a_set_hold_their_sounds_and_the_same_speech(sounds):
    plain, full, gaps = sounds.conversations("calls with music")[0]
    assert len(gaps) == 3 and len(full.turns) == len(plain.turns)
    assert len(full.waveform) - len(plain.waveform) == 18 * RATE
    spoken = [sum(end - start for start, end, _ in recording.turns) for recording in (plain, full)]
    assert spoken[0] == pytest.approx(spoken[1])
    for start, end in gaps:
        assert not any(start < until and since < end for since, until, _ in full.turns)


@pytest.mark.slow
def test_a_set_is_scored_and_printed_beside_other_systems(tmp_path):
    definition = json.loads(Path(SET).read_text())
    definition |= {"sounds": ["tone", "wind"], "seconds": 6}
    definition["calls"] |= {"recordings": 1, "seconds": 20, "sounds": {"calls with tones": ["tone"]}}
    (tmp_path / "few.json").write_text(json.dumps(definition))
    definition["digests"] = {"validation": freeze(tmp_path / "few.json", "demo", "validation", None)}
    (tmp_path / "few.json").write_text(json.dumps(definition))
    result = evaluate(str(tmp_path / "few.json"), [Detector(0.0, "keen"), Detector(9.0, "deaf")], Options())
    json.dumps(result)
    text = result_tables(result)
    assert "| tone | 60.0 (1) | 0.0 (0) |" in text and "| mean | 60.0 (1) | 0.0 (0) |" in text
    assert "| calls with tones | 0.0 (0.0); 60.0 | 0.0 (0.0); 0.0 |" in text


def test_parts_that_are_not_there_are_named(sounds):
    with pytest.raises(SetError, match="has no part 'rain', only: tone, "):
        score_sounds([], sounds, "rain")
    with pytest.raises(SetError, match="not frozen on split 'train', only: validation; "):
        SoundSet(SET, "demo", "train", None)


def test_clips_that_cannot_be_read_or_are_others_are_refused(tmp_path):
    (tmp_path / "rain_5-1-A.wav").write_bytes(b"")
    with pytest.raises(SetError, match="noise has the digest .* by --noise"):
        SoundSet(SET, "demo", "validation", str(tmp_path))
    with pytest.raises(ValueError, match="rain_5-1-A.wav cannot be read"):
        score_sounds([], SoundSet(SET, "demo", "validation", str(tmp_path), check=False), "rain")


@pytest.mark.slow
def test_a_set_that_sounds_otherwise_than_frozen_is_refused(monkeypatch):
    monkeypatch.setitem(RENDERINGS, "wind", RENDERINGS["hold music"])
    with pytest.raises(SetError, match="'wind' sounds different from what was frozen"):
        SoundSet(SET, "demo", "validation", None).minute("wind")
    monkeypatch.setattr("evaluation.sounds.FLOOR_DB", -10)
    with pytest.raises(SetError, match="'tone' sounds different"):
        SoundSet(SET, "demo", "validation", None).minute("tone")
