"""What `train.py` can be told, by flags or by a YAML file that flags override; whatever is wrong is one line."""

import argparse
import difflib
import os
import sys
from dataclasses import dataclass, field

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from data.conversations import TURN_PLANS
from data.corpora import CORPORA
from data.streaming import StreamConfig
from modeling import FastDiarizationConfig
from modeling.task_fast_diarization import Task

MOST_WORKERS = 16


class UsageError(ValueError):
    """What was asked for cannot be done; the message names it, the value and the remedy."""


NEW = {
    name: getattr(FastDiarizationConfig(), name)
    for name in ("hidden_size", "dropout", "speaker_loss_weight", "affinity_loss_weight")
}
"""What a new network is like where the command does not say."""


@dataclass
class Arguments:
    """What to train on what."""

    _argument_group_name = "what to train on what"

    dataset: list[str] = field(
        default_factory=lambda: ["demo"],
        metadata={
            "help": f"One corpus or several: {', '.join(CORPORA)}, a Hub id (user/name, or user/name:configuration), a "
            "directory of Parquet or speaker folders, or one of recordings with RTTM files."
        },
    )
    shares: list[float] | None = field(
        default=None, metadata={"help": "Share of each corpus in every batch, in their order (default: equal)."}
    )
    speaker_column: str | None = field(
        default=None, metadata={"help": "Column that tells speakers apart, where it has an unusual name."}
    )
    noise: str | None = field(
        default=None,
        metadata={"help": "Directory of background recordings (WAV, FLAC, OGG); without it noise is synthetic."},
    )
    encoder_type: str | None = field(
        default=None,
        metadata={
            "help": "lightweight-cnn (default) or attention-gru; with --start_from that of the weights, "
            "or another one, which starts with the layers that both have."
        },
    )
    hidden_size: int | None = field(
        default=None, metadata={"help": f"Width of a new network (default {NEW['hidden_size']})."}
    )
    dropout: float | None = field(
        default=None,
        metadata={
            "help": f"Before the context layers and the head (default {NEW['dropout']}, or that of --start_from)."
        },
    )
    num_speakers: int | None = field(
        default=None,
        metadata={
            "help": "Speakers told apart in one window "
            f"(default {Task.num_speakers}, or that of --start_from or of the run resumed)."
        },
    )
    window_seconds: float = field(default=Task.window_seconds, metadata={"help": "Length of a training window."})
    long_window_seconds: float | None = field(
        default=None, metadata={"help": "Length of the windows of about half of the pools, to link by longer ones."}
    )
    turn_taking: str = field(
        default="measured",
        metadata={
            "help": "measured: turns as in real conversations; independent: of each speaker by himself.",
            "choices": list(TURN_PLANS),
        },
    )
    measured_shares: bool = field(
        default=False,
        metadata={
            "help": "Train on windows cut out of talk anywhere, most of them with one speaker, instead of mostly two: "
            "for the last steps of a training."
        },
    )
    augment: bool = field(default=True, metadata={"help": "Rooms, microphones, telephones, noise and levels."})
    speaker_loss_weight: float | None = field(
        default=None,
        metadata={
            "help": "Of the contrastive loss on embeddings "
            f"(default {NEW['speaker_loss_weight']}, or that of --start_from)."
        },
    )
    affinity_loss_weight: float | None = field(
        default=None,
        metadata={
            "help": "Of the within-window affinity loss "
            f"(default {NEW['affinity_loss_weight']}, or that of --start_from)."
        },
    )
    start_from: str | None = field(
        default=None, metadata={"help": "Model directory or Hub id whose weights to start from (phase two)."}
    )
    keep_embeddings: float = field(
        default=0.0,
        metadata={
            "help": "Weight that holds embeddings near those of --start_from, to fine-tune on recordings of few people."
        },
    )
    freeze_norms: bool = field(
        default=False,
        metadata={"help": "Measure normalisation on many voices first and keep it: for the last steps of a training."},
    )
    teacher_voices: str | None = field(
        default=None, metadata={"help": "Table of voices to learn from, as training/teacher_voices.py makes it."}
    )
    tune_linking: bool = field(
        default=False,
        metadata={"help": "Choose at the end how windows are linked, on the held-out recordings of annotated corpora."},
    )
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "ONNX file of pyannote segmentation-3.0 (MIT), which labels the directories of --dataset that have "
            "audio and no RTTM."
        },
    )
    resume: bool = field(
        default=False,
        metadata={"help": "Go on from the newest complete checkpoint in output_dir, checkpoint_dir or on the Hub."},
    )
    checkpoint_dir: str | None = field(
        default=None, metadata={"help": "A second place for checkpoints, such as a mounted Google Drive; two slots."}
    )
    eval_windows: int = field(default=640, metadata={"help": "Windows of unseen speakers scored at each evaluation."})
    windows_per_utterance: int = field(
        default=20, metadata={"help": "Windows made for every utterance read; fewer read more of the corpus."}
    )
    lanes: int = field(
        default=StreamConfig.lanes,
        metadata={"help": "Blocks open at a time; as many data workers share the work without doing any of it twice."},
    )
    units_per_block: int = field(
        default=8, metadata={"help": "Shards or row groups read side by side; more mix more speakers in memory."}
    )


@dataclass
class Training(TrainingArguments):
    """transformers' TrainingArguments with this project's defaults."""

    _argument_group_name = "how to train"

    output_dir: str = field(default="runs/demo", metadata={"help": "Where checkpoints and the model are written."})
    max_steps: int = field(default=1000, metadata={"help": "Optimizer steps; the stream has no end of its own."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Windows in a batch."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule after the warm-up."})
    warmup_steps: int = field(default=100, metadata={"help": "Steps of linear warm-up."})
    logging_steps: float = field(default=20, metadata={"help": "Steps between lines of the log."})
    eval_strategy: str = field(default="steps", metadata={"help": "Evaluate every eval_steps."})
    eval_steps: float = field(default=250, metadata={"help": "Steps between evaluations."})
    save_steps: float = field(default=250, metadata={"help": "Steps between checkpoints."})
    save_total_limit: int = field(default=2, metadata={"help": "Checkpoints kept."})
    dataloader_num_workers: int = field(
        default=1, metadata={"help": f"Processes that make windows, 0 to {MOST_WORKERS}."}
    )
    report_to: str = field(default="tensorboard", metadata={"help": "Where curves go."})

    def __post_init__(self):
        # The stream resumes by its own state, and its batches are what the network takes.
        self.ignore_data_skip = self.restore_callback_states_from_checkpoint = self.save_safetensors = True
        self.remove_unused_columns = False
        asked = self.fp16 or self.bf16 or os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"
        if torch.cuda.is_available() and not (asked or self.use_cpu):
            # A T4 reports bf16 support but runs it about four times slower than fp16.
            self.bf16 = torch.cuda.get_device_capability() >= (8, 0)
            self.fp16 = not self.bf16
        super().__post_init__()


SHOWN = ("seed", "gradient_accumulation_steps", "bf16", "fp16", "push_to_hub", "hub_model_id", "hub_private_repo")
"""Flags of TrainingArguments that `--help` shows beside this project's own."""


class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Examples as they are written, and the default of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(HfArgumentParser):
    """Flags of [`Arguments`] and [`Training`]; `--help` shows those of this project, `--help_all` every one."""

    def __init__(self, description: str):
        usage = "accelerate launch train.py [--config FILE.yaml] [--flag value ...]"
        super().__init__(description=description, usage=usage, formatter_class=Help, allow_abbrev=False)
        self.add_argument("--config", help="YAML file of flags without their dashes; flags given here override it.")
        self.add_argument("--help_all", action="store_true", help="Show the other flags of transformers' Trainer too.")
        self.dataclass_types = [Arguments, Training]
        for dataclass_type in self.dataclass_types:
            self._add_dataclass_arguments(dataclass_type)

    def format_help(self, everything: bool = False) -> str:
        shown = {*Arguments.__annotations__, *Training.__annotations__, *SHOWN, "help", "help_all", "config"}
        for action in self._actions:
            # The parser knows every flag with hyphens too; once is enough here.
            action.option_strings = [o for o in action.option_strings if "-" not in o[2:]]
            if action.dest not in shown and not everything:
                action.help = argparse.SUPPRESS
        return super().format_help()

    def error(self, message: str):
        raise UsageError(f"{message}; see --help")


def parse(description: str, flags: list[str] | None = None) -> tuple[Arguments, Training]:
    """
    Args:
        description: what `--help` says first.
        flags: those of the command line by default.

    Raises:
        UsageError: an unknown flag or key, or a value that cannot be.
    """
    parser = Parser(description)
    flags = sys.argv[1:] if flags is None else flags
    given, unknown = parser.parse_known_args(flags)
    if given.help_all:
        print(parser.format_help(everything=True))
        raise SystemExit(0)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"unknown flag {unknown[0]}{_similar(unknown[0].split('=')[0], known)}; see --help")
    if given.config:
        flags = [*_flags_of_file(given.config, {action.dest for action in parser._actions}), *flags]
    try:
        arguments, training, _ = parser.parse_args_into_dataclasses(flags)
    except (ValueError, ImportError) as error:
        raise error if isinstance(error, UsageError) else UsageError(str(error).splitlines()[0]) from None
    check(arguments, training)
    return arguments, training


def check(arguments: Arguments, training: Training) -> None:
    """Raise a `UsageError` for a value that would fail later, or never."""
    if training.max_steps < 1:
        raise UsageError(f"--max_steps must be at least 1, got {training.max_steps}: the stream has no end of its own")
    positive = {
        "per_device_train_batch_size": training,
        "eval_windows": arguments,
        "windows_per_utterance": arguments,
        "units_per_block": arguments,
        "lanes": arguments,
        "gradient_accumulation_steps": training,
    }
    for name, part in positive.items():
        if getattr(part, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(part, name)}")
    for name in ("window_seconds", "long_window_seconds"):
        seconds = getattr(arguments, name)
        if seconds is not None and not (0.1 <= seconds <= 60 and abs(50 * seconds - round(50 * seconds)) < 1e-6):
            raise UsageError(f"--{name} must be a multiple of 0.02 from 0.1 to 60, got {seconds}")
    if training.load_best_model_at_end:
        raise UsageError("--load_best_model_at_end is not for this program, which keeps the newest checkpoints")
    if training.resume_from_checkpoint:
        raise UsageError(
            "--resume_from_checkpoint is not for this program: --resume finds the newest checkpoint itself"
        )
    if arguments.hidden_size is not None and arguments.start_from:
        raise UsageError("--hidden_size is that of the weights with --start_from; leave one of the two out")
    if not 0 <= arguments.keep_embeddings < float("inf"):
        raise UsageError(f"--keep_embeddings must be 0 or more, got {arguments.keep_embeddings:g}")
    if arguments.keep_embeddings and not arguments.start_from:
        raise UsageError("--keep_embeddings holds those of --start_from; name its weights, or leave it out")
    if not training.learning_rate > 0:
        raise UsageError(f"--learning_rate must be above 0, got {training.learning_rate}")
    if arguments.long_window_seconds is not None and arguments.long_window_seconds < arguments.window_seconds:
        raise UsageError(
            f"--long_window_seconds must be at least --window_seconds, {arguments.window_seconds:g}, "
            f"got {arguments.long_window_seconds:g}"
        )
    if arguments.long_window_seconds is not None and arguments.lanes < 2:
        raise UsageError("--long_window_seconds is for every other lane; use at least --lanes 2")
    if not 0 <= training.dataloader_num_workers <= MOST_WORKERS:
        raise UsageError(
            f"--dataloader_num_workers must be from 0 to {MOST_WORKERS}, got {training.dataloader_num_workers}"
        )
    check_corpora(arguments.dataset, arguments.shares, training.per_device_train_batch_size)
    try:
        FastDiarizationConfig(**network_of(arguments))
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def check_corpora(names: list[str], shares: list[float] | None, batch_size: int) -> None:
    """Raise a `UsageError` for corpora that cannot share a batch in this way."""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--dataset has {repeated[0]} twice; name each corpus once and weigh it with --shares")
    if batch_size < len(names):
        raise UsageError(
            f"--per_device_train_batch_size {batch_size} is too small for {len(names)} corpora; each needs one window"
        )
    if shares is None:
        return
    if len(shares) != len(names):
        raise UsageError(f"--shares has {len(shares)} numbers for {len(names)} corpora; give one for each")
    if not min(shares) > 0 or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(
            f"--shares must be above 0 and sum to 1, got {' '.join(f'{s:g}' for s in shares)} (sum {sum(shares):g})"
        )


def network_of(arguments: Arguments) -> dict:
    """The fields of the network's configuration that were given."""
    given = {name: getattr(arguments, name) for name in (*NEW, "encoder_type", "num_speakers", "window_seconds")}
    return {name: value for name, value in given.items() if value is not None}


def _flags_of_file(file: str, known: set[str]) -> list[str]:
    """A YAML mapping as flags, so that both are checked alike."""
    try:
        with open(file, encoding="utf-8") as stream:
            settings = yaml.safe_load(stream)
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror}; there are examples in configs/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise UsageError(f"--config {file} is no YAML{f', see line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(settings, dict):
        raise UsageError(f"--config {file} must hold lines of `flag: value`, got {type(settings).__name__}")
    flags = []
    for key, value in settings.items():
        if key not in known or key == "config":
            raise UsageError(f"--config {file}: unknown key {key!r}{_similar(str(key), sorted(known))}")
        if value is not None:
            flags += [f"--{key}", *map(str, value)] if isinstance(value, list) else [f"--{key}={value}"]
    return flags


def _similar(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
