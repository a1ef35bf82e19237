"""Optimizer, schedule, loss scale and random states as safetensors and JSON: files that cannot execute anything.

Up to version 0.1 they were the Trainer's own, which are pickles; those are read with `weights_only`, and never written.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

OPTIMIZER, OPTIMIZER_GROUPS = "optimizer.safetensors", "optimizer.json"
SCHEDULER, SCALER = "scheduler.json", "scaler.json"
PICKLES = {SCHEDULER: "scheduler.pt", SCALER: "scaler.pt"}
PICKLED_OPTIMIZER = "optimizer.pt"


def save_optimizer(optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Write tensors (`number of the parameter.name`) and the rest, number by number.

    Raises:
        TypeError: the state holds something that is neither tensor nor number nor text.
    """
    state = optimizer.state_dict()
    tensors, others = {}, {}
    for number, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{number}.{name}"] = value.detach().cpu().clone().contiguous()
            else:
                others.setdefault(number, {})[name] = value
    save_file(tensors, directory / OPTIMIZER)
    (directory / OPTIMIZER_GROUPS).write_text(json.dumps({"groups": state["param_groups"], "others": others}))


def load_optimizer(optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Give an optimizer the state that [`save_optimizer`] wrote, or the Trainer of an earlier version."""
    if not (directory / OPTIMIZER_GROUPS).exists():
        pickled = torch.load(directory / PICKLED_OPTIMIZER, map_location="cpu", weights_only=True)
        return optimizer.load_state_dict(pickled)
    written = json.loads((directory / OPTIMIZER_GROUPS).read_text())
    state: dict[int, dict[str, Any]] = {int(number): values for number, values in written["others"].items()}
    for name, tensor in load_file(directory / OPTIMIZER).items():
        number, _, name = name.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    now = optimizer.state_dict()["param_groups"]
    groups = [
        # JSON has no tuples, such as betas.
        {name: tuple(value) if isinstance(own.get(name), tuple) else value for name, value in group.items()}
        for group, own in zip(written["groups"], now, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_numbers(state: dict, file: Path) -> None:
    """Write the state of a schedule or a loss scale.

    Raises:
        TypeError: it holds something that is neither number nor text.
    """
    file.write_text(json.dumps(state))


def load_numbers(file: Path) -> dict | None:
    """What [`save_numbers`] wrote, or the Trainer of an earlier version, or `None` where there is nothing."""
    if file.exists():
        return json.loads(file.read_text())
    pickled = file.with_name(PICKLES[file.name])
    return torch.load(pickled, map_location="cpu", weights_only=True) if pickled.exists() else None


def save_random_state(file: Path) -> None:
    """Write the state of the generators of Python, NumPy and torch."""
    kind, numbers, *rest = np.random.get_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = {
        "python": random.getstate(),
        "numpy": [kind, numbers.tolist(), *rest],
        "cpu": _text(torch.random.get_rng_state()),
        "cuda": [_text(state) for state in devices],
    }
    file.write_text(json.dumps(state))


def load_random_state(file: Path) -> bool:
    """Set the generators as [`save_random_state`] found them.

    Returns:
        whether that was all of them: a GPU that was not there has no state.
    """
    state = json.loads(file.read_text())
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, numbers, *rest = state["numpy"]
    np.random.set_state((kind, np.array(numbers, np.uint32), *rest))
    torch.random.set_rng_state(_bytes(state["cpu"]))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, text in enumerate(state["cuda"][:devices]):
        torch.cuda.set_rng_state(_bytes(text), device)
    return devices == len(state["cuda"])


def _text(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
