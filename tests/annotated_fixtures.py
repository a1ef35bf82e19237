"""Small annotated conversations: real speech laid out by known turns, as files with RTTM or as rows of a Hub set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from corpora_fixtures import SAMPLING_RATE, encode_flac, speech_utterances

from data.acoustics import CLEAN
from data.annotated import AnnotatedConversations
from data.annotations import Conversation
from data.streaming import PositionedLoader, StreamConfig

CONFIG = StreamConfig(batch_size=4, window_seconds=1.0, units_per_block=2, windows_per_utterance=2, augmentation=CLEAN)

SCHEMA = pa.schema(
    {
        "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "timestamps_start": pa.list_(pa.float64()),
        "timestamps_end": pa.list_(pa.float64()),
        "speakers": pa.list_(pa.string()),
    }
)
CARD = """---
license: cc-by-4.0
dataset_info:
  features:
  - {name: audio, dtype: audio}
  - {name: timestamps_start, sequence: float64}
  - {name: timestamps_end, sequence: float64}
  - {name: speakers, sequence: string}
  splits:
  - {name: train, num_bytes: 0, num_examples: 0}
  - {name: validation, num_bytes: 0, num_examples: 0}
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: validation, path: data/validation-*}
---
"""


@dataclass(frozen=True)
class Talk:
    """A conversation; `turns` are (start, end, speaker) in seconds."""

    name: str
    waveform: np.ndarray
    turns: list[tuple[float, float, str]]


def talks(count: int = 6, seconds: float = 12.0, seed: int = 0) -> list[Talk]:
    """Conversations of A and B, in every third with C, who speak for 1.4 s and begin every 1.1 s or after a pause."""
    spoken = speech_utterances(speakers=12, utterances=4, seconds=1.4)
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        waveform, turns, start = rng.normal(0, 1e-3, round(seconds * SAMPLING_RATE)).astype(np.float32), [], 0.3
        cast = rng.permutation(12)[:3]
        while start + 1.4 < seconds - 0.5:
            who = int(rng.integers(3 if number % 3 == 0 else 2))
            part = spoken[4 * cast[who] + int(rng.integers(4))].waveform
            at = round(start * SAMPLING_RATE)
            waveform[at : at + len(part)] += 0.3 * part
            turns.append((round(start, 3), round(start + len(part) / SAMPLING_RATE, 3), "ABC"[who]))
            start += 1.1 if rng.random() < 0.6 else 2.6
        made.append(Talk(f"talk{number}", waveform, turns))
    return made


def rttm(talk: Talk) -> str:
    lines = (
        f"SPEAKER {talk.name} 1 {start:.3f} {end - start:.3f} <NA> <NA> {who} <NA> <NA>\n"
        for start, end, who in talk.turns
    )
    return "".join(lines)


def write_directory(directory: Path, made: list[Talk], together: bool = False) -> None:
    """FLAC files with an RTTM beside each, or one for all."""
    directory.mkdir(parents=True, exist_ok=True)
    for talk in made:
        (directory / f"{talk.name}.flac").write_bytes(encode_flac(talk.waveform))
        if not together:
            (directory / f"{talk.name}.rttm").write_text(rttm(talk))
    if together:
        (directory / "all.rttm").write_text("".join(map(rttm, made)))


def write_hub_set(directory: Path, made: list[Talk], shards: int = 2, row_group_size: int = 2) -> None:
    """Parquet laid out like diarizers-community's sets; the last two conversations are the validation split."""
    (directory / "data").mkdir(parents=True, exist_ok=True)
    (directory / "README.md").write_text(CARD)
    parts = {f"train-{n:05d}-of-{shards:05d}": made[:-2][n::shards] for n in range(shards)}
    for name, part in (parts | {"validation-00000-of-00001": made[-2:]}).items():
        rows = [
            {
                "audio": {"bytes": encode_flac(talk.waveform), "path": f"{talk.name}.flac"},
                "timestamps_start": [start for start, _, _ in talk.turns],
                "timestamps_end": [end for _, end, _ in talk.turns],
                "speakers": [who for *_, who in talk.turns],
            }
            for talk in part
        ]
        file = directory / "data" / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, row_group_size=row_group_size)


def whole(conversations: AnnotatedConversations) -> dict[str, Conversation]:
    """All conversations of a corpus by name."""
    found = [c for unit in range(len(conversations)) for c in conversations.conversations(unit)]
    return {c.name: c for c in found}


def batches(stream, count: int) -> list[dict]:
    """The first batches of a stream, made in this process."""
    return [batch for batch, _ in zip(PositionedLoader(stream, 0), range(count))]


def same(one: list[dict], other: list[dict]) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, other, strict=True)
    )
