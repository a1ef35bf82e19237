"""A training step is launched without waiting for the device: shapes known beforehand, no value read by the host.

A GPU is not needed: tensors of the meta device, which have no data, stand for those on one, and what needs data raises.
"""

import sys
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import SMALL

import train
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.encoders_fast_diarization import ENCODERS
from training.anchor import EmbeddingAnchor
from training.divergence import DivergenceGuard
from training.teacher_voices import TeacherVoices

WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::unique")
"""Operators whose result, or its shape, the host has to wait for."""

COPYING = ("aten::_to_copy", "aten::copy_")


class Launches(TorchDispatchMode):
    """Counts of the operators called, and copies between the host and a device."""

    def __init__(self):
        super().__init__()
        self.counts, self.copies = Counter(), []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = function._schema.name
        self.counts[name] += 1
        tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors} | {torch.device(keywords.get("device") or "meta").type}
        if name in COPYING and len(devices) > 1:
            self.copies.append((name, [tuple(tensor.shape) for tensor in tensors]))
        return function(*arguments, **keywords)


class HostValues(TorchFunctionMode):
    """Calls that make a tensor on a device out of numbers of the host, which are copied there."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function in (torch.tensor, torch.as_tensor) and str((keywords or {}).get("device", "cpu")) != "cpu":
            self.calls.append(arguments)
        return function(*arguments, **(keywords or {}))


def without_data(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device="meta")


@pytest.mark.slow
@pytest.mark.parametrize("encoder_type", ENCODERS)
@pytest.mark.parametrize("speakers", [2, 4])
def test_a_step_needs_no_data_on_the_host(encoder_type, speakers, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())  # knows no meta device
    config = FastDiarizationConfig(encoder_type=encoder_type, hidden_size=16, num_speakers=speakers)
    model = FastDiarizationForAudioFrameClassification(config).train().to("meta")
    anchor = EmbeddingAnchor(FastDiarizationForAudioFrameClassification(config).to("meta"), 1.0)
    teacher = TeacherVoices.__new__(TeacherVoices)
    teacher.numbers, teacher.voices = without_data(9, dtype=torch.int64), without_data(9, 192)
    batch = {
        "input_values": without_data(3, 16_000),
        "labels": without_data(3, 50, speakers),
        "speaker_labels": without_data(3, speakers, dtype=torch.int64),
        "recording_labels": without_data(3, dtype=torch.int64),
    }
    with Launches() as launches, HostValues() as values:
        rows = teacher.rows_of(batch["speaker_labels"])
        output = model(**batch, voice_labels=rows, voices=teacher.voices)
        loss = output.loss + anchor.distance(output.speaker_embeddings, batch)
        loss.backward()
        DivergenceGuard().note(1, loss)
    assert set(output.losses) == {"segmentation", "affinity", "speaker", "distillation", "teacher"}
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not launches.copies and not values.calls
    assert not set(WAITING) & set(launches.counts)


@pytest.mark.parametrize(
    "wait",
    [
        lambda values: values.sum().item(),
        lambda values: values[values > 0],
        lambda values: values.cpu(),
        lambda values: torch.tensor([0, 1], device=values.device),
        lambda values: values + torch.ones(3).to(values.device),
    ],
)
def test_what_waits_is_noticed(wait):
    with Launches() as launches, HostValues() as values:
        try:
            wait(without_data(3))
        except (RuntimeError, NotImplementedError):
            return
    assert launches.copies or values.calls or set(WAITING) & set(launches.counts)


def waits(directory, monkeypatch, steps: int) -> Counter:
    """How often each operator that waits is called in a training of so many steps."""
    flags = f"{SMALL} --logging_steps 1000 --dataloader_num_workers 0 --save_strategy no --max_steps {steps}"
    monkeypatch.setattr(sys, "argv", ["train.py", *flags.split(), "--output_dir", str(directory)])
    monkeypatch.setattr(train, "finish", lambda *arguments: None)
    with Launches() as launches:
        train.main()
    return Counter({name: launches.counts[name] for name in WAITING})


@pytest.mark.slow
def test_more_steps_wait_no_more_often(tmp_path, monkeypatch):
    """Of the whole step of the Trainer, logging, clipping and optimizer included."""
    assert waits(tmp_path / "short", monkeypatch, 2) == waits(tmp_path / "long", monkeypatch, 5)
