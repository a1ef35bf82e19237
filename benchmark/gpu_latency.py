"""Latency of single windows of real speech, from a waveform of the host to logits on the host."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmark.guarded import Measurement
from benchmark.machine import speech
from benchmark.sessions import open_model, runner
from diarization.backends import load_weights
from modeling import FastDiarizationForAudioFrameClassification

SAMPLES = 48_000
WARM_UP = 50
DIFFERENT = 100
"""Windows that are taken in turn."""
PRECISIONS = ("float32", "float16")
COMPILED = ("TensorRT", "torch.compile")


def measurements(model: str, device: str, windows: int) -> list[Measurement]:
    """Each way to run the network in each precision, CUDA graphs first."""
    on_torch_as = {way: (on_torch, {"way": way, "device": device}) for way in ("torch", "torch.compile")}
    if device == "cuda":
        ways = {
            "ONNX Runtime, CUDA graph": (on_onnx_runtime, {"provider": "cuda", "cuda_graph": True}),
            "torch, CUDA graph": (on_torch, {"way": "torch, CUDA graph", "device": device}),
            "ONNX Runtime": (on_onnx_runtime, {"provider": "cuda"}),
            **on_torch_as,
            "TensorRT": (on_onnx_runtime, {"provider": "tensorrt"}),
        }
    else:
        ways = {"ONNX Runtime": (on_onnx_runtime, {"provider": "cpu"}), **on_torch_as}
    return [
        Measurement("latency", f"{name}, {precision}", function, {**given, "precision": precision, **common})
        for common in [{"model": model, "count": windows}]
        for name, (function, given) in ways.items()
        for precision in PRECISIONS
    ]


def is_compiled(measurement: Measurement) -> bool:
    """Whether it takes a minute to begin."""
    return measurement.name.startswith(COMPILED)


def on_onnx_runtime(model: str, precision: str, count: int, provider: str, cuda_graph: bool = False) -> dict:
    """Through IO binding, on a GPU; model_fp16.onnx is made by export.py's conversion where it is absent."""
    windows = different_windows()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(model) / "model.onnx"
        if precision == "float16":
            file = half_of(Path(model), Path(directory))
        session = open_model(file, provider, 1, cuda_graph)
    call = runner(session, provider, windows[0])
    return percentiles(call, windows, count) | compared(call, windows, model)


def half_of(model: Path, directory: Path) -> Path:
    """The half precision file of a model, or one made of its ONNX file in another directory."""
    if (model / "model_fp16.onnx").is_file():
        return model / "model_fp16.onnx"
    from publishing.onnx_files import halve  # here, because it takes more packages than the rest

    shutil.copy(model / "model.onnx", directory)
    halve(directory)
    return directory / "model_fp16.onnx"


def on_torch(model: str, precision: str, count: int, way: str, device: str) -> dict:
    windows = different_windows()
    dtype = {"float32": torch.float32, "float16": torch.float16}[precision]
    load_weights(model)  # which says what is wrong with it, if anything is
    network = FastDiarizationForAudioFrameClassification.from_pretrained(model, dtype=dtype).eval().to(device)
    with torch.inference_mode():
        call = caller(network, way, device)
        return percentiles(call, windows, count) | compared(call, windows, model)


def caller(network: torch.nn.Module, way: str, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from windows to logits, both on the host."""
    if way != "torch, CUDA graph":
        if way == "torch.compile":
            network = torch.compile(network, mode="reduce-overhead")
        return lambda window: network(torch.from_numpy(window).to(device)).logits.cpu().numpy()
    static = torch.zeros(1, SAMPLES, device=device)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # lazily made handles and buffers do not belong in the graph
        for _ in range(3):
            network(static)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = network(static).logits

    def replay(window: np.ndarray) -> np.ndarray:
        static.copy_(torch.from_numpy(window))
        graph.replay()
        return logits.cpu().numpy()

    return replay


def different_windows() -> np.ndarray:
    """Float32 (windows, 1, samples) of real speech."""
    return speech(DIFFERENT * SAMPLES).reshape(DIFFERENT, 1, SAMPLES)


def percentiles(call: Callable[[np.ndarray], np.ndarray], windows: np.ndarray, count: int) -> dict:
    """Milliseconds of single calls after a warm-up, and how long the first call took."""
    milliseconds = []
    for number in range(WARM_UP + count):
        start = time.perf_counter()
        call(windows[number % len(windows)])
        milliseconds.append(1e3 * (time.perf_counter() - start))
    timed = milliseconds[WARM_UP:]
    found = {f"p{percent}_ms": float(np.percentile(timed, percent)) for percent in (50, 95, 99)}
    return found | {"windows": count, "first_ms": milliseconds[0]}


def compared(call: Callable[[np.ndarray], np.ndarray], windows: np.ndarray, model: str) -> dict:
    """The largest difference of the probability of a speaker to torch in float32 on the CPU."""
    network, differences = load_weights(model), []
    for window in windows[:8]:
        with torch.no_grad():
            expected = network(torch.from_numpy(window)).logits.sigmoid()
        differences.append((torch.from_numpy(np.array(call(window))).float().sigmoid() - expected).abs().max().item())
    return {"largest_difference": max(differences)}
