"""Diarization of a data set, spread over processes and machines, that goes on where it was interrupted.

Results lie beside each other as Parquet files, one a minute or a shard, written whole or not at all. What is done is
read from them, so any number of processes may take over from any other.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, IterableDataset, get_dataset_config_names, load_dataset
from tqdm import tqdm

from common.errors import first_line
from common.hub_http import quieten_retries
from common.processes import gather, join
from data.own_files import UnreadableFile, check_card, open_own_file, root_of
from modeling.audio_fast_diarization import AudioError, audio_blocks
from modeling.linking_fast_diarization import diarize
from modeling.settings_fast_diarization import LinkingSettings, SpeakerCount
from modeling.windows_fast_diarization import Network

SECONDS_PER_FILE = 60
NO_AUDIO = {"bytes": b"", "path": None}
"""What a row without audio is taken for."""
SCHEMA = pa.schema(
    {
        "shard": pa.int64(),
        "row": pa.int64(),
        "path": pa.string(),
        "timestamps_start": pa.list_(pa.float64()),
        "timestamps_end": pa.list_(pa.float64()),
        "speakers": pa.list_(pa.string()),
        "confidences": pa.list_(pa.float64()),
        "error": pa.string(),
    }
)


def diarize_dataset(
    name: str,
    config: str | None,
    split: str,
    opened: tuple[Network, LinkingSettings],
    model: str,
    output: Path,
    count: SpeakerCount,
) -> int:
    """Diarize the rows of one split that `output` does not have yet, as this process's share of them.

    Results have the columns of diarizers-community's sets (`timestamps_start`, `timestamps_end`, `speakers`) and
    `confidences`; `shard` and `row` tell where a row lies in the data set, `error` why one could not be done. Those of
    a configuration lie in a directory of its name.

    Args:
        opened: what `open_network` gave for `model`.

    Returns:
        exit code: 1 if a row could not be done, now or earlier, in any process.

    Raises:
        ValueError: no such data set, configuration or split, or it has no audio, or `output` has hypotheses of another
            data set, model or number of speakers.
        OSError: the data set cannot be read on; what was done is kept.
    """
    network, settings = opened
    column, stream = _audio_of(name, open_split(name, config, split))
    made_of = {"dataset": _place(name), "model": _place(model), **vars(count)}
    results = Results(output / (config or "") / "data", split, made_of)
    rank, world_size = join()
    whole_shards = stream.num_shards >= world_size
    bar = tqdm(desc=f"{name} {split}", unit=" recordings", disable=None if rank == 0 else True)
    for shard in range(stream.num_shards):
        if shard in results.whole_shards or (whole_shards and shard % world_size != rank):
            continue
        try:
            for row, audio in enumerate(stream.shard(stream.num_shards, shard)):
                if (whole_shards or row % world_size == rank) and (shard, row) not in results.done:
                    results.add(shard, row, _hypothesis(name, audio[column] or NO_AUDIO, network, settings, count))
                bar.update()
        except BaseException:
            results.write()
            raise
        results.write(shard_is_whole=whole_shards)
    return int(any(gather(results.failed, world_size)))


class Results:
    """The rows done so far, by any process, and those of this one that are not yet on disk.

    Args:
        made_of: data set, model and number of speakers, kept in the metadata of every file.

    Raises:
        ValueError: the directory has hypotheses made of something else.
    """

    def __init__(self, directory: Path, split: str, made_of: dict):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.split = directory, split
        self.schema = SCHEMA.with_metadata({"made_of": json.dumps(made_of)})
        self.rows: list[dict] = []
        self.written = time.monotonic()
        self.done, self.whole_shards, self.failed = set(), set(), False
        for file in sorted(directory.glob(f"{split}-*.parquet")):
            before = json.loads((pq.read_schema(file).metadata or {}).get(b"made_of", b"{}"))
            if before != made_of:
                differing = (
                    f"{key} {before.get(key)!r}, not {value!r}"
                    for key, value in made_of.items()
                    if before.get(key) != value
                )
                raise ValueError(f"{directory} has hypotheses of {'; '.join(differing)}; name another --output")
            for row in pq.read_table(file, columns=["shard", "row", "error"]).to_pylist():
                self.done.add((row["shard"], row["row"]))
                self.failed |= row["error"] is not None
            if file.stem.endswith("-last"):
                self.whole_shards.add(int(file.stem.removesuffix("-last").split("-")[-2]))

    def add(self, shard: int, row: int, hypothesis: dict):
        self.rows.append({"shard": shard, "row": row, **hypothesis})
        if "error" in hypothesis:
            print(f"error: shard {shard}, row {row}: {hypothesis['error']}", file=sys.stderr)
            self.failed = True
        if time.monotonic() - self.written > SECONDS_PER_FILE:
            self.write()

    def write(self, shard_is_whole: bool = False):
        if not self.rows:
            return
        name = f"{self.split}-{self.rows[0]['shard']:05d}-{self.rows[0]['row']:07d}"
        target = self.directory / f"{name}{'-last' if shard_is_whole else ''}.parquet"
        part = target.with_suffix(".part")
        pq.write_table(pa.Table.from_pylist(self.rows, self.schema), part)
        os.replace(part, target)
        self.rows, self.written = [], time.monotonic()


def open_split(name: str, config: str | None, split: str) -> IterableDataset:
    """A stream of the rows of one split.

    Raises:
        ValueError: no such data set, configuration or split, or several configurations and none chosen.
    """
    quieten_retries()
    try:
        check_card(name, None)
        configs = get_dataset_config_names(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"data set {name!r} cannot be opened ({first_line(error)}); check its name, the connection and, for a "
            "gated one, hf auth login"
        ) from error
    if config is None and len(configs) > 1:
        raise ValueError(f"data set {name!r} has several configurations; choose one by --config: {', '.join(configs)}")
    if config not in (None, *configs):
        raise ValueError(f"data set {name!r} has no configuration {config!r}, only: {', '.join(configs)}")
    try:
        return load_dataset(name, config, split=split, streaming=True)
    except ValueError as error:
        raise ValueError(
            f"data set {name!r}, split {split!r} cannot be opened ({first_line(error)}); choose another --split, or "
            "check its files"
        ) from error


def _place(name: str) -> str:
    """A path, the same from every working directory, or a Hub id."""
    return os.path.abspath(name) if os.path.exists(name) else name


def _audio_of(name: str, stream: IterableDataset) -> tuple[str, IterableDataset]:
    """The name of the audio column and a stream of it, undecoded."""
    columns = [c for c, feature in (stream.features or {}).items() if isinstance(feature, Audio)]
    if not columns:
        raise ValueError(
            f"data set {name!r} has no audio column, only: {', '.join(stream.features or ['none'])}; give one of "
            "recordings"
        )
    return columns[0], stream.cast_column(columns[0], Audio(decode=False)).select_columns(columns[0])


def _hypothesis(name: str, audio: dict, network: Network, settings: LinkingSettings, count: SpeakerCount) -> dict:
    """The columns of one row's result."""
    hypothesis = {"path": audio["path"]}
    try:
        segments = diarize(network, _blocks(name, audio), settings, count)
    except (AudioError, UnreadableFile, FileNotFoundError) as error:
        return hypothesis | {"error": str(error)}
    return hypothesis | {
        "timestamps_start": [s.start for s in segments],
        "timestamps_end": [s.end for s in segments],
        "speakers": [s.speaker for s in segments],
        "confidences": [s.confidence for s in segments],
    }


def _blocks(name: str, audio: dict) -> Iterator:
    if audio["bytes"] is not None:
        yield from audio_blocks(audio["bytes"])
        return
    with open_own_file(root_of(name, audio["path"]), audio["path"]) as file:
        yield from audio_blocks(file)
