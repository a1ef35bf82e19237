"""Small repositories of speech, laid out like the corpora on the Hub, the same bytes at every build.

    cd tests
    python -c "from corpora_fixtures import *; write_librispeech(Path('/tmp/hub/user/speech'), speech_utterances())"
    python loopback_hub.py --serve /tmp/hub

The speech is real, cut from `../shared/speech`, where that lies beside the project; else it is the synthetic voices
of the embedded demo corpus.
"""

import hashlib
import io
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

ROOT = Path(__file__).resolve().parent.parent
SAMPLING_RATE = 16_000

LIBRISPEECH_SCHEMA = pa.schema(
    {
        "file": pa.string(),
        "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "text": pa.string(),
        "speaker_id": pa.int64(),
        "chapter_id": pa.int64(),
        "id": pa.string(),
    }
)
LIBRISPEECH_CONFIGS = {
    "clean": {"train.100": "train", "validation": "validation", "test": "test"},
    "all": {"train.clean.100": "train", "validation.clean": "validation", "test.clean": "test"},
}
LIBRISPEECH_FEATURES = """\
  - {name: file, dtype: string}
  - name: audio
    dtype: {audio: {sampling_rate: 16000}}
  - {name: text, dtype: string}
  - {name: speaker_id, dtype: int64}
  - {name: chapter_id, dtype: int64}
  - {name: id, dtype: string}
"""


@dataclass(frozen=True)
class Utterance:
    """One person speaking; `waveform` is float32 mono 16 kHz, shape (samples,)."""

    id: str
    speaker: str
    waveform: np.ndarray


@cache
def speech_utterances(speakers: int = 12, utterances: int = 5, seconds: float = 3.0) -> list[Utterance]:
    """The first `seconds` of `utterances` recordings of each of the first `speakers` people who have so many.

    Raises:
        ValueError: the speech at hand holds fewer.
    """
    rows = defaultdict(list)
    shards = sorted((ROOT.parent / "shared/speech/train").glob("*.parquet"))
    shards = shards or sorted((ROOT / "data/demo").glob("*.parquet"))
    for shard in shards:
        for row in pq.read_table(shard, columns=["id", "speaker_id", "audio"]).to_pylist():
            rows[row["speaker_id"]].append(row)
        chosen = [speaker for speaker, said in rows.items() if len(said) >= utterances][:speakers]
        if len(chosen) == speakers:
            break
    else:
        raise ValueError(f"no {speakers} speakers with {utterances} utterances in {len(shards)} shards: ask for fewer")
    return [
        Utterance(row["id"], speaker, _decode(row["audio"]["bytes"])[: round(seconds * SAMPLING_RATE)])
        for speaker in chosen
        for row in rows[speaker][:utterances]
    ]


def write_librispeech(
    directory: Path, utterances: list[Utterance], row_group_size: int = 8, num_shards: int = 2
) -> dict[str, list[dict]]:
    """Lay out a repository like `openslr/librispeech_asr`: Parquet with FLAC inside, in shards sorted by speaker.

    Config `clean` has the splits train.100, validation and test; config `all` the same ones as train.clean.100,
    validation.clean and test.clean. The last two speakers are the test split, the two before them validation; the
    training split has `num_shards` files.

    Returns:
        The rows of "train", "validation" and "test" as they are stored.
    """
    people = list(dict.fromkeys(utterance.speaker for utterance in utterances))
    part_of = {speaker: "train" for speaker in people[:-4]}
    part_of |= dict.fromkeys(people[-4:-2], "validation") | dict.fromkeys(people[-2:], "test")
    rows = {"train": [], "validation": [], "test": []}
    for index, utterance in enumerate(utterances):
        speaker_id = 1000 + people.index(utterance.speaker)
        name = f"{speaker_id}-{speaker_id + 120_000}-{index:04d}"
        audio = {"bytes": encode_flac(utterance.waveform), "path": f"{name}.flac"}
        row = {"file": f"{name}.flac", "audio": audio, "text": "", "speaker_id": speaker_id}
        rows[part_of[utterance.speaker]].append({**row, "chapter_id": speaker_id + 120_000, "id": name})
    card = ["---\nlicense: cc-by-4.0\ndataset_info:\n"]
    for config, splits in LIBRISPEECH_CONFIGS.items():
        card += [f"- config_name: {config}\n  features:\n", LIBRISPEECH_FEATURES, "  splits:\n"]
        for split, part in splits.items():
            card += [f"  - {{name: {split}, num_bytes: 0, num_examples: {len(rows[part])}}}\n"]
            shards = np.array_split(np.arange(len(rows[part])), num_shards if part == "train" else 1)
            for number, indices in enumerate(shards):
                path = directory / config / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                table = pa.Table.from_pylist([rows[part][i] for i in indices], LIBRISPEECH_SCHEMA)
                pq.write_table(table, path, row_group_size=row_group_size)
    card += ["configs:\n"]
    for config, splits in LIBRISPEECH_CONFIGS.items():
        card += [f"- config_name: {config}\n  data_files:\n"]
        card += [f"  - {{split: {split}, path: {config}/{split}-*}}\n" for split in splits]
    (directory / "README.md").write_text("".join(card) + "---\n")
    return rows


def write_voxceleb2(directory: Path, utterances: list[Utterance], num_shards: int = 3) -> list[dict]:
    """Lay out a repository like `gaunernst/voxceleb2-dev-wds`: WebDataset tars of AAC recordings, sorted by speaker.

    Returns:
        The rows as `datasets` reads them, without the column `__url__`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    people = list(dict.fromkeys(utterance.speaker for utterance in utterances))
    rows = []
    for index, utterance in enumerate(utterances):
        cls = people.index(utterance.speaker)
        video = hashlib.sha256(f"{utterance.speaker}/{index % 2}".encode()).hexdigest()[:11]
        key = f"id{12 + cls:05d}/{video}/{index:05d}"
        rows.append({"__key__": key, "cls": cls, "m4a": encode_m4a(utterance.waveform)})
    for number, indices in enumerate(np.array_split(np.arange(len(rows)), num_shards)):
        with tarfile.open(directory / f"voxceleb2-dev-{number:04d}.tar", "w") as tar:
            for row in (rows[i] for i in indices):
                for suffix, content in (("cls", str(row["cls"]).encode()), ("m4a", row["m4a"])):
                    member = tarfile.TarInfo(f"{row['__key__']}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    configs = "configs:\n- {config_name: default, data_files: '*.tar', default: true}\n"
    (directory / "README.md").write_text(f"---\nlicense: cc-by-sa-4.0\n{configs}---\n")
    return rows


def encode_flac(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    sf.write(file, waveform, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def encode_m4a(waveform: np.ndarray) -> bytes:
    """AAC in an MP4 container (brand `M4A `), about 64 kbit/s, as VoxCeleb2's files are."""
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        coding = {"rate": SAMPLING_RATE, "layout": "mono", "bit_rate": 64_000, "options": {"aac_coder": "fast"}}
        stream = container.add_stream("aac", **coding)
        frame = av.AudioFrame.from_ndarray(waveform[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate = SAMPLING_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _decode(audio: bytes) -> np.ndarray:
    waveform, rate = sf.read(io.BytesIO(audio), dtype="float32")
    if rate != SAMPLING_RATE or waveform.ndim != 1:
        raise ValueError(f"expected mono speech at {SAMPLING_RATE} Hz, got {rate} Hz, shape {waveform.shape}")
    return waveform
