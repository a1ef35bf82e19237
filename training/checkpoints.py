"""The newest complete checkpoint, on the local disk, on a mounted drive and on the Hub, and copies of it there.

For a drive or the Hub a checkpoint is packed into one file, which is copied under another name and renamed last. A
drive has two slots, the older or broken one is written over: what is deleted on Google Drive goes on taking space.
Whatever does not match its digests is passed over.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from common.errors import first_line
from training.packing import pack, packed_run, packed_step, unpack
from training.sealing import digest_of, fault_of, local_checkpoints, remove, run_of, step_of

logger = logging.getLogger(__name__)

SLOTS = ("checkpoint-slot-0.zip", "checkpoint-slot-1.zip")
HUB_FILE = "checkpoint/last-checkpoint.zip"
PACKED = "checkpoint-packed.zip"
DOWNLOAD = "download.part"


class CheckpointError(RuntimeError):
    """Checkpoints that cannot be reached or used; the message names the place and the remedy."""


def newest_local(run: Path) -> Path | None:
    """The complete checkpoint of the highest step in a run's directory; incomplete ones are reported."""
    for checkpoint in local_checkpoints(run):
        if fault := fault_of(checkpoint):
            logger.warning("passing over %s: %s", checkpoint, fault)
        else:
            return checkpoint
    return None


def discard_old(run: Path, limit: int | None, name: str | None = None) -> None:
    """Remove the local checkpoints of the run `name` but the `limit` newest complete ones; without a limit none."""
    if limit:
        own = [d for d in local_checkpoints(run) if run_of(d) == name]
        kept = [d for d in own if fault_of(d) is None][:limit]
        for checkpoint in set(own) - set(kept):
            remove(checkpoint)


def open_drive(drive: Path) -> None:
    """Create the directory for the slots; a drive that cannot be written now gives a warning and is retried later.

    Raises:
        CheckpointError: what it should lie in is not there. Making that too would hide that a drive is not mounted.
    """
    try:
        drive.mkdir(exist_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{drive.parent} is not a directory; mount the drive, or make it for {drive}") from None
    except FileExistsError:
        raise CheckpointError(f"{drive} is a file; name a directory with --checkpoint_dir") from None
    except OSError as error:
        logger.warning("%s cannot be made now (%s)", drive, error)


def newest(
    run: Path, drive: Path | None, download: Callable[[Path], Path | None] | None, name: str | None = None
) -> Path | None:
    """The newest complete checkpoint of all places, as a local directory.

    Args:
        run: the run's directory.
        drive: directory with the two slots, or `None`.
        download: fetches the packed checkpoint of the Hub into a directory, `None` where there is none.
        name: of the run; where it has none yet it is that of the first checkpoint found.

    Raises:
        CheckpointError: a place cannot be reached and no other has a checkpoint: a new run must not take its place. Or
            the newest checkpoint is another run's, or there is no room to unpack it.
    """
    run.mkdir(parents=True, exist_ok=True)
    best, archives, unreachable = newest_local(run), [], []
    downloaded = run / DOWNLOAD
    places = {}
    if drive:
        places[drive] = lambda: [drive / name for name in os.listdir(drive) if name in SLOTS]
    if download:
        places["the Hub"] = lambda: [file for file in [download(downloaded)] if file]
    try:
        for place, find in places.items():
            try:
                archives += find()
            except OSError as error:
                unreachable.append(f"{place} cannot be reached ({first_line(error)})")
                logger.warning("%s", unreachable[-1])
        for archive in sorted(archives, key=packed_step, reverse=True):
            step = packed_step(archive)
            if step < 0:
                logger.warning("passing over %s: it is not a complete checkpoint", archive)
            elif best is None or step > step_of(best):
                best = _unpacked(archive, run, name or best and run_of(best)) or best
    finally:
        shutil.rmtree(downloaded, ignore_errors=True)
    if best is None and unreachable:
        raise CheckpointError(f"{'; '.join(unreachable)}; try again, or leave it out to start a new run")
    return best


def _unpacked(archive: Path, run: Path, name: str | None) -> Path | None:
    found = packed_run(archive)
    if name and found not in (None, name):
        raise CheckpointError(
            f"{archive} is a checkpoint of run {found}, and {run} is of run {name}; give each run a place of its own"
        )
    try:
        return unpack(archive, run)
    except ValueError as error:
        logger.warning("passing over %s", error)
        return None
    except OSError as error:
        raise CheckpointError(f"{archive} cannot be unpacked in {run} ({first_line(error)}); make room there") from None


class Keeper:
    """Copies each sealed checkpoint to a drive and to the Hub in the background; failures are said and tried again.

    Training never waits for it: while a copy is under way the next checkpoint is left out and the one after taken.

    Args:
        drive: directory for the two slots, or `None`.
        upload: puts a packed checkpoint on the Hub, or `None`.
        check: raises an `OSError` before each copy to a drive that is not this run's any more.
    """

    def __init__(
        self,
        drive: Path | None,
        upload: Callable[[Path], None] | None,
        check: Callable[[], None] = lambda: None,
    ):
        self.places = {}
        if drive:
            self.places[str(drive)] = lambda archive: (check(), store(archive, drive))
        if upload:
            self.places["the Hub"] = upload
        self.thread: Thread | None = None
        self.missing: Path | None = None

    def keep(self, checkpoint: Path) -> None:
        if not self.places:
            return
        self.missing = checkpoint
        if self.thread and self.thread.is_alive():
            logger.warning("the copy of an earlier checkpoint is still under way; %s stays local", checkpoint.name)
            return
        # Packed now: the directory may be removed at a later save.
        archive = checkpoint.with_name(PACKED)
        try:
            pack(checkpoint, archive)
        except (OSError, ValueError) as error:
            logger.warning("%s could not be packed (%s); it stays local", checkpoint.name, error)
            archive.unlink(missing_ok=True)
            return
        self.thread = Thread(target=self._copy, args=(archive, checkpoint), daemon=True)
        self.thread.start()

    def _copy(self, archive: Path, checkpoint: Path) -> None:
        failed = False
        for place, copy in self.places.items():
            try:
                copy(archive)
                logger.info("%s copied to %s, %.0f MB", checkpoint.name, place, archive.stat().st_size / 1e6)
            except Exception as error:
                failed, reason = True, first_line(error)
                logger.warning(
                    "%s not copied to %s (%s); trying again at the next save", checkpoint.name, place, reason
                )
        archive.unlink(missing_ok=True)
        if not failed and self.missing == checkpoint:
            self.missing = None

    def close(self, seconds: float = 600.0) -> None:
        """Wait for the current copy and retry a missing one, within `seconds` in total."""
        end = time.monotonic() + seconds
        for last in (False, True):
            if self.thread:
                self.thread.join(max(0.0, end - time.monotonic()))
                if self.thread.is_alive():
                    logger.warning("the last copy did not finish within %.0f s; the local checkpoint is there", seconds)
                    return
            if self.missing and not last:
                self.keep(self.missing)


def store(archive: Path, drive: Path) -> Path:
    """Copy a packed checkpoint over the older (or broken) of the two slots, which carries another name meanwhile."""
    slot = drive / min(SLOTS, key=lambda s: packed_step(drive / s, whole=True))
    partial = slot.with_suffix(".part")
    if slot.exists():
        os.replace(slot, partial)
    shutil.copyfile(archive, partial)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    if digest_of(partial) != digest_of(archive):
        raise OSError("the copy does not match its digest")
    os.replace(partial, slot)
    return slot
