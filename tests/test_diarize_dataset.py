"""`diarize.py --dataset` over a Hub on loopback: shards, processes, damage, and an interruption in the middle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from corpora_fixtures import encode_flac
from loopback_clients import redirect, run_client
from loopback_hub import LoopbackHub
from two_tones import TURNS, write_model, write_recording

import diarize

pytestmark = pytest.mark.hub

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = pa.schema(
    {
        "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "timestamps_start": pa.list_(pa.float64()),
        "timestamps_end": pa.list_(pa.float64()),
        "speakers": pa.list_(pa.string()),
    }
)
CARD = """---
dataset_info:
  features:
  - {name: audio, dtype: audio}
  - {name: timestamps_start, sequence: float64}
  - {name: timestamps_end, sequence: float64}
  - {name: speakers, sequence: string}
  splits:
  - {name: test, num_bytes: 0, num_examples: 0}
configs:
- config_name: default
  data_files:
  - {split: test, path: data/test-*}
---
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> bytes:
    waveform, _ = soundfile.read(write_recording(tmp_path_factory.mktemp("recording") / "call.wav"), dtype="float32")
    return encode_flac(waveform)


@pytest.fixture
def hub(tmp_path, recording):
    """`user/calls`, laid out like diarizers-community's sets: three shards of three calls, one of them damaged."""
    for shard in range(3):
        rows = [
            {
                "audio": {"bytes": b"damaged" if (shard, row) == (1, 1) else recording, "path": f"{shard}-{row}.flac"},
                "timestamps_start": [start for start, _, _ in TURNS],
                "timestamps_end": [end for _, end, _ in TURNS],
                "speakers": [f"person{speaker}" for *_, speaker in TURNS],
            }
            for row in range(3)
        ]
        file = tmp_path / "hub" / "data" / f"test-{shard:05d}-of-00003.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, row_group_size=1)
    (tmp_path / "hub" / "README.md").write_text(CARD)
    with LoopbackHub() as hub:
        hub.add_repository("user/calls", tmp_path / "hub")
        yield hub


@pytest.fixture
def call(hub, model, tmp_path, monkeypatch):
    """Runs diarize.py in this process."""
    redirect(hub.url, tmp_path / "cache", monkeypatch.setattr)
    return lambda *arguments: diarize.main([*arguments, "--output", str(tmp_path / "answers"), "--model", str(model)])


def run(hub, output, model, *arguments, **options) -> subprocess.CompletedProcess:
    wanted = ["--dataset", "user/calls", "--output", str(output), "--model", str(model), *arguments]
    return run_client(ROOT / "diarize.py", hub, *wanted, check=False, **options)


def rows_of(output: Path) -> dict[tuple[int, int], dict]:
    rows = [row for file in sorted((output / "data").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len({(row["shard"], row["row"]) for row in rows}) == len(rows), "a row was done twice"
    return {(row["shard"], row["row"]): row for row in rows}


def assert_complete(output: Path, shards: int = 3):
    rows = rows_of(output)
    assert rows.keys() == {(shard, row) for shard in range(shards) for row in range(3)}
    for (shard, number), row in rows.items():
        assert row["path"] == f"{shard}-{number}.flac"
        if (shard, number) == (1, 1):
            assert "not a recording" in row["error"] and row["speakers"] is None
        else:
            assert row["error"] is None
            np.testing.assert_allclose(row["timestamps_start"], [start for start, _, _ in TURNS], atol=0.021)
            np.testing.assert_allclose(row["timestamps_end"], [end for _, end, _ in TURNS], atol=0.021)
            assert row["speakers"] == [f"SPEAKER_{speaker:02d}" for *_, speaker in TURNS]


def test_interrupted_in_the_middle_it_goes_on_and_reads_nothing_done_again(hub, model, tmp_path):
    output = tmp_path / "answers"
    hub.faults.add("*test-00002-of*", "vanish")
    first = run(hub, output, model)
    assert first.returncode == 2
    assert first.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in first.stderr
    assert rows_of(output).keys() == {(shard, row) for shard in range(2) for row in range(3)}

    hub.faults.clear()
    hub.forget_requests()
    second = run(hub, output, model)
    assert second.returncode == 1, second.stderr  # the damaged row of the first run is still not done
    assert_complete(output)
    assert hub.bytes_served("*test-00001-of*") < hub.bytes_served("*test-00002-of*") / 2

    read = "import datasets, sys; print(datasets.load_dataset(sys.argv[1], split='test'))"
    assert "num_rows: 9" in run_client(read, hub, str(output)).stdout


@pytest.mark.parametrize("shards", [3, 1])
def test_two_processes_share_shards_or_rows_and_leave_together(hub, model, tmp_path, shards):
    for shard in range(shards, 3):
        (tmp_path / "hub" / "data" / f"test-{shard:05d}-of-00003.parquet").unlink()
    hub.add_repository("user/calls", tmp_path / "hub")
    output = tmp_path / "answers"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    wanted = ["--dataset", "user/calls", "--output", str(output), "--model", str(model)]
    command = [*launch, str(ROOT / "diarize.py"), *wanted]
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == (1 if shards > 1 else 0), done.stderr
    assert done.stderr.count("error: shard 1, row 1: audio: not a recording") == (shards > 1)
    assert_complete(output, shards)
    # Both processes wrote: either their shards or their rows of the one shard.
    starts = {file.name.split("-")[2 if shards == 1 else 1] for file in (output / "data").glob("*.parquet")}
    assert len(starts) == (2 if shards == 1 else 3)


def test_of_several_configurations_one_is_to_be_chosen(hub, call, tmp_path, capsys):
    data = tmp_path / "hub" / "data"
    for shard, config in enumerate(("ihm", "sdm", "sdm")):
        data.with_name(config).mkdir(exist_ok=True)
        file = data / f"test-{shard:05d}-of-00003.parquet"
        file.rename(data.with_name(config) / file.name)
    features = CARD[CARD.index("  features") : CARD.index("configs:")]
    infos = "".join(features.replace("  features", f"- config_name: {config}\n  features") for config in ("ihm", "sdm"))
    files = "".join(
        f"- config_name: {config}\n  data_files:\n  - {{split: test, path: {config}/test-*}}\n"
        for config in ("ihm", "sdm")
    )
    (tmp_path / "hub" / "README.md").write_text(f"---\ndataset_info:\n{infos}configs:\n{files}---\n")
    hub.add_repository("user/calls", tmp_path / "hub")
    for wanted, message in (
        ((), "error: data set 'user/calls' has several configurations; choose one by --config: ihm, sdm"),
        (("--config", "mdm"), "error: data set 'user/calls' has no configuration 'mdm', only: ihm, sdm"),
    ):
        assert call("--dataset", "user/calls", *wanted) == 2
        assert capsys.readouterr().err.splitlines() == [message]
    assert call("--dataset", "user/calls", "--config", "ihm") == 0
    assert_complete(tmp_path / "answers" / "ihm", shards=1)


def test_answers_of_something_else_are_not_taken_for_these(hub, call, tmp_path, capsys):
    hub.add_repository("user/others", tmp_path / "hub")
    assert call("--dataset", "user/calls") == 1
    capsys.readouterr()
    for flags, message in (
        (("--dataset", "user/others"), "dataset 'user/calls', not 'user/others'"),
        (("--dataset", "user/calls", "--num_speakers", "1"), "num_speakers None, not 1"),
    ):
        assert call(*flags) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: {tmp_path / 'answers' / 'data'} has hypotheses of {message}; name another --output"
    assert call("--dataset", "user/calls") == 1, "the same again is not refused"


def test_a_row_without_audio_is_an_error_of_that_row(hub, call, tmp_path):
    file = tmp_path / "hub" / "data" / "test-00001-of-00003.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["audio"] = None
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, row_group_size=1)
    hub.add_repository("user/calls", tmp_path / "hub")
    assert call("--dataset", "user/calls") == 1
    found = rows_of(tmp_path / "answers")
    assert len(found) == 9 and [place for place, row in found.items() if row["error"]] == [(1, 1)]


def test_what_cannot_be_a_data_set_is_one_line(hub, call, tmp_path, capsys):
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "calls.py").write_text("class Calls: pass")
    hub.add_repository("user/script", tmp_path / "script")
    for name, split, message in (
        ("user/absent", "test", "error: data set 'user/absent' cannot be opened (Dataset 'user/absent' doesn't exist"),
        ("user/script", "test", "error: data set 'user/script' cannot be opened (No (supported) data files"),
        ("user/calls", "nonsense", "error: data set 'user/calls', split 'nonsense' cannot be opened (Bad split:"),
    ):
        assert call("--dataset", name, "--split", split) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(message)


def test_rows_that_name_what_is_not_theirs_are_answered_by_an_error(hub, call, tmp_path, capsys):
    card = "---\ndataset_info:\n  features:\n  - {name: audio, dtype: audio}\n---\n"
    rows = [{"audio": {"path": path, "bytes": None}} for path in ("/etc/hostname", "../calls.wav", f"{hub.url}/x.wav")]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text(card)
    (tmp_path / "set" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = len(hub.requests())
    assert call("--dataset", str(tmp_path / "set"), "--split", "test") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: shard")]
    assert [line.split(": ")[-1] for line in lines] == ["a path out of the data set"] * 3
    assert len(hub.requests()) == before
