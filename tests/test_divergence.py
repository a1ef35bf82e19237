"""Trainings whose loss or weights become NaN: they stop in one line, and what was good before stays."""

import functools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import Run, start, write_corpus
from transformers import TrainerControl, TrainerState

from diarization.backends import load_weights
from training.divergence import MOST_SKIPPED, Diverged, DivergenceGuard, last_good
from training.packing import packed_step
from training.sealing import seal

pytestmark = pytest.mark.training

FLAGS = "--max_steps 30 --save_steps 5 --logging_steps 3 --dataloader_num_workers 0 --save_total_limit 3"


def loss_is(value: float, step: int) -> None:
    """In the process of a run: the loss of one step is another."""
    from training.trainer import StreamingTrainer

    compute = StreamingTrainer.compute_loss

    def compute_loss(self, *args, **kwargs):
        loss = compute(self, *args, **kwargs)
        return loss * value if self.state.global_step + 1 == step else loss

    StreamingTrainer.compute_loss = compute_loss


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    write_corpus(directory)
    return directory


def train(corpus: Path, directory: Path, *flags: str, prepare=None, name: str = "log") -> Run:
    command = [*FLAGS.split(), "--dataset", corpus, "--output_dir", directory / "run", *flags]
    return start(*map(str, command), log=directory / name, prepare=prepare).ended()


def last_line(run: Run) -> str:
    assert "Traceback" not in run.text(), run.text()
    return run.text().splitlines()[-1]


@pytest.fixture(scope="module")
def diverged(corpus, tmp_path_factory) -> tuple[Path, Run]:
    """A run whose loss is NaN at step 13, with a drive beside it and the model of an earlier training."""
    directory = tmp_path_factory.mktemp("diverged")
    (directory / "run" / "model").mkdir(parents=True)
    (directory / "run" / "model" / "model.safetensors").write_bytes(b"of an earlier training")
    (directory / "run" / "run.json").write_text('{"run": "an earlier training", "model": true}')
    flags = ("--resume", "--checkpoint_dir", str(directory / "drive"))
    return directory, train(corpus, directory, *flags, prepare=functools.partial(loss_is, float("nan"), 13))


def test_it_stops_in_one_line_that_names_step_and_checkpoint(diverged):
    directory, run = diverged
    assert run.exitcode == 1
    assert last_line(run) == (
        "error: training diverged: the loss is NaN or infinite since step 13; the last good checkpoint is "
        f"{directory}/run/checkpoint-10; train on from it with --start_from {directory}/run/checkpoint-10, a lower "
        "--learning_rate and another --output_dir"
    )


def test_nothing_of_it_is_saved_and_nothing_good_is_lost(diverged):
    run = diverged[0] / "run"
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-5"]
    assert max(packed_step(slot) for slot in (diverged[0] / "drive").glob("*.zip")) == 10
    assert [file.read_bytes() for file in (run / "model").iterdir()] == [b"of an earlier training"]


def test_the_remedy_works(diverged):
    network = load_weights(str(diverged[0] / "run" / "checkpoint-10"))  # as --start_from takes it
    assert network.config.hidden_size == 16


@pytest.mark.parametrize("step", [1, 30])
def test_first_and_last_step_count_too(step, corpus, tmp_path):
    run = train(corpus, tmp_path, "--save_steps", "100", prepare=functools.partial(loss_is, float("inf"), step))
    assert run.exitcode == 1 and not (tmp_path / "run" / "model").exists()
    assert last_line(run) == (
        f"error: training diverged: the loss is NaN or infinite since step {step}; no good checkpoint was saved "
        "before; start anew with a lower --learning_rate"
    )


def test_a_checkpoint_that_is_bad_already_is_not_trained_on(diverged, corpus, tmp_path):
    good = diverged[0] / "run" / "checkpoint-10"
    shutil.copytree(good, tmp_path / "run" / "checkpoint-10")
    for step in (15, 30):  # one in the midst, one that is done
        bad = shutil.copytree(good, tmp_path / "run" / f"checkpoint-{step}")
        state = bad / "trainer_state.json"
        state.write_text(state.read_text().replace('"global_step": 10', f'"global_step": {step}'))
        weights = load_file(bad / "model.safetensors")
        weights["fast_diarization.up.bias"][0] = float("inf")
        save_file(weights, bad / "model.safetensors", {"format": "pt"})
        seal(bad)
        run = train(corpus, tmp_path, "--resume", name=f"{step}.log")
        assert run.exitcode == 1 and not (tmp_path / "run" / "model").exists()
        said = last_line(run)
        assert "are NaN or infinite (first in fast_diarization.up.bias)" in said or "at step 30" in said
        assert f"the last good checkpoint is {tmp_path}/run/checkpoint-10" in said


def stepped(guard: DivergenceGuard, model: torch.nn.Module, step: int, loss: float, **due) -> None:
    guard.note(step, torch.tensor(loss))
    control = TrainerControl(**due)
    guard.on_step_end(SimpleNamespace(output_dir="/nowhere"), TrainerState(global_step=step), control, model=model)


def test_skipped_steps_of_half_precision_are_no_divergence():
    guard, model = DivergenceGuard(), torch.nn.Linear(2, 2)
    for step in range(1, 500):
        stepped(guard, model, step, float("inf") if step % 10 else 1.0, should_log=step % 7 == 0)


def test_a_scale_that_never_recovers_is():
    guard, model = DivergenceGuard(), torch.nn.Linear(2, 2)
    stepped(guard, model, 1, 1.0)
    with pytest.raises(Diverged, match="the loss is NaN or infinite since step 2; no good checkpoint"):
        for step in range(2, 10 * MOST_SKIPPED):
            stepped(guard, model, step, float("nan"))


def test_weights_are_looked_at_where_the_loss_says_nothing():
    guard, model = DivergenceGuard(), torch.nn.Linear(2, 2)
    model.bias.data[1] = float("nan")
    stepped(guard, model, 7, 1.0)
    for due in ("should_log", "should_evaluate", "should_save", "should_training_stop"):
        with pytest.raises(Diverged, match=r"the weights are NaN or infinite at step 8 \(first in bias\)"):
            stepped(guard, model, 8, 1.0, **{due: True})


def test_only_a_complete_checkpoint_is_good(tmp_path):
    for step, value in ((5, 1.0), (10, 2.0), (15, float("nan"))):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        save_file({"weight": torch.tensor([value])}, checkpoint / "model.safetensors")
        (checkpoint / "trainer_state.json").write_text("{}")
        seal(checkpoint)
    assert last_good(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "manifest.json").unlink()
    assert last_good(tmp_path) == tmp_path / "checkpoint-5"
