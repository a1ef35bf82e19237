"""Normalisation measured over many pools is the mean of what its batches have, and training with it leaves it alone."""

import sys
from types import SimpleNamespace

import pytest
import torch
from training_runs import SMALL

import train
from data.corpora import open_corpus
from data.streaming import ConversationStream, StreamConfig
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from training.norms import measure_norms, norms_of

pytestmark = pytest.mark.training

BATCHES = 3


@pytest.fixture
def stream():
    return ConversationStream(open_corpus("demo", "train"), StreamConfig(batch_size=8, window_seconds=1.0))


def test_measured_statistics_are_means_over_the_batches(stream):
    torch.manual_seed(0)
    model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16))
    seen = {norm: [] for norm in norms_of(model)}
    for norm in seen:
        norm.register_forward_pre_hook(lambda norm, inputs: seen[norm].append(inputs[0].detach().double()))
    momenta = [norm.momentum for norm in seen]
    measure_norms(model, stream, BATCHES)
    for norm, inputs in seen.items():
        assert len(inputs) == BATCHES
        means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
        variances = torch.stack([x.var(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
        torch.testing.assert_close(norm.running_mean.double(), means, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var.double(), variances, rtol=1e-3, atol=1e-4)
    assert [norm.momentum for norm in seen] == momenta


def test_training_with_frozen_normalisation_changes_weights_and_no_statistics(tmp_path, monkeypatch):
    before = {}

    def measure(model, stream):
        measure_norms(model, stream, BATCHES)
        before.update({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(train, "measure_norms", measure)
    monkeypatch.setattr(train.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))  # no export
    flags = [*SMALL.split(), "--max_steps", "4", "--save_steps", "4", "--output_dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, "--freeze_norms", "true"])
    train.main()
    after = FastDiarizationForAudioFrameClassification.from_pretrained(tmp_path / "run" / "model").state_dict()
    statistics = [name for name in before if "running_" in name]
    weights = [name for name in before if name.endswith("norm.weight")]
    assert statistics and all(torch.equal(before[name], after[name]) for name in statistics)
    assert weights and not any(torch.equal(before[name], after[name]) for name in weights)
