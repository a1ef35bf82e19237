"""The embedded corpus of synthetic voices and the call made of it: table, splits, speech, labels, a first command."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import diarize
from data.rttm import read_rttm
from data.sample import build as sample
from modeling.audio_fast_diarization import load_audio

DEMO = Path(__file__).parents[1] / "data" / "demo"
SHARDS = {split: sorted(DEMO.glob(f"{split}-*.parquet")) for split in ("train", "validation")}
ALL_SHARDS = [shard for shards in SHARDS.values() for shard in shards]


def speakers_of(shard: Path) -> list[str]:
    return pq.read_table(shard, columns=["speaker_id"])["speaker_id"].to_pylist()


def test_shards_are_complete_and_named_as_on_the_hub():
    names = [shard.name for shard in ALL_SHARDS]
    assert names == [f"train-{i:05d}-of-00004.parquet" for i in range(4)] + [
        f"validation-{i:05d}-of-00002.parquet" for i in range(2)
    ]
    assert sum(shard.stat().st_size for shard in ALL_SHARDS) < 12e6


@pytest.mark.parametrize("shard", ALL_SHARDS, ids=lambda shard: shard.stem)
def test_schema_and_row_groups(shard: Path):
    file = pq.ParquetFile(shard)
    assert file.schema_arrow.remove_metadata() == pa.schema(
        {
            "id": pa.string(),
            "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "speaker_id": pa.string(),
            "seconds": pa.float32(),
            "corpus": pa.string(),
        }
    )
    assert all(file.metadata.row_group(i).num_rows <= 25 for i in range(file.num_row_groups))


def test_identifiers_are_unique():
    identifiers = [i for shard in ALL_SHARDS for i in pq.read_table(shard, columns=["id"])["id"].to_pylist()]
    assert len(identifiers) == len(set(identifiers))


def test_every_speaker_is_one_run_of_rows_in_one_shard():
    runs = Counter()
    for shard in ALL_SHARDS:
        speakers = speakers_of(shard)
        runs.update(s for s, before in zip(speakers, [None, *speakers], strict=False) if s != before)
    assert set(runs.values()) == {1}


def test_both_splits_hold_both_sexes_and_several_languages():
    for shards in SHARDS.values():
        voices = {speaker for shard in shards for speaker in speakers_of(shard)}
        assert {voice[1] for voice in voices} == {"f", "m"}
        assert len({voice[0] for voice in voices}) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("shard", ALL_SHARDS, ids=lambda shard: shard.stem)
def test_every_row_decodes_to_audible_speech_of_the_stated_length(shard: Path):
    for row in pq.read_table(shard).to_pylist():
        waveform, sample_rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert sample_rate == 16_000 and waveform.ndim == 1, row["id"]
        assert np.isfinite(waveform).all(), row["id"]
        assert len(waveform) / sample_rate == pytest.approx(row["seconds"], abs=1e-4), row["id"]
        assert 3 <= row["seconds"] <= 8, row["id"]
        level = np.sqrt(np.mean(waveform[: len(waveform) // 320 * 320].reshape(-1, 320) ** 2, axis=1))
        assert np.percentile(level, 75) > 0.01, f"{row['id']} is nearly silent"
        assert np.percentile(level, 5) < 0.2 * level.max(), f"{row['id']} has a steady level, as noise has"
        assert row["audio"]["path"] == f"{row['id']}.opus" and row["corpus"] == "kokoro-synthetic"


def test_readme_states_the_sizes():
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    for split, shards in SHARDS.items():
        table = pa.concat_tables(pq.read_table(shard, columns=["speaker_id", "seconds"]) for shard in shards)
        voices = len(set(table["speaker_id"].to_pylist()))
        minutes = sum(table["seconds"].to_pylist()) / 60
        assert f"| {split} | {voices} | {table.num_rows} | {minutes:.1f} |" in readme


def test_the_sample_call_is_the_one_that_its_program_makes():
    waveform, turns = sample.make()
    kept = load_audio(sample.HERE / "call.ogg")
    assert abs(len(kept) - len(waveform)) < 1_000 and (sample.HERE / "call.ogg").stat().st_size < 300_000
    similarity = np.corrcoef(kept[: len(waveform)], waveform[: len(kept)])[0, 1]
    assert similarity > 0.95, "of Opus, which is not exact"
    written = read_rttm(sample.HERE / "call.rttm")["call"]
    assert str(written.rename_tracks("string")) == str(turns.rename_tracks("string"))
    assert turns.get_overlap().duration() > 0.2 and set(turns.labels()) == set(sample.VOICES)
    assert set(sample.VOICES) <= set(speakers_of(SHARDS["validation"][0]) + speakers_of(SHARDS["validation"][1]))


def test_the_first_command_of_a_newcomer_finds_both_speakers(tmp_path, capsys):
    call = str(sample.HERE / "call.ogg")
    assert diarize.main([call, "--reference", str(sample.HERE / "call.rttm"), "--output", str(tmp_path)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| call |")]
    assert float(row.split("|")[3].split()[0]) < 5 and row.endswith("| 2 (2) |")
