"""Train Fast Diarization on a streamed speech corpus; nothing is downloaded to disk.

    accelerate launch train.py                                        # the demo corpus: ten minutes on two idle cores
    accelerate launch train.py --dataset path/to/speech --max_steps 20000 --resume
    accelerate launch train.py --config configs/librispeech.yaml --resume
    accelerate launch train.py --start_from runs/librispeech/model --dataset path/to/speech --output_dir runs/tuned
    accelerate launch train.py --config configs/fine_tune.yaml --dataset path/to/calls demo   # on annotated recordings

Conversations are simulated on the fly from utterances of single speakers, or cut out of annotated recordings. After an
interruption, run the same command with `--resume` to continue exactly where it stopped. `accelerate launch -q` hides
accelerate's own traceback when training ends with an error.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from common.program import end_quietly
from training.flags import show_help

if __name__ == "__main__":
    end_quietly()
    show_help(__doc__, sys.argv[1:])  # before imports that take seconds

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from common.errors import first_line
from common.hub_http import limit_silence
from common.output import OutputError, make_directory
from common.retry import GaveUp
from common.version import __version__
from data.corpora import CORPORA, Corpus, CorpusError
from diarization.backends import CONFIG_FILE, WEIGHTS_FILE, ModelError, download_model, of_run
from evaluation.window_scores import window_table
from modeling import (
    FastDiarizationConfig,
    FastDiarizationFeatureExtractor,
    FastDiarizationForAudioFrameClassification,
)
from publishing.card import write_card
from training.anchor import EmbeddingAnchor, freeze_embeddings
from training.arguments import Arguments, Training, UsageError, network_of, parse
from training.checkpoints import SLOTS, CheckpointError, Keeper, newest, newest_local, open_drive
from training.curves import plot_curves
from training.divergence import Diverged, refuse_divergence
from training.hub import HubRepository
from training.norms import measure_norms
from training.ownership import Drive, RunDirectory
from training.restoring import read_stream_state
from training.sealing import digest_of, run_of, step_of
from training.settings_kept import compare_settings, settings_of
from training.streams import annotated_of, corpus_labels, open_streams
from training.teacher_segmentation import LICENCE
from training.teacher_voices import TeacherVoices
from training.trainer import Clock, SaveAndLeave, StreamingTrainer

TOKEN_FLAGS = ("hub_token", "hub-token", "push_to_hub_token", "push-to-hub-token")
OF_OLDER_WEIGHTS = ("evaluation", "latency", "export")
"""Files beside a model that describe its weights, and are removed once these have changed."""


def main():
    transformers_logging.disable_progress_bar()
    try:
        run(*parse(__doc__))
    except (CorpusError, CheckpointError, OutputError, UsageError, Diverged, GaveUp, FileNotFoundError) as error:
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
    with ExitStack() as held:
        directory, drive = hold_places(arguments, training, held)
        checkpoint = find_checkpoint(arguments, training, directory, drive, hub)
        model = make_model(arguments, checkpoint)
        settings = settings_of(arguments, training, anchor := make_anchor(arguments, training))
        if checkpoint:
            compare_settings(checkpoint, settings)
        state = read_stream_state(checkpoint, training.process_index) if checkpoint else None
        train, evaluation = open_streams(arguments, training, state, model.config.num_speakers)
        if arguments.tune_linking and not annotated_of(arguments, evaluation):
            raise UsageError("--tune_linking needs annotated recordings: give --dataset a directory of audio and RTTM")
        size = model.num_parameters() / 1e6
        logging.info("%s, %.2f M parameters, on %s", model.config.encoder_type, size, training.device)
        if arguments.freeze_norms and checkpoint is None:
            measure_norms(model.to(training.device), train)
        leave = SaveAndLeave()
        trainer = StreamingTrainer(
            model=model,
            args=training,
            train_dataset=train,
            eval_dataset=evaluation,
            callbacks=[leave, Clock()],
            processing_class=FastDiarizationFeatureExtractor(),
            workers=training.dataloader_num_workers,
            eval_batches=max(1, arguments.eval_windows // training.per_device_train_batch_size // len(evaluation)),
            keeper=begin(directory, drive, hub, checkpoint, held),
            run=directory,
            settings=settings,
            voices=TeacherVoices(arguments.teacher_voices, training.device) if arguments.teacher_voices else None,
            freeze_norms=arguments.freeze_norms,
            anchor=anchor,
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        if leave.signal:
            saved = newest_local(Path(training.output_dir))
            said = f"saved at step {step_of(saved)}" if saved else "nothing could be saved"
            logging.info("%s; run the same command with --resume to continue", said)
            raise SystemExit(128 + leave.signal)
        finish(arguments, training, trainer, hub)


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
    """The checkpoint to resume from, the same for all processes; without `--resume`, refuse a place in use."""
    checkpoint = None
    if directory:
        place = drive and drive.directory
        if arguments.resume:
            name = directory.name or drive and drive.run
            checkpoint = newest(directory.directory, place, hub.download_checkpoint if hub else None, name)
            logging.info("resuming from %s", checkpoint or "the start: there is no checkpoint yet")
        elif drive and any((place / slot).exists() for slot in SLOTS):
            raise CheckpointError(
                f"{place} already holds a run; add --resume to continue it, or choose another directory"
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


def begin(
    directory: RunDirectory | None,
    drive: Drive | None,
    hub: HubRepository | None,
    checkpoint: Path | None,
    held: ExitStack,
) -> Keeper:
    """Give the run its name, that of its checkpoint or a new one; what keeps its checkpoints ends before its places."""
    if directory:
        directory.begin(checkpoint and run_of(checkpoint) or drive and drive.run)
    if drive:
        drive.begin(directory.name)
    upload = hub.upload_checkpoint if hub else None
    keeper = Keeper(drive.directory, upload, drive.check) if drive else Keeper(None, upload)
    held.callback(keeper.close)
    return keeper


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
        model = FastDiarizationForAudioFrameClassification(config)
    elif arguments.start_from:
        model = load_weights(arguments.start_from, given)
    else:
        model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(**given))
    if arguments.freeze_embeddings:
        freeze_embeddings(model)
    return model


def make_anchor(arguments: Arguments, training: Training) -> EmbeddingAnchor | None:
    """What holds the embeddings near those of `--start_from`, if asked for."""
    if not arguments.keep_embeddings:
        return None
    return EmbeddingAnchor(load_weights(arguments.start_from, {}).to(training.device), arguments.keep_embeddings)


def load_weights(name: str, given: dict) -> FastDiarizationForAudioFrameClassification:
    """The network of a model directory or Hub id, with the configuration fields in `given` changed.

    Raises:
        UsageError: `name` holds no Fast Diarization model.
    """
    remedy = "give a model directory that train.py wrote (such as runs/demo/model) or a Hub id"
    try:
        here = Path(name).exists()
        if not here and "/" not in name:
            raise UsageError(f"--start_from {name}: no such directory; {remedy}")
        place = of_run(name) if here else download_model(name, (WEIGHTS_FILE, CONFIG_FILE))
        saved = FastDiarizationConfig.get_config_dict(place)[0]
        kind, speakers = saved.get("model_type"), saved.get("num_speakers", FastDiarizationConfig().num_speakers)
        if kind != FastDiarizationConfig.model_type:
            held = f"a model of type {kind!r}" if kind else "no model"
            raise UsageError(f"--start_from {name} holds {held}; {remedy}")
        if given.get("num_speakers", speakers) != speakers:
            raise UsageError(
                f"--start_from {name} has num_speakers {speakers} and this run {given['num_speakers']}; leave "
                "--num_speakers out, or train from scratch without --start_from"
            )
        return FastDiarizationForAudioFrameClassification.from_pretrained(place, **given)
    except UsageError:
        raise
    except (ModelError, OSError, SafetensorError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise UsageError(f"--start_from {name} cannot be loaded ({first_line(error)}); {remedy}") from None


def finish(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> None:
    """Save, score and export the trained model, push it if asked to, and print where everything is.

    Raises:
        Diverged: its weights are NaN or infinite.
        OutputError: the model cannot be written; an earlier one stays as it was.
    """
    final = Path(training.output_dir) / "model"
    refuse_divergence(trainer.model, Path(training.output_dir), trainer.state.global_step)
    if not trainer.is_world_process_zero():
        return
    try:
        scores = write_model(arguments, training, trainer, hub, final)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{final} cannot be written ({first_line(error)}); make room and run the same command with --resume: the "
            "checkpoints are kept"
        ) from None
    for corpus, result in scores.pop("corpora", {arguments.dataset[0]: scores}).items():
        print(f"\n{arguments.window_seconds:g} s windows of unseen speakers ({corpus});")
        print("in brackets the floor, the score of a one-speaker oracle:\n")
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
    scores = trainer.score_windows()
    (final / "windows.json").write_text(json.dumps(scores, indent=2))
    (final / "training.json").write_text(json.dumps(describe(arguments, training, trainer, hub), indent=2))
    if arguments.tune_linking:
        tune_linking(final, annotated_of(arguments, trainer.eval_dataset))
    exported = subprocess.run([sys.executable, Path(__file__).parent / "export.py", "--model", final])
    if exported.returncode:
        logging.error("the export failed (see above); the model itself is complete in %s", final)
    plot_curves(trainer.state.log_history, final / "curves.png")
    write_card(final)
    return scores


def tune_linking(model: Path, corpora: list[str]) -> None:
    """Write the linking settings into a model's configuration that suit held-out recordings best."""
    settings = json.loads((model / "config.json").read_text())
    flags = ["--windows", settings["sliding_window_seconds"], "--hops", settings["hop_seconds"], "--write"]
    recordings = [Path(corpus).resolve() if Path(corpus).is_dir() else corpus for corpus in corpora]
    command = [
        sys.executable,
        "-m",
        "evaluation.tuning",
        "--model",
        model.resolve(),
        "--recordings",
        *recordings,
        *flags,
    ]
    if subprocess.run(list(map(str, command)), cwd=Path(__file__).parent).returncode:
        logging.error("linking settings could not be chosen (see above); those of the weights are kept")


def weights_digest(model: Path) -> str | None:
    """SHA-256 of the weights in a model directory, or `None` where there are none."""
    file = model / "model.safetensors"
    return digest_of(file) if file.is_file() else None


def describe(arguments: Arguments, training: Training, trainer: StreamingTrainer, hub: HubRepository | None) -> dict:
    """The facts about the training that the model card shows."""
    clock = trainer.state.stateful_callbacks["Clock"]
    command = " ".join(["accelerate launch train.py", *sys.argv[1:]])
    corpora = {name: CORPORA.get(name, Corpus(name.partition(":")[0])) for name in arguments.dataset}
    on_hub = [corpus.path for corpus in corpora.values() if not Path(corpus.path).is_dir()]
    shares = arguments.shares or [1 / len(corpora)] * len(corpora)
    cuda = training.device.type == "cuda"
    return {
        "version": __version__,
        "name": hub.name if hub else Path(training.output_dir).resolve().name,
        "parameters": trainer.model.num_parameters(),
        "dataset": ", ".join(arguments.dataset),
        "hub_dataset": on_hub[0] if on_hub and len(corpora) == 1 else None,
        "hub_datasets": on_hub,
        "licence": ", ".join(dict.fromkeys(corpus.licence for corpus in corpora.values())),
        "teacher": LICENCE if arguments.teacher else None,
        "shares": dict(zip(corpus_labels(arguments.dataset), shares)) if len(corpora) > 1 else None,
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
