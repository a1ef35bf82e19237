"""The arguments of `train.py`: flags, or a YAML file that flags override; each error is one line."""

import argparse
import difflib
import os
import sys
from dataclasses import dataclass, field

import torch
from transformers import HfArgumentParser, TrainingArguments

from common.errors import first_line, unknown_argument
from common.flags import TOKEN
from data.conversations import TURN_PLANS
from data.corpora import CORPORA
from data.streaming import StreamConfig
from modeling import FastDiarizationConfig
from modeling.encoders_fast_diarization import ENCODERS
from modeling.task_fast_diarization import Task
from training.flag_file import read_flag_file

MOST_WORKERS = 16


class UsageError(ValueError):
    """Wrong usage; the message names the argument, its value and the remedy."""


NEW = {
    name: getattr(FastDiarizationConfig(), name)
    for name in ("hidden_size", "dropout", "speaker_loss_weight", "affinity_loss_weight")
}
"""Defaults of a new network."""


@dataclass
class Arguments:
    """Data and model."""

    _argument_group_name = "data and model"

    dataset: list[str] = field(
        default_factory=lambda: ["demo"],
        metadata={
            "help": f"One corpus or several: {', '.join(CORPORA)}, a Hub id (user/name or user/name:configuration), a "
            "directory of Parquet files or of one folder per speaker, or one of recordings with RTTM files."
        },
    )
    shares: list[float] | None = field(
        default=None, metadata={"help": "Share of each corpus in every batch, in their order (default: equal)."}
    )
    speaker_column: str | None = field(
        default=None, metadata={"help": "Column with the speaker, if it has an unusual name."}
    )
    noise: list[str] | None = field(
        default=None,
        metadata={
            "help": "Directories of recorded backgrounds, and of clips of up to 10 s of non-speech sounds (WAV, "
            "FLAC, OGG), beside synthetic ones."
        },
    )
    rooms: str | None = field(
        default=None, metadata={"help": "Directory of measured room impulse responses, beside simulated ones."}
    )
    encoder_type: str | None = field(
        default=None,
        metadata={
            "help": f"{' or '.join(ENCODERS)} (default: {FastDiarizationConfig().encoder_type}, or the encoder of "
            "--start_from; another encoder starts from the layers that both share)."
        },
    )
    hidden_size: int | None = field(
        default=None, metadata={"help": f"Hidden size of a new network (default {NEW['hidden_size']})."}
    )
    dropout: float | None = field(
        default=None,
        metadata={
            "help": f"Dropout before context layers and head (default {NEW['dropout']}, or the one of --start_from)."
        },
    )
    num_speakers: int | None = field(
        default=None,
        metadata={
            "help": "Number of speakers in a window "
            f"(default {Task.num_speakers}, or the one of --start_from or of the resumed run)."
        },
    )
    window_seconds: float = field(
        default=Task.window_seconds, metadata={"help": "Length of a training window in seconds."}
    )
    long_window_seconds: float | None = field(
        default=None, metadata={"help": "Length in seconds of the windows of half of the pools (default: all alike)."}
    )
    turn_taking: str = field(
        default="measured",
        metadata={
            "help": "Turns as in real conversations (measured) or drawn for each speaker alone (independent).",
            "choices": list(TURN_PLANS),
        },
    )
    measured_shares: bool = field(
        default=False,
        metadata={
            "help": "Use windows in natural proportions, most with one speaker, not mostly with two; for the last "
            "steps of a training."
        },
    )
    augment: bool = field(default=True, metadata={"help": "Simulate rooms, microphones, telephones, noise and levels."})
    speaker_loss_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the contrastive loss on speaker embeddings "
            f"(default {NEW['speaker_loss_weight']}, or the one of --start_from)."
        },
    )
    affinity_loss_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the affinity loss within a window "
            f"(default {NEW['affinity_loss_weight']}, or the one of --start_from)."
        },
    )
    start_from: str | None = field(
        default=None, metadata={"help": "Model directory or Hub id to take initial weights from."}
    )
    keep_embeddings: float = field(
        default=0.0,
        metadata={
            "help": "Weight that holds embeddings near those of --start_from, to fine-tune on recordings of few people."
        },
    )
    freeze_embeddings: bool = field(
        default=False,
        metadata={
            "help": "Train only the layers after the speaker embeddings, which stay those of --start_from, so that "
            "known voices need no new enrolment."
        },
    )
    freeze_norms: bool = field(
        default=False,
        metadata={
            "help": "Measure batch statistics over many speakers first, then freeze them; for the last steps of a "
            "training."
        },
    )
    teacher_voices: str | None = field(
        default=None,
        metadata={"help": "Table of speaker embeddings to distil, written by python -m training.teacher_voices."},
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
        metadata={"help": "Resume from the newest complete checkpoint in output_dir, checkpoint_dir or on the Hub."},
    )
    checkpoint_dir: str | None = field(
        default=None,
        metadata={"help": "Directory for a copy of the two newest checkpoints, such as a mounted Google Drive."},
    )
    eval_windows: int = field(default=640, metadata={"help": "Windows of held-out speakers scored at each evaluation."})
    windows_per_utterance: int = field(
        default=20, metadata={"help": "Windows made per utterance read; fewer windows read more of the corpus."}
    )
    lanes: int = field(
        default=StreamConfig.lanes,
        metadata={"help": "Blocks open at a time; as many data workers share the work without doing any of it twice."},
    )
    units_per_block: int = field(
        default=8,
        metadata={"help": "Shards or row groups read together; more of them mix more speakers, in more memory."},
    )


@dataclass
class Training(TrainingArguments):
    """transformers' TrainingArguments with this project's defaults."""

    _argument_group_name = "training"

    output_dir: str = field(default="runs/demo", metadata={"help": "Directory for checkpoints and the model."})
    max_steps: int = field(default=1000, metadata={"help": "Optimizer steps; the stream itself is endless."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Windows per batch and process."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule after the warm-up."})
    warmup_steps: int = field(default=100, metadata={"help": "Steps of linear warm-up."})
    logging_steps: float = field(default=20, metadata={"help": "Steps between log lines."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate: steps (every eval_steps) or no."})
    eval_steps: float = field(default=250, metadata={"help": "Steps between evaluations."})
    save_steps: float = field(default=250, metadata={"help": "Steps between checkpoints."})
    save_total_limit: int = field(default=2, metadata={"help": "Number of checkpoints kept."})
    dataloader_num_workers: int = field(
        default=1, metadata={"help": f"Processes that make windows, from 0 to {MOST_WORKERS}."}
    )
    report_to: str = field(default="tensorboard", metadata={"help": "Logger of the training curves."})

    def __post_init__(self):
        # The stream resumes from a state of its own and yields exactly what the network takes.
        self.ignore_data_skip = self.restore_callback_states_from_checkpoint = self.save_safetensors = True
        self.remove_unused_columns = self.logging_nan_inf_filter = False
        asked = self.fp16 or self.bf16 or os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"
        if torch.cuda.is_available() and not (asked or self.use_cpu):
            # A T4 reports bf16 support but runs it about four times slower than fp16.
            self.bf16 = torch.cuda.get_device_capability() >= (8, 0)
            self.fp16 = not self.bf16
        super().__post_init__()


BOUNDS = {
    "seed": (0, 2**32 - 1),
    "data_seed": (0, 2**32 - 1),
    "max_steps": (1, 10**9),
    "per_device_train_batch_size": (1, 65_536),
    "gradient_accumulation_steps": (1, 65_536),
    "eval_windows": (1, 10**6),
    "windows_per_utterance": (1, 10**6),
    "units_per_block": (1, 10**6),
    "lanes": (1, 1024),
    "keep_embeddings": (0, 10**6),
    "dataloader_num_workers": (0, MOST_WORKERS),
    "learning_rate": (0, 100),
    "warmup_steps": (0, 10**9),
    "weight_decay": (0, 100),
    "adam_beta1": (0, 0.999_999),
    "adam_beta2": (0, 0.999_999),
    "adam_epsilon": (0, 100),
    "max_grad_norm": (0, float("inf")),
    "logging_steps": (1e-6, 10**9),
    "eval_steps": (1e-6, 10**9),
    "save_steps": (1e-6, 10**9),
    "save_total_limit": (1, 10**6),
}
"""The least and the largest number a flag may be."""

SHOWN = ("seed", "gradient_accumulation_steps", "bf16", "fp16", "push_to_hub", "hub_model_id", "hub_private_repo")
"""Flags of TrainingArguments that `--help` shows with this project's own."""


class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the examples as written and adds the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(action.default)})"
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(HfArgumentParser):
    """Flags of [`Arguments`] and [`Training`]; `--help` shows those of this project, `--help_all` every one."""

    def __init__(self, description: str):
        usage = "accelerate launch train.py [--config FILE.yaml] [--flag value ...]"
        super().__init__(description=description, usage=usage, formatter_class=Help, allow_abbrev=False)
        self.add_argument("--config", help="YAML file of flags without dashes; flags on the command line override it.")
        self.add_argument("--help_all", action="store_true", help="Show all flags of transformers' Trainer too.")
        self.dataclass_types = [Arguments, Training]
        for dataclass_type in self.dataclass_types:
            self._add_dataclass_arguments(dataclass_type)
        for action in self._actions:
            if action.nargs == 0 and action.const is False:  # which transformers gives the help of the flag it negates
                action.help = f"Same as --{action.dest} false."

    def format_help(self, everything: bool = False) -> str:
        shown = {*Arguments.__annotations__, *Training.__annotations__, *SHOWN, "help", "help_all", "config"}
        for action in self._actions:
            # The parser knows every flag with hyphens too; once is enough here.
            action.option_strings = [o for o in action.option_strings if "-" not in o[2:]]
            if action.dest not in shown and not everything:
                action.help = argparse.SUPPRESS
        return super().format_help()

    def error(self, message: str):
        raise UsageError(f"{TOKEN.sub('hf_...', message):.300}; see --help")


def parse(description: str, flags: list[str] | None = None) -> tuple[Arguments, Training]:
    """
    Args:
        description: first paragraphs of `--help`.
        flags: default: those of the command line.

    Raises:
        UsageError: an unknown flag or key, or an impossible value.
    """
    parser = Parser(description)
    flags = sys.argv[1:] if flags is None else flags
    given, unknown = parser.parse_known_args(flags)
    if given.help_all:
        print(parser.format_help(everything=True))
        raise SystemExit(0)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"{unknown_argument(unknown[0])}{_similar(unknown[0].partition('=')[0], known)}; see --help")
    if given.config:
        flags = [*_flags_of_file(given.config, {action.dest for action in parser._actions}), *flags]
    try:
        arguments, training, _ = parser.parse_args_into_dataclasses(flags)
    except Exception as error:  # TrainingArguments raises whatever its libraries do
        raise error if isinstance(error, UsageError) else UsageError(first_line(error)) from None
    check(arguments, training)
    return arguments, training


def check(arguments: Arguments, training: Training) -> None:
    """Raise a `UsageError` for a value that would only fail later, or be ignored."""
    if training.max_steps < 1:
        raise UsageError(f"--max_steps must be at least 1, got {training.max_steps}: the stream is endless")
    for name, (least, most) in BOUNDS.items():
        value = getattr(arguments if hasattr(arguments, name) else training, name)
        if value is not None and not least <= value <= most:
            bound = f"at most {most:g}" if value > most else f"at least {least:g}"
            raise UsageError(f"--{name} must be {bound}, got {value}")
    for name in ("window_seconds", "long_window_seconds"):
        seconds = getattr(arguments, name)
        if seconds is not None and not (0.1 <= seconds <= 60 and abs(50 * seconds - round(50 * seconds)) < 1e-6):
            raise UsageError(f"--{name} must be a multiple of 0.02 from 0.1 to 60, got {seconds}")
    if training.load_best_model_at_end:
        raise UsageError("--load_best_model_at_end is not supported: the newest checkpoints are kept; leave it out")
    if training.resume_from_checkpoint:
        raise UsageError(
            "--resume_from_checkpoint is not supported: use --resume, which finds the newest checkpoint itself"
        )
    if arguments.hidden_size is not None and arguments.start_from:
        raise UsageError("--hidden_size is given by the weights of --start_from; leave one of the two out")
    if arguments.keep_embeddings and not arguments.start_from:
        raise UsageError("--keep_embeddings holds those of --start_from; name its weights, or leave it out")
    if arguments.freeze_embeddings:
        if not arguments.start_from:
            raise UsageError("--freeze_embeddings keeps those of --start_from; name its weights, or leave it out")
        for name in ("keep_embeddings", "teacher_voices"):
            if getattr(arguments, name):
                raise UsageError(f"--{name} changes embeddings and --freeze_embeddings does not; leave one of them out")
    for name in ("learning_rate", "adam_epsilon"):
        if not getattr(training, name) > 0:
            raise UsageError(f"--{name} must be above 0, got {getattr(training, name)}")
    if not isinstance(training.lr_scheduler_kwargs or {}, dict):
        raise UsageError(f"--lr_scheduler_kwargs must be a JSON mapping, got {training.lr_scheduler_kwargs!r:.60}")
    if arguments.long_window_seconds is not None and arguments.long_window_seconds < arguments.window_seconds:
        raise UsageError(
            f"--long_window_seconds must be at least --window_seconds, {arguments.window_seconds:g}, "
            f"got {arguments.long_window_seconds:g}"
        )
    if arguments.long_window_seconds is not None and arguments.lanes < 2:
        raise UsageError("--long_window_seconds is for every other lane; use at least --lanes 2")
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
    """The fields of the network's configuration that were given on the command line."""
    given = {name: getattr(arguments, name) for name in (*NEW, "encoder_type", "num_speakers", "window_seconds")}
    return {name: value for name, value in given.items() if value is not None}


def _flags_of_file(file: str, known: set[str]) -> list[str]:
    """A YAML mapping as flags, so that both are checked alike."""
    try:
        settings = read_flag_file(file)
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror}; there are examples in configs/") from None
    except ValueError as error:
        raise UsageError(f"--config {file} {error}") from None
    flags = []
    for key, value in settings.items():
        if key not in known or key == "config":
            raise UsageError(f"--config {file}: unknown key {key!r:.60}{_similar(str(key), sorted(known))}")
        if value is not None:
            flags += [f"--{key}", *value] if isinstance(value, list) else [f"--{key}={value}"]
    return flags


def _similar(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
