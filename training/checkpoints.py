"""Checkpoints that are complete or ignored, on the local disk, on a mounted drive and on the Hub.

A checkpoint is a directory written by the Trainer. It counts once `manifest.json`, written last, names every file
with its size and SHA-256. For a drive or the Hub it is packed into one file, which is copied under another name and
renamed last; a drive has two slots, the older one is overwritten. Whatever does not match its digests is passed over.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SLOTS = ("checkpoint-slot-0.zip", "checkpoint-slot-1.zip")
HUB_FILE = "checkpoint/last-checkpoint.zip"
PLANES = 4


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


def newest_local(directory: Path) -> Path | None:
    """The complete checkpoint of the highest step in a run's directory; incomplete ones are reported."""
    found = [
        d for d in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if d.is_dir() and d.name.rsplit("-", 1)[1].isdigit()
    ]
    for checkpoint in sorted(found, key=step_of, reverse=True):
        if fault := fault_of(checkpoint):
            logger.warning("passing over %s: %s", checkpoint, fault)
        else:
            return checkpoint
    return None


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


def packed_step(archive: Path) -> int | None:
    """The step a packed checkpoint says it is of, from its manifest alone; `None` if it cannot be read."""
    try:
        with zipfile.ZipFile(archive) as bundle:
            return int(json.loads(_join(bundle.read(MANIFEST)))["step"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
        return None
    except Exception as error:  # zlib.error and whatever else a damaged archive provokes
        logger.debug("%s: %r", archive, error)
        return None


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack into `directory` and check every digest.

    Raises:
        ValueError: the archive is damaged; nothing is left behind.
    """
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        try:
            with zipfile.ZipFile(archive) as bundle:
                step = int(json.loads(_join(bundle.read(MANIFEST)))["step"])
                checkpoint = Path(temporary) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
                for name in bundle.namelist():
                    target = (checkpoint / name).resolve()
                    if not target.is_relative_to(checkpoint.resolve()):
                        raise ValueError(f"it holds the file name {name!r}")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(_join(bundle.read(name)))
        except Exception as error:
            raise ValueError(f"{archive} cannot be read: {error}") from None
        if fault := fault_of(checkpoint):
            raise ValueError(f"{archive}: {fault}")
        final = directory / checkpoint.name
        shutil.rmtree(final, ignore_errors=True)
        os.replace(checkpoint, final)
    return final


def newest(run: Path, drive: Path | None, download: Callable[[], Path | None] | None) -> Path | None:
    """The newest complete checkpoint of all places, as a local directory.

    Args:
        run: the run's directory.
        drive: directory with the two slots, or `None`.
        download: gives the packed checkpoint of the Hub as a file, or `None` where there is none.
    """
    run.mkdir(parents=True, exist_ok=True)
    best = newest_local(run)
    archives = [drive / slot for slot in SLOTS if (drive / slot).is_file()] if drive else []
    if download and (archive := download()):
        archives.append(archive)
    for archive in sorted(archives, key=lambda a: packed_step(a) or -1, reverse=True):
        step = packed_step(archive)
        if step is None:
            logger.warning("passing over %s: it is not a complete checkpoint", archive)
        elif best is None or step > step_of(best):
            try:
                best = unpack(archive, run)
            except ValueError as error:
                logger.warning("passing over %s", error)
    return best


class Keeper:
    """Copies each sealed checkpoint to a drive and to the Hub in the background; failures are said and tried again.

    Training never waits for it: while a copy is under way the next checkpoint is left out and the one after taken.

    Args:
        drive: directory for the two slots, or `None`.
        upload: puts a packed checkpoint on the Hub, or `None`.
    """

    def __init__(self, drive: Path | None, upload: Callable[[Path], None] | None):
        self.drive, self.upload = drive, upload
        self.executor = ThreadPoolExecutor(1)
        self.task: Future | None = None

    def keep(self, checkpoint: Path) -> None:
        if not (self.drive or self.upload):
            return
        if self.task and not self.task.done():
            logger.warning("the copy of an earlier checkpoint is still under way; %s stays local", checkpoint.name)
            return
        # Packed now: the Trainer may remove the directory at its next save.
        archive = checkpoint.with_suffix(".packing")
        try:
            pack(checkpoint, archive)
        except OSError as error:
            logger.warning("%s could not be packed (%s); it stays local", checkpoint.name, error)
            archive.unlink(missing_ok=True)
            return
        self.task = self.executor.submit(self._copy, archive, checkpoint.name)

    def _copy(self, archive: Path, name: str) -> None:
        try:
            if self.drive:
                try:
                    slot = store(archive, self.drive)
                    total = sum((self.drive / s).stat().st_size for s in SLOTS if (self.drive / s).exists())
                    logger.info("%s copied to %s, %.0f MB in all", name, slot, total / 1e6)
                except OSError as error:
                    logger.warning("%s not copied to %s (%s); trying again at the next save", name, self.drive, error)
            if self.upload:
                try:
                    self.upload(archive)
                except Exception as error:
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    logger.warning("%s not pushed to the Hub (%s); trying again at the next save", name, reason)
        finally:
            archive.unlink(missing_ok=True)

    def close(self, seconds: float = 600.0) -> None:
        """Wait for the copy under way, at most so long."""
        if self.task:
            try:
                self.task.result(timeout=seconds)
            except TimeoutError:
                logger.warning("the last copy did not finish within %.0f s; the local checkpoint is complete", seconds)
        self.executor.shutdown(wait=False, cancel_futures=True)


def store(archive: Path, drive: Path) -> Path:
    """Copy a packed checkpoint into the older (or broken) of the two slots, renamed last."""
    drive.mkdir(parents=True, exist_ok=True)
    slot = drive / min(SLOTS, key=lambda s: packed_step(drive / s) or -1)
    partial = slot.with_suffix(".part")
    try:
        shutil.copyfile(archive, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if _sha256(partial) != _sha256(archive):
            raise OSError("the copy does not match its digest")
        os.replace(partial, slot)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
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
