"""State that is written without pickles comes back bit by bit, and pickles of earlier versions cannot do anything."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Adafactor
from transformers.optimization import get_scheduler

from training.checkpoints import CheckpointError
from training.restoring import restoring
from training.state_files import (
    OPTIMIZER,
    OPTIMIZER_GROUPS,
    SCALER,
    SCHEDULER,
    load_numbers,
    load_optimizer,
    load_random_state,
    save_numbers,
    save_optimizer,
    save_random_state,
)
from training.trainer import StreamingTrainer

OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), weight_decay=0.01),
    "AdamW with amsgrad": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "SGD without momentum": lambda p: torch.optim.SGD(p, lr=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p, centered=True),
    "Adafactor": lambda p: Adafactor(p),
    "NAdam": lambda p: torch.optim.NAdam(p),
}


def learner(make: Callable) -> SimpleNamespace:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    parts = [{"params": network[0].parameters()}, {"params": network[1].parameters()}]
    return SimpleNamespace(network=network, optimizer=make(parts))


def steps(one: SimpleNamespace, numbers: range) -> None:
    for number in numbers:
        one.network(torch.full((5, 3), 0.1 * number)).square().sum().backward()
        one.optimizer.step()
        one.optimizer.zero_grad()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_with_the_same_bits(tmp_path, name):
    whole, resumed = learner(OPTIMIZERS[name]), learner(OPTIMIZERS[name])
    steps(whole, range(4))
    save_optimizer(whole.optimizer, tmp_path)
    resumed.network.load_state_dict(whole.network.state_dict())
    load_optimizer(resumed.optimizer, tmp_path)
    for one in (whole, resumed):
        steps(one, range(4, 8))
    for mine, other in zip(whole.network.parameters(), resumed.network.parameters()):
        assert torch.equal(mine, other)
    assert not [f for f in tmp_path.iterdir() if f.suffix not in (".json", ".safetensors")]


@pytest.mark.parametrize("name", ["cosine", "linear", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau"])
def test_a_schedule_goes_on_with_the_same_bits(tmp_path, name):
    def schedule():
        return get_scheduler(name, learner(OPTIMIZERS["AdamW"]).optimizer, 3, 20)

    def rates(scheduler, numbers: range) -> list:
        rates = []
        for number in numbers:
            scheduler.step(*([1 / 3 + number] if name == "reduce_lr_on_plateau" else []))
            rates.append(scheduler.optimizer.param_groups[0]["lr"])
        return rates

    whole, resumed = schedule(), schedule()
    rates(whole, range(5))
    save_numbers(whole.state_dict(), tmp_path / SCHEDULER)
    save_optimizer(whole.optimizer, tmp_path)
    load_optimizer(resumed.optimizer, tmp_path)
    resumed.load_state_dict(load_numbers(tmp_path / SCHEDULER))
    assert rates(whole, range(5, 15)) == rates(resumed, range(5, 15))


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_chance_goes_on_as_it_would_have(tmp_path, seed, drawn):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    for _ in range(drawn):
        random.gauss(0, 1), np.random.normal(), torch.randn(3)
    save_random_state(tmp_path / "rng_state.json")

    def draw():
        return random.random(), random.gauss(0, 1), np.random.normal(size=2).tolist(), torch.randn(2).tolist()

    expected = draw()
    draw()
    assert load_random_state(tmp_path / "rng_state.json")
    assert draw() == expected


def test_what_the_trainer_of_an_earlier_version_wrote_is_read(tmp_path):
    whole, resumed = learner(OPTIMIZERS["AdamW"]), learner(OPTIMIZERS["AdamW"])
    steps(whole, range(4))
    torch.save(whole.optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save({"last_epoch": 4, "_last_lr": [0.1]}, tmp_path / "scheduler.pt")
    resumed.network.load_state_dict(whole.network.state_dict())
    load_optimizer(resumed.optimizer, tmp_path)
    for one in (whole, resumed):
        steps(one, range(4, 8))
    for mine, other in zip(whole.network.parameters(), resumed.network.parameters()):
        assert torch.equal(mine, other)
    assert load_numbers(tmp_path / SCHEDULER) == {"last_epoch": 4, "_last_lr": [0.1]}
    assert load_numbers(tmp_path / SCALER) is None


class Intruder:
    def __reduce__(self):
        return os.mkdir, ("intruded",)


def test_pickles_of_others_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("optimizer.pt", "scheduler.pt", "scaler.pt"):
        torch.save({"state": Intruder()}, tmp_path / name)
        assert b"intruded" in (tmp_path / name).read_bytes()
    with pytest.raises(UnpicklingError):
        load_optimizer(learner(OPTIMIZERS["AdamW"]).optimizer, tmp_path)
    for name in (SCHEDULER, SCALER):
        with pytest.raises(UnpicklingError):
            load_numbers(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be resumed .UnpicklingError"), restoring(tmp_path):
        load_numbers(tmp_path / SCALER)
    assert not (tmp_path / "intruded").exists()


def scaling(scaler) -> SimpleNamespace:
    return SimpleNamespace(accelerator=SimpleNamespace(scaler=scaler), args=SimpleNamespace(should_save=True))


def test_the_scale_of_the_loss_comes_and_goes_with_fp16(tmp_path, caplog):
    before, after = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (3.0, 5.0))
    before.scale(torch.ones(1))
    StreamingTrainer._save_scaler(scaling(before), tmp_path)
    StreamingTrainer._load_scaler(scaling(after), tmp_path)
    assert after.state_dict() == before.state_dict() and not caplog.text
    StreamingTrainer._load_scaler(scaling(None), tmp_path)
    assert caplog.messages == ["the checkpoint's scale of the loss is left out: this run does not use fp16"]
    (tmp_path / SCALER).rename(tmp_path / "away")
    torch.save(before.state_dict(), tmp_path / "scaler.pt")
    StreamingTrainer._load_scaler(scaling(torch.amp.GradScaler("cpu", init_scale=7.0)), tmp_path)
    (tmp_path / "scaler.pt").unlink()
    StreamingTrainer._load_scaler(scaling(after), tmp_path)
    assert caplog.messages[1:] == [
        "the checkpoint has no scale of the loss, which begins anew: it was made without fp16"
    ]
    StreamingTrainer._save_scaler(scaling(None), tmp_path)
    assert not (tmp_path / SCALER).exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["groups", "others", "all"]), json_values)
def test_an_optimizer_that_was_edited_is_one_line(tmp_path, where, value):
    one = learner(OPTIMIZERS["AdamW"])
    steps(one, range(2))
    save_optimizer(one.optimizer, tmp_path)
    written = json.loads((tmp_path / OPTIMIZER_GROUPS).read_text())
    written = value if where == "all" else written | {where: value}
    (tmp_path / OPTIMIZER_GROUPS).write_text(json.dumps(written))
    try:
        with restoring(tmp_path):
            load_optimizer(one.optimizer, tmp_path)
    except CheckpointError as error:
        assert "\n" not in str(error) and "remove it to resume from an earlier one" in str(error)


def test_tensors_that_were_cut_are_one_line(tmp_path):
    one = learner(OPTIMIZERS["AdamW"])
    steps(one, range(2))
    save_optimizer(one.optimizer, tmp_path)
    file: Path = tmp_path / OPTIMIZER
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="cannot be resumed .SafetensorError"), restoring(tmp_path):
        load_optimizer(one.optimizer, tmp_path)
