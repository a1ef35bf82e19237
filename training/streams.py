"""The streams of a run: of all its corpora to train on, of each of them to be scored on."""

from dataclasses import replace
from pathlib import Path

from data.acoustics import CLEAN, Augmentation
from data.annotated import AnnotatedConversations, open_source, open_unannotated
from data.annotated_stream import AnnotatedStream
from data.corpora import CORPORA, CorpusError
from data.mixing import MixedStream, windows_of_shares
from data.streaming import ConversationStream, LanedStream, StreamConfig
from modeling.task_fast_diarization import Task
from training.arguments import Arguments, Training, UsageError
from training.teacher_segmentation import TaughtStream

RECORDINGS_PER_BLOCK = 2
"""Annotated recordings, or row groups of them, read side by side in a lane."""


def corpus_labels(names: list[str]) -> list[str]:
    """Short names of corpora for logs and tables: the last part of a path or Hub id where that tells them apart."""
    short = [name if name in CORPORA else Path(name).name for name in names]
    return short if len(set(short)) == len(short) else list(names)


def open_streams(
    arguments: Arguments, training: Training, state: dict | None, num_speakers: int = Task.num_speakers
) -> tuple[LanedStream, dict[str, ConversationStream]]:
    """
    Args:
        state: of the stream in the checkpoint to go on from, or `None`.
        num_speakers: of the network.

    Returns:
        the stream to train on, at its place, and by corpus the one of speakers or recordings held out.

    Raises:
        CorpusError: a corpus that cannot be used, or that is not the checkpoint's.
    """
    names, rank, world_size = arguments.dataset, training.process_index, training.world_size
    states = state.get("streams", [state]) if state else [None] * len(names)
    if len(states) != len(names):
        raise CorpusError(
            f"the checkpoint was made with {len(states)} corpora and this run has {len(names)}; resume with the same, "
            "or start a new run from its weights with --start_from"
        )
    config = stream_config(arguments, training, num_speakers)
    of_recordings = replace(config, units_per_block=RECORDINGS_PER_BLOCK, noise=None, rooms=None)
    batch_size = training.per_device_train_batch_size
    sizes = windows_of_shares(batch_size, arguments.shares or [1.0] * len(names))
    streams, evaluation = [], {}
    for name, label, size, of_corpus in zip(names, corpus_labels(names), sizes, states):
        revision = of_corpus and of_corpus["stream"].get("revision")
        if arguments.teacher and (recordings := open_unannotated(name)):
            of_kind = replace(of_recordings, batch_size=size)
            streams.append(TaughtStream(recordings, of_kind, rank, world_size, of_corpus, teacher=arguments.teacher))
            continue
        train, held_out = (
            open_source(name, split, arguments.speaker_column, revision) for split in ("train", "validation")
        )
        kind = AnnotatedStream if isinstance(train, AnnotatedConversations) else ConversationStream
        of_kind = replace(of_recordings if kind is AnnotatedStream else config, batch_size=size)
        streams.append(kind(train, of_kind, rank, world_size, of_corpus))
        evaluation[label] = kind(held_out, _to_be_scored(of_kind, kind, batch_size))
    if arguments.teacher and not any(isinstance(stream, TaughtStream) for stream in streams):
        raise UsageError("--teacher labels directories of audio without RTTM, and --dataset has none; leave it out")
    if not evaluation:
        raise UsageError("--dataset has only what --teacher labels, so nothing to be scored on; add a corpus to it")
    return (streams[0] if len(streams) == 1 else MixedStream(streams, state["turn"] if state else 0)), evaluation


def stream_config(arguments: Arguments, training: Training, num_speakers: int) -> StreamConfig:
    """Of windows made of single utterances, as the flags ask for them."""
    return StreamConfig(
        seed=training.seed,
        num_speakers=num_speakers,
        window_seconds=arguments.window_seconds,
        long_window_seconds=arguments.long_window_seconds,
        noise=tuple(arguments.noise) if arguments.noise else None,
        rooms=arguments.rooms,
        windows_per_utterance=arguments.windows_per_utterance,
        units_per_block=arguments.units_per_block,
        lanes=arguments.lanes,
        turn_taking=arguments.turn_taking,
        shares=None if arguments.measured_shares else Task.shares,
        augmentation=Augmentation() if arguments.augment else CLEAN,
    )


def annotated_of(arguments: Arguments, evaluation: dict[str, ConversationStream]) -> list[str]:
    """Those of the corpora of a run that are annotated conversations."""
    labels = dict(zip(arguments.dataset, corpus_labels(arguments.dataset)))
    return [name for name, label in labels.items() if isinstance(evaluation.get(label), AnnotatedStream)]


def _to_be_scored(config: StreamConfig, kind: type, batch_size: int) -> StreamConfig:
    """Simulated windows as they are in every run; windows of recordings from anywhere in them, as they are."""
    same_for_all = {"seed": 1, "batch_size": batch_size, "turn_taking": "measured", "lanes": StreamConfig.lanes}
    config = replace(config, long_window_seconds=None, **same_for_all)
    if kind is AnnotatedStream:
        return replace(config, shares=None, augmentation=CLEAN)
    return replace(config, shares=Task.shares, speeds=(1.0,), augmentation=Augmentation())
