"""Speech corpora as lists of units that can be read in any order; only what is read is downloaded.

A unit is the smallest part of a corpus that can be fetched alone: a Parquet row group, a WebDataset tar, or the
folder of one speaker. `datasets` resolves the files of a Hub repository or directory and streams what is neither
Parquet nor tar. Parquet row groups are read by byte range, because `datasets` (4.4 to 4.8) cannot start inside a file;
tars are read here, because `datasets` silently takes a damaged header for the end of the archive.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
from datasets import IterableDataset, load_dataset_builder

from common.errors import first_line
from common.retry import GaveUp, persist
from data.annotations import AUDIO_SUFFIXES, Conversation
from data.solo_speech import cut, solo_stretches
from modeling.audio_fast_diarization import AudioError

AUDIO_COLUMNS = ("audio", "m4a", "wav", "flac", "mp3", "ogg", "opus")
SPEAKER_COLUMNS = ("speaker_id", "speaker", "speaker_name", "client_id", "spk_id", "label")
TURN_COLUMNS = ("timestamps_start", "timestamps_end", "speakers")
AUDIO_FILES = AUDIO_SUFFIXES
HELD_OUT_PERCENT = 3
READABLE_AMONG = 3
"""A run starts only if one of this many first tars can be read."""
READ_AHEAD = 1 << 23
"""Bytes of a column of conversations held in memory beside the current row."""
OPENING_SECONDS = 20.0
"""How long opening a corpus is retried before a run starts."""


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
    """One utterance of a corpus: encoded `audio`, `speaker` (empty if unnamed), and a `name` for messages."""

    audio: bytes
    speaker: str
    name: str


def is_held_out(speaker: str) -> bool:
    """Whether a speaker is held out for validation if the corpus has no such split: 3 % of all names."""
    return _percentile(speaker) < HELD_OUT_PERCENT


def _percentile(speaker: str) -> int:
    return int.from_bytes(hashlib.sha256(speaker.encode()).digest()[:4], "big") % 100


class Utterances:
    """The utterances of one split, unit by unit.

    `len()` is the number of units; `read(unit)` yields the rows of one unit, and may raise any error of the network or
    the container format. `revision` is the commit of the Hub repository.
    """

    def __init__(self, units: list, reader, corpus: Corpus, held_out: bool | None, revision: str | None = None):
        self.units, self.reader, self.corpus, self.held_out = units, reader, corpus, held_out
        self.revision = revision

    def __len__(self) -> int:
        return len(self.units)

    def describe(self, unit: int) -> str:
        """Name of a unit in messages."""
        return str(self.units[unit])

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the units in order, independent of where a directory is."""
        names = [_folder_name(unit) if isinstance(unit, Path) else repr(unit) for unit in self.units]
        return hashlib.sha256("\n".join([*names, str(self.held_out)]).encode()).hexdigest()[:12]

    def read(self, unit: int) -> Iterator[Row]:
        return self.named(unit, self.reader(self.units[unit]))

    def named(self, unit: int, rows: Iterable[tuple[bytes | None, object, str | None]]) -> Iterator[Row]:
        """The rows of a unit that belong to this split, each with its name."""
        for number, (audio, speaker, path) in enumerate(rows):
            speaker = "" if speaker is None else str(speaker)
            if self.corpus.speaker_prefix:
                speaker = speaker.split("/")[0]
            if self.held_out is None or is_held_out(speaker) == self.held_out:
                yield Row(audio or b"", speaker, f"{path or 'row'} ({self.describe(unit)}, row {number})")


@dataclass(frozen=True)
class RowGroup:
    url: str
    index: int
    metadata: pq.FileMetaData

    def __str__(self) -> str:
        return f"{self.url.rsplit('/', 1)[-1]}, row group {self.index}"

    def __repr__(self) -> str:
        return f"{self}, {self.metadata.row_group(self.index).total_byte_size} bytes"


@dataclass(frozen=True)
class Tar:
    url: str

    def __str__(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def __repr__(self) -> str:
        return str(self) if "://" in self.url else f"{self}, {Path(self.url).stat().st_size} bytes"


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
            return Utterances(_folders_of_split(corpus, folders, split), _read_folder, corpus, held_out=None)
        if not any(Path(corpus.path).rglob("*.*")):
            raise CorpusError(
                f"corpus {corpus.path!r} is an empty directory; put Parquet files or speaker folders in it"
            )
    elif corpus.path.startswith((".", "/")) or corpus.path.count("/") != 1:
        raise CorpusError(
            f"corpus {corpus.path!r} is not a directory, a Hub id (user/name) or one of: {', '.join(CORPORA)}"
        )
    try:
        builder = persist(
            lambda: load_dataset_builder(corpus.path, corpus.config, revision=revision), corpus.path, OPENING_SECONDS
        )
    except (OSError, ValueError, RuntimeError) as error:
        if available := re.search(r"available configs: \[(.*)\]", str(error)):
            configs = available[1].replace("'", "").split(", ")
            raise CorpusError(
                f"corpus {corpus.path!r} has several configurations; name one of {', '.join(configs)} after a colon, "
                f"as in {corpus.path}:{configs[0]}"
            ) from None
        raise CorpusError(
            f"corpus {corpus.path!r} cannot be opened: {first_line(error)}; check its name, the connection and, for "
            "a gated corpus, hf auth login"
        ) from None
    files = builder.config.data_files or {}
    splits, held_out = _choose_splits(corpus, split, [str(s) for s in files])
    urls = [url for s in splits for url in files[s]]
    commit = re.search(r"@([0-9a-f]{40})/", urls[0]) if urls else None
    if urls and all(url.endswith(".parquet") for url in urls):
        units, reader = _parquet(corpus, urls)
    elif urls and all(url.endswith(".tar") for url in urls):
        units, reader = _tars(corpus, urls)
    else:
        units, reader = _streamed(corpus, builder, splits)
    return Utterances(units, reader, corpus, held_out, commit and commit[1])


def _parquet(corpus: Corpus, urls: list[str]) -> tuple[list[RowGroup], "_RowGroupReader | ConversationReader"]:
    with ThreadPoolExecutor(8) as pool:
        footers = list(pool.map(_footer, urls))
    columns = footers[0].schema.to_arrow_schema().names
    conversations = corpus.speaker_column is None and set(TURN_COLUMNS) <= set(columns)
    audio, speaker = _choose_columns(corpus, columns, conversations)
    units = [RowGroup(url, i, m) for url, m in zip(urls, footers) for i in range(m.num_row_groups)]
    return units, ConversationReader(audio) if conversations else _RowGroupReader(audio, speaker)


def _tars(corpus: Corpus, urls: list[str]) -> tuple[list[Tar], "_TarReader"]:
    fault = None
    for url in urls[:READABLE_AMONG]:
        try:
            columns = list(persist(lambda url=url: next(_samples(url), {}), url, OPENING_SECONDS))
            return [Tar(url) for url in urls], _TarReader(*_choose_columns(corpus, columns, conversations=False))
        except (OSError, tarfile.TarError) as error:
            fault = first_line(error)
    raise CorpusError(f"corpus {corpus.path!r} cannot be read: {fault}")


def _streamed(corpus: Corpus, builder, splits: list[str]) -> tuple[list[tuple[str, int]], "_ShardReader"]:
    try:
        # Raw rows: the features of datasets would encode audio, which needs torchcodec.
        streams = {s: IterableDataset(builder.as_streaming_dataset(split=s)._ex_iterable) for s in splits}
        columns = streams[splits[0]].column_names or list(next(iter(streams[splits[0]]), {}))
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(f"corpus {corpus.path!r} cannot be read: {first_line(error)}") from None
    audio, speaker = _choose_columns(corpus, columns, conversations=False)
    return [(s, i) for s in splits for i in range(streams[s].num_shards)], _ShardReader(streams, audio, speaker)


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
        with fsspec.open(url, "rb") as file:
            return pq.read_metadata(file)

    try:
        return persist(read, url, OPENING_SECONDS)
    except GaveUp as error:
        raise CorpusError(f"{error}; check the connection and resume") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{url} cannot be read as Parquet: {first_line(error)}; remove or replace it") from None


def open_unit(url: str, **remote):
    filesystem, path = fsspec.url_to_fs(url)
    # Without a cache; the default one would read 5 MB ahead of every range.
    return filesystem.open(path, "rb", **({"cache_type": "none", **remote} if "://" in url else {}))


@dataclass
class _RowGroupReader:
    audio: str
    speaker: str

    def __call__(self, unit: RowGroup) -> Iterator[tuple[bytes, object, str]]:
        with open_unit(unit.url) as file:
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
        with open_unit(unit.url) as file:
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
        for utterance, speaker in cut(encoded, solo_stretches(*zip(*conversation.turns))) if conversation.turns else ():
            yield utterance, f"{name}, {speaker}", name
    except AudioError:
        yield encoded, name, name  # skipped and counted when it is decoded


class _StrictMember(tarfile.TarInfo):
    """Treats every damaged header as an error; tarfile takes any but the first for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError(f"damaged at byte {archive.offset}: {error}") from None


def _samples(url: str) -> Iterator[dict[str, str | bytes]]:
    """The samples of a WebDataset tar: consecutive members with the same name before the first dot."""
    sample: dict[str, str | bytes] = {}
    with (
        open_unit(url, block_size=0) as file,
        tarfile.open(fileobj=file, mode="r|", bufsize=1 << 18, tarinfo=_StrictMember) as archive,
    ):
        for member in archive:
            named = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]*)", member.name)
            if not member.isfile() or not named:
                continue
            if sample and sample["__key__"] != named[1]:
                yield sample
                sample = {}
            sample["__key__"] = named[1]
            sample[named[2]] = archive.extractfile(member).read()
    if sample:
        yield sample


@dataclass
class _TarReader:
    audio: str
    speaker: str

    def __call__(self, unit: Tar) -> Iterator[tuple[bytes | None, str, str]]:
        for sample in _samples(unit.url):
            speaker = sample.get(self.speaker)
            name = speaker.decode() if isinstance(speaker, bytes) else speaker
            yield sample.get(self.audio) if name else None, name or "", f"{sample['__key__']}.{self.audio}"


@dataclass
class _ShardReader:
    streams: dict
    audio: str
    speaker: str

    def __call__(self, unit: tuple[str, int]) -> Iterator[tuple[bytes, object, str]]:
        split, index = unit
        stream = self.streams[split]
        for row in stream.shard(num_shards=stream.num_shards, index=index):
            audio = row[self.audio]
            if isinstance(audio, str):
                with fsspec.open(audio, "rb") as file:
                    audio = {"bytes": file.read(), "path": audio}
            encoded, path = (audio["bytes"], audio["path"]) if isinstance(audio, dict) else (audio, None)
            yield encoded, row[self.speaker], path


def _speaker_folders(directory: Path) -> list[Path]:
    return sorted(
        folder
        for folder in directory.iterdir()
        if folder.is_dir() and any(f.suffix.lower() in AUDIO_FILES for f in folder.iterdir())
    )


def _folder_name(folder: Path) -> str:
    """The name of a speaker's folder, with the names and sizes of its audio files."""
    files = sorted((f.name, f.stat().st_size) for f in os.scandir(folder) if Path(f.name).suffix.lower() in AUDIO_FILES)
    return repr((folder.name, files))


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
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in AUDIO_FILES:
            yield file.read_bytes(), folder.name, file.name
