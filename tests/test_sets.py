"""Frozen sets: the same sound every time, anything else refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.acoustics import NOT, Scenery
from evaluation.__main__ import main
from evaluation.fingerprint import difference_db, fingerprint, levels
from evaluation.sets import FrozenSet, SetError, freeze
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "evaluation" / "sets" / "demo.json"


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> dict[str, Path]:
    """A set of windows and one of recordings, frozen on the demo corpus."""
    directory = tmp_path_factory.mktemp("sets")
    windows = json.loads((ROOT / "evaluation/sets/windows.json").read_text())
    for condition in windows["conditions"].values():
        condition["windows"] = 40
    windows["conditions"] = {name: windows["conditions"][name] for name in ("as in training", "clean")}
    recordings = {
        "title": "Simulated",
        "seed": 3,
        "hop_seconds": 3.0,
        "groups": {"short": [[2, 12], [1, 9]], "one": [[2, 10]]},
    }
    files = {}
    for name, definition in (("windows", windows), ("recordings", recordings)):
        files[name] = directory / f"{name}.json"
        files[name].write_text(json.dumps(definition | {"digests": {}}))
        digests = freeze(files[name], "demo", "validation", None)
        files[name].write_text(json.dumps(definition | {"digests": {"validation": digests}}))
    return files


@pytest.mark.slow
def test_a_frozen_set_gives_the_same_conversations_every_time_and_in_every_condition(frozen):
    made = FrozenSet(frozen["windows"], "demo", "validation")
    clean, again, loud = (list(made.windows(condition)) for condition in ("clean", "clean", "as in training"))
    assert [len(waveforms) for waveforms, _ in clean] == [32, 8]
    for (waveforms, references), (same, _), (louder, as_clean) in zip(clean, again, loud):
        assert waveforms.shape[1] == 48_000 and references.shape[1:] == (150, 2)
        assert np.array_equal(waveforms, same) and not np.array_equal(waveforms, louder)
        assert np.array_equal(references, as_clean)


@pytest.mark.slow
def test_another_corpus_split_noise_or_code_is_refused(frozen, tmp_path):
    with pytest.raises(SetError, match="corpus has the digest"):
        definition = json.loads(frozen["windows"].read_text())
        definition["digests"]["train"] = definition["digests"]["validation"]
        (tmp_path / "train.json").write_text(json.dumps(definition))
        FrozenSet(tmp_path / "train.json", "demo", "train")
    with pytest.raises(SetError, match="not frozen on split 'train'"):
        FrozenSet(frozen["windows"], "demo", "train")
    soundfile.write(tmp_path / "hum.wav", np.ones(16_000), 16_000)
    with pytest.raises(SetError, match="noise has the digest"):
        FrozenSet(frozen["windows"], "demo", "validation", str(tmp_path))
    for name, part in (("windows", "clean"), ("recordings", "short")):
        definition = json.loads(frozen[name].read_text())
        definition["seed"] += 1
        (tmp_path / "changed.json").write_text(json.dumps(definition))
        with pytest.raises(SetError, match="makes other conversations"):
            list(getattr(FrozenSet(tmp_path / "changed.json", "demo", "validation"), name)(part))


def test_what_is_no_set_is_named(tmp_path):
    (tmp_path / "empty.json").write_text("{}")
    for file in (tmp_path / "missing.json", tmp_path / "empty.json", ROOT / "README.md"):
        with pytest.raises(SetError, match=file.name):
            FrozenSet(file, "demo", "validation")


def with_noise(amplitude):
    """`levels` of a waveform with white noise, `amplitude` beside its own level."""
    rng = np.random.default_rng(0)

    def heard(waveform):
        noise = rng.standard_normal(len(waveform)) * np.sqrt(np.square(waveform).mean())
        return levels((waveform + amplitude * noise).astype(np.float32))

    return heard


def changed(**changes):
    """`Scenery.draw` with other values of some conditions."""
    draw = Scenery.draw

    def drawn(*arguments):
        conditions = draw(*arguments)
        return replace(conditions, **{name: change(getattr(conditions, name)) for name, change in changes.items()})

    return drawn


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part"), [("windows", "as in training"), ("recordings", "short")])
def test_a_set_that_sounds_otherwise_is_refused(frozen, name, part, monkeypatch):
    def make():
        list(getattr(FrozenSet(frozen[name], "demo", "validation"), name)(part))

    monkeypatch.setattr("evaluation.sets.levels", with_noise(1e-4))
    make()
    monkeypatch.setattr("evaluation.sets.levels", lambda waveform: levels(np.zeros_like(waveform)))
    with pytest.raises(SetError, match="sound different from those frozen, by .* dB; score with the version"):
        make()
    monkeypatch.setattr("evaluation.sets.levels", levels)
    monkeypatch.setattr(Scenery, "draw", changed(snr=lambda snr: snr - 3))
    with pytest.raises(SetError, match="sound different"):
        make()


@pytest.mark.slow
def test_a_set_without_its_telephones_is_refused(frozen, monkeypatch):
    monkeypatch.setattr(Scenery, "draw", changed(telephone=lambda telephone: np.full_like(telephone, NOT)))
    with pytest.raises(SetError, match=f"{'as in training'!r}: these conversations sound different"):
        list(FrozenSet(frozen["windows"], "demo", "validation").windows("as in training"))


@pytest.mark.slow
def test_a_set_frozen_before_sound_was_is_refused(frozen, tmp_path):
    definition = json.loads(frozen["windows"].read_text())
    del definition["digests"]["validation"]["sound"]
    (tmp_path / "old.json").write_text(json.dumps(definition))
    with pytest.raises(SetError, match="'clean': it was frozen without its sound; .* freeze it anew"):
        list(FrozenSet(tmp_path / "old.json", "demo", "validation").windows("clean"))


def test_levels_of_sounds_known_beforehand():
    time = np.arange(48_000) / 16_000
    tone = (0.1 * np.sin(2 * np.pi * 1500 * time)).astype(np.float32)
    found = levels(tone)
    assert found[6] == pytest.approx(0, abs=0.01), "all of it in the octave from 1 to 2 kHz"
    assert (np.delete(found[2:], 4) < -50).all()
    np.testing.assert_allclose(levels(10 * tone)[0] - found[0], 20, atol=0.01)
    np.testing.assert_allclose(levels(10 * tone)[1:], found[1:], atol=0.01)
    tone[: 48_000 // 4] *= 0.01
    assert levels(tone)[1] == pytest.approx(-38.8, abs=0.5), "a quarter of it is 40 dB quieter"
    lines = fingerprint([found, found, found], 2)
    assert len(lines) == 2 and difference_db(lines, lines) == 0
    assert difference_db(lines, lines[:1]) == difference_db([], lines) == np.inf


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "pretrained").is_dir(), reason="no figures are published yet")
def test_the_demo_set_is_that_of_this_code():
    made = FrozenSet(DEMO, "demo", "validation")
    for condition in made.conditions:
        assert sum(len(waveforms) for waveforms, _ in made.windows(condition)) == made.conditions[condition]["windows"]


@pytest.mark.slow
def test_sets_and_voices_are_scored(frozen, tmp_path, monkeypatch, capsys):
    FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16)).save_pretrained(tmp_path)
    for source, expected in (
        (str(frozen["windows"]), "as in training"),
        (str(frozen["recordings"]), "right in"),
        ("voices", "equal error rate"),
    ):
        monkeypatch.setattr(sys, "argv", ["evaluation", source, "--model", str(tmp_path)])
        assert main() == 0
        assert expected in capsys.readouterr().out
