"""Train Fast Diarization on a streamed speech corpus; nothing is downloaded to disk.

    accelerate launch train.py                                        # the embedded demo corpus, about ten minutes
    accelerate launch train.py --dataset path/to/speech --max_steps 20000 --resume
    accelerate launch train.py --config configs/librispeech.yaml --resume
    accelerate launch train.py --start_from runs/librispeech/model --dataset path/to/speech --output_dir runs/tuned

Conversations are simulated on the fly from utterances of single speakers. After an interruption, run the same command
with `--resume` to continue exactly where it stopped. `accelerate launch -q` hides accelerate's own traceback when
training ends with an error.
"""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from transformers import set_seed

from common.errors import first_line
from common.output import OutputError, make_directory
from common.retry import limit_silence
from common.version import __version__
from data.acoustics import CLEAN, Augmentation
from data.corpora import CORPORA, CorpusError, open_corpus
from data.streaming import ConversationStream, StreamConfig
from evaluation.window_scores import window_table
from modeling import (
    FastDiarizationConfig,
    FastDiarizationFeatureExtractor,
    FastDiarizationForAudioFrameClassification,
)
from modeling.task_fast_diarization import Task
from publishing.card import write_card
from training.arguments import Arguments, Training, UsageError, network_of, parse
from training.checkpoints import SLOTS, CheckpointError, Keeper, newest, newest_local, open_drive, step_of
from training.curves import plot_curves
from training.divergence import Diverged, refuse_divergence
from training.hub import HubRepository
from training.norms import measure_norms
from training.teacher_voices import TeacherVoices
from training.trainer import Clock, SaveAndLeave, StreamingTrainer, read_stream_state

TOKEN_FLAGS = ("hub_token", "hub-token", "push_to_hub_token", "push-to-hub-token")
OF_OLDER_WEIGHTS = ("evaluation", "latency", "export")
"""Files beside a model that describe its weights, and are removed once these have changed."""


def main():
    try:
        run(*parse(__doc__))
    except (CorpusError, CheckpointError, OutputError, UsageError, Diverged, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None


def run(arguments: Arguments, training: Training) -> None:
    """Train, or resume training; then save, score and export."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO if training.process_index == 0 else logging.ERROR,
    )
    set_seed(training.seed)
    limit_silence()
    make_directory(Path(training.output_dir), "--output_dir")
    hub = open_hub(training)
    drive = Path(arguments.checkpoint_dir) if arguments.checkpoint_dir else None
    checkpoint = find_checkpoint(arguments, training, drive, hub)
    model = make_model(arguments, checkpoint)
    train, evaluation = open_streams(arguments, training, checkpoint, model.config.num_speakers)
    logging.info(
        "%s, %.2f M parameters, on %s", model.config.encoder_type, model.num_parameters() / 1e6, training.device
    )
    if arguments.freeze_norms and checkpoint is None:
        measure_norms(model.to(training.device), train)
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
        voices=TeacherVoices(arguments.teacher_voices, training.device) if arguments.teacher_voices else None,
        frozen_norms=arguments.freeze_norms,
    )
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        if leave.signal:
            saved = newest_local(Path(training.output_dir))
            said = f"saved at step {step_of(saved)}" if saved else "nothing could be saved"
            logging.info("%s; run the same command with --resume to continue", said)
            raise SystemExit(128 + leave.signal)
        finish(arguments, training, trainer, hub)
    finally:
        keeper.close()


def open_hub(training: Training) -> HubRepository | None:
    """The run's repository on the Hub, or `None`.

    The Trainer's own pushes skip a checkpoint while another is being pushed, and fail when the network does; ours do
    neither. The token is taken out of the arguments, which the Trainer would write into every checkpoint.
    """
    asked, token = training.push_to_hub, training.hub_token
    training.push_to_hub, training.hub_token, training.push_to_hub_token = False, None, None
    if not asked or training.process_index:
        return None
    name = training.hub_model_id or Path(training.output_dir).resolve().name
    return HubRepository(name, bool(training.hub_private_repo), token)


def find_checkpoint(
    arguments: Arguments, training: Training, drive: Path | None, hub: HubRepository | None
) -> Path | None:
    """The checkpoint to resume from, the same for all processes; without `--resume`, refuse a directory in use."""
    run, checkpoint = Path(training.output_dir), None
    if training.process_index == 0:
        if drive:
            open_drive(drive)
        if arguments.resume:
            checkpoint = newest(run, drive, hub.download_checkpoint if hub else None)
            logging.info("resuming from %s", checkpoint or "the start: there is no checkpoint yet")
        elif any(run.glob("checkpoint-*")) or drive and any((drive / slot).exists() for slot in SLOTS):
            raise CheckpointError(
                f"{run if any(run.glob('checkpoint-*')) else drive} already holds a run; add --resume to continue it, "
                "or choose another directory"
            )
        elif hub and hub.has_checkpoint():
            raise CheckpointError(
                f"{hub.name} on the Hub already holds a run; add --resume to continue it, or choose another "
                "--hub_model_id"
            )
    (checkpoint,) = broadcast_object_list([checkpoint])
    if checkpoint and not checkpoint.is_dir():
        raise CheckpointError(
            f"process {training.process_index} does not see {checkpoint}; all processes need the same --output_dir"
        )
    return checkpoint


def make_model(arguments: Arguments, checkpoint: Path | None) -> FastDiarizationForAudioFrameClassification:
    """A new network, the one of `--start_from`, or one of the checkpoint's shape, whose weights the Trainer loads."""
    given = network_of(arguments)
    if checkpoint:
        config = FastDiarizationConfig.from_pretrained(checkpoint)
        for name, value in given.items():
            if getattr(config, name) != value:
                raise CheckpointError(
                    f"{checkpoint} has {name} {getattr(config, name)!r} and this run {value!r}; resume with the same"
                )
        return FastDiarizationForAudioFrameClassification(config)
    if arguments.start_from:
        return load_weights(arguments.start_from, given)
    return FastDiarizationForAudioFrameClassification(FastDiarizationConfig(**given))


def load_weights(name: str, given: dict) -> FastDiarizationForAudioFrameClassification:
    """The network of a model directory or Hub id, with the configuration fields in `given` changed.

    Raises:
        UsageError: `name` holds no Fast Diarization model.
    """
    remedy = "give a model directory that train.py wrote (such as runs/demo/model) or a Hub id"
    try:
        saved = FastDiarizationConfig.get_config_dict(name)[0]
        kind, speakers = saved.get("model_type"), saved.get("num_speakers", FastDiarizationConfig().num_speakers)
        if kind != FastDiarizationConfig.model_type:
            held = f"a model of type {kind!r}" if kind else "no model"
            raise UsageError(f"--start_from {name} holds {held}; {remedy}")
        if given.get("num_speakers", speakers) != speakers:
            raise UsageError(
                f"--start_from {name} has num_speakers {speakers} and this run {given['num_speakers']}; leave "
                "--num_speakers out, or train from scratch without --start_from"
            )
        return FastDiarizationForAudioFrameClassification.from_pretrained(name, **given)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"--start_from {name} cannot be loaded ({first_line(error)}); {remedy}") from None


def open_streams(
    arguments: Arguments, training: Training, checkpoint: Path | None, num_speakers: int = Task.num_speakers
) -> tuple[ConversationStream, ConversationStream]:
    """The training stream, at the checkpoint's position, and the stream of held-out speakers."""
    state = read_stream_state(checkpoint, training.process_index) if checkpoint else None
    config = StreamConfig(
        seed=training.seed,
        batch_size=training.per_device_train_batch_size,
        num_speakers=num_speakers,
        window_seconds=arguments.window_seconds,
        long_window_seconds=arguments.long_window_seconds,
        noise=tuple(arguments.noise) if arguments.noise else None,
        rooms=arguments.rooms,
        windows_per_utterance=arguments.windows_per_utterance,
        units_per_block=arguments.units_per_block,
        turn_taking=arguments.turn_taking,
        shares=None if arguments.measured_shares else Task.shares,
        augmentation=Augmentation() if arguments.augment else CLEAN,
    )
    revision = state and state["stream"].get("revision")
    utterances = open_corpus(arguments.dataset, "train", arguments.speaker_column, revision)
    train = ConversationStream(utterances, config, training.process_index, training.world_size, state)
    held_out = open_corpus(arguments.dataset, "validation", arguments.speaker_column, revision)
    same_for_all = {"seed": 1, "speeds": (1.0,), "turn_taking": "measured", "augmentation": Augmentation()}
    config = replace(config, shares=Task.shares, long_window_seconds=None, **same_for_all)
    return train, ConversationStream(held_out, config)


def finish(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> None:
    """Save, score and export the trained model, push it if asked to, and print where everything is."""
    final = Path(training.output_dir) / "model"
    refuse_divergence(trainer.model, Path(training.output_dir), trainer.state.global_step)
    before = weights_digest(final)
    trainer.save_model(str(final))
    if not trainer.is_world_process_zero():
        return
    if weights_digest(final) != before:
        for file in (*final.glob("*.onnx"), *(final / f"{name}.json" for name in OF_OLDER_WEIGHTS)):
            file.unlink(missing_ok=True)
    result = trainer.score_windows().result()
    (final / "windows.json").write_text(json.dumps(result, indent=2))
    (final / "training.json").write_text(json.dumps(describe(arguments, training, trainer, hub), indent=2))
    exported = subprocess.run([sys.executable, Path(__file__).parent / "export.py", "--model", final])
    if exported.returncode:
        logging.error("the export failed (see above); the model itself is complete in %s", final)
    plot_curves(trainer.state.log_history, final / "curves.png")
    write_card(final)
    print(f"\n{arguments.window_seconds:g} s windows of unseen speakers ({arguments.dataset});")
    print("in brackets the floor, the score of a one-speaker oracle:\n")
    print(window_table(result))
    print(f"\nmodel and ONNX: {final}\ncheckpoints:    {training.output_dir}")
    print(f"curves:         {final / 'curves.png'}, tensorboard --logdir {training.output_dir}")
    if hub:
        try:
            print(f"on the Hub:     {hub.upload_model(final)}")
        except OSError as error:
            logging.error("the model was not pushed (%s); run the same command with --resume to try again", error)


def weights_digest(model: Path) -> str | None:
    """SHA-256 of the weights in a model directory, or `None` where there are none."""
    file = model / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def describe(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> dict:
    """The facts about the training that the model card shows."""
    clock = trainer.state.stateful_callbacks["Clock"]
    command = " ".join(["accelerate launch train.py", *sys.argv[1:]])
    corpus = CORPORA.get(arguments.dataset)
    source = corpus.path if corpus else arguments.dataset
    cuda = training.device.type == "cuda"
    return {
        "version": __version__,
        "name": hub.name if hub else Path(training.output_dir).resolve().name,
        "parameters": trainer.model.num_parameters(),
        "dataset": arguments.dataset,
        "hub_dataset": None if Path(source).is_dir() else source.partition(":")[0],
        "licence": corpus.licence if corpus else "unknown",
        "window_seconds": arguments.window_seconds,
        "long_window_seconds": arguments.long_window_seconds,
        "steps": trainer.state.global_step,
        "batch_size": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
        "learning_rate": training.learning_rate,
        "schedule": str(training.lr_scheduler_type.value),
        "hours": clock["args"]["seconds"] / 3600,
        "device": torch.cuda.get_device_name() if cuda else f"a CPU with {os.cpu_count()} cores",
        "command": re.sub(rf"(--({'|'.join(TOKEN_FLAGS)})[ =])\S+", r"\1...", command),
    }


if __name__ == "__main__":
    main()
