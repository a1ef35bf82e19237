"""A Hub that fails in every way it can: the windows drawn from it are those of a Hub that does not."""

import functools
import hashlib
import json
import re
import socket
import subprocess
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from corpora_fixtures import encode_flac, speech_utterances, write_librispeech, write_voxceleb2
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from loopback_clients import redirect
from loopback_faults import TRANSIENT
from loopback_hub import LoopbackHub
from training_runs import start

from common import hub_files, hub_http, retry
from data import corpora
from data.corpora import CORPORA, Corpus, CorpusError, open_corpus
from data.streaming import ConversationStream, PositionedLoader, StreamConfig

pytestmark = pytest.mark.hub

SHAPES = ("librispeech", "voxceleb2")
EVERY_SHAPE = (*SHAPES, "json")
PLACES = {"librispeech": "row group of Parquet", "voxceleb2": "tar", "json": "audio files named in JSON"}
FILES = {"librispeech": "*/train.clean.100-*.parquet", "voxceleb2": "*.tar", "json": "*.flac"}
LAST = {
    "librispeech": "*/train.clean.100-00001-of-00002.parquet",
    "voxceleb2": "*-0002.tar",
    "json": "*/train-1.jsonl",
}
ONLY_FOR_RANGES = ("whole file for a range", "another range")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("repositories")
    spoken = speech_utterances(speakers=12, utterances=5, seconds=1.5)
    write_librispeech(directory / "librispeech", spoken)
    write_voxceleb2(directory / "voxceleb2", spoken)
    write_json(directory / "json", spoken)
    return directory


def write_json(directory: Path, spoken: list) -> None:
    """Rows of JSON that name FLAC files beside them."""
    (directory / "clips" / "0").mkdir(parents=True)
    files = {"train-0": spoken[:20], "train-1": spoken[20:40], "validation-0": spoken[40:]}
    for name, part in files.items():
        rows = [{"audio": f"clips/0/{u.id}.flac", "speaker_id": u.speaker} for u in part]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for utterance in part:
            (directory / "clips" / "0" / f"{utterance.id}.flac").write_bytes(encode_flac(utterance.waveform))
    splits = "".join(f"  - {{split: {s}, path: '{s}-*.jsonl'}}\n" for s in ("train", "validation"))
    (directory / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n")


def use_repositories(assign=setattr, where: str = "user/") -> None:
    """Let the names `librispeech` and `voxceleb2` mean the small repositories."""
    table = {name: Corpus(**{**vars(CORPORA[name]), "path": f"{where}{name}"}) for name in SHAPES}
    table["json"] = Corpus(f"{where}json")
    assign(corpora, "CORPORA", {**CORPORA, **table})
    assign(corpora, "HELD_OUT_PERCENT", 40)


@pytest.fixture
def hub(repositories, tmp_path, monkeypatch):
    """The repositories on a Hub that clients in this process talk to; `slept` are the pauses they ask for."""
    slept = []

    def sleep(seconds, really=time.sleep):
        slept.append(seconds)
        really(min(seconds, 0.01))

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    with LoopbackHub() as server:
        for name in EVERY_SHAPE:
            server.add_repository(f"user/{name}", repositories / name)
        redirect(server.url, tmp_path / "cache", monkeypatch.setattr)
        use_repositories(monkeypatch.setattr)
        server.slept = slept
        yield server


class Recording(ConversationStream):
    """Keeps the rows that come into the pools."""

    rows: Counter

    def _decode(self, rows, rng):
        self.rows.update((row.speaker, hashlib.sha256(row.audio).hexdigest()) for row in rows)
        return super()._decode(rows, rng)


def settings_for(shape: str, **changes) -> StreamConfig:
    units = {"librispeech": 2}.get(shape, 1)
    return StreamConfig(
        batch_size=4, window_seconds=1.0, units_per_block=units, windows_per_utterance=1, lanes=2, **changes
    )


def draw(shape: str, opened=None, **changes) -> SimpleNamespace:
    """Digests of all windows of the first pass, block by block, the rows they are made of, and the stream."""
    stream = Recording(opened or open_corpus(shape, "train"), settings_for(shape, **changes))
    stream.rows = Counter()
    windows, rows = {}, {}
    for block in range(stream.blocks_per_pass):
        stream.rows = Counter()
        batches = [batch for _, batch in stream.block_batches(block)]
        windows[block] = [hashlib.sha256(b["input_values"].tobytes() + b["labels"].tobytes()).digest() for b in batches]
        rows[block] = stream.rows
    return SimpleNamespace(windows=windows, rows=rows, stream=stream)


@pytest.fixture(scope="module")
def clean(repositories) -> dict[str, SimpleNamespace]:
    """What is drawn from the same files on disk."""
    with pytest.MonkeyPatch.context() as patch:
        use_repositories(patch.setattr, f"{repositories}/")
        return {shape: draw(shape) for shape in EVERY_SHAPE}


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_the_hub_gives_what_the_disk_gives(hub, clean, shape):
    drawn = draw(shape)
    assert drawn.windows == clean[shape].windows
    assert sum(map(len, drawn.windows.values())) > 6 and sum(r.total() for r in drawn.rows.values()) > 30
    assert not drawn.stream.skipped["lost unit"]
    assert drawn.stream.identity()["revision"] == hub.repositories["dataset", f"user/{shape}"].head.oid


READING = [(s, f) for s in EVERY_SHAPE for f in TRANSIENT if s == "librispeech" or f not in ONLY_FOR_RANGES]


@pytest.mark.parametrize("shape, fault", READING)
def test_what_passes_leaves_no_trace(hub, clean, shape, fault, caplog, monkeypatch, cell):
    kind, options = TRANSIENT[fault]
    opened = open_corpus(shape, "train")
    if kind == "stall":
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.forget_requests()
    hub.faults.add(FILES[shape], kind, times=4, **options)
    hub.faults.add(LAST[shape], kind, times=1, skip=1, **options)
    drawn = draw(shape, opened)
    assert drawn.windows == clean[shape].windows
    assert not drawn.stream.skipped["lost unit"]
    assert "trying again" in caplog.text or kind in ("reset", "stall", "truncated", "unannounced")
    if fault.startswith("429"):
        assert 7.0 in hub.slept, "as long as the server asked"
        assert "trying again in 7.0 s" in caplog.text
    cell(fault, PLACES[shape], "same windows")


OPENING = [f for f in TRANSIENT if f not in ("stall", "500")]


@pytest.mark.parametrize("fault", OPENING)
@pytest.mark.parametrize("shape", SHAPES)
def test_opening_is_as_patient(hub, clean, shape, fault, cell):
    if fault in ONLY_FOR_RANGES and shape == "voxceleb2":
        pytest.skip("a tar is opened from its start, without a range")
    kind, options = TRANSIENT[fault]
    hub.faults.add(FILES[shape], kind, times=2, **options)
    if fault in ("429 with Retry-After", "503"):
        hub.faults.add("*/resolve/*", kind, times=2, **options)
        hub.faults.add("/api/*", kind, times=1, **options)
    opened = open_corpus(shape, "train")
    hub.faults.clear()
    assert draw(shape, opened).windows == clean[shape].windows
    cell(fault, "opening a corpus", "same windows")


@pytest.mark.parametrize("fault", ["html", "whole", "short", "elsewhere", "unannounced"])
def test_a_tar_that_breaks_off_goes_on_at_the_right_place(hub, clean, fault):
    opened = open_corpus("voxceleb2", "train")
    hub.faults.add("*-0001.tar", "reset", times=1, at=0.6)
    hub.faults.add("*-0001.tar", fault, times=1, skip=0)
    assert draw("voxceleb2", opened).windows == clean["voxceleb2"].windows
    ranges = [r.range for r in hub.requests("*-0001.tar") if r.range]
    assert ranges and ranges[0][0] > 0, "what had come was not asked for again"


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_a_drip_is_said_while_it_happens(hub, clean, shape, caplog, monkeypatch, cell):
    monkeypatch.setattr(hub_files, "REPORT_SECONDS", 0.1)
    opened = open_corpus(shape, "train")
    hub.faults.add(FILES[shape], "drip", times=1)
    assert draw(shape, opened).windows == clean[shape].windows
    assert re.search(r"reading \S+ takes long: 0\.\d\d of 0\.\d\d MB in \d+ s, \d+\.\d kB/s", caplog.text)
    cell("drip", PLACES[shape], "same windows, progress reported")


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_a_drip_without_end_is_given_up(hub, clean, shape, caplog, monkeypatch):
    monkeypatch.setattr(hub_files, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(hub_files, "SLOWEST_RATE", 1e9)
    opened = open_corpus(shape, "train")
    hub.faults.add(FILES[shape], "drip", times=None)
    with pytest.raises(CorpusError, match=r"could not be read for .*TooSlow: .*: only 0.*check the connection"):
        draw(shape, opened, retry_seconds=1.0)


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("where", ["/api/*", "*/resolve/*.parquet", "*/resolve/*.tar", "*/resolve/*.jsonl"])
def test_who_may_not_read_is_told_to_sign_in(hub, where, code, cell):
    shape = {"t": "librispeech", "r": "voxceleb2", "l": "json"}.get(where[-1], "librispeech")
    hub.faults.add(where, "status", times=None, code=code)
    with pytest.raises(CorpusError, match="hf auth login") as error:
        open_corpus(shape, "train")
    assert "\n" not in str(error.value) and "remove" not in str(error.value)
    cell(str(code), "opening a corpus", "ends in one line: sign in")


def unit_offset(repositories: Path, shape: str, where: str) -> tuple[str, int]:
    """A file and a place in it: in what holds the rows together, or in the audio of one of them."""
    if shape == "voxceleb2":
        file = next((repositories / shape).glob("*-0002.tar"))
        with tarfile.open(file) as archive:
            member = [m for m in archive if m.name.endswith(".m4a")][4]
        return f"*/{file.name}", member.offset if where == "structure" else member.offset_data
    file = next((repositories / shape / "all").glob("train.clean.100-00001-*.parquet"))
    column = pq.read_metadata(file).row_group(1).column(1)
    assert column.path_in_schema == "audio.bytes"
    if where == "structure":
        return f"*/{file.name}", (column.dictionary_page_offset or column.data_page_offset) + 1
    flac = pq.ParquetFile(file).read_row_group(1)["audio"][4].as_py()["bytes"]
    return f"*/{file.name}", file.read_bytes().index(flac[len(flac) // 3 :][:16])


def lost(clean: SimpleNamespace, drawn: SimpleNamespace, units: set[int]) -> None:
    """Blocks without the units are as in a clean run; the others lack exactly the rows of the units."""
    for block in clean.windows:
        gone = units & set(clean.stream.units_of(block))
        if gone:
            expected = clean.rows[block].copy()
            for unit in gone:
                rows = clean.stream.utterances.read(unit)
                expected -= Counter((row.speaker, hashlib.sha256(row.audio).hexdigest()) for row in rows)
            assert drawn.rows[block] == expected
        else:
            assert drawn.windows[block] == clean.windows[block]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shard_that_vanishes_costs_exactly_its_rows(hub, clean, shape, caplog, cell):
    opened = open_corpus(shape, "train")
    hub.faults.add(LAST[shape], "vanish")
    drawn = draw(shape, opened)
    units = {unit for unit in range(len(opened)) if opened.units[unit].url.endswith(LAST[shape].lstrip("*"))}
    assert len(units) == {"librispeech": 3, "voxceleb2": 1}[shape]
    lost(clean[shape], drawn, units)
    assert drawn.stream.skipped["lost unit"] == len(units)
    for unit in units:
        assert re.search(rf"lost {re.escape(opened.describe(unit))}: (Remote)?EntryNotFoundError: 404", caplog.text)
    cell("404", PLACES[shape], "its rows are lost, reported and counted")


@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_bytes_cost_exactly_the_rows_they_hold_together(hub, clean, repositories, shape, caplog, cell):
    pattern, offset = unit_offset(repositories, shape, "structure")
    opened = open_corpus(shape, "train")
    hub.faults.add(pattern, "corrupt", times=None, offset=offset, length=16)
    drawn = draw(shape, opened)
    (unit,) = [u for u in range(len(opened)) if f"lost {opened.describe(u)}: " in caplog.text]
    lost(clean[shape], drawn, {unit})
    assert drawn.stream.skipped["lost unit"] == 1 and not any(pause > 5 for pause in hub.slept), "no waiting for it"
    cell("wrong bytes for good", PLACES[shape], "their rows are lost, reported and counted")


@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_bytes_once_leave_no_trace(hub, clean, repositories, shape, cell):
    pattern, offset = unit_offset(repositories, shape, "structure")
    opened = open_corpus(shape, "train")
    hub.faults.add(pattern, "corrupt", times=1, offset=offset, length=16)
    assert draw(shape, opened).windows == clean[shape].windows
    cell("wrong bytes once", PLACES[shape], "same windows")


@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_bytes_in_one_recording_cost_that_recording(hub, clean, repositories, shape, caplog):
    pattern, offset = unit_offset(repositories, shape, "audio")
    opened = open_corpus(shape, "train")
    hub.faults.add(pattern, "corrupt", times=None, offset=offset, length=64)
    drawn = draw(shape, opened)
    assert not drawn.stream.skipped["lost unit"]
    touched = [b for b in clean[shape].windows if drawn.rows[b] != clean[shape].rows[b]]
    assert len(touched) == 1 and (drawn.rows[touched[0]] - clean[shape].rows[touched[0]]).total() == 1
    assert sum(drawn.stream.skipped.values()) == sum(clean[shape].stream.skipped.values()) + 1
    assert "skipped 1 rows" in caplog.text
    for block in clean[shape].windows:
        assert block in touched or drawn.windows[block] == clean[shape].windows[block]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "code, message",
    [(503, "could not be read for .*503.*check the connection and resume"), (403, "may not be read .*hf auth login")],
)
def test_giving_up_is_one_line(hub, workers, code, message, cell):
    opened = open_corpus("librispeech", "train")
    hub.faults.add(FILES["librispeech"], "status", times=None, code=code)
    stream = ConversationStream(opened, settings_for("librispeech", retry_seconds=0.0))
    with pytest.raises(CorpusError, match=message) as error:
        next(iter(PositionedLoader(stream, workers)))
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)
    cell(str(code), PLACES["librispeech"], "if permanent: saves and ends in one line")


def test_a_silent_server_is_given_up(monkeypatch):
    monkeypatch.setattr(hub_http, "SILENCE_SECONDS", 0.2)
    hub_http.limit_silence()
    with socket.create_server(("127.0.0.1", 0)) as server:
        hangs_up = threading.Timer(60, server.shutdown, [socket.SHUT_RDWR])
        hangs_up.start()
        with pytest.raises(hub_http.HTTP_FAULTS, match="timed out"):
            get_session().get(f"http://127.0.0.1:{server.getsockname()[1]}")
        hangs_up.cancel()
    monkeypatch.undo()
    hub_http.limit_silence()


def test_persist_waits_longer_each_time_and_tells(monkeypatch, caplog):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    answers = iter([ConnectionError("one"), TimeoutError("two"), OSError(5, "three"), "answer"])

    def action():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry.persist(action, "a shard", 60) == "answer"
    assert slept == [0.5, 1.0, 2.0]
    assert "reading a shard failed (ConnectionError: one), trying again in 0.5 s" in caplog.text
    for error in (FileNotFoundError("gone"), OSError("Corrupt snappy compressed data"), ValueError("damaged")):
        answers = iter([error])
        with pytest.raises(type(error), match=str(error)):
            retry.persist(action, "a file", 60)
    assert len(slept) == 3, "what is gone or damaged is not waited for"


# Whole runs


def on_the_hub(url: str, cache: Path) -> None:
    """A run's process talks to the Hub in the test, pauses little, and exports nothing.

    A busy machine must not look like a silent server: opening gives up after six silences.
    """
    redirect(url, cache)
    use_repositories()
    constants.HF_HUB_DOWNLOAD_TIMEOUT = 10
    really = time.sleep
    time.sleep = lambda seconds: really(min(seconds, 0.01))
    subprocess.run = lambda *_args, **_kwargs: SimpleNamespace(returncode=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_through_all_of_them(repositories, tmp_path, shape):
    with LoopbackHub() as server:
        server.add_repository(f"user/{shape}", repositories / shape)

        def run(name: str):
            flags = ["--dataset", shape, "--output_dir", tmp_path / name, "--max_steps", 10, "--save_steps", 100]
            flags += ["--dataloader_num_workers", 2]
            prepare = functools.partial(on_the_hub, server.url, tmp_path / "cache")
            ended = start(*map(str, flags), log=tmp_path / f"{name}.log", prepare=prepare).ended()
            assert ended.exitcode == 0, ended.text()
            return tmp_path / name / "checkpoint-10", ended.text()

        clean, _ = run("clean")
        for number, (kind, options) in enumerate(TRANSIENT.values()):
            server.faults.add(FILES[shape], kind, times=1, skip=number, **options)
        faulty, said = run("faulty")
    assert "trying again in" in said or "Retrying in" in said
    for name in ("model.safetensors", "optimizer.safetensors", "stream_state_0.json"):
        assert (clean / name).read_bytes() == (faulty / name).read_bytes()
