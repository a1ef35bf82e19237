"""A checkpoint as one file, and back: whatever the file holds, memory and disk stay within bounds.

The bytes of a file are sorted into four planes before compression: exponents of float32 numbers then lie side by side
and shrink, which takes a sixth off weights and optimizer state.
"""

import json
import logging
import os
import shutil
import struct
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training.sealing import MANIFEST, fault_of, remove

logger = logging.getLogger(__name__)

PLANES = 4
LARGEST, LARGEST_MANIFEST, MOST_FILES = 1 << 30, 1 << 20, 64
"""Bytes of a checkpoint and of its manifest, and files in it; the default networks need 27 and 58 MB."""
CHUNK = 1 << 18
BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The date of every member: the clock may be wrong, and ZIP knows no date before."""
UNPACKING = "unpacking.part"


def pack(checkpoint: Path, archive: Path) -> None:
    """Pack a complete checkpoint into one file."""
    with zipfile.ZipFile(archive, "w") as bundle:
        for file in sorted(f for f in checkpoint.rglob("*") if f.is_file()):
            raw = np.frombuffer(file.read_bytes(), np.uint8)
            member = zipfile.ZipInfo(file.relative_to(checkpoint).as_posix(), BEGINNING)
            planes = b"".join(raw[plane::PLANES].tobytes() for plane in range(PLANES))
            bundle.writestr(member, planes, zipfile.ZIP_DEFLATED, compresslevel=1)


def packed_step(archive: Path, whole: bool = False) -> int:
    """The step a packed checkpoint says it is of, -1 if it cannot be read; with `whole`, if any part is damaged."""
    try:
        with _open(archive) as bundle:
            if whole and bundle.testzip():
                return -1
            return int(_manifest(bundle)["step"])
    except Exception as error:  # a damaged archive provokes a dozen kinds
        logger.debug("%s: %r", archive, error)
        return -1


def packed_run(archive: Path) -> str | None:
    """The run that a packed checkpoint with a step is of, `None` where it was made before runs had names."""
    with _open(archive) as bundle:
        return _manifest(bundle).get("run")


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack into `directory` and check every digest.

    Raises:
        ValueError: the archive is damaged, or no checkpoint; nothing is left behind.
        OSError: `directory` cannot be written.
    """
    temporary = directory / UNPACKING
    shutil.rmtree(temporary, ignore_errors=True)
    checkpoint = temporary / f"{PREFIX_CHECKPOINT_DIR}-{packed_step(archive)}"
    checkpoint.mkdir(parents=True)
    try:
        try:
            with _open(archive) as bundle:
                targets = {member: _target(checkpoint, member.filename, archive) for member in bundle.infolist()}
                named = {name: file["size"] for name, file in _manifest(bundle)["files"].items()}
                for member, target in targets.items():
                    if member.filename != MANIFEST and named.get(member.filename) != member.file_size:
                        raise ValueError(f"{archive} holds {member.filename!r}, which differs from its manifest")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _extract(bundle, member, target)
        except OSError:
            raise
        except Exception as error:
            raise error if type(error) is ValueError else ValueError(f"{archive} cannot be read: {error}") from None
        if fault := fault_of(checkpoint):
            raise ValueError(f"{archive}: {fault}")
        final = directory / checkpoint.name
        remove(final)
        os.replace(checkpoint, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _open(archive: Path) -> zipfile.ZipFile:
    """A packed checkpoint whose declared sizes are within bounds; zipfile reads no more than is declared."""
    with archive.open("rb") as file:
        file.seek(-42, os.SEEK_END)
        tail = file.read()
    # The end as `pack` writes it: no comment, no ZIP64, a short directory. zipfile would read one of gigabytes.
    magic, _, _, _, entries, size = struct.unpack("<4sHHHHI", tail[20:36])
    if magic != b"PK\5\6" or tail.startswith(b"PK\6\7") or entries > MOST_FILES or size > LARGEST_MANIFEST:
        raise ValueError(f"{archive} does not end as a packed checkpoint does")
    bundle = zipfile.ZipFile(archive)
    members = bundle.infolist()
    if sum(member.file_size for member in members) > LARGEST:
        raise ValueError(f"{archive} would take more than {LARGEST >> 20} MB")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ValueError(f"{archive} is compressed as no checkpoint is")
    return bundle


def _manifest(bundle: zipfile.ZipFile) -> dict:
    if bundle.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
        raise ValueError("its manifest is too large")
    planes = np.frombuffer(bundle.read(MANIFEST), np.uint8)
    raw = np.empty_like(planes)
    for plane, part in enumerate(np.split(planes, np.cumsum(_sizes(len(planes)))[:-1])):
        raw[plane::PLANES] = part
    return json.loads(raw.tobytes())


def _sizes(size: int) -> list[int]:
    return [len(range(plane, size, PLANES)) for plane in range(PLANES)]


def _target(checkpoint: Path, name: str, archive: Path) -> Path:
    target = (checkpoint / name).resolve()
    if checkpoint.resolve() not in target.parents:
        raise ValueError(f"{archive} holds the file name {name!r}")
    return target


def _extract(bundle: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Read the four planes of a file side by side, a piece of each at a time."""
    sizes = _sizes(member.file_size)
    with ExitStack() as stack, target.open("wb") as file:
        sources = [stack.enter_context(bundle.open(member)) for _ in sizes]
        for plane, source in enumerate(sources):
            source.seek(sum(sizes[:plane]))
        for start in range(0, sizes[0], CHUNK):
            pieces = [source.read(max(0, min(CHUNK, size - start))) for source, size in zip(sources, sizes)]
            raw = np.empty(sum(map(len, pieces)), np.uint8)
            for plane, piece in enumerate(pieces):
                raw[plane::PLANES] = np.frombuffer(piece, np.uint8)
            file.write(raw)
