"""Train Fast Diarization on a streamed speech corpus; nothing is downloaded to disk.

    accelerate launch train.py                                        # the embedded demo corpus, about ten minutes
    accelerate launch train.py --dataset path/to/speech --max_steps 20000 --resume
    accelerate launch train.py --config configs/librispeech.yaml --resume
    accelerate launch train.py --start_from runs/librispeech/model --dataset path/to/speech --output_dir runs/tuned

Two-speaker conversations are made on the fly from single-speaker utterances. Run the same command with `--resume`
after any interruption and it goes on exactly where it was. `accelerate launch -q` leaves out accelerate's own traceback
where training ends with an error.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from transformers import set_seed

from common.errors import first_line
from common.output import OutputError, make_directory
from common.retry import limit_silence
from data.acoustics import CLEAN, Augmentation
from data.corpora import CORPORA, CorpusError, open_corpus
from data.streaming import ConversationStream, StreamConfig
from evaluation.window_scores import window_table
from modeling import (
    FastDiarizationConfig,
    FastDiarizationFeatureExtractor,
    FastDiarizationForAudioFrameClassification,
)
from publishing.card import write_card
from training.arguments import Arguments, Training, UsageError, network_of, parse
from training.checkpoints import SLOTS, CheckpointError, Keeper, newest, newest_local, open_drive
from training.curves import plot_curves
from training.hub import HubRepository
from training.norms import measure_norms
from training.ownership import Drive, RunDirectory
from training.sealing import digest_of, run_of, step_of
from training.settings_kept import compare_settings, settings_of
from training.teacher_voices import TeacherVoices
from training.trainer import Clock, SaveAndLeave, StreamingTrainer, read_stream_state

TOKEN_FLAGS = ("hub_token", "hub-token", "push_to_hub_token", "push-to-hub-token")
OF_OLDER_WEIGHTS = ("evaluation", "latency", "export")
"""What else a run that is trained on may find beside its model."""


def main():
    try:
        run(*parse(__doc__))
    except (CorpusError, CheckpointError, OutputError, UsageError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None


def run(arguments: Arguments, training: Training) -> None:
    """Train, or go on, then save, score and export."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO if training.process_index == 0 else logging.ERROR,
    )
    set_seed(training.seed)
    limit_silence()
    make_directory(Path(training.output_dir), "--output_dir")
    hub = open_hub(training)
    with ExitStack() as held:
        directory, drive = hold_places(arguments, training, held)
        checkpoint = find_checkpoint(arguments, training, directory, drive, hub)
        train, evaluation = open_streams(arguments, training, checkpoint)
        model = make_model(arguments, checkpoint)
        logging.info(
            "%s, %.2f M parameters, on %s", model.config.encoder_type, model.num_parameters() / 1e6, training.device
        )
        voices = TeacherVoices(arguments.teacher_voices, training.device) if arguments.teacher_voices else None
        settings = settings_of(arguments, training)
        if checkpoint:
            compare_settings(checkpoint, settings)
        elif arguments.freeze_norms:
            measure_norms(model.to(training.device), train)
        if directory:
            directory.begin(checkpoint and run_of(checkpoint) or drive and drive.run)
        if drive:
            drive.begin(directory.name)
        upload = hub.upload_checkpoint if hub else None
        keeper = Keeper(drive.directory, upload, drive.check) if drive else Keeper(None, upload)
        held.callback(keeper.close)
        leave = SaveAndLeave()
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
            run=directory,
            settings=settings,
            voices=voices,
            frozen_norms=arguments.freeze_norms,
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        if leave.signal:
            saved = newest_local(Path(training.output_dir))
            said = f"saved at step {step_of(saved)}" if saved else "nothing could be saved"
            logging.info("%s; run the same command with --resume to go on", said)
            raise SystemExit(128 + leave.signal)
        finish(arguments, training, trainer, hub)


def open_hub(training: Training) -> HubRepository | None:
    """The run's repository. The Trainer's own pushes skip a checkpoint while one is in flight and fail with the
    network, ours do neither. The token goes no further: the Trainer would keep it in every checkpoint."""
    asked, token = training.push_to_hub, training.hub_token
    training.push_to_hub, training.hub_token, training.push_to_hub_token = False, None, None
    if not asked or training.process_index:
        return None
    name = training.hub_model_id or Path(training.output_dir).resolve().name
    return HubRepository(name, bool(training.hub_private_repo), token)


def hold_places(arguments: Arguments, training: Training, held: ExitStack) -> tuple[RunDirectory | None, Drive | None]:
    """The directory of the run and its drive, held until the end by the first process, the one that writes to them."""
    if training.process_index:
        return None, None
    directory = RunDirectory(Path(training.output_dir), arguments.resume)
    held.callback(directory.hold.release)
    if not arguments.checkpoint_dir:
        return directory, None
    place = Path(arguments.checkpoint_dir)
    if place.resolve() == directory.directory.resolve():
        raise UsageError(f"--checkpoint_dir {place} is the --output_dir; name a second place")
    open_drive(place)
    drive = Drive(place, directory.name)
    held.callback(drive.hold.release)
    return directory, drive


def find_checkpoint(
    arguments: Arguments,
    training: Training,
    directory: RunDirectory | None,
    drive: Drive | None,
    hub: HubRepository | None,
) -> Path | None:
    """The checkpoint to go on from, the same for all processes. Without `--resume` a place in use is refused."""
    checkpoint = None
    if directory:
        place = drive and drive.directory
        if arguments.resume:
            name = directory.name or drive and drive.run
            checkpoint = newest(directory.directory, place, hub.download_checkpoint if hub else None, name)
            logging.info("going on from %s", checkpoint or "the start: there is no checkpoint yet")
        elif drive and any((place / slot).exists() for slot in SLOTS):
            raise CheckpointError(f"{place} already holds a run; add --resume to go on, or choose another directory")
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
    """The network of a model directory or Hub id, but for the fields of its configuration that are given.

    Raises:
        UsageError: there is no Fast Diarization model.
    """
    remedy = "give a model directory that train.py wrote (such as runs/demo/model) or a Hub id"
    try:
        kind = FastDiarizationConfig.get_config_dict(name)[0].get("model_type")
        if kind != FastDiarizationConfig.model_type:
            held = f"a model of type {kind!r}" if kind else "no model"
            raise UsageError(f"--start_from {name} holds {held}; {remedy}")
        return FastDiarizationForAudioFrameClassification.from_pretrained(name, **given)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"--start_from {name} cannot be loaded ({first_line(error)}); {remedy}") from None


def open_streams(
    arguments: Arguments, training: Training, checkpoint: Path | None
) -> tuple[ConversationStream, ConversationStream]:
    """The stream to train on, at the checkpoint's place, and that of held-out speakers."""
    state = read_stream_state(checkpoint, training.process_index) if checkpoint else None
    config = StreamConfig(
        seed=training.seed,
        batch_size=training.per_device_train_batch_size,
        window_seconds=arguments.window_seconds,
        long_window_seconds=arguments.long_window_seconds,
        noise=arguments.noise,
        windows_per_utterance=arguments.windows_per_utterance,
        units_per_block=arguments.units_per_block,
        turn_taking=arguments.turn_taking,
        shares=None if arguments.measured_shares else StreamConfig.shares,
        augmentation=Augmentation() if arguments.augment else CLEAN,
    )
    revision = state and state["stream"].get("revision")
    utterances = open_corpus(arguments.dataset, "train", arguments.speaker_column, revision)
    train = ConversationStream(utterances, config, training.process_index, training.world_size, state)
    held_out = open_corpus(arguments.dataset, "validation", arguments.speaker_column, revision)
    same_for_all = {"seed": 1, "speeds": (1.0,), "turn_taking": "measured", "augmentation": Augmentation()}
    config = replace(config, shares=StreamConfig.shares, long_window_seconds=None, **same_for_all)
    return train, ConversationStream(held_out, config)


def finish(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> None:
    """Save, score and export the trained model, push it if asked, and say where everything is.

    Raises:
        OutputError: the model cannot be written; one that was there before stays as it was.
    """
    final = Path(training.output_dir) / "model"
    if not trainer.is_world_process_zero():
        return
    try:
        result = write_model(arguments, training, trainer, hub, final)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{final} cannot be written ({first_line(error)}); make room and run the same command with --resume: the "
            "checkpoints are kept"
        ) from None
    print(f"\n{arguments.window_seconds:g} s windows of unseen speakers ({arguments.dataset}), floor in brackets:\n")
    print(window_table(result))
    print(f"\nmodel and ONNX: {final}\ncheckpoints:    {training.output_dir}")
    print(f"curves:         {final / 'curves.png'}, tensorboard --logdir {training.output_dir}")
    if hub:
        try:
            print(f"on the Hub:     {hub.upload_model(final)}")
        except OSError as error:
            logging.error("the model was not pushed (%s); run the same command with --resume to try again", error)


def write_model(
    arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None, final: Path
) -> dict:
    """Write the model directory; returns the scores of its windows."""
    partial = final.with_name("model.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        trainer.save_model(str(partial))
        changed = weights_digest(final) != weights_digest(partial)
        trainer.run.will_write_model()
        final.mkdir(exist_ok=True)
        for file in sorted(partial.iterdir()):
            os.replace(file, final / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if changed:
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
    return result


def weights_digest(model: Path) -> str | None:
    """Of the weights in a model directory, or `None` where there are none."""
    file = model / "model.safetensors"
    return digest_of(file) if file.is_file() else None


def describe(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> dict:
    """What the model card says of the training."""
    clock = trainer.state.stateful_callbacks["Clock"]
    command = " ".join(["accelerate launch train.py", *sys.argv[1:]])
    corpus = CORPORA.get(arguments.dataset)
    source = corpus.path if corpus else arguments.dataset
    cuda = training.device.type == "cuda"
    return {
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
