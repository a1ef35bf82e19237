"""Embeddings that are held or frozen: the distance by hand, what it does to a network, runs resumed to the bit."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_resume import assert_same
from training_runs import SMALL

import train
from modeling import FastDiarizationConfig, FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification
from training.anchor import EmbeddingAnchor

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("weights")
    FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16)).save_pretrained(directory)
    FastDiarizationFeatureExtractor().save_pretrained(directory)
    return directory


@pytest.fixture
def batch():
    labels = torch.zeros(3, 50, 2)
    labels[0, :30, 0] = labels[0, 25:, 1] = 1  # 0.5 s and 0.4 s alone
    labels[1, :19, 0] = 1  # too short to count
    torch.manual_seed(1)
    return {"input_values": torch.randn(3, 16_000), "labels": labels}


def test_the_distance_is_that_of_people_heard_alone(weights, batch):
    model = FastDiarizationForAudioFrameClassification.from_pretrained(weights)
    anchor = EmbeddingAnchor(model, 1.0)
    before = model(**batch).speaker_embeddings
    assert anchor.distance(before, batch).item() == pytest.approx(0, abs=1e-6)
    assert anchor.distance(-before, batch).item() == pytest.approx(2, abs=1e-6)
    moved = before.clone()
    moved[0, 1] *= -1
    moved[1:] = torch.nn.functional.normalize(torch.randn_like(moved[1:]), dim=-1)
    assert anchor.distance(moved, batch).item() == pytest.approx(1, abs=1e-6), "two people count, one of them moved"
    silent = batch | {"labels": torch.zeros(3, 50, 2)}
    assert anchor.distance(moved, silent).item() == 0
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_embeddings_that_moved_are_drawn_back(weights, batch):
    anchor = EmbeddingAnchor(FastDiarizationForAudioFrameClassification.from_pretrained(weights), 1.0)
    model = FastDiarizationForAudioFrameClassification.from_pretrained(weights).eval()
    torch.nn.init.normal_(model.speaker_projection.weight)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    distances = []
    for _ in range(30):
        distances.append(anchor.distance(model(**batch).speaker_embeddings, batch))
        optimizer.zero_grad()
        distances[-1].backward()
        optimizer.step()
    assert distances[-1].item() < 0.2 * distances[0].item()


@pytest.fixture
def run(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(train.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    small = SMALL.replace("--hidden_size 16", "--lr_scheduler_type constant --save_steps 4")

    def run(name: str, *flags: str, steps: int = 8) -> Path:
        fixed = [*small.split(), "--start_from", weights, "--output_dir", tmp_path / name, "--max_steps", steps]
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, [*fixed, *flags])])
        train.main()
        return tmp_path / name / f"checkpoint-{steps}"

    return run


def test_a_run_with_it_is_resumed_to_the_bit(run):
    held = run("held", "--keep_embeddings", "2")
    log = json.loads((held / "trainer_state.json").read_text())["log_history"]
    assert any("loss_anchor" in entry for entry in log)
    run("on", "--keep_embeddings", "2", steps=4)
    assert_same(run("on", "--keep_embeddings", "2", "--resume"), held)


def test_a_run_goes_on_with_the_embeddings_that_it_keeps(run):
    other = run("other")
    run("held", "--keep_embeddings", "2", steps=4)
    with pytest.raises(SystemExit, match="the checkpoint was made with weights of start_from '.* and this run has '"):
        run("held", "--keep_embeddings", "2", "--start_from", other, "--resume")


@pytest.mark.parametrize("norms", ["false", "true"])
def test_frozen_embeddings_are_the_same_and_their_run_is_resumed_to_the_bit(run, weights, batch, norms):
    flags = ["--freeze_embeddings", "true", "--freeze_norms", norms]
    trained = run("frozen", *flags)
    before, after = (FastDiarizationForAudioFrameClassification.from_pretrained(d).eval() for d in (weights, trained))
    states = [model.fast_diarization(batch["input_values"]).speaker_states for model in (before, after)]
    vectors = [model.embed(s, batch["labels"], None) for model, s in zip((before, after), states)]
    assert torch.equal(*states) and torch.equal(*vectors)
    changed = {n for n, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[n])}
    assert {"classifier.weight", "fast_diarization.affinity.scale", "fast_diarization.fuse.conv.weight"} < changed
    assert "fast_diarization.fuse.norm.running_mean" in changed
    run("on", *flags, steps=4)
    assert_same(run("on", *flags, "--resume"), trained)
