"""Measurements one after the other in another process, so that none can spoil the others or outlast the time given."""

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from common.errors import first_line


@dataclass(frozen=True)
class Measurement:
    """
    Args:
        group, name: where its result belongs.
        function: a function of a module, which returns what can be written as JSON.
        arguments: of the function.
    """

    group: str
    name: str
    function: Callable[..., dict]
    arguments: dict = field(default_factory=dict)


def guarded(measurements: Sequence[Measurement], minutes: float, report: Callable[[Measurement, dict], None]) -> None:
    """Call `report` with each measurement and its result, or with `{"not_measured": reason}`.

    A measurement that raises costs its own result, and one that crashes its process a new process as well. When the
    time is over, the one under way is ended and the others are not begun.
    """
    end = time.monotonic() + 60 * minutes
    left = list(measurements)
    while left and time.monotonic() < end:
        receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_measure, args=(left, sender))
        process.start()
        sender.close()
        try:
            while left and receiver.poll(max(0.0, end - time.monotonic())):
                report(left[0], receiver.recv())
                left.pop(0)
        except EOFError:
            process.join()
            report(left.pop(0), {"not_measured": f"its process ended with exit code {process.exitcode}"})
        finally:
            _end(process)
    for measurement in left:
        report(measurement, {"not_measured": f"not finished within {minutes:g} minutes"})


def _end(process: multiprocessing.Process) -> None:
    """Kill a process with all it started, which are of its group once it has made one."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.join()


def _measure(measurements: Sequence[Measurement], results: Connection) -> None:
    os.setpgrp()
    os.dup2(2, 1)  # standard output is for the result of all
    for measurement in measurements:
        try:
            result = measurement.function(**measurement.arguments)
        except (Exception, SystemExit) as error:  # whatever drivers, compilers and libraries raise
            result = {"not_measured": f"{type(error).__name__}: {first_line(error)}"}
        results.send(result)
        _free()


def _free() -> None:
    """Return the memory of a measurement to the GPU."""
    gc.collect()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
