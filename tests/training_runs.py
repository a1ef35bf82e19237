"""Real runs of `train.py`, cheap to start: a server imports everything once and forks a process for each run.

run = start("--max_steps", "20", "--output_dir", str(directory), log=directory / "log")
run.kill()
"""

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpora_fixtures import encode_flac, speech_utterances

ROOT = Path(__file__).resolve().parent.parent
SMALL = """
--hidden_size 16 --window_seconds 1 --per_device_train_batch_size 4 --eval_windows 4 --windows_per_utterance 2
--units_per_block 2 --warmup_steps 2 --logging_steps 5 --eval_steps 1000 --report_to none --disable_tqdm true
"""
"""Flags of a run that takes milliseconds a step, with dropout and augmentation as they are."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.training_runs", "torch", "transformers.trainer", "train"])


class Run(_context.Process):
    """A run of `train.py` in a process of its own; `text()` is what it has said so far."""

    def __init__(self, arguments: list[str], log: Path, prepare: Callable[[], None] | None):
        super().__init__(target=_train, args=(arguments, log, prepare))
        self.log = log
        self.start()

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def ended(self, timeout: float = 600) -> "Run":
        """Wait for the end.

        Raises:
            AssertionError: it did not end in time.
        """
        self.join(timeout)
        if self.exitcode is None:
            self.kill()
            raise AssertionError(f"not ended after {timeout} s:\n{self.text()}")
        return self

    def wait_for(self, condition: Callable[[], object], timeout: float = 300) -> None:
        """Wait until `condition()` is true while the run goes on.

        Raises:
            AssertionError: the run ended first, or it took too long.
        """
        end = time.monotonic() + timeout
        while not condition():
            if not self.is_alive() or time.monotonic() > end:
                raise AssertionError(f"{condition} did not come true:\n{self.text()}")
            time.sleep(0.001)


def write_corpus(directory: Path) -> None:
    """A corpus of 2 shards of 4 row groups of 5 utterances to train on, and one shard to validate on."""
    spoken = speech_utterances(speakers=10, utterances=5, seconds=1.5)
    directory.mkdir(parents=True, exist_ok=True)
    for name, part in (("train-0", spoken[:20]), ("train-1", spoken[20:40]), ("validation-0", spoken[40:])):
        rows = [{"audio": {"bytes": encode_flac(u.waveform), "path": u.id}, "speaker_id": u.speaker} for u in part]
        pq.write_table(pa.Table.from_pylist(rows), directory / f"{name}.parquet", row_group_size=5)


def start(*arguments: str, log: Path, prepare: Callable[[], None] | None = None) -> Run:
    """Start `train.py` with the given flags beside those of a small run; `prepare` is called in its process before."""
    return Run([*SMALL.split(), *arguments], log, prepare)


def _train(arguments: list[str], log: Path, prepare: Callable[[], None] | None) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as it is by default on Linux
    if prepare:
        prepare()
    sys.argv = ["train.py", *arguments]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
