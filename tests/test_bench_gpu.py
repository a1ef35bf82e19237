"""The check of a GPU, tried on a CPU: its whole course, its budget, what fails or crashes in it, and its table."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from guarded_measurements import crash, double, fail, hang

import bench
from benchmark import gpu, gpu_latency, gpu_resume, gpu_table, gpu_training
from benchmark.guarded import Measurement, guarded
from modeling import FastDiarizationConfig, FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification
from publishing.onnx_files import export_model

ROOT = Path(__file__).parent.parent
SMALL = [
    *("--hidden_size=16", "--window_seconds=1", "--per_device_train_batch_size=4", "--warmup_steps=2"),
    *("--eval_windows=4", "--dataloader_num_workers=0"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16)).eval().save_pretrained(directory)
    FastDiarizationFeatureExtractor().save_pretrained(directory)
    export_model(str(directory))
    return directory


def call(monkeypatch, *flags: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench.py", "gpu", *flags])
    return bench.main()


def arguments(**changed) -> SimpleNamespace:
    given = {"model": "m", "dataset": "demo", "device": "cuda", "windows": 9, "batch_size": [32, 64], "workers": [2, 0]}
    return SimpleNamespace(**given | {"seconds": 1.0, "steps": 8} | changed)


def test_without_a_gpu_there_is_one_line_and_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "RESULT", tmp_path / "gpu.json")
    assert call(monkeypatch, "--model", "anything") == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("error: device cuda is not available") and not output.out
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_bare_machine_names_all_that_it_lacks_in_one_line():
    code = """
import importlib.machinery, sys
class Absent(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in ("soundfile", "datasets") else super().find_spec(name, path, target)
sys.meta_path[:] = [f for f in sys.meta_path if f is not importlib.machinery.PathFinder] + [Absent]
sys.argv = ["bench.py", "gpu", "--model", "m"]
import bench
sys.exit(bench.main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    missing = "bench.py gpu needs datasets, soundfile; not installed here"
    assert line == f"error: {missing}; pip install -r requirements.txt"


def test_results_of_a_cpu_are_not_written_where_those_of_a_gpu_belong(monkeypatch, capsys):
    assert call(monkeypatch, "--model", "anything", "--device", "cpu", "--json", str(gpu.RESULT)) == 1
    assert "is for the results of a GPU" in capsys.readouterr().err
    with pytest.raises(ValueError, match="results of a CPU"):
        gpu_table.section({"device": "cpu"})


@pytest.mark.process
def test_the_whole_course_on_a_cpu(exported, tmp_path, monkeypatch, capsys):
    file = tmp_path / "cpu.json"
    everything = gpu.measurements

    def small(given):
        """Without compilers, which take a minute."""
        course = [m for m in everything(given) if "compile" not in m.name]
        return [replace(m, arguments=m.arguments | {"flags": SMALL}) if m.group == "resume" else m for m in course]

    monkeypatch.setattr(gpu, "measurements", small)
    flags = "--device cpu --windows 3 --seconds 0.1 --batch_size 2 --workers 0 --steps 4"
    assert call(monkeypatch, "--model", str(exported), *flags.split(), "--json", str(file)) == 0
    result = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == result and result["device"] == "cpu"
    names = [f"{way}, {precision}" for way in ("ONNX Runtime", "torch") for precision in ("float32", "float16")]
    assert list(result["latency"]) == names
    for name, found in result["latency"].items():
        assert found["p50_ms"] <= found["p99_ms"] and found["windows"] == 3
        assert found["largest_difference"] < (1e-4 if "float32" in name else 0.1)  # of an untrained network
    one_batch, by_workers, by_kernel = result["training"].values()
    for found in (one_batch, by_workers):
        assert found["windows_per_second"] == pytest.approx(2 * found["steps_per_second"])
    assert one_batch["share_waiting_for_data"] < by_workers["share_waiting_for_data"] < 1
    assert by_kernel["kernels_per_step"] > 100 and len(by_kernel["largest_costs"]) == 3
    (resumed,) = result["resume"].values()
    assert (resumed["largest_difference"], resumed["steps"], resumed["precision"]) == (0.0, 4, "float32")
    assert 1 <= resumed["killed_after_checkpoint"] < 4


def measurement(function, name: str, **given) -> Measurement:
    return Measurement("group", name, function, given)


@pytest.mark.process
def test_a_failure_or_a_crash_costs_nothing_else(capfd):
    found = {}
    course = [
        measurement(double, "first", number=1),
        measurement(fail, "failing"),
        measurement(crash, "crashing"),
        measurement(double, "last", number=2),
    ]
    guarded(course, 10, lambda m, result: found.update({m.name: result}))
    assert list(found) == ["first", "failing", "crashing", "last"]
    assert found["first"] == {"double": 2} and found["last"] == {"double": 4}
    assert found["failing"] == {"not_measured": "RuntimeError: out of memory"}
    assert found["crashing"] == {"not_measured": f"its process ended with exit code {-signal.SIGSEGV}"}
    assert "not for standard output" not in capfd.readouterr().out


@pytest.mark.process
def test_nothing_outlasts_its_time(tmp_path):
    """What is under way is ended with the processes it started, and the rest is said to be missing."""
    found, begun = {}, tmp_path / "begun"
    course = [measurement(hang, "endless", begun=str(begun)), measurement(double, "last", number=2)]
    guarded(course, 0.1, lambda m, result: found.update({m.name: result}))
    assert found == dict.fromkeys(("endless", "last"), {"not_measured": "not finished within 0.1 minutes"})
    if begun.exists():
        child, end = int(begun.read_text()), time.monotonic() + 60
        while (alive := is_alive(child)) and time.monotonic() < end:
            time.sleep(0.01)
        assert not alive


def is_alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_most_important_comes_first():
    names = [m.name for m in gpu.measurements(arguments())]
    assert len(names) == len(set(names))
    in_order = [
        "ONNX Runtime, CUDA graph, float32",
        "torch, float16",
        "batch 32, one batch again and again",
        "batch 32, 2 workers",
        "batch 32, by kernel",
        "killed and resumed",
        "batch 64, 0 workers",
        "TensorRT, float16",
        "batch 32, one batch again and again, torch.compile",
    ]
    places = [names.index(name) for name in in_order]
    assert places == sorted(places)


@pytest.mark.slow
def test_a_step_trains_and_its_operators_are_counted():
    step = gpu_training.Step("cpu")
    batch = next(gpu_training.batches_of("demo", 2, None))
    before = step.model.classifier.weight.clone()
    step(batch)
    assert not torch.equal(before, step.model.classifier.weight)
    matrix = torch.ones(64, 64)
    counts, times = gpu_training.of_kernels(lambda: matrix @ matrix, "cpu")
    assert counts["aten::mm"] == gpu_training.PROFILED and times["aten::mm"] > 0


@pytest.mark.slow
def test_percentiles_leave_the_warm_up_out():
    taken = []

    def call(window):
        taken.append(int(window))
        time.sleep(0.02 if len(taken) <= gpu_latency.WARM_UP else 0)

    found = gpu_latency.percentiles(call, np.arange(7), 20)
    assert taken[:8] == [0, 1, 2, 3, 4, 5, 6, 0] and len(taken) == gpu_latency.WARM_UP + 20
    assert found["first_ms"] >= 20 and found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] and found["p50_ms"] < 20


def test_the_difference_of_runs_is_that_of_their_weights(tmp_path):
    for name, shift in (("whole", 0.0), ("cut", 0.5)):
        torch.manual_seed(0)
        model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16))
        torch.nn.init.constant_(model.classifier.bias, shift)
        model.save_pretrained(tmp_path / name / "checkpoint-4")
    assert gpu_resume.difference(tmp_path / "whole", tmp_path / "cut", 4) == 0.5
    assert gpu_resume.difference(tmp_path / "whole", tmp_path / "whole", 4) == 0


@pytest.mark.process
def test_a_run_that_ends_too_early_says_its_last_line(tmp_path):
    command = [sys.executable, "-c", "print('first'); print('no such device')"]
    with pytest.raises(ValueError, match="train.py ended before step 2: no such device"):
        gpu_resume.run_until(command, tmp_path / "run", 2)


# The table

RESULT = {
    "device": "Tesla T4",
    "gpu_megabytes": 15_000,
    "compute_capability": "7.5",
    "driver": "580.1",
    "cuda": "12.8",
    "torch": "2.11",
    "onnxruntime": "1.26",
    "cores": 2,
    "machine": "Xeon",
    "model": "lightweight-cnn",
    "latency": {
        "torch, float32": {"p50_ms": 1.234, "p95_ms": 2.0, "p99_ms": 3.0, "windows": 9, "largest_difference": 2e-6},
        "TensorRT, float32": {"not_measured": "NoProvider: provider tensorrt could not start"},
    },
    "training": {
        "batch 32, 2 workers": {
            "steps_per_second": 24.56,
            "windows_per_second": 786.0,
            "share_waiting_for_data": 0.412,
            "gpu_busy_share": None,
            "launch_ms_per_step": 12.3,
            "peak_gpu_megabytes": 900.0,
        },
        "batch 32, by kernel": {"kernels_per_step": 640.0, "ms_per_step": 9.87, "largest_costs": {}},
    },
    "resume": {
        "killed and resumed": {
            "steps": 200,
            "killed_after_checkpoint": 50,
            "precision": "float16",
            "largest_difference": 0.0,
            "train_py_steps_per_second": 20.0,
        }
    },
}


def test_the_section_shows_what_was_measured_and_why_the_rest_was_not():
    text = gpu_table.section(RESULT)
    for part in (
        "Tesla T4",
        "2 cores of Xeon",
        "| 1.23 | 2.00 | 3.00 | 2e-06 |",
        "| 24.6 | 786 | 41% | - | 12.3 | 900 |",
    ):
        assert part in text
    assert "launches 640 kernels, which run for 9.9 ms" in text and "the same to the bit" in text
    assert "- TensorRT, float32: NoProvider: provider tensorrt could not start" in text
    assert gpu_table.section(None) == gpu_table.NOT_MEASURED


def test_the_page_is_what_the_result_gives():
    result = json.loads(gpu_table.RESULT.read_text()) if gpu_table.RESULT.is_file() else None
    assert gpu_table.SECTION.search(gpu_table.PAGE.read_text())[0].splitlines()[1:-1] == (
        gpu_table.section(result).splitlines()
    )


def test_main_writes_the_section_of_the_page(tmp_path, monkeypatch):
    page, result = tmp_path / "PERFORMANCE.md", tmp_path / "gpu.json"
    page.write_text("before\n<!-- gpu: begin -->\nold\n<!-- gpu: end -->\nafter\n")
    result.write_text(json.dumps(RESULT))
    monkeypatch.setattr(gpu_table, "PAGE", page)
    monkeypatch.setattr(gpu_table, "RESULT", result)
    monkeypatch.setattr(sys, "argv", ["gpu_table"])
    gpu_table.main()
    text = page.read_text()
    assert text.startswith("before\n<!-- gpu: begin -->\nTesla T4") and text.endswith("<!-- gpu: end -->\nafter\n")
    assert "old" not in text
