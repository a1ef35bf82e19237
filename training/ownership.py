"""Whose a directory is: one run's for good, and one process's at a time.

`run.json` names the run; only what bears its name is deleted or written over. `run.lock` names the process that holds
the directory. It needs no locks of the file system, which a mounted drive does not pass on: a process of this machine
holds as long as it lives, one of another machine as long as it writes the time there.
"""

import json
import logging
import os
import platform
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from training.checkpoints import DOWNLOAD, PACKED, CheckpointError
from training.packing import UNPACKING
from training.sealing import REMOVED, is_foreign, local_checkpoints, run_of

logger = logging.getLogger(__name__)

RUN, LOCK, MODEL = "run.json", "run.lock", "model"
BEAT_SECONDS = 30.0
SILENT_SECONDS = 120.0
"""After so long without a sign of life a process of another machine holds no longer."""


class Hold:
    """A directory held by this process.

    Raises:
        CheckpointError: another process holds it.
    """

    def __init__(self, directory: Path):
        self.file = directory / LOCK
        self.token = {
            "host": platform.node(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "secret": secrets.token_hex(8),
        }
        if self.file.exists() and not _read(self.file):
            time.sleep(0.1)  # perhaps it is being written
        if holder := _holder(_read(self.file)):
            raise CheckpointError(f"{directory} is in use by {holder}; wait for it, or name another directory")
        self._beat()
        self.released = Event()
        Thread(target=self._go_on, daemon=True).start()

    def is_lost(self) -> bool:
        """Whether another process has taken the directory since, as it may where this one was silent for long."""
        found = _read(self.file)
        return bool(found) and found.get("secret") != self.token["secret"]

    def release(self) -> None:
        """Let others have it; what died without this holds no longer either."""
        self.released.set()
        if not self.is_lost():
            self.file.unlink(missing_ok=True)

    def _go_on(self) -> None:
        while not self.released.wait(BEAT_SECONDS):
            if self.is_lost():
                return
            self._beat()

    def _beat(self) -> None:
        try:
            self.file.write_text(json.dumps({**self.token, "time": time.time()}))
        except OSError as error:  # full or away for now; whoever looks meanwhile sees an older time
            logger.debug("%s: %s", self.file, error)


class RunDirectory:
    """The directory of one run.

    Args:
        directory: that exists.
        resume: whether the run is to go on where there is one.

    Raises:
        CheckpointError: it is in use, or holds what this run may not write over.
    """

    def __init__(self, directory: Path, resume: bool):
        self.directory = directory
        self.hold = Hold(directory)
        self.known = _read(directory / RUN)
        checkpoints = local_checkpoints(directory)
        try:
            self._check_contents(checkpoints, resume)
        except CheckpointError:
            self.hold.release()
            raise
        for left in (UNPACKING, DOWNLOAD, PACKED, REMOVED):  # by a process that was killed
            path = directory / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _check_contents(self, checkpoints: list[Path], resume: bool) -> None:
        directory, remedy = self.directory, "choose another --output_dir, or move it away"
        if foreign := [c for c in checkpoints if is_foreign(c)]:
            raise CheckpointError(f"{foreign[0]} was written by another program; {remedy}")
        # Until version 0.2 runs had no name.
        nameless = bool(checkpoints) and not any(map(run_of, checkpoints)) and not self.known
        own_model = self.known.get("model") or nameless
        if not resume and (checkpoints or (directory / MODEL).exists() and own_model):
            raise CheckpointError(
                f"{directory} already holds a run; add --resume to continue it, or choose another directory"
            )
        if (directory / MODEL).exists() and not own_model:
            raise CheckpointError(f"{directory / MODEL} is not of a run here; {remedy}")

    @property
    def name(self) -> str | None:
        """The name of the run, `None` before [`begin`] where there is none yet."""
        return self.known.get("run")

    def begin(self, name: str | None) -> None:
        """Take the name of a run to go on with, or a new one."""
        self._write({"run": self.name or name or secrets.token_hex(8)})

    def will_write_model(self) -> None:
        self._write({"model": True})

    def _write(self, more: dict) -> None:
        self.known |= more
        partial = self.directory / f"{RUN}.part"
        partial.write_text(json.dumps(self.known))
        os.replace(partial, self.directory / RUN)

    def check(self) -> None:
        """
        Raises:
            CheckpointError: another process has taken the directory.
        """
        if self.hold.is_lost():
            other = _read(self.hold.file)
            raise CheckpointError(
                f"{self.directory} was taken by process {other.get('pid')} of {other.get('host')}; this run ends here"
            )


class Drive:
    """The directory of a run's two slots on a mounted drive.

    Args:
        directory: that may be away for now.
        run: the name of the run, or `None` for that of the drive.

    Raises:
        CheckpointError: it is in use, or another run's.
    """

    def __init__(self, directory: Path, run: str | None):
        self.directory, self.run = directory, run
        found = _read(directory / RUN).get("run")
        if run and found not in (None, run):
            raise CheckpointError(
                f"{directory} holds the checkpoints of run {found}, and this is run {run}; name another "
                "--checkpoint_dir, one for each run"
            )
        self.run = run or found
        self.hold = Hold(directory)

    def begin(self, run: str) -> None:
        """Take the drive for a run; where it is away for now, as soon as something is copied there."""
        self.run = run
        with suppress(OSError):
            self.check()

    def check(self) -> None:
        """Before a copy is made.

        Raises:
            OSError: the drive is another run's or process's by now.
        """
        found = _read(self.directory / RUN).get("run")
        if found not in (None, self.run):
            raise OSError(f"{self.directory} belongs to another run")
        if self.hold.is_lost():
            raise OSError(f"{self.directory} was taken by another process")
        if found is None:
            (self.directory / RUN).write_text(json.dumps({"run": self.run}))


def _holder(found: dict) -> str | None:
    """Who holds a directory by what its lock says, `None` if nobody does any more."""
    if not isinstance(found.get("pid"), int):
        return None
    if found.get("host") == platform.node():
        alive = found["pid"] != os.getpid() and _started(found["pid"]) == found.get("started") is not None
        return f"process {found['pid']}" if alive else None
    silent = time.time() - found["time"] if isinstance(found.get("time"), (int, float)) else SILENT_SECONDS
    if abs(silent) >= SILENT_SECONDS:
        return None
    return f"process {found['pid']} of {found.get('host')}, which was active {max(0, silent):.0f} s ago"


def _started(pid: int) -> str | None:
    """What tells a process from a later one of the same number, `None` where there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else f"{boot} {fields[18]}"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "some time ago"


def _read(file: Path) -> dict:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
