"""Checkpoints that are complete or ignored, on the local disk, on a mounted drive and on the Hub.

A checkpoint is a directory written by the Trainer. It counts once `manifest.json`, written last, names every file
with its size and SHA-256. For a drive or the Hub it is packed into one file, which is copied under another name and
renamed last. A drive has two slots, the older or broken one is written over: what is deleted on Google Drive goes on
taking space. Whatever does not match its digests is passed over.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from common.errors import first_line

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SLOTS = ("checkpoint-slot-0.zip", "checkpoint-slot-1.zip")
HUB_FILE = "checkpoint/last-checkpoint.zip"
PACKED = "checkpoint-packed.zip"
PLANES = 4


class CheckpointError(RuntimeError):
    """Checkpoints that cannot be reached; the message names the place and the remedy."""


def seal(checkpoint: Path) -> None:
    """Write the manifest that makes a checkpoint directory complete."""
    files = {
        f.relative_to(checkpoint).as_posix(): {"size": f.stat().st_size, "sha256": _sha256(f)}
        for f in sorted(checkpoint.rglob("*"))
        if f.is_file() and f.name != MANIFEST
    }
    manifest = {"step": step_of(checkpoint), "files": files}
    partial = checkpoint / f"{MANIFEST}.part"
    partial.write_text(json.dumps(manifest, indent=1))
    os.replace(partial, checkpoint / MANIFEST)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def fault_of(checkpoint: Path) -> str | None:
    """Why a checkpoint directory is not complete, or `None` if it is."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        if manifest["step"] != step_of(checkpoint):
            return f"its manifest is of step {manifest['step']}"
        if TRAINER_STATE_NAME not in manifest["files"]:
            return f"its manifest does not name {TRAINER_STATE_NAME}"
        for name, expected in manifest["files"].items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["size"] or _sha256(file) != expected["sha256"]:
                return f"{name} does not match its digest"
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    return None


def local_checkpoints(run: Path) -> list[Path]:
    """The checkpoint directories of a run, complete or not, highest step first."""
    found = [d for d in run.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if re.fullmatch(r"\d+", d.name.rsplit("-", 1)[1])]
    return sorted((d for d in found if d.is_dir()), key=step_of, reverse=True)


def newest_local(run: Path) -> Path | None:
    """The complete checkpoint of the highest step in a run's directory; incomplete ones are reported."""
    for checkpoint in local_checkpoints(run):
        if fault := fault_of(checkpoint):
            logger.warning("passing over %s: %s", checkpoint, fault)
        else:
            return checkpoint
    return None


def discard_old(run: Path, limit: int | None) -> None:
    """Remove all local checkpoints but the `limit` newest complete ones; without a limit none."""
    if limit:
        kept = [d for d in local_checkpoints(run) if fault_of(d) is None][:limit]
        for checkpoint in set(local_checkpoints(run)) - set(kept):
            shutil.rmtree(checkpoint, ignore_errors=True)


def pack(checkpoint: Path, archive: Path) -> None:
    """Pack a complete checkpoint into one file.

    The bytes of a file are sorted into four planes before compression: exponents of float32 numbers then lie side by
    side and shrink, which takes a sixth off weights and optimizer state.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle:
        for file in sorted(f for f in checkpoint.rglob("*") if f.is_file()):
            raw = np.frombuffer(file.read_bytes(), np.uint8)
            name = file.relative_to(checkpoint).as_posix()
            bundle.writestr(name, b"".join(raw[plane::PLANES].tobytes() for plane in range(PLANES)))


def packed_step(archive: Path, whole: bool = False) -> int:
    """The step a packed checkpoint says it is of, -1 if it cannot be read; with `whole`, if any part is damaged."""
    try:
        with zipfile.ZipFile(archive) as bundle:
            if whole and bundle.testzip():
                return -1
            return int(json.loads(_join(bundle.read(MANIFEST)))["step"])
    except Exception as error:  # a damaged archive provokes a dozen kinds
        logger.debug("%s: %r", archive, error)
        return -1


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack into `directory` and check every digest.

    Raises:
        ValueError: the archive is damaged; nothing is left behind.
        OSError: `directory` cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        step = packed_step(archive)
        checkpoint = Path(temporary) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        try:
            with zipfile.ZipFile(archive) as bundle:
                contents = {name: _join(bundle.read(name)) for name in bundle.namelist()}
        except Exception as error:
            raise ValueError(f"{archive} cannot be read: {error}") from None
        for name, content in contents.items():
            target = (checkpoint / name).resolve()
            if checkpoint.resolve() not in target.parents:
                raise ValueError(f"{archive} holds the file name {name!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if fault := fault_of(checkpoint):
            raise ValueError(f"{archive}: {fault}")
        final = directory / checkpoint.name
        shutil.rmtree(final, ignore_errors=True)
        os.replace(checkpoint, final)
    return final


def open_drive(drive: Path) -> None:
    """Create the directory for the slots; a drive that cannot be written now gives a warning and is retried later.

    Raises:
        CheckpointError: what it should lie in is not there. Making that too would hide that a drive is not mounted.
    """
    try:
        drive.mkdir(exist_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{drive.parent} is no directory; mount the drive, or make it for {drive}") from None
    except FileExistsError:
        raise CheckpointError(f"{drive} is a file; name a directory with --checkpoint_dir") from None
    except OSError as error:
        logger.warning("%s cannot be made now (%s)", drive, error)


def newest(run: Path, drive: Path | None, download: Callable[[Path], Path | None] | None) -> Path | None:
    """The newest complete checkpoint of all places, as a local directory.

    Args:
        run: the run's directory.
        drive: directory with the two slots, or `None`.
        download: fetches the packed checkpoint of the Hub into a directory, `None` where there is none.

    Raises:
        CheckpointError: a place cannot be reached and no other has a checkpoint: a new run must not take its place.
    """
    run.mkdir(parents=True, exist_ok=True)
    best, archives, unreachable = newest_local(run), [], []
    with tempfile.TemporaryDirectory(dir=run) as temporary:
        places = {}
        if drive:
            places[drive] = lambda: [drive / name for name in os.listdir(drive) if name in SLOTS]
        if download:
            places["the Hub"] = lambda: [file for file in [download(Path(temporary))] if file]
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
                try:
                    best = unpack(archive, run)
                except ValueError as error:
                    logger.warning("passing over %s", error)
    if best is None and unreachable:
        raise CheckpointError(f"{'; '.join(unreachable)}; try again, or leave it out to start a new run")
    return best


class Keeper:
    """Copies each sealed checkpoint to a drive and to the Hub in the background; failures are said and tried again.

    Training never waits for it: while a copy is under way the next checkpoint is left out and the one after taken.

    Args:
        drive: directory for the two slots, or `None`.
        upload: puts a packed checkpoint on the Hub, or `None`.
    """

    def __init__(self, drive: Path | None, upload: Callable[[Path], None] | None):
        self.places = {}
        if drive:
            self.places[str(drive)] = lambda archive: store(archive, drive)
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
        except OSError as error:
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
    if _sha256(partial) != _sha256(archive):
        raise OSError("the copy does not match its digest")
    os.replace(partial, slot)
    return slot


def _join(planes: bytes) -> bytes:
    sorted_bytes = np.frombuffer(planes, np.uint8)
    raw = np.empty_like(sorted_bytes)
    at = 0
    for plane in range(PLANES):
        size = len(raw[plane::PLANES])
        raw[plane::PLANES] = sorted_bytes[at : at + size]
        at += size
    return raw.tobytes()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
