"""Measurements that fail in their own ways; a module that is imported quickly."""

import os
import signal
import time
from pathlib import Path


def double(number: int) -> dict:
    print("not for standard output")
    return {"double": 2 * number}


def fail() -> dict:
    raise RuntimeError("out of memory.\nmore lines")


def crash() -> dict:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def hang(begun: str) -> dict:
    """Never ends, and neither does a process that it starts, whose number it writes."""
    child = os.fork()
    if child:
        Path(begun).write_text(str(child))
    while True:
        time.sleep(60)
