"""Corpora of every kind: what they give, who is held out, and what is said when one cannot be used."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from corpora_fixtures import (
    SAMPLING_RATE,
    Utterance,
    encode_flac,
    encode_m4a,
    speech_utterances,
    write_librispeech,
    write_voxceleb2,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from data import corpora
from data.corpora import CORPORA, Corpus, CorpusError, Utterances, is_held_out, open_corpus
from data.decoding import decode
from data.solo_speech import LONGEST_SECONDS, MOST_PER_CONVERSATION, SHORTEST_SECONDS, cut, solo_stretches
from data.webdataset import samples


@pytest.fixture(scope="module")
def spoken() -> list[Utterance]:
    return speech_utterances(speakers=8, utterances=2, seconds=1.5)


def rows_of(utterances: Utterances) -> list:
    return [row for unit in range(len(utterances)) for row in utterances.read(unit)]


def speakers_of(utterances: Utterances) -> set[str]:
    return {row.speaker for row in rows_of(utterances)}


def write_parquet(path: Path, utterances: list[Utterance], speaker_column="speaker_id", rename=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "audio": {"bytes": encode_flac(utterance.waveform), "path": f"{utterance.id}.flac"},
            speaker_column: (rename or str)(utterance.speaker),
        }
        for utterance in utterances
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)


def write_folders(directory: Path, utterances: list[Utterance], suffix=".flac") -> None:
    for number, utterance in enumerate(utterances):
        folder = directory / utterance.speaker
        folder.mkdir(parents=True, exist_ok=True)
        encoded = encode_flac(utterance.waveform) if suffix == ".flac" else encode_m4a(utterance.waveform)
        (folder / f"{number}{suffix}").write_bytes(encoded)


def test_parquet_directory_with_splits_gives_every_row_of_the_split(tmp_path, spoken):
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", spoken[:8])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", spoken[8:12])
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", spoken[12:])
    train = open_corpus(str(tmp_path), "train")
    assert len(train) == 3 + 2  # row groups of 3
    rows = rows_of(train)
    assert [row.speaker for row in rows] == [utterance.speaker for utterance in spoken[:12]]
    for row, utterance in zip(rows, spoken):
        np.testing.assert_allclose(decode(row.audio), utterance.waveform, atol=1 / 2**15)
    assert speakers_of(open_corpus(str(tmp_path), "validation")) == {u.speaker for u in spoken[12:]}
    assert "train-00000-of-00002.parquet, row group 0" in rows[0].name


def test_units_can_be_read_in_any_order(tmp_path, spoken):
    write_parquet(tmp_path / "train.parquet", spoken)
    utterances = open_corpus(str(tmp_path), "train")
    forwards = [list(utterances.read(unit)) for unit in range(len(utterances))]
    backwards = [list(utterances.read(unit)) for unit in reversed(range(len(utterances)))]
    assert forwards == backwards[::-1]


def test_an_unusual_speaker_column_can_be_named(tmp_path, spoken):
    write_parquet(tmp_path / "train.parquet", spoken, speaker_column="reader")
    write_parquet(tmp_path / "validation.parquet", spoken, speaker_column="reader")
    assert speakers_of(open_corpus(str(tmp_path), "train", "reader")) == {u.speaker for u in spoken}
    with pytest.raises(CorpusError, match="no speaker column .*audio, reader; .*--speaker_column"):
        open_corpus(str(tmp_path), "train")
    with pytest.raises(CorpusError, match="no column 'narrator'"):
        open_corpus(str(tmp_path), "train", "narrator")


@pytest.mark.parametrize("suffix", [".flac", ".m4a"])
def test_folders_of_audio_by_speaker(tmp_path, spoken, suffix):
    write_folders(tmp_path, spoken, suffix)
    train, validation = (open_corpus(str(tmp_path), split) for split in ("train", "validation"))
    assert len(speakers_of(validation)) == 2
    assert speakers_of(train) | speakers_of(validation) == {u.speaker for u in spoken}
    assert not speakers_of(train) & speakers_of(validation)
    assert speakers_of(open_corpus(str(tmp_path), "validation")) == speakers_of(validation)
    assert len(decode(rows_of(train)[0].audio)) >= 1.4 * SAMPLING_RATE


def test_a_fingerprint_tells_of_files_that_came_or_changed(tmp_path, spoken):
    write_folders(tmp_path, spoken, ".flac")
    before = open_corpus(str(tmp_path), "train").fingerprint()
    assert open_corpus(str(tmp_path), "train").fingerprint() == before
    folder = open_corpus(str(tmp_path), "train").units[0]
    file = next(folder.glob("*.flac"))
    (folder / "one_more.flac").write_bytes(file.read_bytes())
    more = open_corpus(str(tmp_path), "train").fingerprint()
    (folder / "one_more.flac").write_bytes(file.read_bytes()[:-1])
    assert len({before, more, open_corpus(str(tmp_path), "train").fingerprint()}) == 3


def test_folders_below_splits(tmp_path, spoken):
    write_folders(tmp_path / "train", spoken[:8])
    write_folders(tmp_path / "validation", spoken[8:])
    assert speakers_of(open_corpus(str(tmp_path), "train")) == {u.speaker for u in spoken[:8]}
    assert len(speakers_of(open_corpus(str(tmp_path), "train"))) == 4
    assert len(speakers_of(open_corpus(str(tmp_path), "validation"))) == 4
    assert decode(rows_of(open_corpus(str(tmp_path), "validation"))[0].audio).size


def test_too_few_folders_to_hold_any_out(tmp_path, spoken):
    write_folders(tmp_path, spoken[:6])
    with pytest.raises(CorpusError, match="has 3 speaker folders; at least 4 are needed"):
        open_corpus(str(tmp_path), "train")


def test_librispeech_layout(tmp_path, spoken, monkeypatch):
    written = write_librispeech(tmp_path, spoken)
    monkeypatch.setitem(
        corpora.CORPORA, "librispeech", Corpus(**{**vars(CORPORA["librispeech"]), "path": str(tmp_path)})
    )
    train, validation = (rows_of(open_corpus("librispeech", split)) for split in ("train", "validation"))
    assert [row.speaker for row in train] == [str(row["speaker_id"]) for row in written["train"]]
    assert [row.audio for row in validation] == [row["audio"]["bytes"] for row in written["validation"]]


def test_of_several_configurations_one_is_named_after_a_colon(tmp_path, spoken):
    written = write_librispeech(tmp_path, spoken)
    with pytest.raises(
        CorpusError, match=r"has several configurations; name one of (clean, all|all, clean) after a colon"
    ):
        open_corpus(str(tmp_path), "train")
    rows = rows_of(open_corpus(f"{tmp_path}:clean", "validation"))
    everything = [row["audio"]["bytes"] for row in written["validation"]]
    assert rows and all(row.audio in everything for row in rows)


def test_webdataset_layout(tmp_path, spoken, monkeypatch):
    written = write_voxceleb2(tmp_path, spoken)
    monkeypatch.setitem(corpora.CORPORA, "voxceleb2", Corpus(**{**vars(CORPORA["voxceleb2"]), "path": str(tmp_path)}))
    monkeypatch.setattr(corpora, "HELD_OUT_PERCENT", 40)
    train, validation = (rows_of(open_corpus("voxceleb2", split)) for split in ("train", "validation"))
    assert len(open_corpus("voxceleb2", "train")) == 3
    expected = {row["__key__"].split("/")[0] for row in written}
    assert {row.speaker for row in train} | {row.speaker for row in validation} == expected
    assert {row.speaker for row in validation} == {speaker for speaker in expected if is_held_out(speaker)} != set()
    assert sorted(row.audio for row in train + validation) == sorted(row["m4a"] for row in written)


def test_a_sparse_member_of_a_tar_is_left_out(tmp_path):
    """Ten kilobytes that stand for a gigabyte of zeros."""
    member = tarfile.TarInfo("row.flac")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = 2 * b"00000000000\0"
    header[483:495] = b"%011o\0" % 2**30
    header[148:155] = b"%06o\0" % tarfile.calc_chksums(bytes(header))[0]
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.fileobj.write(header)
        archive.offset += len(header)
        archive.addfile(tarfile.TarInfo("row.txt"))
    assert list(samples(str(tmp_path / "shard.tar"))) == [{"__key__": "row", "txt": b""}]


def test_without_a_validation_split_speakers_are_held_out_by_name(tmp_path, spoken):
    names = {u.speaker: f"reader {number}" for number, u in enumerate(spoken)}
    held_out = [f"reader {number}" for number in range(1000) if is_held_out(f"reader {number}")]
    names[spoken[0].speaker], names[spoken[2].speaker] = held_out[:2]
    write_parquet(tmp_path / "train.parquet", spoken, rename=names.get)
    train, validation = (speakers_of(open_corpus(str(tmp_path), split)) for split in ("train", "validation"))
    assert validation == set(held_out[:2])
    assert train == set(names.values()) - validation


def test_held_out_share_and_stability():
    held_out = [name for name in map(str, range(20_000)) if is_held_out(name)]
    assert 0.025 < len(held_out) / 20_000 < 0.035
    assert held_out[:5] == ["48", "70", "79", "134", "166"]


def write_conversations(path: Path, spoken: list[Utterance], rows: int = 2) -> list[dict]:
    """Rows like diarizers-community's: four utterances 2 s apart, the third begun while the second goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = []
    for number in range(rows):
        mixture = np.zeros(9 * SAMPLING_RATE, np.float32)
        row = {"timestamps_start": [], "timestamps_end": [], "speakers": []}
        for start, utterance, speaker in zip((0.5, 3.0, 4.0, 7.0), spoken[4 * number :], "ABAB"):
            at = round(start * SAMPLING_RATE)
            mixture[at : at + len(utterance.waveform)] += utterance.waveform
            row["timestamps_start"].append(start)
            row["timestamps_end"].append(start + len(utterance.waveform) / SAMPLING_RATE)
            row["speakers"].append(speaker)
        table.append({"audio": {"bytes": encode_flac(mixture), "path": f"meeting{number}.flac"}, **row})
    pq.write_table(pa.Table.from_pylist(table), path, row_group_size=1)
    return table


def test_conversations_give_the_stretches_of_one_speaker(tmp_path, spoken, monkeypatch):
    write_conversations(tmp_path / "ihm" / "train-00000-of-00001.parquet", spoken)
    write_conversations(tmp_path / "ihm" / "validation-00000-of-00001.parquet", spoken[8:])
    monkeypatch.setitem(corpora.CORPORA, "ami", Corpus(str(tmp_path)))
    train = open_corpus("ami", "train")
    rows = rows_of(train)
    assert len(train) == 2
    assert [row.speaker.rsplit(", ", 1)[1] for row in rows] == ["A", "B", "A", "B"] * 2
    assert len({row.speaker for row in rows}) == 4, "A of one conversation is not A of another"
    expected = [spoken[0].waveform, spoken[1].waveform[:16_000], spoken[2].waveform[8_000:], spoken[3].waveform]
    for row, waveform in zip(rows, expected):
        np.testing.assert_allclose(decode(row.audio), waveform, atol=2 / 2**15)


def test_a_conversation_that_cannot_be_decoded_is_one_row_that_says_so(tmp_path, spoken):
    table = write_conversations(tmp_path / "train.parquet", spoken, rows=1)
    table[0]["audio"]["bytes"] = b"no audio"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "train.parquet")
    write_conversations(tmp_path / "validation.parquet", spoken)
    rows = rows_of(open_corpus(str(tmp_path), "train"))
    assert [row.audio for row in rows] == [b"no audio"]


def test_cut_decodes_what_libsndfile_cannot_seek_in(spoken):
    waveform = np.concatenate([u.waveform for u in spoken[:3]])
    (from_flac, _), (from_m4a, _) = (
        next(cut(encode(waveform), [(1.5, 3.0, "A")])) for encode in (encode_flac, encode_m4a)
    )
    one, other = decode(from_flac), decode(from_m4a)
    assert len(one) == len(other) == 1.5 * SAMPLING_RATE
    np.testing.assert_allclose(one, spoken[1].waveform, atol=1 / 2**15)
    delay = np.correlate(other, one, "full").argmax() - len(one) + 1
    assert 0 <= delay <= 2048, "the encoder's own delay"
    assert np.corrcoef(one[: len(one) - delay], other[delay:])[0, 1] > 0.9


def test_cut_keeps_the_rate_and_leaves_out_what_lies_beyond_the_end():
    file = io.BytesIO()
    soundfile.write(file, np.tile(np.linspace(-1, 1, 441), (100, 2)).T[:44_100].reshape(-1, 2), 44_100, format="WAV")
    pieces = list(cut(file.getvalue(), [(0.1, 0.3, "A"), (0.9, 5.0, "B"), (7.0, 9.0, "C")]))
    assert [speaker for _, speaker in pieces][0] == "A" and "C" not in [speaker for _, speaker in pieces]
    assert soundfile.info(io.BytesIO(pieces[0][0])).samplerate == 44_100


turns = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 300), st.sampled_from("ABC")), max_size=12)


@settings(deadline=None)
@given(turns)
def test_solo_stretches_against_a_grid(drawn):
    """Times on a grid of 0.1 s, counted step by step."""
    grid = np.zeros((3, 800), bool)
    for start, length, speaker in drawn:
        grid["ABC".index(speaker), start : start + length] = True
    alone = np.where(grid.sum(axis=0) == 1, grid.argmax(axis=0), -1)
    expected, start = [], 0
    for step in range(1, 801):
        if step == 800 or alone[step] != alone[start]:
            if alone[start] >= 0 and step - start >= 10 * SHORTEST_SECONDS:
                end = min(step, start + 10 * LONGEST_SECONDS)
                expected.append((start / 10, end / 10, "ABC"[alone[start]]))
            start = step
    starts, ends = [s / 10 for s, _, _ in drawn], [(s + length) / 10 for s, length, _ in drawn]
    found = solo_stretches(starts, ends, [speaker for *_, speaker in drawn])
    # 0.1 s steps are no binary fractions: a stretch of exactly the shortest length may fall to either side.
    long_enough = [s for s in expected if s[1] - s[0] > SHORTEST_SECONDS + 0.05]
    assert [(round(a, 3), round(b, 3), c) for a, b, c in found if b - a > SHORTEST_SECONDS + 0.05] == long_enough


def test_solo_stretches_are_spread_over_a_long_conversation():
    starts = np.arange(0, 3000, 3.0)
    found = solo_stretches(starts, starts + 2, ["A", "B"] * 500)
    assert len(found) == MOST_PER_CONVERSATION
    assert found[0][0] == 0 and found[-1][0] == starts[-1]


@pytest.mark.parametrize(
    "name, message",
    [
        ("/nowhere/at/all", "is not a directory, a Hub id"),
        ("./nowhere", "is not a directory, a Hub id"),
        ("librispeach", "one of: demo, librispeech, voxceleb2, ami"),
        ("a/b/c", "is not a directory, a Hub id"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(CorpusError, match=message) as error:
        open_corpus(name, "train")
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_hub_that_does_not_answer(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise ConnectionError("Couldn't reach 'user/name' on the Hub (ConnectionError)")

    monkeypatch.setattr(corpora, "check_card", refuse)
    monkeypatch.setattr(corpora, "OPENING_SECONDS", 0)
    with pytest.raises(CorpusError, match="user/name.*Couldn't reach.*connection"):
        open_corpus("user/name", "train")


def test_directories_that_are_no_corpus(tmp_path, spoken):
    def message(directory: Path, split: str = "train") -> str:
        with pytest.raises(CorpusError) as error:
            open_corpus(str(directory), split)
        assert "\n" not in str(error.value) and str(directory) in str(error.value)
        return str(error.value)

    empty, texts, flat, splits, damaged = (tmp_path / name for name in ("empty", "texts", "flat", "splits", "damaged"))
    for directory in (empty, texts, flat, splits, damaged):
        directory.mkdir()
    assert "is an empty directory" in message(empty)
    (texts / "train.txt").write_text("no audio here")
    assert "no audio column among its columns: text" in message(texts)
    (flat / "one.flac").write_bytes(encode_flac(spoken[0].waveform))
    assert "no speaker column" in message(flat) and "folder" in message(flat)
    write_parquet(splits / "train.parquet", spoken)
    assert "has no split 'dev'; its splits: train" in message(splits, "dev")
    (damaged / "train.parquet").write_bytes(b"PAR1 but not really")
    message(damaged)


def test_a_damaged_parquet_file_among_good_ones_is_named(tmp_path, spoken):
    write_parquet(tmp_path / "train-0.parquet", spoken)
    write_parquet(tmp_path / "train-1.parquet", spoken)
    whole = (tmp_path / "train-1.parquet").read_bytes()
    (tmp_path / "train-1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match="train-1.parquet cannot be read as Parquet") as error:
        open_corpus(str(tmp_path), "train")
    assert "\n" not in str(error.value)


def test_every_row_of_the_table_is_well_formed():
    for name, corpus in CORPORA.items():
        assert corpus.licence != "unknown", name
        assert name == "demo" or corpus.path.count("/") == 1
