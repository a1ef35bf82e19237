"""A training whose loss or weights are NaN or infinite stops, and nothing of it is saved."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from diarization.backends import WEIGHTS_FILE, first_non_finite
from training.sealing import fault_of, local_checkpoints

MOST_SKIPPED = 50
"""Steps in a row: a float16 training skips those whose gradients overflow, halving its scale at each."""
LOOKED_AT_TOGETHER = 100


class Diverged(RuntimeError):
    """A training that went wrong; the message names the step, the last good checkpoint and the remedy."""


class DivergenceGuard(TrainerCallback):
    """Notes each loss on the device, and looks at them, and at the weights, before the Trainer logs or saves.

    Where they are not finite `Diverged` ends the training before the step is logged, scored or saved.
    """

    def __init__(self):
        self.noted: list[tuple[int, torch.Tensor]] = []
        self.bad_since: int | None = None

    def note(self, step: int, loss: torch.Tensor) -> torch.Tensor:
        """Whether the loss is finite, on its device."""
        good = loss.detach().isfinite()
        self.noted.append((step, good))
        return good

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if bad := _first_non_finite(model):
            what = f"the weights to start from, of step {state.global_step}, are NaN or infinite (first in {bad})"
            raise Diverged(f"{what}; {_way_back(Path(args.output_dir))}")

    def on_step_end(self, args, state, control, model=None, **kwargs):
        due = control.should_log or control.should_evaluate or control.should_save or control.should_training_stop
        if due or len(self.noted) >= LOOKED_AT_TOGETHER:
            self._look()
            refuse_divergence(model, Path(args.output_dir), state.global_step, self.bad_since)

    def _look(self) -> None:
        flags = torch.stack([flag for _, flag in self.noted]).tolist() if self.noted else []
        for (step, _), good in zip(self.noted, flags):
            self.bad_since = None if good else self.bad_since or step
        self.noted.clear()


def refuse_divergence(model, run: Path, step: int, bad_since: int | None = None) -> None:
    """
    Args:
        model: a torch network after `step`.
        run: its directory, with checkpoints.
        bad_since: the first step of those to the last one whose loss was NaN or infinite.

    Raises:
        Diverged: the weights are not finite, or the loss has not been for `MOST_SKIPPED` steps.
    """
    bad = _first_non_finite(model)
    if bad is None and (bad_since is None or step - bad_since < MOST_SKIPPED):
        return
    if bad_since is not None:
        what = f"the loss is NaN or infinite since step {bad_since}"
    else:
        what = f"the weights are NaN or infinite at step {step} (first in {bad})"
    raise Diverged(f"training diverged: {what}; {_way_back(run)}")


def _first_non_finite(model) -> str | None:
    """`first_non_finite`, looking at all tensors together first, so that a GPU is waited for once and not for each."""
    tensors = [tensor.flatten() for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return None if torch.cat(tensors).isfinite().all() else first_non_finite(model)


def _way_back(run: Path) -> str:
    good = last_good(run)
    if good is None:
        return "no good checkpoint was saved before; start anew with a lower --learning_rate"
    return (
        f"the last good checkpoint is {good}; train on from it with --start_from {good}, a lower --learning_rate and "
        "another --output_dir"
    )


def last_good(run: Path) -> Path | None:
    """The newest complete checkpoint in the directory of a run whose weights are finite."""
    for checkpoint in local_checkpoints(run):
        if fault_of(checkpoint) is None:
            weights = load_file(checkpoint / WEIGHTS_FILE).values()
            if all(tensor.isfinite().all() for tensor in weights if tensor.is_floating_point()):
                return checkpoint
    return None
