"""Training steps per second by batch size and data workers, with what the host and the GPU do in a step."""

import contextlib
import itertools
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch.autograd import DeviceType

from benchmark.guarded import Measurement
from benchmark.training_steps import half_precision, now
from data.corpora import open_corpus
from data.streaming import ConversationStream, PositionedLoader, StreamConfig
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from training.arguments import Training

WARM_UP = 5
PROFILED = LAUNCHES = 3
SAMPLED_MS = 200


def measurements(
    dataset: str, device: str, batch_sizes: list[int], workers: list[int], seconds: float
) -> list[Measurement]:
    """The first batch size with each number of workers and without data, its kernels; then the others; compiled."""
    first, *others = batch_sizes
    common = {"dataset": dataset, "device": device, "seconds": seconds}

    def cell(batch_size: int, count: int | None, compiled: bool = False) -> Measurement:
        data = "one batch again and again" if count is None else f"{count} workers"
        name = f"batch {batch_size}, {data}" + (", torch.compile" if compiled else "")
        given = {"batch_size": batch_size, "workers": count, "compiled": compiled}
        return Measurement("training", name, speed, common | given)

    return [
        cell(first, None),
        *(cell(first, count) for count in workers),
        Measurement("training", f"batch {first}, by kernel", kernels, {"device": device, "batch_size": first}),
        *(cell(size, count) for size in others for count in (None, *workers)),
        cell(first, None, compiled=True),
    ]


class Step:
    """A training step as train.py makes it: half precision on a GPU, clipping, AdamW, no wait for the device."""

    def __init__(self, device: str, compiled: bool = False):
        torch.manual_seed(0)
        self.device, self.dtype = device, half_precision() if device == "cuda" else torch.bfloat16
        self.model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig()).to(device).train()
        self.forward = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=Training.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(device, enabled=self.dtype == torch.float16)

    def __call__(self, batch: dict[str, torch.Tensor]) -> None:
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        with torch.autocast(self.device, self.dtype, enabled=self.device == "cuda"):
            loss = self.forward(**batch).loss
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), Training.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


def speed(
    dataset: str, device: str, seconds: float, batch_size: int, workers: int | None, compiled: bool = False
) -> dict:
    """Steps per second of some seconds, after the first pools are filled.

    Args:
        workers: `None` for one batch that is used again and again: the network alone.
    """
    step, batches = Step(device, compiled), batches_of(dataset, batch_size, workers)
    for batch in itertools.islice(batches, WARM_UP + 8 * (workers or 0)):
        step(batch)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with utilisation(device) as shares:
        waited, steps, start = 0.0, 0, now(device)
        while steps == 0 or time.perf_counter() - start < seconds:
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            step(batch)
            steps += 1
        took = now(device) - start
    return {
        "steps_per_second": steps / took,
        "windows_per_second": steps * batch_size / took,
        "share_waiting_for_data": waited / took,
        "launch_ms_per_step": launch_milliseconds(step, batch),
        "gpu_busy_share": statistics.fmean(shares) / 100 if shares else None,
        "peak_gpu_megabytes": torch.cuda.max_memory_reserved() / 2**20 if device == "cuda" else None,
        "steps": steps,
        "precision": str(step.dtype if device == "cuda" else torch.float32).removeprefix("torch."),
    }


def launch_milliseconds(step: Step, batch: dict[str, torch.Tensor]) -> float:
    """Processor time of the host for a step of which the device has done nothing yet: the median of some."""
    spent = []
    for _ in range(LAUNCHES):
        now(step.device)
        start = time.process_time()
        step(batch)
        spent.append(1e3 * (time.process_time() - start))
    return statistics.median(spent)


def batches_of(dataset: str, batch_size: int, workers: int | None) -> Iterator[dict[str, torch.Tensor]]:
    """As many lanes as workers, so that no worker does what another does, and at least the usual number."""
    config = StreamConfig(batch_size=batch_size, lanes=max(StreamConfig.lanes, workers or 0))
    loader = iter(PositionedLoader(ConversationStream(open_corpus(dataset, "train"), config), workers or 0))
    return itertools.repeat(next(loader)) if workers is None else loader


@contextlib.contextmanager
def utilisation(device: str) -> Iterator[list[float]]:
    """Percentages of time in which a kernel ran, sampled by nvidia-smi and there on leaving; none without it."""
    shares: list[float] = []
    asked = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0", f"--loop-ms={SAMPLED_MS}"]
    try:
        sampler = device == "cuda" and subprocess.Popen(["nvidia-smi", *asked], stdout=subprocess.PIPE, text=True)
    except OSError:
        sampler = None
    try:
        yield shares
    finally:
        if sampler:
            sampler.terminate()
            lines = sampler.communicate()[0].splitlines()
            shares += [float(line) for line in lines if line.strip().isdigit()]


def kernels(device: str, batch_size: int) -> dict:
    """Kernels launched in a step, on a CPU operators, their time, and the three that take most of it."""
    step = Step(device)
    batch = next(batches_of("demo", batch_size, None))
    for _ in range(WARM_UP):
        step(batch)
    counts, times = of_kernels(lambda: step(batch), device)
    return {
        "kernels_per_step": counts.total() / PROFILED,
        "ms_per_step": times.total() / PROFILED / 1e3,
        "largest_costs": {name: time / times.total() for name, time in times.most_common(3)},
    }


def of_kernels(action: Callable[[], None], device: str) -> tuple[Counter, Counter]:
    """Calls and microseconds by name, in `PROFILED` actions."""
    wanted = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    with torch.profiler.profile() as profile:
        for _ in range(PROFILED):
            action()
        now(device)
    counts, times = Counter(), Counter()
    for event in profile.key_averages():
        if event.device_type == wanted:
            counts[event.key] += event.count
            times[event.key] += event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
    return counts, times
