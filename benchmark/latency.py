"""Latency from waveform to logits: percentiles of single windows, batches, memory, cold start."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from benchmark.machine import machine, speech
from benchmark.sessions import open_model, open_session, runner
from diarization.backends import of_run

WARM_UP = 50
PROFILED = 100
BATCHES = (1, 8, 32, 128)
COLD_STARTS = 5
COLD_START = """
import sys, time
sys.path.insert(0, {root!r})
import numpy as np
{body}
from pathlib import Path
status = Path("/proc/self/status")  # getrusage counts the memory of the process that started this one
peak = status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else "nan"
print(float(peak) / 1024)
"""
RUNTIMES = {
    "onnxruntime": """
import onnxruntime
session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
session.run(["logits"], {{"input_values": np.zeros((1, 48_000), np.float32)}})
""",
    "torch": """
import torch
from modeling import FastDiarizationForAudioFrameClassification
model = FastDiarizationForAudioFrameClassification.from_pretrained({directory!r}).eval()
with torch.no_grad():
    model(torch.zeros(1, 48_000))
""",
}


def run(arguments: argparse.Namespace) -> dict:
    """Percentiles of single windows, with the peer in the same loop if given; throughput, costs and cold start."""
    file = Path(of_run(arguments.model)) / arguments.file_name
    window = speech(round(arguments.window_seconds * 16_000))[None]
    session = open_model(file, arguments.provider, arguments.threads)
    calls = {"": runner(session, arguments.provider, window)}
    if arguments.peer:
        peer = open_session(Path(arguments.peer), arguments.provider, arguments.threads)
        waveform = peer.get_inputs()[0]
        if len(waveform.shape) != 3:
            raise ValueError(
                f"peer {arguments.peer} takes {waveform.shape}, not (batch, 1, samples); give segmentation-3.0 as ONNX"
            )
        calls["peer_"] = lambda: peer.run(None, {waveform.name: window[:, None]})
    times = interleaved(calls, arguments.windows)
    result = {f"{prefix}p{p}_ms": float(np.percentile(ms, p)) for prefix, ms in times.items() for p in (50, 95, 99)}
    if arguments.peer:
        result["peer_ratio"] = float(np.median(times["peer_"] / times[""]))
    return result | {
        "largest_costs": largest_costs(file, window, arguments),
        "million_macs": macs(file, window) / 1e6,
        "windows_per_second": throughput(file, window, arguments),
        "cold_start": cold_start(file),
        "provider": arguments.provider,
        "threads": arguments.threads,
        "window_seconds": arguments.window_seconds,
        "windows": arguments.windows,
        "file": arguments.file_name,
        **machine(),
    }


def interleaved(calls: dict, count: int) -> dict[str, np.ndarray]:
    """Milliseconds of `count` runs of each call, alternating, after a warm-up."""
    times = {name: [] for name in calls}
    for number in range(WARM_UP + count):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}


def throughput(file: Path, window: np.ndarray, arguments: argparse.Namespace) -> dict[str, float]:
    """Windows per second by batch size: the median of five or more batches."""
    found = {}
    for batch in BATCHES:
        session = open_session(file, arguments.provider, arguments.threads)  # a CUDA graph holds one shape
        call = runner(session, arguments.provider, np.repeat(window, batch, axis=0))
        call()
        seconds = []
        for _ in range(max(5, 64 // batch)):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        found[str(batch)] = batch / float(np.median(seconds))
    return found


def largest_costs(file: Path, window: np.ndarray, arguments: argparse.Namespace) -> dict[str, float]:
    """Shares of the time of a window taken by the three most expensive operators, from ONNX Runtime's profile."""
    with tempfile.TemporaryDirectory() as directory:
        session = open_session(file, arguments.provider, arguments.threads, profile=Path(directory) / "profile")
        call = runner(session, arguments.provider, window)
        for _ in range(PROFILED):
            call()
        events = json.loads(Path(session.end_profiling()).read_text())
    times = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            times[event["args"]["op_name"]] += event["dur"]
    return {operator: time / times.total() for operator, time in times.most_common(3)}


def macs(file: Path, window: np.ndarray) -> int:
    """Multiply-accumulates of the convolutions, matrix products and GRUs for one window."""
    model = onnx.load(file)
    shapes = value_shapes(model, window)
    total = Counter()
    for node in model.graph.node:
        shape = [shapes.get(name, ()) for name in node.input]
        output = shapes.get(node.output[0], ())
        if node.op_type == "Conv":
            total["Conv"] += int(np.prod(output) * np.prod(shape[1][1:]))
        elif node.op_type == "MatMul":
            total["MatMul"] += int(np.prod(output) * shape[0][-1])
        elif node.op_type == "GRU":
            total["GRU"] += int(shape[0][0] * shape[0][1] * (np.prod(shape[1]) + np.prod(shape[2])))
    return sum(total.values())


def value_shapes(model: onnx.ModelProto, window: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights and, from one run, of all intermediate values."""
    import onnxruntime

    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(names, {"input_values": window})
    shapes = {name: np.shape(value) for name, value in zip(names, values)}
    return (
        shapes
        | {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
        | {"input_values": window.shape}
    )


def cold_start(file: Path) -> dict[str, dict[str, float]]:
    """Median seconds from the start of a process to its first output on the CPU, and its peak memory."""
    root = str(Path(__file__).parent.parent)
    found = {}
    for runtime, body in RUNTIMES.items():
        if runtime == "torch" and not (file.parent / "model.safetensors").is_file():
            continue
        code = COLD_START.format(root=root, body=body.format(file=str(file), directory=str(file.parent)))
        seconds, megabytes = [], []
        for _ in range(COLD_STARTS):
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            seconds.append(time.perf_counter() - start)
            if done.returncode:
                raise ValueError(f"{file.parent} cannot be run on {runtime}: {done.stderr.splitlines()[-1]}")
            megabytes.append(float(done.stdout))
        found[runtime] = {"seconds": float(np.median(seconds)), "peak_megabytes": float(np.median(megabytes))}
    return found
