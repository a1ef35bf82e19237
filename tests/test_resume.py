"""Runs that are killed and resumed end with the bits of a run that was never interrupted."""

import functools
import hashlib
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from training_runs import Run, start, write_corpus

from data import streaming
from data.corpora import open_corpus
from training.sealing import fault_of, local_checkpoints, step_of
from training.trainer import StreamingTrainer

pytestmark = pytest.mark.training

KILLS = int(os.environ.get("KILLS", "6"))
"""How often the run is killed that is compared with one that is not; `KILLS=50` takes some minutes."""
STEPS = 16 * KILLS
"""Far more than the runs come to before they are killed, however fast the machine."""
CALLS = 4000
"""About as many as a step makes, or a save."""
SHORT = 12
EXACT = (
    *("model.safetensors", "optimizer.safetensors", "optimizer.json", "scheduler.json", "rng_state.json"),
    "stream_state_0.json",
)


def skip_export() -> None:
    subprocess.run = lambda *_args, **_kwargs: SimpleNamespace(returncode=0)


def kill_at(event: str, name: str) -> None:
    """SIGKILL for this process when it is about to open (rename, remove) a file of that name."""

    def hook(happening: str, arguments: tuple) -> None:
        if happening == event and isinstance(arguments[0], (str, Path)):
            path = Path(arguments[0])
            if path.name == name:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_after(event: str, times: int, calls: int) -> None:
    """SIGKILL for this process so many Python calls after the n-th time it opens a file, makes a checkpoint's directory
    (`os.mkdir`) or begins a step (`step`)."""
    trainer, seen, called = os.getpid(), itertools.count(1), itertools.count()

    def count(*_) -> None:
        if next(called) >= calls:
            os.kill(trainer, signal.SIGKILL)

    def notice(happening: str, arguments: tuple) -> None:
        if happening != event or os.getpid() != trainer:
            return
        if event == "os.mkdir" and not Path(arguments[0]).name.startswith("checkpoint-"):
            return
        if next(seen) == times:
            sys.setprofile(count)

    step = StreamingTrainer.training_step

    def training_step(*arguments, **named):
        sys.audit("step")
        return step(*arguments, **named)

    StreamingTrainer.training_step = training_step
    sys.addaudithook(notice)


def kill_a_worker(mark: Path) -> None:
    """SIGKILL for the first data worker that makes its fourth batch; `mark` is left as a sign."""
    skip_export()
    made, count, parent = streaming.fill, itertools.count(), os.getpid()

    def fill(*arguments):
        if os.getpid() != parent and next(count) == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made(*arguments)

    streaming.fill = fill


def kill_when_a_batch_is_taken() -> None:
    """SIGKILL for this process in the middle of taking its first batch from a data worker."""
    answer, trainer = connection.answer_challenge, os.getpid()

    def answer_challenge(*arguments):
        if os.getpid() == trainer:
            os.kill(trainer, signal.SIGKILL)
        return answer(*arguments)

    connection.answer_challenge = answer_challenge


class Runs:
    """Runs on one corpus below one directory."""

    def __init__(self, directory: Path):
        self.directory, self.corpus = directory, directory / "corpus"
        write_corpus(self.corpus)

    def start(self, name: str, *flags: str, steps: int = SHORT, workers: int = 2, prepare=skip_export) -> Run:
        settings = ["--dataset", self.corpus, "--output_dir", self.directory / name, "--max_steps", steps]
        settings += ["--save_steps", 2, "--dataloader_num_workers", workers, *flags]
        return start(*map(str, settings), log=self.directory / f"{name}.log", prepare=prepare)

    def finished(self, name: str, *flags: str, steps: int = SHORT, **settings) -> Path:
        """The last checkpoint of a run that goes to its end."""
        run = self.start(name, *flags, steps=steps, **settings).ended(timeout=10 * max(60, steps))
        assert run.exitcode == 0, run.text()
        return self.directory / name / f"checkpoint-{steps}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def short(runs) -> Path:
    """The end of a run of `SHORT` steps that nothing interrupts, with two workers."""
    return runs.finished("short")


def assert_same(one: Path, other: Path) -> None:
    for name in EXACT:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def reached(directory: Path) -> int:
    steps = [step_of(checkpoint) for checkpoint in local_checkpoints(directory) if not fault_of(checkpoint)]
    return max(steps, default=0)


IN_A_SAVE = [
    ("open", "stream_state_0.json"),
    ("open", "trainer_state.json"),
    ("open", "manifest.json.part"),
    ("os.rename", "manifest.json.part"),
    ("os.remove", "optimizer.safetensors"),
]


def windows_of(file: Path) -> dict[int, set[str]]:
    """The digests of the windows trained on in each step."""
    windows = defaultdict(set)
    for line in file.read_text().splitlines():
        step, _, digest = line.partition(" ")
        windows[int(step)].add(digest)
    return windows


def note_windows(file: Path, kill: Callable[[], None] | None = None) -> None:
    """Append step and digest of each batch trained on to a file; `kill` is called at the start."""
    skip_export()
    compute_loss = StreamingTrainer.compute_loss

    def noting(self, model, inputs, **kwargs):
        digest = hashlib.sha256(inputs["input_values"].numpy().tobytes() + inputs["labels"].numpy().tobytes())
        with file.open("a") as stream:
            stream.write(f"{self.state.global_step} {digest.hexdigest()}\n")
        return compute_loss(self, model, inputs, **kwargs)

    StreamingTrainer.compute_loss = noting
    if kill:
        kill()


def kill_somewhere(runs: Runs, rng: random.Random, number: int) -> None:
    """Go on with the run `killed`, which is killed while it starts, steps, writes, or at a chosen file of a save."""
    directory, windows = runs.directory / "killed", runs.directory / "killed windows"
    kill = (
        functools.partial(kill_after, "open", rng.randint(1, 40), 0),
        functools.partial(kill_after, "step", rng.randint(1, 6), rng.randint(0, CALLS)),
        functools.partial(kill_after, "os.mkdir", rng.randint(1, 2), rng.randint(0, CALLS)),
        functools.partial(kill_at, *IN_A_SAVE[number // 4 % len(IN_A_SAVE)]),
    )[number % 4]
    run = runs.start("killed", "--resume", steps=STEPS, prepare=functools.partial(note_windows, windows, kill))
    run.ended()
    assert run.exitcode == -signal.SIGKILL, run.text()
    assert reached(directory) < STEPS


def test_kills_at_random_points_leave_no_trace(runs):
    noted = [runs.directory / f"{name} windows" for name in ("reference", "killed")]
    reference = runs.finished("reference", steps=STEPS, prepare=functools.partial(note_windows, noted[0]))
    rng = random.Random(20)
    for number in range(KILLS):
        kill_somewhere(runs, rng, number)
    resumed = runs.finished("killed", "--resume", steps=STEPS, prepare=functools.partial(note_windows, noted[1]))
    assert_same(resumed, reference)
    whole, pieces = map(windows_of, noted)
    assert len(whole) == STEPS and all(len(digests) == 1 for digests in whole.values())
    assert pieces == whole, "each step on the windows of the run that was not killed, however often it was done"
    said = (runs.directory / "killed.log").read_text()
    assert "passing over" in said and "Traceback" not in said


def test_workers_of_a_killed_run_end_in_silence(runs):
    run = runs.start("orphans", prepare=kill_when_a_batch_is_taken)
    workers = []

    def started() -> bool:
        workers[:] = psutil.Process(run.pid).children()
        return len(workers) == 2

    run.wait_for(started)
    run.join()
    assert run.exitcode == -signal.SIGKILL
    assert not psutil.wait_procs(workers, timeout=60)[1], "workers that outlive the run"
    assert "Traceback" not in run.text() and "Error" not in run.text()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_leave_it_saves_the_step_under_way(runs, short, number, code):
    name = f"asked{code}"
    run = runs.start(name, "--save_steps", "1000", "--logging_steps", "1")
    run.wait_for(lambda: ": loss " in run.text())
    os.kill(run.pid, number)
    assert run.ended().exitcode == code, run.text()
    assert "with --resume to continue" in run.text() and "Traceback" not in run.text()
    assert 0 < reached(runs.directory / name) < SHORT
    assert_same(runs.finished(name, "--resume"), short)


def test_the_number_of_workers_may_change(runs, short):
    for workers in (0, 4, 1):
        run = runs.start("workers", "--resume", workers=workers)
        before = reached(runs.directory / "workers")
        run.wait_for(lambda at=before: reached(runs.directory / "workers") > at)
        run.kill()
        run.join()
    assert_same(runs.finished("workers", "--resume", workers=2), short)


def test_a_killed_worker_is_replaced(runs, short):
    mark = runs.directory / "killed a worker"
    checkpoint = runs.finished("worker", prepare=functools.partial(kill_a_worker, mark))
    assert mark.exists()
    assert "a data worker was killed" in (runs.directory / "worker.log").read_text()
    assert_same(checkpoint, short)


def test_evaluating_and_saving_leave_no_trace(runs, short):
    assert_same(runs.finished("often", "--eval_steps", "3", "--save_steps", "1", "--save_total_limit", "1"), short)
    assert [step_of(c) for c in local_checkpoints(runs.directory / "often")] == [SHORT]


def test_gradient_accumulation_resumes_too(runs):
    flags = ("--gradient_accumulation_steps", "3")
    reference = runs.finished("accumulated", *flags)
    run = runs.start("accumulating", *flags)
    run.wait_for(lambda: reached(runs.directory / "accumulating") >= 4)
    run.kill()
    run.join()
    assert_same(runs.finished("accumulating", *flags, "--resume"), reference)


def test_a_run_that_is_at_its_end_only_finishes_again(runs, short):
    before = {name: (short / name).read_bytes() for name in EXACT}
    assert runs.finished("short", "--resume") == short
    assert "nothing is left to do" in (runs.directory / "short.log").read_text()
    assert [step_of(c) for c in local_checkpoints(short.parent)] == [SHORT, SHORT - 2]
    assert {name: (short / name).read_bytes() for name in EXACT} == before
    assert (short.parent / "model" / "model.safetensors").read_bytes() == before["model.safetensors"]


def one_of_two(rank: int, port: int) -> None:
    """What torchrun and accelerate launch tell a process."""
    skip_export()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


class Pair:
    """The same run as two processes that train together."""

    def __init__(self, runs: Runs, name: str, *flags: str):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        flags = ("--use_cpu", "true", "--ddp_backend", "gloo", *flags)
        prepared = [functools.partial(one_of_two, rank, port) for rank in range(2)]
        self.runs = [runs.start(name, *flags, steps=6, workers=1, prepare=prepare) for prepare in prepared]
        self.directory = runs.directory / name

    def finished(self) -> Path:
        for run in self.runs:
            assert run.ended().exitcode == 0, run.text()
        return self.directory / "checkpoint-6"


def test_two_processes_resume_exactly(runs):
    reference = Pair(runs, "two").finished()
    pair = Pair(runs, "two killed")
    pair.runs[0].wait_for(lambda: reached(pair.directory) >= 2)
    for run in pair.runs:
        run.kill()
        run.join()
    assert reached(pair.directory) < 6
    resumed = Pair(runs, "two killed", "--resume").finished()
    per_process = [
        f"{name}_{rank}.{end}" for name, end in (("rng_state", "json"), ("stream_state", "json")) for rank in "01"
    ]
    for name in ("model.safetensors", "optimizer.safetensors", *per_process):
        assert (resumed / name).read_bytes() == (reference / name).read_bytes(), name
    lanes = [json.loads((resumed / f"stream_state_{rank}.json").read_text())["lanes"] for rank in range(2)]
    blocks = [{block % 2 for block, _ in part} for part in lanes]
    assert blocks == [{0}, {1}], "every second block belongs to the other process"
    assert "than readers (8): some of it comes again" in (runs.directory / "two.log").read_text()
    alone = runs.start("two", "--resume", steps=6).ended()
    assert alone.exitcode == 1
    assert "made with processes 2 and this run has 1" in alone.text().splitlines()[-1]


@pytest.mark.parametrize(
    "flags, reason",
    [
        (("--resume", "--per_device_train_batch_size", "8"), "made with batch size 4 and this run has 8"),
        (("--resume", "--seed", "7"), "made with seed 42 and this run has 7"),
        (("--resume", "--optim", "sgd"), "made with optim 'adamw_torch.*' and this run has 'sgd'"),
        (
            ("--resume", "--gradient_accumulation_steps", "2"),
            "made with gradient_accumulation_steps 1 and this run has 2",
        ),
        (("--resume", "--units_per_block", "3"), "made with units per block 2 and this run has 3"),
        (("--resume", "--hidden_size", "32"), "has hidden_size 16 and this run 32"),
        (("--resume", "--dropout", "0.1"), "has dropout 0.3 and this run 0.1"),
        (("--resume", "--dataset", "demo"), "made with data '[0-9a-f]{12}' and this run has"),
        ((), "already holds a run; add --resume to continue it"),
    ],
)
def test_what_would_not_be_the_same_run_is_refused(runs, short, flags, reason):
    run = runs.start("short", *flags).ended()
    assert run.exitcode == 1
    last = run.text().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(reason, last), last


def test_a_moved_corpus_is_the_same_corpus(runs, short, tmp_path):
    write_corpus(tmp_path / "elsewhere")
    there = open_corpus(str(tmp_path / "elsewhere"), "train")
    assert there.fingerprint() == open_corpus(str(runs.corpus), "train").fingerprint()
    (tmp_path / "elsewhere" / "train-1.parquet").rename(tmp_path / "elsewhere" / "train-2.parquet")
    there = open_corpus(str(tmp_path / "elsewhere"), "train")
    assert there.fingerprint() != open_corpus(str(runs.corpus), "train").fingerprint()
