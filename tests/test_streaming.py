"""The stream of windows: the same for the same seed and any workers, and unharmed by rows that are damaged."""

import io
import logging
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from corpora_fixtures import encode_flac, speech_utterances
from hypothesis import given, settings
from hypothesis import strategies as st

from data import streaming
from data.corpora import open_corpus
from data.decoding import MAX_SECONDS, RowError, decode
from data.streaming import ConversationStream, PositionedLoader, StreamConfig, useful_workers

SMALL = StreamConfig(batch_size=20, pool_size=24)


def batches(config: StreamConfig, workers: int, count: int) -> list[dict]:
    loader = PositionedLoader(ConversationStream(open_corpus("demo", "train"), config), workers)
    return list(islice(loader, count))


@pytest.fixture(scope="module")
def first_hundred() -> list[dict]:
    return batches(SMALL, 0, 5)


def same(one: list[dict], two: list[dict]) -> bool:
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_hundred_windows_bit_for_bit(first_hundred):
    assert sum(len(batch["labels"]) for batch in first_hundred) == 100
    assert same(first_hundred, batches(SMALL, 0, 5))


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_any_number_of_workers_draws_the_same_sequence(first_hundred, workers):
    assert same(first_hundred, batches(SMALL, workers, 5))


@pytest.mark.process
@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "none")])
def test_a_worker_killed_while_it_hands_a_batch_over_is_replaced(first_hundred, error, monkeypatch, caplog):
    breaks = [error]

    class Breaking(streaming.DataLoader):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                if number == 2 and breaks:
                    raise breaks.pop()
                yield batch

    monkeypatch.setattr(streaming, "DataLoader", Breaking)
    assert same(first_hundred, batches(SMALL, 1, 5)) and not breaks
    assert "a data worker was killed" in caplog.text
    breaks.append(error)
    with pytest.raises(type(error)):
        batches(SMALL, 0, 5)


@pytest.mark.parametrize(
    ("lanes", "useful"),
    [
        (4, [0, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16]),
        (16, [0, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 16]),
    ],
)
def test_as_many_workers_start_as_can_share_the_lanes(lanes, useful):
    assert [useful_workers(workers, lanes) for workers in range(17)] == useful


class Numbered(ConversationStream):
    """A stream whose batches are nothing but their places; block b has 1 + b % 3 of them."""

    def planned(self, block, first):
        return ((i, lambda: {}) for i in range(first, 1 + block % 3))


@pytest.mark.process
@given(
    workers=st.integers(1, 16),
    turn=st.integers(0, 3),
    places=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=4, max_size=4),
)
@settings(deadline=None)
def test_workers_in_turn_give_what_one_process_gives(workers, turn, places):
    stream = Numbered(open_corpus("demo", "train"), SMALL)
    stream.state = {"turn": turn, "lanes": [[lane + 4 * block, first] for lane, (block, first) in enumerate(places)]}
    alone = [tuple(batch["position"]) for batch in islice(stream, 40)]
    with pytest.MonkeyPatch.context() as patch:
        made = []
        for number in range(workers):
            patch.setattr(streaming, "get_worker_info", lambda n=number: SimpleNamespace(id=n, num_workers=workers))
            made.append([tuple(batch["position"]) for batch in islice(stream, 40)])
    assert [made[n % workers][n // workers] for n in range(40)] == alone


@pytest.mark.slow
def test_another_seed_gives_other_windows(first_hundred):
    other = batches(StreamConfig(batch_size=20, pool_size=24, seed=1), 0, 1)
    assert not torch.equal(other[0]["input_values"], first_hundred[0]["input_values"])


# Rows as corpora have them


def encode(waveform: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.fixture(scope="module")
def spoken() -> list:
    return speech_utterances(speakers=6, utterances=4, seconds=3.0)


def test_stereo_and_other_rates_are_converted(spoken):
    waveform = spoken[0].waveform
    stereo = decode(encode(np.stack([waveform, 0.5 * waveform], axis=1), 16_000, "FLOAT"))
    assert np.allclose(stereo, 0.75 * waveform, atol=1e-6)
    slow = decode(encode(waveform[::2], 8_000))
    assert abs(len(slow) - len(waveform)) < 100
    fast = decode(encode(np.repeat(waveform, 3), 48_000))
    assert np.corrcoef(fast[: len(waveform)], waveform[: len(fast)])[0, 1] > 0.9


def test_fifty_minutes_are_read_for_one(spoken):
    row = encode(np.resize(spoken[0].waveform[::2], 50 * 60 * 8_000), 8_000, "PCM_U8")
    assert len(decode(row)) == pytest.approx(MAX_SECONDS * 16_000, abs=100)


def bad_rows(waveform: np.ndarray) -> dict[str, tuple[bytes | None, str]]:
    """Rows of no use, and how the reason begins."""
    torn = waveform.copy()
    torn[100] = np.nan
    return {
        "corrupt": (b"no audio at all" * 9, "not a recording"),
        "torn": (encode_flac(waveform)[:60], ""),
        "empty": (b"", "the file is empty"),
        "null": (None, "the file is empty"),
        "no samples": (encode(waveform[:0], 16_000), "no samples"),
        "silent": (encode(np.zeros(16_000), 16_000), "silent throughout"),
        "NaN": (encode(torn, 16_000, "FLOAT"), "NaN or infinite samples"),
    }


@pytest.mark.parametrize("name", bad_rows(np.ones(16_000, np.float32)))
def test_a_row_of_no_use_says_why(spoken, name):
    audio, reason = bad_rows(spoken[0].waveform)[name]
    with pytest.raises(RowError, match=f"^{reason}"):
        decode(audio or b"")


def test_rows_of_no_use_are_skipped_and_counted_among_good_ones(tmp_path, spoken, caplog):
    bad = bad_rows(spoken[0].waveform)
    rows = [(encode_flac(u.waveform), u.speaker, u.id) for u in spoken]
    rows += [(audio, spoken[0].speaker, name) for name, (audio, _) in bad.items()]
    rows += [(encode_flac(spoken[0].waveform), None, "nobody")]
    rows += [(encode(np.stack([u.waveform] * 2, 1), 16_000), u.speaker, "stereo") for u in spoken[:2]]
    table = [{"audio": {"bytes": audio, "path": name}, "speaker_id": speaker} for audio, speaker, name in rows]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "train-0.parquet")
    pq.write_table(pa.Table.from_pylist(table[:8]), tmp_path / "validation-0.parquet")
    config = StreamConfig(batch_size=8, lanes=1, pool_size=64, windows_per_utterance=2)
    stream = ConversationStream(open_corpus(str(tmp_path), "train"), config)
    with caplog.at_level(logging.WARNING):
        made = [batch for _, batch in stream.block_batches(0)]
    assert len(made) == len(rows) * config.windows_per_utterance // config.batch_size
    assert all(np.isfinite(batch["input_values"]).all() for batch in made)
    assert sum(stream.skipped.values()) == len(bad) + 1
    assert any("(no speaker)" in message and "nobody" in message for message in caplog.messages)
    for name in ("silent", "NaN", "no samples"):
        assert any(f"({bad[name][1]})" in message and name in message for message in caplog.messages)


KILLED = """
import os, signal, sys
from data.streaming import ConversationStream, PositionedLoader, StreamConfig
from data.corpora import open_corpus

stream = ConversationStream(open_corpus("demo", "train"), StreamConfig(batch_size=2, windows_per_utterance=1))
next(batches := iter(PositionedLoader(stream, 2)))
if sys.argv[1] == "kill":
    os.killpg(0, signal.SIGKILL)
"""


@pytest.mark.process
def test_no_folder_is_left_by_workers_that_were_killed(tmp_path):
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}

    def run(end: str) -> list[str]:
        command = [sys.executable, "-c", KILLED, end]
        subprocess.run(command, env=environment, cwd=tmp_path, start_new_session=True, capture_output=True, timeout=300)
        return [p.name for p in tmp_path.iterdir() if p.name.startswith(("pymp-", "fdw-"))]

    (left,) = run("kill")
    assert left.startswith("fdw-")
    assert run("leave") == [], "it removes its own and that of the killed run"


RACE = """
import os
import subprocess
import sys
import tempfile

from data.worker_folder import share_folder

make, others = tempfile.mkdtemp, [[sys.executable, "-c", "from data.worker_folder import share_folder; share_folder()"]]

def make_and_wait_for_another_run(*args, **kwargs):
    made = make(*args, **kwargs)
    if others:
        subprocess.run(others.pop(), check=True)
    return made

tempfile.mkdtemp = make_and_wait_for_another_run
share_folder()
print(os.listdir(tempfile.gettempdir()))
"""


@pytest.mark.process
def test_a_folder_that_another_run_took_for_one_left_behind_is_made_again(tmp_path):
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, "-c", RACE], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.count("fdw-") == 1, ended.stderr
