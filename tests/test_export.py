"""Export and benchmark on a small network: parity with torch, loading through Optimum, honest failures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bench
import export
from data.corpora import open_corpus
from data.decoding import decode
from modeling import FastDiarizationConfig, FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification


@pytest.fixture(scope="module")
def speech():
    return np.concatenate([decode(row.audio) for row in open_corpus("demo", "validation").read(0)])


@pytest.fixture(scope="module", params=["lightweight-cnn", "attention-gru"])
def exported(request, tmp_path_factory, speech) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp(request.param)
    config = FastDiarizationConfig(hidden_size=32, encoder_type=request.param)
    model = FastDiarizationForAudioFrameClassification(config)
    for at in range(20):
        model(torch.from_numpy(np.stack([np.resize(np.roll(speech, 9_999 * i * at), 48_000) for i in range(4)])))
    model.save_pretrained(directory)
    FastDiarizationFeatureExtractor().save_pretrained(directory)
    export.main(export.Arguments(model=str(directory)))
    return directory


def test_optimum_gives_the_answer_of_torch_at_any_length_and_batch(exported, speech, tmp_path, monkeypatch):
    from optimum.onnxruntime import ORTModelForAudioFrameClassification

    monkeypatch.chdir(tmp_path)
    ours = FastDiarizationForAudioFrameClassification.from_pretrained(exported).eval()
    theirs = ORTModelForAudioFrameClassification.from_pretrained(exported)
    for batch, samples in ((1, 1_600), (3, 48_000), (2, 160_123)):
        waveforms = torch.from_numpy(np.stack([np.resize(np.roll(speech, -999 * i), samples) for i in range(batch)]))
        with torch.no_grad():
            expected = ours(waveforms).logits
        logits = theirs(input_values=waveforms).logits
        assert logits.shape == (batch, samples // 320, 2)
        assert (logits - expected).abs().max() < 1e-4


def test_a_directory_that_is_no_model_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="is no Fast Diarization model"):
        export.main(export.Arguments(model=str(tmp_path)))


def test_latency_says_provider_threads_and_percentiles(exported, tmp_path, monkeypatch, capsys):
    file = tmp_path / "latency.json"
    monkeypatch.setattr(
        sys, "argv", f"bench.py latency --model {exported} --windows 20 --threads 1 --json {file}".split()
    )
    bench.main()
    result = json.loads(file.read_text())
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
    assert (result["provider"], result["threads"]) == ("cpu", 1)
    assert json.loads(capsys.readouterr().out) == result


def test_a_missing_gpu_is_an_error_and_no_run_on_the_cpu(exported, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(sys, "argv", f"bench.py latency --model {exported} --provider cuda --windows 2".split())
    with pytest.raises(SystemExit, match="provider cuda"):
        bench.main()
