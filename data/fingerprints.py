"""Digests that tell whether the files of a corpus are still those a run began with."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from data.annotations import AUDIO_SUFFIXES

MOST_FILES = 10_000
"""Of more files so many are looked into, evenly spread."""
MOST_READ = 1 << 28
"""Bytes of a corpus that are read whole; of a larger one samples of each file are."""
SAMPLE_BYTES, BYTES_PER_SAMPLE, MOST_SAMPLES = 4096, 1 << 20, 16


def of_units(units: Sequence, held_out: bool | None) -> str:
    """Of the names and sizes of units in order, the same wherever a directory lies."""
    names = [_of_folder(unit) if isinstance(unit, Path) else repr(unit) for unit in units]
    return hashlib.sha256("\n".join([*names, str(held_out)]).encode()).hexdigest()[:12]


def _of_folder(folder: Path) -> str:
    """The name of a speaker's folder with those and the sizes of its audio files."""
    files = sorted(
        (f.name, f.stat().st_size) for f in os.scandir(folder) if Path(f.name).suffix.lower() in AUDIO_SUFFIXES
    )
    return repr((folder.name, files))


def of_contents(files: Sequence[Path]) -> tuple[str, int]:
    """Of what files hold, in their order: of all of it where that is little, or of samples.

    Returns:
        the digest, and when the last of the files was written, in ns.
    """
    digest, written = hashlib.sha256(), 0
    files = files[:: 1 + len(files) // MOST_FILES]
    whole = sum(file.stat().st_size for file in files) <= MOST_READ
    for path in files:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest.update(status.st_size.to_bytes(8, "big"))
            written = max(written, status.st_mtime_ns)
            if whole:
                digest.update(file.read())
                continue
            samples = min(1 + status.st_size // BYTES_PER_SAMPLE, MOST_SAMPLES)
            for number in range(samples):
                file.seek(max(0, round((number + 0.5) / samples * status.st_size) - SAMPLE_BYTES // 2))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:12], written
