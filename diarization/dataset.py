"""Diarization of a data set, spread over processes and machines, that goes on where it was interrupted.

Results lie beside each other as small Parquet files, one for every few rows, written whole or not at all. Which rows
are done is read from them, so any number of processes may take over from any other.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, load_dataset

from diarization.networks import open_network
from modeling.audio_fast_diarization import AudioError, audio_blocks
from modeling.linking_fast_diarization import SpeakerCount, diarize

ROWS_PER_FILE = 8
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


def diarize_dataset(name: str, split: str, model: str, output: Path, count: SpeakerCount) -> int:
    """Diarize the rows of one split that `output` does not have yet, as this process's share of them.

    Results have the columns of diarizers-community's sets (`timestamps_start`, `timestamps_end`, `speakers`) and
    `confidences`; `shard` and `row` tell where a row lies in the data set, `error` why one could not be done.

    Returns:
        exit code: 1 if a row of this run could not be done.

    Raises:
        ValueError: no such data set or split, or it has no audio.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    directory = output / "data"
    directory.mkdir(exist_ok=True)
    done = _done(directory, split)
    rows: list[dict] = []
    network = settings = None
    failed = False
    for (shard, number), audio in _share(name, split, rank, world_size):
        if (shard, number) in done:
            continue
        if network is None:
            network, settings = open_network(model)
        result = {"shard": shard, "row": number, "path": audio["path"]}
        try:
            segments = diarize(network, audio_blocks(_source(audio)), settings, count)
            result |= {
                "timestamps_start": [s.start for s in segments],
                "timestamps_end": [s.end for s in segments],
                "speakers": [s.speaker for s in segments],
                "confidences": [s.confidence for s in segments],
            }
        except AudioError as error:
            print(f"error: shard {shard}, row {number}: {error}", file=sys.stderr)
            result["error"], failed = str(error), True
        rows.append(result)
        if len(rows) == ROWS_PER_FILE:
            _write(directory, split, rows)
            rows = []
    if rows:
        _write(directory, split, rows)
    return int(failed)


def _share(name: str, split: str, rank: int, world_size: int) -> Iterator[tuple[tuple[int, int], dict]]:
    """The rows of this process: whole shards, or every so many rows where there are fewer shards than processes."""
    try:
        stream = load_dataset(name, split=split, streaming=True)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"data set {name!r}, split {split!r}: {str(error).splitlines()[0]}") from error
    columns = [c for c, feature in (stream.features or {}).items() if isinstance(feature, Audio)]
    if not columns:
        raise ValueError(f"data set {name!r} has no audio column among: {', '.join(stream.features or ['none'])}")
    stream = stream.cast_column(columns[0], Audio(decode=False)).select_columns(columns[0])
    by_shard = stream.num_shards >= world_size
    for shard in range(stream.num_shards):
        if by_shard and shard % world_size != rank:
            continue
        for number, row in enumerate(stream.shard(stream.num_shards, shard)):
            if by_shard or number % world_size == rank:
                yield (shard, number), row[columns[0]]


def _source(audio: dict):
    return audio["bytes"] or fsspec.open(audio["path"], "rb").open()


def _done(directory: Path, split: str) -> set[tuple[int, int]]:
    tables = [pq.read_table(file, columns=["shard", "row"]) for file in sorted(directory.glob(f"{split}-*.parquet"))]
    return {(row["shard"], row["row"]) for table in tables for row in table.to_pylist()}


def _write(directory: Path, split: str, rows: list[dict]):
    target = directory / f"{split}-{rows[0]['shard']:05d}-{rows[0]['row']:07d}.parquet"
    part = target.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), part)
    os.replace(part, target)
