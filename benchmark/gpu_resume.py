"""An fp16 run of train.py that is killed and resumed, held against one that is not."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

from benchmark.guarded import Measurement
from training.sealing import fault_of, local_checkpoints, step_of

ROOT = Path(__file__).parent.parent
PARTS = 4
"""Checkpoints of a run; it is killed after the first."""
USUAL = {
    "save_total_limit": PARTS,
    "eval_strategy": "no",
    "eval_windows": 32,
    "report_to": "none",
    "disable_tqdm": "true",
    "dataloader_num_workers": 4,
}
"""Flags: nothing is scored or drawn, and every checkpoint is kept."""


def measurements(dataset: str, device: str, steps: int) -> list[Measurement]:
    given = {"dataset": dataset, "device": device, "steps": steps, "flags": []}
    return [Measurement("resume", "killed and resumed", resumed, given)]


def resumed(dataset: str, device: str, steps: int, flags: list[str]) -> dict:
    """The largest difference of a weight to a run that was not killed; 0 if every bit is the same.

    If there is one, also that between two runs neither of which was killed: what the device adds by itself.
    """
    save = max(1, steps // PARTS)
    command = [sys.executable, str(ROOT / "train.py"), "--dataset", dataset, "--max_steps", str(save * PARTS)]
    command += [f"--{flag}={value}" for flag, value in USUAL.items()]
    command += [f"--save_steps={save}", "--fp16" if device == "cuda" else "--use_cpu", *flags]
    with tempfile.TemporaryDirectory() as directory:
        whole, cut, again = (Path(directory) / name for name in ("whole", "cut", "again"))
        run_until(command, whole, save * PARTS)
        killed_at = run_until(command, cut, save)
        if killed_at == save * PARTS:
            raise ValueError(f"the run came to its last step {killed_at} before it could be killed; give more --steps")
        run_until([*command, "--resume"], cut, save * PARTS)
        found = {
            "steps": save * PARTS,
            "killed_after_checkpoint": killed_at,
            "largest_difference": difference(whole, cut, save * PARTS),
            "precision": "float16" if device == "cuda" else "float32",
            "train_py_steps_per_second": steps_per_second(whole, save, save * PARTS),
        }
        if found["largest_difference"]:
            run_until(command, again, save * PARTS)
            found["largest_difference_of_two_whole_runs"] = difference(whole, again, save * PARTS)
        return found


def run_until(command: list[str], output: Path, step: int) -> int:
    """Run until there is a complete checkpoint of a step or a later one, and kill; returns its step.

    Raises:
        ValueError: the run ended before; the message is the last line that it said.
    """
    log = output.with_suffix(".log")
    with log.open("a") as said:
        run = subprocess.Popen([*command, "--output_dir", str(output)], stdout=said, stderr=said)
        while True:
            ended = run.poll() is not None
            whole = [step_of(c) for c in local_checkpoints(output) if step_of(c) >= step and fault_of(c) is None]
            if whole or ended:
                break
            time.sleep(0.01)
        if not ended:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
    if not whole:
        raise ValueError(f"train.py ended before step {step}: {(log.read_text().splitlines() or ['no message'])[-1]}")
    return max(whole)


def difference(run: Path, other: Path, step: int) -> float:
    """The largest difference between the weights of two runs at a step."""
    first, second = (load_file(output / f"checkpoint-{step}" / "model.safetensors") for output in (run, other))
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def steps_per_second(run: Path, first: int, last: int) -> float:
    """Of train.py between two checkpoints, saving included."""
    states = [json.loads((run / f"checkpoint-{step}" / "trainer_state.json").read_text()) for step in (first, last)]
    seconds = [state["stateful_callbacks"]["Clock"]["args"]["seconds"] for state in states]
    return (last - first) / (seconds[1] - seconds[0])
