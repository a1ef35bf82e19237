"""Export of a small network: parity with torch, loading through Optimum, honest failures."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import save_file
from transformers import Wav2Vec2Config

from data.corpora import open_corpus
from data.decoding import decode
from diarization.backends import load_weights
from modeling import FastDiarizationConfig, FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification
from publishing import onnx_export, onnx_files
from publishing.onnx_files import export_model

pytestmark = pytest.mark.slow


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
    export_model(str(directory))
    return directory


def test_optimum_gives_the_answer_of_torch_at_any_length_and_batch(exported, speech, tmp_path, monkeypatch):
    optimum = pytest.importorskip("optimum.onnxruntime", reason="Optimum's stack is another")
    ORTModelForAudioFrameClassification = optimum.ORTModelForAudioFrameClassification
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


def run(file: Path, waveforms: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(file).run(["logits"], {"input_values": waveforms})[0]


def test_one_file_with_dynamic_shapes(exported):
    assert not list(exported.glob("*.data"))
    graph = onnx.load(exported / "model.onnx").graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input
    }
    assert shapes == {"input_values": ["batch_size", "sequence_length"]}
    outputs = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in graph.output}
    assert outputs == {"logits": "batch_size", "speaker_embeddings": "batch_size"}


def test_optimum_and_torch_write_the_same_network(exported, speech, tmp_path):
    pytest.importorskip("optimum.exporters.onnx", reason="Optimum's stack is another")
    model = load_weights(str(exported))
    onnx_export.export_with_optimum(model, tmp_path / "optimum.onnx")
    onnx_export.export_with_torch(model, tmp_path / "torch.onnx")
    graphs = [onnx.load(tmp_path / f"{name}.onnx").graph for name in ("optimum", "torch")]
    operators = [Counter(node.op_type for node in graph.node) for graph in graphs]
    assert operators[0] == operators[1]
    waveforms = np.stack([np.resize(np.roll(speech, -999 * i), 80_000) for i in range(3)])
    answers = [run(tmp_path / f"{name}.onnx", waveforms) for name in ("optimum", "torch")]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_int8_and_fp16_are_smaller_and_answer_alike(exported, speech, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "CALIBRATION_BATCHES", 1)
    monkeypatch.setattr(onnx_files, "SCORED_BATCHES", 1)
    monkeypatch.setattr(onnx_files, "INT8_DER_POINTS", 100)  # of an untrained network
    output = tmp_path / "onnx"
    export_model(str(exported), str(output), int8=True, fp16=True)
    report = json.loads((output / "export.json").read_text())
    waveforms = np.stack([np.resize(np.roll(speech, -999 * i), 80_000) for i in range(3)])
    expected = run(output / "model.onnx", waveforms)
    for kind, tolerance in (("int8", 0.15), ("fp16", 0.01)):
        file = output / report[kind]["file"]
        assert report[kind]["bytes"] == file.stat().st_size < (output / "model.onnx").stat().st_size
        assert (run(file, waveforms) - expected).std() < tolerance * expected.std()
    assert report["int8"]["windows"] == 32 and np.isfinite(report["int8"]["der_points"])


def test_the_log_mel_of_int8_is_float(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "CALIBRATION_BATCHES", 1)
    monkeypatch.setattr(onnx_files, "SCORED_BATCHES", 1)
    monkeypatch.setattr(onnx_files, "INT8_DER_POINTS", 100)
    shutil.copy(exported / "model.onnx", tmp_path)
    onnx_files.quantize(tmp_path, "demo")
    nodes = onnx.load(tmp_path / "model_int8.onnx").graph.node
    quantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in nodes if node.op_type in ("Conv", "MatMul")]
    assert any(set(node.input) & quantized for node in products)
    assert not any(set(node.input) & quantized for node in products if "log_mel" in node.name)


def test_what_costs_too_much_is_not_kept(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "CALIBRATION_BATCHES", 1)
    monkeypatch.setattr(onnx_files, "SCORED_BATCHES", 1)
    monkeypatch.setattr(onnx_files, "INT8_DER_POINTS", -100)
    monkeypatch.setattr(onnx_files, "FP16_TOLERANCE", 0)
    shutil.copy(exported / "model.onnx", tmp_path)
    with pytest.raises(SystemExit, match="error: int8 costs .* points of DER, more than -100; it is not written"):
        onnx_files.quantize(tmp_path, "demo")
    with pytest.raises(SystemExit, match="error: fp16 changes a probability by .*; it is not written"):
        onnx_files.halve(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_corpus_that_is_none_is_one_line(exported, tmp_path):
    shutil.copy(exported / "model.onnx", tmp_path)
    with pytest.raises(SystemExit, match="error: .*nowhere"):
        onnx_files.quantize(tmp_path, "/nowhere")


@pytest.mark.parametrize("name", ["runs/nowhere/model", "./nowhere"])
def test_a_model_that_is_nowhere_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"error: model {name}: no such directory; train one"):
        export_model(name)


@pytest.mark.parametrize("kind", ["empty", "damaged weights", "another network"])
def test_a_directory_that_is_no_model_is_one_line(kind, exported, tmp_path):
    if kind == "damaged weights":
        shutil.copy(exported / "config.json", tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"no weights")
    elif kind == "another network":
        Wav2Vec2Config(num_hidden_layers=1).save_pretrained(tmp_path)
        save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit, match=f"error: model {tmp_path} .*; give a model that train.py or export.py wrote"):
        export_model(str(tmp_path))


def test_of_a_model_on_the_hub_the_output_is_asked_for(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_files, "load_weights", lambda name: load_weights(str(exported)))
    with pytest.raises(
        SystemExit, match="error: model user/name is not a directory to write to; name one with --output"
    ):
        export_model("user/name")
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_one_line(exported, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=f"error: --output {tmp_path}/file: File exists; name a directory"):
        export_model(str(exported), str(tmp_path / "file"))
