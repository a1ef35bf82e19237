"""A processor that ONNX Runtime cannot use: one line that says what to install, and no run on another one."""

import shutil
import sys
from types import ModuleType, SimpleNamespace

import onnxruntime
import pytest
import torch
from two_tones import write_model, write_recording

import bench
import diarize
from diarization.providers import NoProvider, start_session

EVERY = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
CPU = ["CPUExecutionProvider"]


@pytest.fixture
def machine(monkeypatch):
    """A machine as described: the build of ONNX Runtime, the CUDA of torch, whether there is a GPU, what loads."""

    def describe(build=None, built_for=None, torch_has=None, gpu=True, starts=()):
        information = ModuleType("build_and_package_info")
        information.package_name, information.cuda_version = build, built_for
        monkeypatch.setitem(sys.modules, "onnxruntime.capi.build_and_package_info", information)
        monkeypatch.setattr("onnxruntime.capi.build_and_package_info", information, raising=False)
        monkeypatch.setattr(torch.version, "cuda", torch_has)
        monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
        available = CPU if build == "onnxruntime" else EVERY
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"), raising=False)

        def session(model, options, providers):
            (name, settings), *_ = providers
            opened.append((name, settings))
            return SimpleNamespace(get_providers=lambda: [name] if name in starts else CPU)

        opened = []
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        return opened

    return describe


CASES = [
    (
        {"build": "onnxruntime", "torch_has": "12.8"},
        "provider cuda is not in this ONNX Runtime; pip uninstall -y onnxruntime && pip install "
        '"onnxruntime-gpu<1.27", for CUDA 12',
    ),
    (
        {"build": "onnxruntime", "torch_has": "13.0"},
        'provider cuda is not in this ONNX Runtime; pip uninstall -y onnxruntime && pip install "onnxruntime-gpu>=1.28"'
        ", for CUDA 13",
    ),
    (
        {"build": "onnxruntime"},
        "provider cuda is not in this ONNX Runtime; pip uninstall -y onnxruntime && pip install "
        '"onnxruntime-gpu<1.27" for CUDA 12, or "onnxruntime-gpu>=1.28" for CUDA 13',
    ),
    (
        {"build": "onnxruntime-gpu", "built_for": "13.0", "torch_has": "12.8"},
        "provider cuda could not start here: this ONNX Runtime is built for CUDA 13, and torch has CUDA 12; "
        'pip install "onnxruntime-gpu<1.27", for CUDA 12',
    ),
    (
        {"build": "onnxruntime-gpu", "built_for": "12.8", "torch_has": "13.0"},
        "provider cuda could not start here: this ONNX Runtime is built for CUDA 12, and torch has CUDA 13; "
        'pip install "onnxruntime-gpu>=1.28", for CUDA 13',
    ),
    (
        {"build": "onnxruntime-gpu", "built_for": "13.0"},
        "provider cuda could not start here: the libraries of CUDA 13 and cuDNN do not load; pip install "
        '"onnxruntime-gpu<1.27" for CUDA 12, or "onnxruntime-gpu>=1.28" for CUDA 13',
    ),
    (
        {"build": "onnxruntime-gpu", "built_for": "13.0", "torch_has": "13.0", "gpu": False},
        "provider cuda could not start here: no NVIDIA GPU or no driver; use --provider cpu",
    ),
]


@pytest.mark.parametrize(("described", "message"), CASES)
def test_a_gpu_that_cannot_be_used_is_one_line(machine, described, message, capfd):
    machine(**described)
    with pytest.raises(NoProvider) as refused:
        start_session(b"", "cuda")
    assert str(refused.value) == message
    assert capfd.readouterr() == ("", "")


def test_the_provider_asked_for_is_the_only_one(machine):
    opened = machine(build="onnxruntime-gpu", built_for="13.0", torch_has="13.0", starts=EVERY)
    start_session(b"", "cuda", enable_cuda_graph="1")
    start_session(b"")
    assert opened == [("CUDAExecutionProvider", {"enable_cuda_graph": "1"}), ("CPUExecutionProvider", {})]


@pytest.mark.parametrize("command", ["diarize", "bench"])
def test_the_command_line_says_it(command, machine, tmp_path, monkeypatch, capsys):
    model, call = write_model(tmp_path / "model"), write_recording(tmp_path / "call.wav")
    machine(build="onnxruntime-gpu", built_for="13.0", torch_has="12.8")
    monkeypatch.chdir(tmp_path)
    if command == "diarize":
        code = diarize.main([str(call), "--model", str(model), "--provider", "cuda"])
    else:
        monkeypatch.setattr(sys, "argv", ["bench.py", "latency", "--provider", "cuda", "--model", str(model)])
        code = bench.main()
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("error: provider cuda could not start here: ") and 'pip install "onnxruntime-gpu<1.27"' in line
    )
    assert not (tmp_path / "results").exists()


def test_no_onnx_file_for_a_provider_is_one_line(tmp_path, monkeypatch, capsys):
    model, call = write_model(tmp_path / "model"), write_recording(tmp_path / "call.wav")
    (model / "model.onnx").unlink()
    assert diarize.main([str(call), "--model", str(model), "--provider", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: model {model} has no model.onnx, which --provider is for; python export.py writes one"
