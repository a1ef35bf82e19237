"""Checkpoint directories that are complete or ignored, and that say which run they are of.

A checkpoint is a directory written by the Trainer. `made_by.json`, written first, names the run; it counts once
`manifest.json`, written last, names every file with its size and SHA-256.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

MANIFEST = "manifest.json"
MADE_BY = "made_by.json"
REMOVED = "removed.part"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def mark(checkpoint: Path, made_by: dict) -> None:
    """Make the directory of a checkpoint; `made_by` holds the name of the `run` and what it was told."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / MADE_BY).write_text(json.dumps(made_by, indent=1))


def made_by(checkpoint: Path) -> dict | None:
    """What [`mark`] wrote, `None` where there is nothing that can be read."""
    try:
        written = json.loads((checkpoint / MADE_BY).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return written if isinstance(written, dict) else None


def run_of(checkpoint: Path) -> str | None:
    """The name of the run that a checkpoint is of, `None` where it has none."""
    return (made_by(checkpoint) or {}).get("run")


def is_foreign(checkpoint: Path) -> bool:
    """Whether another program wrote a directory with the name of a checkpoint."""
    names = {file.name for file in checkpoint.iterdir()}
    return bool(names) and not names & {MADE_BY, MANIFEST, f"{MANIFEST}.part", "stream_state_0.json"}


def seal(checkpoint: Path) -> None:
    """Write the manifest that makes a checkpoint directory complete."""
    files = {
        f.relative_to(checkpoint).as_posix(): {"size": f.stat().st_size, "sha256": digest_of(f)}
        for f in sorted(checkpoint.rglob("*"))
        if f.is_file() and f.name != MANIFEST
    }
    manifest = {"step": step_of(checkpoint), "run": run_of(checkpoint), "files": files}
    partial = checkpoint / f"{MANIFEST}.part"
    partial.write_text(json.dumps(manifest, indent=1))
    os.replace(partial, checkpoint / MANIFEST)


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
            if file.stat().st_size != expected["size"] or digest_of(file) != expected["sha256"]:
                return f"{name} does not match its digest"
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    return None


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, its name first: what is left of it by a kill would look like another program's."""
    away = checkpoint.with_name(REMOVED)
    shutil.rmtree(away, ignore_errors=True)
    with suppress(OSError):
        os.replace(checkpoint, away)
    shutil.rmtree(away, ignore_errors=True)


def local_checkpoints(run: Path) -> list[Path]:
    """The checkpoint directories of a run, complete or not, highest step first."""
    found = [d for d in run.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if re.fullmatch(r"\d+", d.name.rsplit("-", 1)[1])]
    return sorted((d for d in found if d.is_dir()), key=step_of, reverse=True)


def digest_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
