"""Hostile recordings and configurations by the hundred: no traceback, no hang over 30 s, no gigabyte.

    python -m tests.fuzz audio --count 500 --seed 0
    python -m tests.fuzz configurations --count 200 --seed 0
    python -m tests.fuzz audio --seed 0 --case 17          # one of them again, here, with its traceback

Case N of a seed is the same everywhere. Exit code: 1 if there is a finding.
"""

import argparse
import importlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

MOST_SECONDS, MOST_BYTES = 300.0, 10**9
"""Of a case: far more than it takes on any machine, so only a hang is ended."""
START_SECONDS = 300.0
SAMPLED_SECONDS = 0.05
KINDS = {"audio": "tests.fuzz_audio", "configurations": "tests.fuzz_configurations"}
SAID_FIRST = ("error:", "warning:", "note:")
"""How a line on standard error begins, if it is one of ours."""


class Child:
    """A process that does one case after another, watched from outside."""

    def __init__(self, name: str, seed: int, directory: str):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(name, seed, directory, theirs), daemon=True)
        self.process.start()
        theirs.close()
        if not self.connection.poll(START_SECONDS):
            raise TimeoutError("the process did not start")
        self.connection.recv()
        self.watched = psutil.Process(self.process.pid)

    def finding(self, case: int) -> str | None:
        """What is wrong with a case, or `None`; the process is ended where it must be."""
        before, end = self.watched.memory_info().rss, time.monotonic() + MOST_SECONDS
        self.connection.send(case)
        while not self.connection.poll(SAMPLED_SECONDS):
            if time.monotonic() > end:
                return self._end(f"not done after {MOST_SECONDS:g} s")
            try:
                grown = self.watched.memory_info().rss - before
            except psutil.NoSuchProcess:
                continue
            if grown > MOST_BYTES:
                return self._end(f"more than {MOST_BYTES / 1e9:g} GB")
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            return self._end(f"the process died, exit code {self.process.exitcode}")

    def _end(self, reason: str) -> str:
        self.process.kill()
        self.process.join()
        return reason


def work(name: str, seed: int, directory: str, connection) -> None:
    """In the process: make what cases start from, then do those asked for; what libraries print counts too."""
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        os.dup2(said.fileno(), 2)
        module = importlib.import_module(name)
        start = module.prepare(Path(directory))
        connection.send("ready")
        while (case := connection.recv()) is not None:
            said.seek(0)
            said.truncate()
            try:
                finding = module.run(np.random.default_rng([seed, case]), start)
            except BaseException as error:
                finding = f"{type(error).__name__}: {error}"[:300]
            sys.stderr.flush()
            said.seek(0)
            foreign = [line for line in said.read().splitlines() if not line.startswith(SAID_FIRST)]
            connection.send(finding or (foreign and f"on standard error: {foreign[0]:.200}") or None)


def findings(name: str, seed: int, count: int) -> Iterator[tuple[int, str]]:
    """Cases of `count`, of the module of that name, that went wrong, and how."""
    with tempfile.TemporaryDirectory() as directory:
        child = Child(name, seed, directory)
        for case in range(count):
            if not child.process.is_alive():
                child = Child(name, seed, directory)
            if found := child.finding(case):
                yield case, found
        if child.process.is_alive():
            child.connection.send(None)
            child.process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=500, help="number of cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default: %(default)s)")
    parser.add_argument("--case", type=int, help="number of a single case, run in this process")
    arguments = parser.parse_args()
    if arguments.case is not None:
        module = importlib.import_module(KINDS[arguments.kind])
        with tempfile.TemporaryDirectory() as directory:
            found = module.run(np.random.default_rng([arguments.seed, arguments.case]), module.prepare(Path(directory)))
        print(found or "nothing found")
        return int(found is not None)
    wrong = 0
    for case, found in findings(KINDS[arguments.kind], arguments.seed, arguments.count):
        wrong += 1
        print(f"case {case}: {found}", flush=True)
    print(f"{arguments.kind}, seed {arguments.seed}: {arguments.count} cases, {wrong} findings")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
