"""Training steps per second, and the time of data, network, optimizer and checkpoint in a step."""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from benchmark.machine import machine
from data.corpora import open_corpus
from data.streaming import ConversationStream, PositionedLoader, StreamConfig
from diarization.providers import NoProvider
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from training.sealing import seal
from training.state_files import save_optimizer

WARM_UP = 3
CHECKPOINTS = 3


def run(arguments: argparse.Namespace) -> dict:
    """Seconds per step, by part, and seconds per checkpoint; on a GPU in the half precision that train.py chooses."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise NoProvider("device cuda is not available (no GPU or no driver); use --device cpu")
    half = half_precision() if arguments.device == "cuda" else torch.bfloat16
    autocast = arguments.device == "cuda" or arguments.bf16
    torch.manual_seed(0)
    config = FastDiarizationConfig(encoder_type=arguments.encoder_type)
    model = FastDiarizationForAudioFrameClassification(config).to(arguments.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    stream = ConversationStream(open_corpus(arguments.dataset, "train"), StreamConfig(batch_size=arguments.batch_size))
    loader = iter(PositionedLoader(stream, arguments.workers))
    parts = dict.fromkeys(("waiting for data", "forward and backward", "optimizer"), 0.0)

    def loss_of(batch: dict) -> torch.Tensor:
        with torch.autocast(arguments.device, half, enabled=autocast):
            return model(**batch).loss

    for step in range(WARM_UP + arguments.steps):
        times = [now(arguments.device)]
        batch = {name: value.to(arguments.device) for name, value in next(loader).items()}
        times.append(now(arguments.device))
        loss_of(batch).backward()
        times.append(now(arguments.device))
        optimizer.step()
        optimizer.zero_grad()
        times.append(now(arguments.device))
        if step >= WARM_UP:
            for name, start, end in zip(parts, times, times[1:]):
                parts[name] += (end - start) / arguments.steps
    return {
        "steps_per_second": 1 / sum(parts.values()),
        "seconds_per_step": parts,
        "largest_costs": largest_costs(lambda: loss_of(batch).backward(), arguments.device),
        "seconds_per_checkpoint": checkpoint_seconds(model, optimizer),
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": str(half if autocast else torch.float32).removeprefix("torch."),
        "torch": torch.__version__,
        "dataset": arguments.dataset,
        "encoder_type": arguments.encoder_type,
        "batch_size": arguments.batch_size,
        "workers": arguments.workers,
        **machine(),
    }


def largest_costs(pass_both_ways: Callable[[], None], device: str) -> dict[str, float]:
    """Shares of the time of a forward and backward pass taken by the three most expensive operators."""
    with torch.profiler.profile() as profile:
        pass_both_ways()
    times = Counter()
    for event in profile.key_averages():
        times[event.key] = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
    return {operator: time / times.total() for operator, time in times.most_common(3)}


def half_precision() -> torch.dtype:
    capable = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return torch.bfloat16 if capable else torch.float16


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def checkpoint_seconds(model, optimizer) -> float:
    """Mean time to write weights and optimizer and to compute their digests."""
    start = time.perf_counter()
    for _ in range(CHECKPOINTS):
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = Path(directory) / "checkpoint-0"
            model.save_pretrained(checkpoint)
            save_optimizer(optimizer, checkpoint)
            seal(checkpoint)
    return (time.perf_counter() - start) / CHECKPOINTS
