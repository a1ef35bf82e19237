"""A run that goes on is told what its beginning was told, or it is refused by name and both values, or it says so."""

import json
import logging
from pathlib import Path

import pytest

from common.version import __version__
from training.arguments import parse
from training.checkpoints import CheckpointError
from training.sealing import MADE_BY, mark
from training.settings_kept import compare_settings, settings_of

CPU = ["--use_cpu", "true"]


def told(*flags: str) -> dict:
    return settings_of(*parse("", [*CPU, *flags]))


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    checkpoint = tmp_path / "checkpoint-3"
    mark(checkpoint, {"run": "a run", "settings": told()})
    return checkpoint


REFUSED = {
    "--gradient_accumulation_steps": ("gradient_accumulation_steps", "2", "1", "2"),
    "--learning_rate": ("learning_rate", "5e-4", "0.001", "0.0005"),
    "--weight_decay": ("weight_decay", "0.1", "0.0", "0.1"),
    "--max_grad_norm": ("max_grad_norm", "5", "1.0", "5.0"),
    "--optim": ("optim", "sgd", "'adamw_torch_fused'", "'sgd'"),
    "--optim_args": ("optim_args", "momentum=0.9", "None", "'momentum=0.9'"),
    "--adam_beta1": ("adam_beta1", "0.8", "0.9", "0.8"),
    "--adam_beta2": ("adam_beta2", "0.8", "0.999", "0.8"),
    "--adam_epsilon": ("adam_epsilon", "1e-6", "1e-08", "1e-06"),
    "--freeze_embeddings": ("freeze_embeddings", "true", "False", "True"),
    "--freeze_norms": ("freeze_norms", "true", "False", "True"),
}


@pytest.mark.parametrize("flag", REFUSED)
def test_what_the_steps_depend_on_is_refused_by_name_and_both_values(checkpoint, flag):
    name, value, before, now = REFUSED[flag]
    if flag == "--optim":
        before = repr(told()["same"]["optim"])
    with pytest.raises(CheckpointError) as error:
        compare_settings(checkpoint, told(flag, value, "--start_from", "weights"))
    assert str(error.value) == (
        f"the checkpoint was made with {name} {before} and this run has {now}; resume with the same, or start a new "
        "run from its weights with --start_from"
    )


def test_teacher_voices_are_told_apart_by_what_they_hold(tmp_path):
    (tmp_path / "voices").write_bytes(b"one")
    checkpoint = tmp_path / "checkpoint-3"
    mark(checkpoint, {"settings": told("--teacher_voices", str(tmp_path / "voices"))})
    (tmp_path / "moved").write_bytes(b"one")
    compare_settings(checkpoint, told("--teacher_voices", str(tmp_path / "moved")))
    (tmp_path / "voices").write_bytes(b"two")
    for flags in (["--teacher_voices", str(tmp_path / "voices")], []):
        with pytest.raises(CheckpointError, match="made with teacher_voices '[0-9a-f]{12}' and this run has"):
            compare_settings(checkpoint, told(*flags))


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--max_steps", "2000"], "max_steps is 2000 from here on; the checkpoint was made with 1000"),
        (["--warmup_steps", "7"], "warmup_steps is 7 from here on; the checkpoint was made with 100"),
        (
            ["--lr_scheduler_type", "linear"],
            "lr_scheduler_type is linear from here on; the checkpoint was made with cosine",
        ),
        (["--bf16", "true"], "precision is bfloat16 from here on; the checkpoint was made with float32"),
    ],
)
def test_what_may_change_is_said(checkpoint, caplog, monkeypatch, flags, said):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    compare_settings(checkpoint, told(*flags))
    assert caplog.messages == [said]


def test_nothing_is_said_of_the_same_and_of_what_does_not_matter(checkpoint, caplog):
    caplog.set_level(logging.INFO)
    compare_settings(checkpoint, told("--logging_steps", "3", "--save_steps", "9", "--dataloader_num_workers", "4"))
    assert not caplog.messages


def test_the_code_is_named(checkpoint, caplog):
    written = json.loads((checkpoint / MADE_BY).read_text())
    assert written["settings"]["code"]["version"] == __version__
    written["settings"]["code"]["version"] = "0.1.9"
    mark(checkpoint, written)
    compare_settings(checkpoint, told())
    assert caplog.messages == [f"version is {__version__} from here on; the checkpoint was made with 0.1.9"]


@pytest.mark.parametrize("text", [None, "", "[]", '{"settings": 3}', '{"settings": {"same": [1], "code": "x"}}'])
def test_a_checkpoint_that_tells_nothing_is_said_or_has_nothing_to_say(checkpoint, caplog, text):
    if text is None:
        (checkpoint / MADE_BY).unlink()
    else:
        (checkpoint / MADE_BY).write_text(text)
    compare_settings(checkpoint, told())
    assert all("before 0.2 and does not tell" in message for message in caplog.messages)
