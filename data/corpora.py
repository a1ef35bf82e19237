"""Speech corpora as lists of units that can be read in any order; only what is read is downloaded.

A unit is the smallest part of a corpus that can be fetched alone: a Parquet row group, a WebDataset tar, or the
folder of one speaker. `datasets` resolves the files of a Hub repository or directory and streams what is neither
Parquet nor tar. Parquet row groups are read by byte range, because `datasets` (4.4 to 4.8) cannot start inside a file;
tars are read here, because `datasets` silently takes a damaged header for the end of the archive.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from datasets import IterableDataset, load_dataset_builder

from common.errors import first_line
from common.hub_files import open_file
from common.hub_http import quieten_retries
from common.retry import GaveUp, is_forbidden, persist
from data import fingerprints
from data.annotations import AUDIO_SUFFIXES, Conversation
from data.own_files import UnreadableFile, check_card, open_own_file, own_file
from data.solo_speech import cut, solo_stretches
from data.webdataset import Tar, TarReader, samples
from modeling.audio_fast_diarization import AudioError

AUDIO_COLUMNS = ("audio", "m4a", "wav", "flac", "mp3", "ogg", "opus")
SPEAKER_COLUMNS = ("speaker_id", "speaker", "speaker_name", "client_id", "spk_id", "label")
TURN_COLUMNS = ("timestamps_start", "timestamps_end", "speakers")
HELD_OUT_PERCENT = 3
READABLE_AMONG = 3
"""A run starts only if one of this many first tars can be read."""
READ_AHEAD = 1 << 23
"""Bytes of a column of conversations held in memory beside the current row."""
OPENING_SECONDS = 20.0
"""How long opening a corpus is retried before a run starts."""


SIGN_IN = "sign in with hf auth login and, for a gated corpus, accept the terms on its page"


class CorpusError(ValueError):
    """A corpus that cannot be used; the message names the corpus and the remedy."""


@dataclass(frozen=True)
class Corpus:
    """One row of the table of corpora.

    Args:
        path: Hub repository id or local directory.
        config: configuration of the repository.
        train, validation: names of splits. By default splits named `train*` and `validation*`; without a validation
            split, speakers are held out by a hash of their name.
        audio_column, speaker_column: by default the first of the usual names.
        speaker_prefix: the speaker is the part of `speaker_column` before the first `/`.
        licence: of the recordings.
    """

    path: str
    config: str | None = None
    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] | None = None
    audio_column: str | None = None
    speaker_column: str | None = None
    speaker_prefix: bool = False
    licence: str = "unknown"


CORPORA = {
    "demo": Corpus(str(Path(__file__).parent / "demo"), licence="Apache-2.0 (synthetic voices)"),
    "librispeech": Corpus(
        "openslr/librispeech_asr",
        config="all",
        train=("train.clean.100", "train.clean.360", "train.other.500"),
        validation=("validation.clean", "validation.other"),
        speaker_column="speaker_id",
        licence="CC BY 4.0",
    ),
    "voxceleb2": Corpus(
        "gaunernst/voxceleb2-dev-wds",
        audio_column="m4a",
        speaker_column="__key__",
        speaker_prefix=True,
        licence="CC BY-SA 4.0 by its card (the recordings belong to their uploaders)",
    ),
    "ami": Corpus("diarizers-community/ami", config="ihm", licence="CC BY 4.0"),
    "voxconverse": Corpus("diarizers-community/voxconverse", train=("dev",), licence="CC BY 4.0"),
    "simsamu": Corpus("diarizers-community/simsamu", licence="MIT"),
    "callhome": Corpus("talkbank/callhome", config="eng", train=("data",), licence="research terms of TalkBank"),
}


@dataclass(frozen=True)
class Row:
    """One utterance of a corpus: encoded `audio`, `speaker` (empty if unnamed), and a `name` for messages.

    `fault` is why there is no audio, if that is known.
    """

    audio: bytes
    speaker: str
    name: str
    fault: str = ""


def is_held_out(speaker: str) -> bool:
    """Whether a speaker is held out for validation if the corpus has no such split: 3 % of all names."""
    return _percentile(speaker) < HELD_OUT_PERCENT


def _percentile(speaker: str) -> int:
    return int.from_bytes(hashlib.sha256(speaker.encode()).digest()[:4], "big") % 100


class Utterances:
    """The utterances of one split, unit by unit.

    `len()` is the number of units; `read(unit)` yields the rows of one unit, and may raise any error of the network or
    the container format. `revision` is the commit of the Hub repository, `files` are those of a local directory.
    """

    def __init__(
        self,
        units: list,
        reader,
        corpus: Corpus,
        held_out: bool | None,
        revision: str | None = None,
        files: Sequence[Path] = (),
    ):
        self.units, self.reader, self.corpus, self.held_out = units, reader, corpus, held_out
        self.revision, self.files = revision, files

    def __len__(self) -> int:
        return len(self.units)

    def describe(self, unit: int) -> str:
        """Name of a unit in messages."""
        return str(self.units[unit])

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the units in order, independent of where a directory is."""
        return fingerprints.of_units(self.units, self.held_out)

    def read(self, unit: int) -> Iterator[Row]:
        return self.named(unit, self.reader(self.units[unit]))

    def named(self, unit: int, rows: Iterable[tuple[bytes | None, object, str | None]]) -> Iterator[Row]:
        """The rows of a unit that belong to this split, each with its name."""
        for number, (audio, speaker, path) in enumerate(rows):
            speaker = "" if speaker is None else str(speaker)
            if self.corpus.speaker_prefix:
                speaker = speaker.split("/")[0]
            if self.held_out is None or is_held_out(speaker) == self.held_out:
                audio, fault = (b"", str(audio)) if isinstance(audio, UnreadableFile) else (audio or b"", "")
                yield Row(audio, speaker, f"{path or 'row'} ({self.describe(unit)}, row {number})", fault)


@dataclass(frozen=True)
class RowGroup:
    url: str
    index: int
    metadata: pq.FileMetaData

    def __str__(self) -> str:
        return f"{self.url.rsplit('/', 1)[-1]}, row group {self.index}"

    def __repr__(self) -> str:
        return f"{self}, {self.metadata.row_group(self.index).total_byte_size} bytes"


def open_corpus(name: str, split: str, speaker_column: str | None = None, revision: str | None = None) -> Utterances:
    """Open a corpus for streaming.

    Args:
        name: a name in `CORPORA`, a Hub repository id (`user/name`, or `user/name:configuration`), or a local directory
            of Parquet files or of one folder of audio files a speaker. Rows that are whole conversations (audio,
            timestamps_start, timestamps_end, speakers) give the stretches in which one person speaks alone.
        split: `"train"`, `"validation"`, or any other split of the corpus.
        speaker_column: the column with the speaker, if it has an unusual name.
        revision: commit of the Hub repository; the newest by default.

    Raises:
        CorpusError: the corpus cannot be used; the message says what is missing and what was found.
    """
    path, _, config = (name, "", "") if Path(name).is_dir() else name.partition(":")
    corpus = CORPORA.get(name) or Corpus(path, config or None)
    if speaker_column is not None:
        corpus = Corpus(**{**vars(corpus), "speaker_column": speaker_column})
    if Path(corpus.path).is_dir():
        if folders := _speaker_folders(Path(corpus.path)):
            folders = _folders_of_split(corpus, folders, split)
            return Utterances(folders, _read_folder, corpus, held_out=None, files=_audio_files(folders))
        if not any(Path(corpus.path).rglob("*.*")):
            raise CorpusError(
                f"corpus {corpus.path!r} is an empty directory; put Parquet files or speaker folders in it"
            )
    elif corpus.path.startswith((".", "/")) or corpus.path.count("/") != 1:
        raise CorpusError(
            f"corpus {corpus.path!r} is not a directory, a Hub id (user/name) or one of: {', '.join(CORPORA)}"
        )
    quieten_retries()
    builder = _open_builder(corpus, revision)
    files = builder.config.data_files or {}
    splits, held_out = _choose_splits(corpus, split, [str(s) for s in files])
    urls = [url for s in splits for url in files[s]]
    commit = re.match(r"hf://[^@]*@([0-9a-f]{40})/", urls[0]) if urls else None
    root = f"hf://datasets/{corpus.path}@{commit[1]}" if commit else Path(corpus.path).resolve().as_posix()
    try:
        urls = [own_file(root, url) for url in urls]
    except UnreadableFile as error:
        raise CorpusError(f"corpus {corpus.path!r} is refused, one of its data files is {error}") from None
    if urls and all(url.endswith(".parquet") for url in urls):
        units, reader = _parquet(corpus, urls)
    elif urls and all(url.endswith(".tar") for url in urls):
        units, reader = _tars(corpus, urls)
    else:
        units, reader = _streamed(corpus, builder, splits, root, urls)
    return Utterances(units, reader, corpus, held_out, commit and commit[1], [] if commit else list(map(Path, urls)))


def _open_builder(corpus: Corpus, revision: str | None):
    def load():
        check_card(corpus.path, revision)
        return load_dataset_builder(corpus.path, corpus.config, revision=revision)

    try:
        return persist(load, corpus.path, OPENING_SECONDS)
    except UnreadableFile as error:
        raise CorpusError(f"corpus {corpus.path!r} is refused: {error}") from None
    except (OSError, ValueError, RuntimeError) as error:
        if available := re.search(r"available configs: \[(.*)\]", str(error)):
            configs = available[1].replace("'", "").split(", ")
            raise CorpusError(
                f"corpus {corpus.path!r} has several configurations; name one of {', '.join(configs)} after a colon, "
                f"as in {corpus.path}:{configs[0]}"
            ) from None
        remedy = SIGN_IN if is_forbidden(error) else f"check its name and the connection, or {SIGN_IN}"
        raise CorpusError(f"corpus {corpus.path!r} cannot be opened: {first_line(error)}; {remedy}") from None


def _parquet(corpus: Corpus, urls: list[str]) -> tuple[list[RowGroup], "_RowGroupReader | ConversationReader"]:
    with ThreadPoolExecutor(8) as pool:
        footers = list(pool.map(_footer, urls))
    columns = footers[0].schema.to_arrow_schema().names
    conversations = corpus.speaker_column is None and set(TURN_COLUMNS) <= set(columns)
    audio, speaker = _choose_columns(corpus, columns, conversations)
    units = [RowGroup(url, i, m) for url, m in zip(urls, footers) for i in range(m.num_row_groups)]
    return units, ConversationReader(audio) if conversations else _RowGroupReader(audio, speaker)


def _tars(corpus: Corpus, urls: list[str]) -> tuple[list[Tar], "TarReader"]:
    fault = None
    for url in urls[:READABLE_AMONG]:
        try:
            columns = list(persist(lambda url=url: next(samples(url), {}), url, OPENING_SECONDS))
            return [Tar(url) for url in urls], TarReader(*_choose_columns(corpus, columns, conversations=False))
        except (OSError, tarfile.TarError) as error:
            fault = first_line(error) + (f"; {SIGN_IN}" if is_forbidden(error) else "")
    raise CorpusError(f"corpus {corpus.path!r} cannot be read: {fault}")


def _streamed(corpus: Corpus, builder, splits: list[str], root: str, urls: list[str]) -> tuple[list, "_ShardReader"]:
    try:
        # Raw rows: the features of datasets would encode audio, which needs torchcodec.
        streams = {s: IterableDataset(builder.as_streaming_dataset(split=s)._ex_iterable) for s in splits}
        columns = streams[splits[0]].column_names or persist(
            lambda: list(next(iter(streams[splits[0]]), {})), corpus.path, OPENING_SECONDS
        )
    except (OSError, ValueError, RuntimeError) as error:
        remedy = f"; {SIGN_IN}" if is_forbidden(error) else ""
        raise CorpusError(f"corpus {corpus.path!r} cannot be read: {first_line(error)}{remedy}") from None
    audio, speaker = _choose_columns(corpus, columns, conversations=False)
    folders = sorted({url.rsplit("/", 1)[0] for url in urls} - {root})
    reader = _ShardReader(streams, audio, speaker, root, folders)
    return [(s, i) for s in splits for i in range(streams[s].num_shards)], reader


def _choose_splits(corpus: Corpus, split: str, available: list[str]) -> tuple[list[str], bool | None]:
    def of(part: str) -> list[str]:
        named = {"train": corpus.train, "validation": corpus.validation}.get(part)
        return [s for s in named or available if s in available and (named or s.startswith(part))]

    if chosen := of(split):
        return chosen, False if split == "train" and not of("validation") else None
    if split == "validation" and (train := of("train")):
        return train, True
    raise CorpusError(f"corpus {corpus.path!r} has no split {split!r}; its splits: {', '.join(available) or 'none'}")


def _choose_columns(corpus: Corpus, columns: list[str], conversations: bool) -> tuple[str, str | None]:
    if not columns:
        raise CorpusError(f"corpus {corpus.path!r} holds no rows; check its split and its files")
    audio = corpus.audio_column or next((c for c in AUDIO_COLUMNS if c in columns), None)
    speaker = corpus.speaker_column or next((c for c in SPEAKER_COLUMNS if c in columns), None)
    if audio not in columns:
        raise CorpusError(f"corpus {corpus.path!r} has no audio column among its columns: {', '.join(columns)}")
    if speaker not in columns and not conversations:
        missing = f"column {speaker!r}" if speaker else "speaker column"
        raise CorpusError(
            f"corpus {corpus.path!r} has no {missing} among its columns: {', '.join(columns)}; name the "
            "column with the speaker by --speaker_column, or give each speaker a folder of audio files"
        )
    return audio, speaker


def _footer(url: str) -> pq.FileMetaData:
    def read() -> pq.FileMetaData:
        with open_file(url, cache_type="readahead") as file:
            return pq.read_metadata(file)

    try:
        return persist(read, url, OPENING_SECONDS)
    except GaveUp as error:
        raise CorpusError(f"{error}; check the connection and resume") from None
    except (OSError, ValueError) as error:
        if is_forbidden(error):
            raise CorpusError(f"{url} may not be read ({first_line(error)}); {SIGN_IN}") from None
        raise CorpusError(f"{url} cannot be read as Parquet: {first_line(error)}; remove or replace it") from None


@dataclass
class _RowGroupReader:
    audio: str
    speaker: str

    def __call__(self, unit: RowGroup) -> Iterator[tuple[bytes, object, str]]:
        with open_file(unit.url) as file:
            group = pq.ParquetFile(file, metadata=unit.metadata, pre_buffer=True).read_row_group(
                unit.index, columns=[self.audio, self.speaker], use_threads=False
            )
        for audio, speaker in zip(group[self.audio], group[self.speaker]):
            audio = audio.as_py()
            encoded, path = (audio.get("bytes"), audio.get("path")) if isinstance(audio, dict) else (audio, None)
            yield encoded, speaker.as_py(), path


@dataclass
class ConversationReader:
    """Rows that are whole conversations, one in memory at a time; speaker names are local to their row."""

    audio: str

    def conversations(self, unit: RowGroup) -> Iterator[Conversation]:
        with open_file(unit.url) as file:
            batches = pq.ParquetFile(file, metadata=unit.metadata, buffer_size=READ_AHEAD).iter_batches(
                1, [unit.index], columns=[self.audio, *TURN_COLUMNS], use_threads=False
            )
            for number, batch in enumerate(batches):
                (row,) = batch.to_pylist()
                turns = tuple(zip(*(row[column] or [] for column in TURN_COLUMNS)))
                yield Conversation(f"{unit}, row {number}", (row[self.audio] or {}).get("bytes") or b"", turns)

    def __call__(self, unit: RowGroup) -> Iterator[tuple[bytes, str, str]]:
        for conversation in self.conversations(unit):
            yield from solo_speech_of(conversation)


def solo_speech_of(conversation: Conversation) -> Iterator[tuple[bytes, str, str]]:
    """Audio, speaker and name of the stretches in which one person speaks alone."""
    name, audio = conversation.name, conversation.audio
    encoded = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
    try:
        conversation.check_turns()
        for utterance, speaker in cut(encoded, solo_stretches(*zip(*conversation.turns))) if conversation.turns else ():
            yield utterance, f"{name}, {speaker}", name
    except AudioError:
        yield encoded, name, name  # skipped and counted when it is decoded
    except ValueError:
        yield encoded, "", name  # the same, as one without a speaker


@dataclass
class _ShardReader:
    streams: dict
    audio: str
    speaker: str
    root: str
    folders: list[str]

    def __call__(self, unit: tuple[str, int]) -> Iterator[tuple[bytes | UnreadableFile, object, str]]:
        split, index = unit
        stream = self.streams[split]
        for row in stream.shard(num_shards=stream.num_shards, index=index):
            audio = row[self.audio]
            encoded, path = (audio.get("bytes"), audio.get("path")) if isinstance(audio, dict) else (audio, None)
            if isinstance(encoded, str):
                encoded, path = None, encoded
            if encoded is None and path is not None:
                try:
                    with open_own_file(self.root, str(path), self.folders) as file:
                        encoded = file.read()
                except UnreadableFile as error:
                    encoded = error
            yield encoded, row[self.speaker], path


def _speaker_folders(directory: Path) -> list[Path]:
    return sorted(
        folder
        for folder in directory.iterdir()
        if folder.is_dir() and any(f.suffix.lower() in AUDIO_SUFFIXES for f in folder.iterdir())
    )


def _folders_of_split(corpus: Corpus, folders: list[Path], split: str) -> list[Path]:
    """Folders of the held-out speakers, at least two, or of all others."""
    if len(folders) < 4:
        raise CorpusError(
            f"corpus {corpus.path!r} has {len(folders)} speaker folders; at least 4 are needed, of which 2 are held out"
        )
    ordered = sorted(folders, key=lambda folder: (_percentile(folder.name), folder.name))
    held_out = ordered[: max(2, sum(is_held_out(folder.name) for folder in folders))]
    return held_out if split != "train" else [folder for folder in folders if folder not in held_out]


def _read_folder(folder: Path) -> Iterator[tuple[bytes, str, str]]:
    for file in _audio_files([folder]):
        yield file.read_bytes(), folder.name, file.name


def _audio_files(folders: list[Path]) -> list[Path]:
    return [f for folder in folders for f in sorted(folder.iterdir()) if f.suffix.lower() in AUDIO_SUFFIXES]
