"""The ablation: flags that switch off one part each, and a table of what they cost."""

import json
import sys

import pytest

from data.acoustics import CLEAN
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from publishing import ablation
from publishing.results_tables import ablation_table
from train import make_model, open_streams
from training.arguments import parse

pytestmark = pytest.mark.training


def test_every_variant_switches_off_one_part_and_leaves_the_evaluation_alone():
    made = {}
    for variant, flags in ablation.VARIANTS.items():
        arguments, training = parse("", [*flags.split(), "--hidden_size", "16"])
        train, by_corpus = open_streams(arguments, training, None)
        (held_out,) = by_corpus.values()
        config = make_model(arguments, None).config
        losses = [getattr(config, f"{name}_loss_weight") for name in ("affinity", "speaker", "distillation", "teacher")]
        made[variant] = train.config.turn_taking, train.config.augmentation == CLEAN, *losses
        assert held_out.config.turn_taking == "measured" and held_out.config.augmentation != CLEAN
    reference = made["everything"]
    assert reference == ("measured", False, 1.0, 0.3, 2.0, 0.3)
    for variant, parts in made.items():
        assert sum(a != b for a, b in zip(parts, reference)) == (variant != "everything"), variant


def test_variants_are_trained_scored_alike_and_tabulated(tmp_path, monkeypatch):
    asked = []

    def run(command):
        flags = [str(word) for word in command]
        asked.append(flags)
        model = tmp_path / flags[flags.index("--output_dir") + 1] / "model"
        FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16)).save_pretrained(model)
        (model / "training.json").write_text(json.dumps({"steps": 4}))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(ablation.subprocess, "run", run)
    monkeypatch.setattr(ablation, "evaluate", lambda source, models, options: _scores(models, options.part))
    flags = ["--steps", "4", "--output", str(tmp_path), "--hidden_size", "16"]
    monkeypatch.setattr(sys, "argv", ["ablation", *flags])
    ablation.main()
    assert len(asked) == len(ablation.VARIANTS)
    assert all("--resume" in command and command[command.index("--max_steps") + 1] == "4" for command in asked)
    assert all(command[command.index("--hidden_size") + 1] == "16" for command in asked)
    monkeypatch.setattr(sys, "argv", ["ablation", *flags, "--steps", "2"])
    with pytest.raises(SystemExit, match="everything was trained for 4 steps, not 2; choose another --output"):
        ablation.main()
    kept = json.loads((tmp_path / "ablation.json").read_text())
    assert (kept["steps"], kept["set"]) == (4, "Windows, as in training")
    text = ablation_table(kept)
    assert "| no rooms and noise | 25.0 |" in text and "`--augment false`" in text


def _scores(models, part):
    rates = {"diarization_error_rate": 0.25, "frame_accuracy": 0.75}
    rates |= {f"floor_{name}": value for name, value in rates.items()}
    groups = dict.fromkeys(("all_windows", "two_speaker_windows", "overlapped_frames"), rates)
    return {"title": "Windows", "parts": {part: {model.name: {"groups": groups} for model in models}}}


def test_failed_training_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation.subprocess, "run", lambda command: type("Done", (), {"returncode": 7}))
    monkeypatch.setattr(sys, "argv", ["ablation", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="training 'everything' ended with exit code 7"):
        ablation.main()
