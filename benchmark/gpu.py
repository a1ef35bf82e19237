"""A GPU in one run: latency of single windows, training steps per second, an fp16 run that is killed and resumed.

Results are written after each measurement, the most important ones first. What cannot be measured is in the result with
its reason, and the rest is still measured. `--device cpu` tries the same on a CPU.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmark import gpu_latency, gpu_resume, gpu_training
from benchmark.guarded import Measurement, guarded
from benchmark.machine import machine
from benchmark.sessions import NoProvider

RESULT = Path(__file__).parent.parent / "docs" / "performance" / "gpu.json"


def run(arguments: argparse.Namespace) -> dict:
    """All measurements, written to `--json` after each of them; by default those of a GPU to docs/performance/gpu.json.

    Raises:
        NoProvider: there is no GPU.
        ValueError: results of a CPU would be written where those of a GPU belong.
    """
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise NoProvider("device cuda is not available (no GPU or no driver); --device cpu tries the same on a CPU")
    if arguments.device == "cuda":
        arguments.json = arguments.json or str(RESULT)
    elif arguments.json and Path(arguments.json).resolve() == RESULT.resolve():
        raise ValueError(f"--json {arguments.json} is for the results of a GPU; name another file")
    result = describe(arguments)

    def report(measurement: Measurement, found: dict) -> None:
        result.setdefault(measurement.group, {})[measurement.name] = found
        print(f"{measurement.group}, {measurement.name}: {json.dumps(found)}", file=sys.stderr, flush=True)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")

    guarded(measurements(arguments), arguments.minutes, report)
    return result


def measurements(arguments: argparse.Namespace) -> list[Measurement]:
    """In the order of their importance: single windows, training in the usual size, resume, other sizes, compilers."""
    latency = gpu_latency.measurements(arguments.model, arguments.device, arguments.windows)
    training = gpu_training.measurements(
        arguments.dataset, arguments.device, arguments.batch_size, arguments.workers, arguments.seconds
    )
    resume = gpu_resume.measurements(arguments.dataset, arguments.device, arguments.steps)
    usual = len(arguments.workers) + 2
    quick = [measurement for measurement in latency if not gpu_latency.is_compiled(measurement)]
    compiled = [measurement for measurement in latency if gpu_latency.is_compiled(measurement)]
    return [*quick, *training[:usual], *resume, *training[usual:-1], *compiled, training[-1]]


def describe(arguments: argparse.Namespace) -> dict:
    """The card and the machine."""
    found = {"device": "cpu", "model": Path(arguments.model).resolve().name, "dataset": Path(arguments.dataset).name}
    if arguments.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {
            "device": card.name,
            "gpu_megabytes": card.total_memory // 2**20,
            "compute_capability": f"{card.major}.{card.minor}",
            "driver": _driver(),
            "cuda": torch.version.cuda,
        }
    return found | {"torch": torch.__version__, "minutes": arguments.minutes, **machine()}


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
