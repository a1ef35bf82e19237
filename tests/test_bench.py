"""Benchmarks: keys, honest failures, counts known by hand, and speed by what is done for it."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import bench
from benchmark.latency import macs, value_shapes
from benchmark.training_windows import as_flac, largest_costs, profile, stages
from data.corpora import open_corpus
from data.streaming import ConversationStream, StreamConfig
from modeling import FastDiarizationConfig, FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification
from publishing.onnx_files import export_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The network in its full size, untrained."""
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    FastDiarizationForAudioFrameClassification(FastDiarizationConfig()).eval().save_pretrained(directory)
    FastDiarizationFeatureExtractor().save_pretrained(directory)
    export_model(str(directory))
    return directory


def call(monkeypatch, flags: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench.py", *flags.split()])
    return bench.main()


def test_latency_says_provider_threads_and_percentiles(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmark.latency.BATCHES", (1, 3))
    monkeypatch.setattr("benchmark.latency.COLD_STARTS", 1)
    file = tmp_path / "latency.json"
    assert call(monkeypatch, f"latency --model {exported} --windows 20 --json {file}") == 0
    result = json.loads(file.read_text())
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
    assert (result["provider"], result["threads"]) == ("cpu", 1)
    assert len(result["largest_costs"]) == 3 and "Conv" in result["largest_costs"]
    assert set(result["windows_per_second"]) == {"1", "3"} and set(result["cold_start"]) == {"onnxruntime", "torch"}
    assert json.loads(capsys.readouterr().out) == result


@pytest.mark.parametrize("flags", ["latency --provider cuda --model {model}", "train --device cuda"])
def test_a_missing_gpu_is_exit_code_2_and_no_run_on_the_cpu(flags, exported, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert call(monkeypatch, flags.format(model=exported)) == 2
    output = capsys.readouterr()
    assert output.err.splitlines()[-1].startswith("error: ") and not output.out


def test_a_missing_file_or_corpus_is_one_line(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, f"latency --model {tmp_path}") == 1
    assert call(monkeypatch, f"latency --model {tmp_path}/nowhere") == 1
    assert call(monkeypatch, "data --dataset /nowhere") == 1
    (tmp_path / "file").write_text("")
    assert call(monkeypatch, f"data --json {tmp_path}/file/data.json") == 1
    for speaker in "abcde":
        (tmp_path / "texts" / speaker).mkdir(parents=True)
        (tmp_path / "texts" / speaker / "text.wav").write_text("Dear recording,\n" * 100)
    assert call(monkeypatch, f"data --dataset {tmp_path}/texts --workers 0") == 1
    assert call(monkeypatch, f"data --json {tmp_path}") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("skipped ")]
    assert len(lines) == 6 and all(line.startswith("error: ") for line in lines)
    assert "run python export.py --model" in lines[0] and "/nowhere: no such directory" in lines[1]


def test_a_peer_of_another_kind_is_one_line(exported, monkeypatch, capsys):
    assert call(monkeypatch, f"latency --model {exported} --peer {exported / 'model.onnx'}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: peer {exported / 'model.onnx'} takes ") and "segmentation-3.0" in line


@pytest.mark.parametrize("command", ["latency", "recording"])
@pytest.mark.parametrize("kind", ["missing", "empty", "corrupt", "truncated", "another graph"])
def test_a_model_that_cannot_be_measured_is_one_line(command, kind, exported, tmp_path, monkeypatch, capsys):
    file = tmp_path / "model.onnx"
    if kind == "another graph":
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
        graph = onnx.helper.make_graph([node], "other", values[:1], values[1:])
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), file)
    elif kind != "missing":
        whole = (exported / "model.onnx").read_bytes()
        file.write_bytes({"empty": b"", "corrupt": b"no model", "truncated": whole[: len(whole) // 2]}[kind])
    assert call(monkeypatch, f"{command} --model {tmp_path}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: model {file} ") and "export.py" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("recording --model m --minutes 1 0", "--minutes must be 0.1 or more, got 0.0"),
        ("recording --model m --threads 1 0", "--threads must be 1 or more, got 0"),
        ("latency --model m --window_seconds -1", "--window_seconds must be 0.1 or more, got -1.0"),
        ("data --workers -1", "--workers must be 0 or more, got -1"),
    ],
)
def test_a_number_out_of_range_is_named(flags, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, flags)
    assert capsys.readouterr().err.splitlines()[-1].endswith(f": error: {message}")


def test_weights_that_cannot_be_measured_are_one_line(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmark.latency.BATCHES", (1,))
    monkeypatch.setattr("benchmark.latency.COLD_STARTS", 1)
    shutil.copytree(exported, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no weights")
    assert call(monkeypatch, f"latency --model {tmp_path / 'model'} --windows 2") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'model'} cannot be run on torch: ")


def test_multiplications_counted_by_hand(tmp_path):
    weights = {"kernel": np.ones((4, 1, 5), np.float32), "matrix": np.ones((96, 7), np.float32)}
    nodes = [
        onnx.helper.make_node("Unsqueeze", ["input_values", "axis"], ["row"]),
        onnx.helper.make_node("Conv", ["row", "kernel"], ["convolved"]),
        onnx.helper.make_node("MatMul", ["convolved", "matrix"], ["logits"]),
    ]
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "two products",
        [make("input_values", onnx.TensorProto.FLOAT, [1, 100])],
        [make("logits", onnx.TensorProto.FLOAT, [1, 4, 7])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
        + [onnx.numpy_helper.from_array(np.array([1]), "axis")],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m"
    )
    assert macs(tmp_path / "m", np.ones((1, 100), np.float32)) == 4 * 96 * 5 + 4 * 96 * 7


def test_recordings_are_split_into_their_parts(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.whole_recordings.SOURCE_SECONDS", 6.0)
    file = tmp_path / "recording.json"
    assert call(monkeypatch, f"recording --model {exported} --minutes 0.1 0.2 --threads 1 --json {file}") == 0
    for found in json.loads(file.read_text())["recordings"]:
        parts = found["decoding"] + found["network"] + found["linking"]
        assert parts == pytest.approx(found["cpu_time_per_audio_time"]) and found["network"] > 0


@pytest.mark.parametrize("flags, precision", [("", "float32"), ("--bf16", "bfloat16")])
def test_training_is_split_into_its_parts(tmp_path, monkeypatch, flags, precision):
    file = tmp_path / "train.json"
    assert call(monkeypatch, f"train --steps 1 --batch_size 2 --workers 0 --json {file} {flags}") == 0
    result = json.loads(file.read_text())
    assert result["precision"] == precision
    assert sum(result["seconds_per_step"].values()) == pytest.approx(1 / result["steps_per_second"])
    assert result["seconds_per_checkpoint"] > 0


def test_stages_of_a_window_add_up():
    corpus, config = open_corpus("demo", "train"), StreamConfig(batch_size=8)
    profiled = profile(as_flac(corpus, config), config, 2)
    found = stages(profiled)
    assert all(found[name] > 0 for name in ("decoding", "turns", "laying speech", "rooms and noise, applied"))
    assert sum(found.values()) == pytest.approx(2 * found["all"])
    shares = list(largest_costs(profiled).values())
    assert len(shares) == 3 and shares == sorted(shares, reverse=True) and sum(shares) < 1


def test_an_answer_needs_neither_datasets_nor_torchaudio_nor_optimum(exported):
    code = f"""
import sys, torch
import transformers.processing_utils, transformers.trainer_utils
transformers_needs = {{*sys.modules}}
from modeling import FastDiarizationForAudioFrameClassification
model = FastDiarizationForAudioFrameClassification.from_pretrained({str(exported)!r}).eval()
model(torch.zeros(1, 48_000))
print(*sorted({{"datasets", "torchaudio", "optimum"}} & ({{*sys.modules}} - transformers_needs)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# Speed, counted and not timed


def test_a_window_costs_little_beside_its_multiplications(exported):
    window = np.random.default_rng(0).standard_normal((1, 48_000), dtype=np.float32)
    model = onnx.load(exported / "model.onnx")
    shapes = value_shapes(onnx.load(exported / "model.onnx"), window)
    written = sum(int(np.prod(shapes.get(name, ()))) for node in model.graph.node for name in node.output)
    multiplications = macs(exported / "model.onnx", window)
    assert 100e6 < multiplications < 150e6
    assert written < 0.05 * multiplications


def test_a_batch_of_windows_is_made_without_loops_over_samples():
    config = StreamConfig()
    batches = iter(ConversationStream(open_corpus("demo", "train"), config))
    next(batches)  # decodes
    calls = Counter()
    sys.setprofile(lambda _frame, event, _argument: calls.update([event]))
    try:
        for _ in range(5):
            next(batches)
    finally:
        sys.setprofile(None)
    a_window = (calls["call"] + calls["c_call"]) / (5 * config.batch_size)
    assert 0 < a_window < 4000, "of 48 000 samples or more"
