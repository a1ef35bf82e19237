"""Train Fast Diarization on a streamed speech corpus; nothing is downloaded to disk.

    accelerate launch train.py                                        # the embedded demo corpus, about 8 minutes
    accelerate launch train.py --dataset path/to/speech --max_steps 20000 --resume
    accelerate launch train.py --config configs/librispeech.yaml --resume
    accelerate launch train.py --help

Two-speaker conversations are made on the fly from single-speaker utterances. Run the same command with `--resume`
after any interruption and it goes on exactly where it was.
"""

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
import yaml
from accelerate.utils import broadcast_object_list
from transformers import HfArgumentParser, TrainingArguments, set_seed

from data.corpora import CORPORA, CorpusError, open_corpus
from data.network import limit_silence
from data.streaming import ConversationStream, StreamConfig
from evaluation.windows import to_markdown
from modeling import (
    FastDiarizationConfig,
    FastDiarizationFeatureExtractor,
    FastDiarizationForAudioFrameClassification,
)
from training.card import write_card
from training.checkpoints import SLOTS, CheckpointError, Keeper, newest, open_drive
from training.hub import HubRepository
from training.teacher_voices import TeacherVoices
from training.trainer import Clock, SaveAndLeave, StreamingTrainer, read_stream_state


@dataclass
class Arguments:
    """What to train on what."""

    dataset: str = field(
        default="demo",
        metadata={"help": f"{', '.join(CORPORA)}, a Hub id (user/name), or a directory of Parquet or speaker folders."},
    )
    speaker_column: str | None = field(
        default=None, metadata={"help": "Column that tells speakers apart, where it has an unusual name."}
    )
    noise: str | None = field(
        default=None, metadata={"help": "Directory of background recordings; without it noise is synthetic."}
    )
    encoder_type: str | None = field(
        default=None,
        metadata={
            "help": "lightweight-cnn (default) or attention-gru; with --start_from that of the weights, "
            "or another one, which starts with the layers that both have."
        },
    )
    hidden_size: int = field(default=256, metadata={"help": "Width of the network."})
    dropout: float = field(default=0.3, metadata={"help": "Dropout before the context layers and the head."})
    window_seconds: float = field(default=3.0, metadata={"help": "Length of a training window."})
    start_from: str | None = field(
        default=None, metadata={"help": "Model directory or Hub id whose weights to start from (phase two)."}
    )
    teacher_voices: str | None = field(
        default=None, metadata={"help": "Table of voices to learn from, as training/teacher_voices.py makes it."}
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
        default=16, metadata={"help": "Windows made for every utterance read; fewer read more of the corpus."}
    )
    units_per_block: int = field(
        default=8, metadata={"help": "Shards or row groups read side by side; more mix more speakers in memory."}
    )


@dataclass
class Training(TrainingArguments):
    """transformers' TrainingArguments with this project's defaults."""

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
    dataloader_num_workers: int = field(default=1, metadata={"help": "Processes that make windows: 0, 1, 2 or 4."})
    report_to: str = field(default="tensorboard", metadata={"help": "Where curves go."})
    ignore_data_skip: bool = field(default=True, metadata={"help": "Always true: the stream resumes by its own state."})
    restore_callback_states_from_checkpoint: bool = field(default=True, metadata={"help": "Always true."})
    save_safetensors: bool = field(default=True, metadata={"help": "Always true."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Always false."})


def main():
    arguments, training = parse()
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO if training.process_index == 0 else logging.ERROR,
    )
    set_seed(training.seed)
    limit_silence()
    hub = open_hub(training)
    drive = Path(arguments.checkpoint_dir) if arguments.checkpoint_dir else None
    checkpoint = find_checkpoint(arguments, training, drive, hub)
    train, evaluation = open_streams(arguments, training, checkpoint)
    model = make_model(arguments, checkpoint)
    logging.info(
        "%s, %.2f M parameters, on %s", model.config.encoder_type, model.num_parameters() / 1e6, training.device
    )
    keeper, leave = Keeper(drive, hub.upload_checkpoint if hub else None), SaveAndLeave()
    trainer = StreamingTrainer(
        model=model,
        args=training,
        train_dataset=train,
        eval_dataset=evaluation,
        callbacks=[leave, Clock()],
        processing_class=FastDiarizationFeatureExtractor(),
        workers=training.dataloader_num_workers,
        eval_batches=max(1, arguments.eval_windows // training.per_device_train_batch_size),
        keeper=keeper,
        voices=TeacherVoices(arguments.teacher_voices) if arguments.teacher_voices else None,
    )
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        if leave.signal:
            logging.info("saved at step %d; run the same command with --resume to go on", trainer.state.global_step)
            raise SystemExit(128 + leave.signal)
        finish(arguments, training, trainer, hub)
    finally:
        keeper.close()


def open_hub(training: Training) -> HubRepository | None:
    """The run's repository. The Trainer's own pushes skip a checkpoint while one is in flight and fail with the
    network, ours do neither. The token goes no further: the Trainer would keep it in every checkpoint."""
    asked, token = training.push_to_hub, training.hub_token
    training.push_to_hub, training.hub_token = False, None
    if not asked or training.process_index:
        return None
    name = training.hub_model_id or Path(training.output_dir).resolve().name
    return HubRepository(name, bool(training.hub_private_repo), token)


def find_checkpoint(
    arguments: Arguments, training: Training, drive: Path | None, hub: HubRepository | None
) -> Path | None:
    """The checkpoint to go on from, the same for all processes. Without `--resume` a place in use is refused."""
    run, checkpoint = Path(training.output_dir), None
    if training.process_index == 0:
        if drive:
            open_drive(drive)
        if arguments.resume:
            checkpoint = newest(run, drive, hub.download_checkpoint if hub else None)
            logging.info("going on from %s", checkpoint or "the start: there is no checkpoint yet")
        elif any(run.glob("checkpoint-*")) or drive and any((drive / slot).exists() for slot in SLOTS):
            raise CheckpointError(
                f"{run if any(run.glob('checkpoint-*')) else drive} already holds a run; add --resume to go on, or "
                "choose another directory"
            )
        elif hub and hub.has_checkpoint():
            raise CheckpointError(f"{hub.name} on the Hub already holds a run; add --resume, or another --hub_model_id")
    (checkpoint,) = broadcast_object_list([checkpoint])
    if checkpoint and not checkpoint.is_dir():
        raise CheckpointError(
            f"{checkpoint} is not there for process {training.process_index}; all need one output_dir"
        )
    return checkpoint


def make_model(arguments: Arguments, checkpoint: Path | None) -> FastDiarizationForAudioFrameClassification:
    """A new network, that of `--start_from`, or one like the checkpoint's, whose weights the Trainer loads."""
    shape = {name: getattr(arguments, name) for name in ("hidden_size", "dropout", "window_seconds")}
    encoder = {"encoder_type": arguments.encoder_type} if arguments.encoder_type else {}
    if checkpoint:
        config = FastDiarizationConfig.from_pretrained(checkpoint)
        for name, value in encoder.items() if arguments.start_from else (shape | encoder).items():
            if getattr(config, name) != value:
                raise CheckpointError(
                    f"{checkpoint} has {name} {getattr(config, name)!r} and this run {value!r}; resume with the same"
                )
        return FastDiarizationForAudioFrameClassification(config)
    if arguments.start_from:
        return FastDiarizationForAudioFrameClassification.from_pretrained(arguments.start_from, **encoder)
    return FastDiarizationForAudioFrameClassification(FastDiarizationConfig(**shape, **encoder))


def open_streams(
    arguments: Arguments, training: Training, checkpoint: Path | None
) -> tuple[ConversationStream, ConversationStream]:
    """The stream to train on, at the checkpoint's place, and that of held-out speakers."""
    state = read_stream_state(checkpoint, training.process_index) if checkpoint else None
    config = StreamConfig(
        seed=training.seed,
        batch_size=training.per_device_train_batch_size,
        window_seconds=arguments.window_seconds,
        noise=arguments.noise,
        windows_per_utterance=arguments.windows_per_utterance,
        units_per_block=arguments.units_per_block,
    )
    revision = state and state["stream"].get("revision")
    utterances = open_corpus(arguments.dataset, "train", arguments.speaker_column, revision)
    train = ConversationStream(utterances, config, training.process_index, training.world_size, state)
    held_out = open_corpus(arguments.dataset, "validation", arguments.speaker_column, revision)
    return train, ConversationStream(held_out, replace(config, seed=1, speeds=(1.0,)))


def finish(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> None:
    """Save, score and export the trained model, push it if asked, and say where everything is."""
    final = Path(training.output_dir) / "model"
    trainer.save_model(str(final))
    if not trainer.is_world_process_zero():
        return
    result = trainer.score_windows().result()
    (final / "windows.json").write_text(json.dumps(result, indent=2))
    (final / "training.json").write_text(json.dumps(describe(arguments, training, trainer, hub), indent=2))
    exported = subprocess.run([sys.executable, Path(__file__).parent / "export.py", "--model", final])
    if exported.returncode:
        logging.error("the export failed (see above); the model itself is complete in %s", final)
    write_card(final)
    print(f"\n{arguments.window_seconds:g} s windows of unseen speakers ({arguments.dataset}), floor in brackets:\n")
    print(to_markdown(result))
    print(f"\nmodel and ONNX: {final}\ncheckpoints:    {training.output_dir}")
    print(f"curves:         tensorboard --logdir {training.output_dir}")
    if hub:
        try:
            print(f"on the Hub:     {hub.upload_model(final)}")
        except OSError as error:
            logging.error("the model was not pushed (%s); run the same command with --resume to try again", error)


def describe(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> dict:
    """What the model card says of the training."""
    clock = trainer.state.stateful_callbacks["Clock"]
    command = " ".join(["accelerate launch train.py", *sys.argv[1:]])
    corpus = CORPORA.get(arguments.dataset)
    cuda = training.device.type == "cuda"
    return {
        "name": hub.name if hub else Path(training.output_dir).resolve().name,
        "parameters": trainer.model.num_parameters(),
        "dataset": arguments.dataset,
        "licence": corpus.licence if corpus else "unknown",
        "window_seconds": arguments.window_seconds,
        "steps": trainer.state.global_step,
        "batch_size": training.per_device_train_batch_size * training.world_size,
        "learning_rate": training.learning_rate,
        "schedule": str(training.lr_scheduler_type.value),
        "hours": clock["args"]["seconds"] / 3600,
        "device": torch.cuda.get_device_name() if cuda else f"a CPU with {os.cpu_count()} cores",
        "command": re.sub(r"(--hub_token[ =])\S+", r"\1...", command),
    }


def parse() -> tuple[Arguments, Training]:
    """Arguments from flags, and from a YAML file named by `--config` that flags override."""
    parser = HfArgumentParser((Arguments, Training), description=__doc__)
    flags = sys.argv[1:]
    if "--config" in flags:
        at = flags.index("--config")
        parser.set_defaults(**read_config(flags[at + 1] if at + 1 < len(flags) else ""))
        flags = flags[:at] + flags[at + 2 :]
    arguments, training = parser.parse_args_into_dataclasses(flags)
    if training.max_steps < 1:
        raise SystemExit(f"--max_steps must be at least 1, got {training.max_steps}: the stream has no end of its own")
    if torch.cuda.is_available() and not (training.fp16 or training.bf16):
        # A T4 reports bf16 support but runs it about four times slower than fp16.
        training.bf16 = torch.cuda.get_device_capability() >= (8, 0)
        training.fp16 = not training.bf16
    return arguments, training


def read_config(file: str) -> dict:
    """Settings from a YAML file, by the names of the flags."""
    try:
        settings = yaml.safe_load(Path(file).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SystemExit(f"error: --config {file!r} cannot be read: {str(error).splitlines()[0]}") from None
    known = {each.name for kind in (Arguments, Training) for each in fields(kind)}
    if not isinstance(settings, dict) or settings.keys() - known:
        unknown = ", ".join(map(str, settings.keys() - known)) if isinstance(settings, dict) else "no settings at all"
        raise SystemExit(f"error: --config {file} holds {unknown}; its keys must be flags, see python train.py --help")
    return settings


if __name__ == "__main__":
    try:
        main()
    except (CorpusError, CheckpointError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
