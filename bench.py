"""Measure the speed of an exported model on this machine.

python bench.py latency --model runs/demo/model --provider cpu --threads 1 --json latency.json
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

from data.corpora import open_corpus
from data.decoding import decode

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
WARM_UP = 50


def open_session(file: Path, provider: str, threads: int) -> onnxruntime.InferenceSession:
    """A session on exactly the provider asked for.

    Raises:
        SystemExit: no such file, or the provider is not there; ONNX Runtime would silently run on the CPU.
    """
    if not file.is_file():
        raise SystemExit(f"error: {file} does not exist; run python export.py --model {file.parent} first")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    name = PROVIDERS[provider]
    if name not in onnxruntime.get_available_providers():
        raise SystemExit(f"error: provider {provider} is not in this ONNX Runtime; install onnxruntime-gpu, or use cpu")
    # CUDA graphs replay one static shape, which a window is.
    settings = [(name, {"enable_cuda_graph": "1"})] if provider == "cuda" else [name]
    session = onnxruntime.InferenceSession(file, options, providers=settings)
    if session.get_providers()[0] != name:
        raise SystemExit(f"error: provider {provider} could not start here (no GPU or no driver); use --provider cpu")
    return session


def runner(session: onnxruntime.InferenceSession, provider: str, window: np.ndarray):
    """A call from waveform to logits, copies to and from the device included."""
    if provider == "cpu":
        return lambda: session.run(["logits"], {"input_values": window})
    binding = session.io_binding()
    on_device = onnxruntime.OrtValue.ortvalue_from_numpy(window, "cuda", 0)
    frames = window.shape[1] // 320
    tracks = session.run(["logits"], {"input_values": window})[0].shape[2]
    logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type((window.shape[0], frames, tracks), np.float32, "cuda", 0)
    binding.bind_ortvalue_input("input_values", on_device)
    binding.bind_ortvalue_output("logits", logits)

    def run():
        on_device.update_inplace(window)
        session.run_with_iobinding(binding)
        return logits.numpy()

    return run


def latency(arguments: argparse.Namespace) -> dict:
    """Percentiles of single windows of speech, and the peer's in the same loop if one is given."""
    speech = np.concatenate([decode(row.audio) for row in open_corpus("demo", "validation").read(0)])
    window = np.ascontiguousarray(speech[None, : int(arguments.window_seconds * 16_000)])
    session = open_session(Path(arguments.model) / arguments.file_name, arguments.provider, arguments.threads)
    calls = {"": runner(session, arguments.provider, window)}
    if arguments.peer:
        peer = open_session(Path(arguments.peer), arguments.provider, arguments.threads)
        name = peer.get_inputs()[0].name
        calls["peer_"] = lambda: peer.run(None, {name: window[:, None]})
    times = {prefix: [] for prefix in calls}
    for number in range(WARM_UP + arguments.windows):
        for prefix, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= WARM_UP:
                times[prefix].append(1e3 * (time.perf_counter() - start))
    result = {
        f"{prefix}p{p}_ms": float(np.percentile(values, p)) for prefix, values in times.items() for p in (50, 95, 99)
    }
    if arguments.peer:
        result["peer_ratio"] = float(np.median(np.array(times["peer_"]) / np.array(times[""])))
    return result | {
        "provider": arguments.provider,
        "threads": arguments.threads,
        "window_seconds": arguments.window_seconds,
        "windows": arguments.windows,
        "file": arguments.file_name,
        "machine": _processor(),
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("latency", help="waveform to logits, batch 1, percentiles")
    command.add_argument("--model", required=True, help="directory written by export.py")
    command.add_argument("--file_name", default="model.onnx", help="ONNX file in it (default %(default)s)")
    command.add_argument("--provider", choices=PROVIDERS, default="cpu", help="default %(default)s; never replaced")
    command.add_argument("--threads", type=int, default=1, help="threads of one call on the CPU (default %(default)s)")
    command.add_argument("--window_seconds", type=float, default=3.0, help="default %(default)s")
    command.add_argument("--windows", type=int, default=1000, help="timed windows (default %(default)s)")
    command.add_argument("--peer", help="segmentation-3.0 as ONNX, timed in turn with ours")
    command.add_argument("--json", help="file to write the result to")
    command.set_defaults(run=latency)
    arguments = parser.parse_args()
    result = arguments.run(arguments)
    text = json.dumps(result, indent=2)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
