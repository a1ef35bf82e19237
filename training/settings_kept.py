"""What a run was told, kept in its checkpoints: a continuation that was told otherwise is refused, or says so."""

import hashlib
import logging
import os
from pathlib import Path

import torch
import transformers

from common.version import __version__
from training.anchor import EmbeddingAnchor
from training.arguments import Arguments, Training
from training.checkpoints import CheckpointError
from training.sealing import made_by

logger = logging.getLogger(__name__)

SAME = (
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)
"""What the steps depend on, beside the stream and the network, which keep their own settings."""
MAY_CHANGE = ("max_steps", "warmup_steps", "warmup_ratio", "lr_scheduler_type", "lr_scheduler_kwargs")
"""What holds from the next step on as the command has it; transformers 5 has no warmup_ratio."""

PRECISIONS = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Their names in messages."""


def settings_of(arguments: Arguments, training: Training, anchor: EmbeddingAnchor | None = None) -> dict:
    """What is kept of the command: what a continuation must have too, what may change, and the code."""
    voices = Path(arguments.teacher_voices or "")
    return {
        "same": {name: _plain(getattr(training, name, None)) for name in SAME}
        | {
            "freeze_embeddings": arguments.freeze_embeddings,
            "freeze_norms": arguments.freeze_norms,
            "keep_embeddings": arguments.keep_embeddings,
            "weights of start_from": anchor and anchor.digest,
            "teacher_voices": hashlib.sha256(voices.read_bytes()).hexdigest()[:12] if voices.is_file() else None,
        },
        "may change": {name: _plain(getattr(training, name)) for name in MAY_CHANGE if hasattr(training, name)}
        | {"precision": precision_of(training)},
        "code": {"version": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }


def precision_of(training: Training) -> str:
    """fp16, bf16 or no, by the flags or by accelerate's own."""
    given = "fp16" if training.fp16 else "bf16" if training.bf16 else None
    return given or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def compare_settings(checkpoint: Path, now: dict) -> None:
    """Say what differs from the settings a checkpoint was made with.

    Raises:
        CheckpointError: something differs that a continuation must have in common with its beginning.
    """
    before = (made_by(checkpoint) or {}).get("settings")
    if not isinstance(before, dict):
        logger.warning("%s is of a version before 0.2 and does not tell what it was made with", checkpoint)
        return
    if different := list(_differences(before.get("same"), now["same"])):
        raise CheckpointError(
            f"the checkpoint was made with {', '.join(f'{name} {old!r}' for name, old, _ in different)} and this run "
            f"has {', '.join(f'{new!r}' for _, _, new in different)}; resume with the same, or start a new run from "
            "its weights with --start_from"
        )
    for part in ("may change", "code"):
        for name, old, new in _differences(before.get(part), now[part]):
            old, new = (PRECISIONS.get(value, value) if name == "precision" else value for value in (old, new))
            logger.warning("%s is %s from here on; the checkpoint was made with %s", name, new, old)


def _differences(before: object, now: dict):
    before = before if isinstance(before, dict) else {}
    return ((name, before[name], value) for name, value in now.items() if before.get(name, value) != value)


def _plain(value: object) -> object:
    value = getattr(value, "value", value)
    return value if isinstance(value, (int, float, str, dict, type(None))) else str(value)
