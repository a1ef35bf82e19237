"""Corpora of annotated conversations: directories of audio and RTTM files, and Hub sets whose rows have turns."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from common.hub_files import open_file
from common.retry import persist
from data.annotations import Conversation, annotated_conversations, audio_files
from data.corpora import (
    CORPORA,
    OPENING_SECONDS,
    ConversationReader,
    Corpus,
    CorpusError,
    RowGroup,
    Utterances,
    open_corpus,
    solo_speech_of,
)

HELD_OUT_EVERY = 10
"""Where a corpus of conversations has no validation split, every tenth recording is held out, and at least one."""
LOOKED_AT = 3
"""Row groups whose speakers are looked at before a run starts."""


class AnnotatedConversations(Utterances):
    """The annotated conversations of one split, unit by unit: recordings of a directory, row groups of a Hub set.

    `conversations(unit)` yields them whole, `read(unit)` the stretches in which one person speaks alone, so that they
    serve as a corpus of single speakers too.
    """

    def __init__(self, units: list, reader, corpus: Corpus, held_out: bool | None, **of_utterances):
        super().__init__(units, reader, corpus, None, **of_utterances)
        self.kept = held_out
        rows = [unit.metadata.row_group(unit.index).num_rows if isinstance(unit, RowGroup) else 1 for unit in units]
        self.first_row = np.cumsum([0, *rows])

    def conversations(self, unit: int) -> Iterator[Conversation]:
        for row, conversation in enumerate(self.reader(self.units[unit]), self.first_row[unit]):
            if self.kept is None or (row % HELD_OUT_EVERY == 0) == self.kept:
                yield conversation

    def read(self, unit: int):
        rows = (row for conversation in self.conversations(unit) for row in solo_speech_of(conversation))
        return self.named(unit, rows)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint()} {self.kept}".encode()).hexdigest()[:12]


def open_source(
    name: str, split: str, speaker_column: str | None = None, revision: str | None = None
) -> Utterances | AnnotatedConversations:
    """Open what `open_corpus` opens, or a corpus of annotated conversations.

    Annotated are directories in which there is an RTTM file (with `train` and `validation` below them or not), and
    Parquet with the columns timestamps_start, timestamps_end and speakers. Without a validation split every tenth
    recording is held out, of a directory by a hash of the names.

    Raises:
        CorpusError: what is missing or wrong, in one line.
    """
    directory = Path(CORPORA[name].path if name in CORPORA else name)
    if directory.is_dir() and next(directory.rglob("*.rttm"), None):
        return _open_directory(directory, split)
    if directory.is_dir() and (loose := _loose_audio(directory)):
        raise CorpusError(
            f"corpus {name!r} has audio and no RTTM file ({loose.relative_to(directory)} and others); put the turns of "
            "each recording beside it, give each speaker a folder of audio files, or have it labelled by --teacher"
        )
    utterances = open_corpus(name, split, speaker_column, revision)
    if not isinstance(utterances.reader, ConversationReader):
        return utterances
    _check_speakers(utterances)
    reader = utterances.reader.conversations
    return AnnotatedConversations(
        utterances.units,
        reader,
        utterances.corpus,
        utterances.held_out,
        revision=utterances.revision,
        files=utterances.files,
    )


def open_unannotated(name: str) -> AnnotatedConversations | None:
    """The recordings of a directory of audio without any RTTM file, as conversations without turns, if it is one."""
    directory = Path(name)
    if not directory.is_dir() or next(directory.rglob("*.rttm"), None) or not _loose_audio(directory):
        return None
    recordings = [Conversation(str(file.relative_to(directory)), file, ()) for file in audio_files(directory)]
    return _recordings(recordings, Corpus(name))


def _loose_audio(directory: Path) -> Path | None:
    """An audio file in no speaker's folder, directly in the directory or in its `train`, that no table speaks of."""
    for place in (directory, directory / "train"):
        if place.is_dir() and not any(place.glob("metadata.*")):
            return next((f for f in audio_files(place) if f.parent == place), None)
    return None


def _open_directory(directory: Path, split: str) -> AnnotatedConversations:
    corpus = Corpus(str(directory))
    parts = {part: directory / part for part in ("train", "validation", split) if (directory / part).is_dir()}
    if "validation" in parts and "train" not in parts:
        raise CorpusError(f"corpus {corpus.path!r} has a directory validation and none called train; add it")
    place = parts.get(split, parts.get("train", directory))
    try:
        conversations = annotated_conversations(place)
    except (OSError, ValueError) as error:
        raise CorpusError(f"corpus {corpus.path!r}: {error}") from None
    if not conversations:
        raise CorpusError(f"corpus {corpus.path!r} has no recording in {place.name}; put audio and RTTM files there")
    names = [{speaker for _, _, speaker in c.turns} for c in conversations]
    if split == "train" and max(map(len, names)) < 2:
        raise _one_name(corpus, next((name for found in names for name in found), None))
    if split not in parts or "validation" not in parts:
        conversations = _of_split(corpus, conversations, split)
    return _recordings(conversations, corpus)


def _recordings(conversations: list[Conversation], corpus: Corpus) -> AnnotatedConversations:
    files = [Path(conversation.audio) for conversation in conversations]
    return AnnotatedConversations(conversations, lambda conversation: iter([conversation]), corpus, None, files=files)


def _of_split(corpus: Corpus, conversations: list[Conversation], split: str) -> list[Conversation]:
    """Recordings held out by a hash of their names, at least one, or the others."""
    if len(conversations) < 2:
        raise CorpusError(
            f"corpus {corpus.path!r} has {len(conversations)} recording; at least 2 are needed, 1 of them held out"
        )
    ordered = sorted(conversations, key=lambda c: hashlib.sha256(c.name.encode()).digest())
    held_out = {c.name for c in ordered[: max(1, len(ordered) // HELD_OUT_EVERY)]}
    return [c for c in conversations if (c.name in held_out) == (split != "train")]


def _check_speakers(utterances: Utterances) -> None:
    """Look whether speakers have names in the first row groups."""

    def speakers(unit: RowGroup) -> list[list[str]]:
        with open_file(unit.url) as file:
            group = pq.ParquetFile(file, metadata=unit.metadata).read_row_group(unit.index, columns=["speakers"])
        return group["speakers"].to_pylist()

    names = None
    for unit in islice(utterances.units, LOOKED_AT):
        for row in persist(lambda unit=unit: speakers(unit), str(unit), OPENING_SECONDS):
            if len(set(row or ())) > 1:
                return
            names = names or next(iter(row or ()), None)
    raise _one_name(utterances.corpus, names)


def _one_name(corpus: Corpus, name: str | None) -> CorpusError:
    if name is None:
        return CorpusError(f"corpus {corpus.path!r} has references without a single turn; nobody speaks in it")
    return CorpusError(
        f"corpus {corpus.path!r} names one speaker in each recording (such as {name!r}); to tell people apart, each "
        "needs a name of their own"
    )
