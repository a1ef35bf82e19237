"""Reading what a checkpoint holds: it may have been edited and sealed again, and then ends in one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from common.errors import first_line
from training.checkpoints import CheckpointError
from training.sealing import step_of

UNREADABLE = (
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    *(OSError, UnpicklingError, SafetensorError),
)
"""What libraries raise at files that were edited."""


@contextmanager
def restoring(checkpoint: Path | str) -> Iterator[None]:
    """
    Raises:
        CheckpointError: the checkpoint holds what this program does not write.
    """
    try:
        yield
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(
            f"{checkpoint} cannot be resumed ({reason}); remove it to resume from an earlier one"
        ) from None


def read_trainer_state(checkpoint: Path) -> TrainerState:
    """
    Raises:
        CheckpointError: the file holds something else.
    """
    with restoring(checkpoint):
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        for name, default in vars(TrainerState()).items():
            kind = (int, float) if isinstance(default, (int, float)) else type(default)
            if default is not None and not isinstance(getattr(state, name), kind):
                raise TypeError(f"its {TRAINER_STATE_NAME} has {name} {getattr(state, name)!r}")
        if state.global_step != step_of(checkpoint):
            raise ValueError(f"its {TRAINER_STATE_NAME} is of step {state.global_step}")
    return state


def stream_state_file(checkpoint: Path, rank: int) -> Path:
    """The file of a checkpoint with the stream position of one process."""
    return checkpoint / f"stream_state_{rank}.json"


def read_stream_state(checkpoint: Path, rank: int) -> dict:
    """The stream position of a process; the first one's if the checkpoint has fewer (which is refused later).

    Raises:
        CheckpointError: the file holds something else.
    """
    file = stream_state_file(checkpoint, rank)
    with restoring(checkpoint):
        state = json.loads((file if file.exists() else stream_state_file(checkpoint, 0)).read_text())
        for part in state.get("streams", [state]):
            numbers = [state["turn"], part["turn"], *(number for lane in part["lanes"] for number in lane)]
            if not all(type(n) is int and n >= 0 for n in numbers) or any(len(lane) != 2 for lane in part["lanes"]):
                raise ValueError(f"{file.name} holds no position in the stream")
            if not isinstance(part["stream"], dict):
                raise ValueError(f"{file.name} holds no settings of the stream")
    return state
