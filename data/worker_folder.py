"""The folder of sockets through which data workers hand over batches: one a run, and none is left behind.

By default each worker makes one of its own in the temporary directory, which stays there if it is killed.
"""

import multiprocessing
import os
import shutil
import tempfile
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows, where there are no such sockets
    fcntl = None

PREFIX = "fdw-"
"""Shorter than Python's own: the address of a socket has at most 107 characters."""


def share_folder() -> None:
    """Let the workers that this process forks use one folder, removed at its end; remove those of killed runs."""
    settings = multiprocessing.current_process()._config
    if fcntl is None or settings.get("tempdir"):
        return
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (left / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as the run or a worker of it lives
            shutil.rmtree(left, ignore_errors=True)
    folder, lock = _locked_folder()
    settings["tempdir"] = str(folder)
    Finalize(None, _remove, (folder, lock), exitpriority=-100)


def _locked_folder() -> tuple[Path, TextIO]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):  # another run took the new folder for one that was left behind
            lock = (folder / "lock").open("a")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock.fileno()).st_nlink:
                return folder, lock
            lock.close()


def _remove(folder: Path, lock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()
    multiprocessing.current_process()._config["tempdir"] = None
