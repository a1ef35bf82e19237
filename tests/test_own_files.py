"""Rows and cards of a data set name its own files, and nothing else of the machine or the network is opened."""

import http.server
import json
import threading
from pathlib import Path

import pytest
from corpora_fixtures import encode_flac, speech_utterances
from hypothesis import given
from hypothesis import strategies as st
from loopback_clients import redirect
from loopback_hub import LoopbackHub

from data.corpora import CorpusError, open_corpus
from data.own_files import UnreadableFile, open_own_file, own_file
from data.streaming import ConversationStream, StreamConfig
from evaluation.sources import SourceError, from_hub

HUB = "hf://datasets/user/name@" + 40 * "a"
SETTINGS = StreamConfig(batch_size=2, window_seconds=1.0, units_per_block=1, windows_per_utterance=1, lanes=1)


@pytest.fixture(scope="module")
def spoken():
    return speech_utterances(speakers=4, utterances=2, seconds=1.5)


@pytest.fixture
def somebody():
    """An address on this machine, and the requests it has had."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()


def write(directory: Path, spoken, foreign: list, form: str = "jsonl") -> None:
    """A data set whose first rows name what is in `foreign`, and the others files beside them."""
    (directory / "clips" / "0").mkdir(parents=True)
    rows = [{"audio": path, "speaker_id": "nobody"} for path in foreign]
    for utterance in spoken:
        name = f"clips/0/{utterance.id}.flac"
        (directory / name).write_bytes(encode_flac(utterance.waveform))
        rows.append({"audio": name, "speaker_id": utterance.speaker})
    for split in ("train", "validation"):
        if form == "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in rows)
        else:
            text = "audio,speaker_id\n" + "".join(f"{row['audio']},{row['speaker_id']}\n" for row in rows)
        (directory / f"{split}.{form}").write_text(text)


def foreign_paths(address: str, outside: Path) -> list[str]:
    return [
        "/etc/hostname",
        str(outside),
        f"../{outside.name}",
        f"clips/0/../../../{outside.name}",
        f"file://{outside}",
        f"{address}/speech.flac",
        f"simplecache::{address}/speech.flac",
        f"simplecache::file://{outside}",
        f"zip://speech.flac::{address}/speech.zip",
        f"clips/0/link::{address}/speech.flac",
        "hf://datasets/somebody/else@main/speech.flac",
    ]


@pytest.mark.hub
@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("place", ["directory", "hub"])
def test_rows_that_name_what_is_not_theirs_are_skipped_counted_and_said(
    tmp_path, spoken, somebody, caplog, monkeypatch, form, place
):
    address, seen = somebody
    outside = tmp_path / "outside.flac"
    outside.write_bytes(encode_flac(spoken[0].waveform))
    foreign = foreign_paths(address, outside)
    write(tmp_path / "set", spoken, foreign, form)
    with LoopbackHub() as hub:
        name = str(tmp_path / "set")
        if place == "hub":
            redirect(hub.url, tmp_path / "cache", monkeypatch.setattr)
            hub.add_repository("user/set", tmp_path / "set")
            name = "user/set"
        opened = open_corpus(name, "train")
        rows = [row for unit in range(len(opened)) for row in opened.read(unit)]
        assert len(rows) == len(foreign) + len(spoken)
        assert [row.fault for row in rows] == ["a path out of the data set"] * len(foreign) + [""] * len(spoken)
        assert [bool(row.audio) for row in rows] == [False] * len(foreign) + [True] * len(spoken)
        stream = ConversationStream(opened, SETTINGS)
        assert list(stream.block_batches(0))
    assert stream.skipped["a path out of the data set"] == len(foreign) and not seen
    assert "skipped 1 rows (a path out of the data set), the last one" in caplog.text


def test_rows_in_dicts_links_and_missing_files(tmp_path, spoken):
    outside = tmp_path / "outside.flac"
    outside.write_bytes(encode_flac(spoken[0].waveform))
    foreign = [{"path": "/etc/hostname", "bytes": None}, {"path": "clips/0/link.flac", "bytes": None}]
    foreign += [{"path": "clips/0/gone.flac", "bytes": None}, {"path": "clips/0/pipe.flac", "bytes": None}]
    write(tmp_path / "set", [], foreign)
    (tmp_path / "set" / "clips" / "0" / "link.flac").symlink_to(outside)
    (tmp_path / "set" / "clips" / "0" / "pipe.flac").symlink_to("/dev/zero")
    opened = open_corpus(str(tmp_path / "set"), "train")
    faults = [row.fault for row in opened.read(0)]
    out = "a path out of the data set"
    assert faults == [out, out, "a file that is not there", out]


def test_files_in_the_cache_of_the_hub_are_links_to_its_own(tmp_path):
    snapshot = tmp_path / "datasets--user--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "blobs").mkdir()
    (snapshot.parents[1] / "blobs" / "123").write_bytes(b"sound")
    (snapshot / "one.flac").symlink_to("../../blobs/123")
    with open_own_file(str(snapshot), "one.flac") as file:
        assert file.read() == b"sound"


@pytest.mark.hub
@pytest.mark.parametrize("place", ["directory", "hub"])
@pytest.mark.parametrize("kind", ["http", "absolute", "above", "chain", "data_dir"])
def test_a_card_that_names_what_is_not_its_own_is_refused(tmp_path, spoken, somebody, monkeypatch, place, kind):
    address, seen = somebody
    value = {
        "http": f"{address}/train.jsonl",
        "absolute": "/etc/hostname",
        "above": "../other/train.jsonl",
        "chain": f"simplecache::{address}/train.jsonl",
        "data_dir": "../other",
    }[kind]
    write(tmp_path / "set", spoken, [])
    write(tmp_path / "other", spoken, [])
    key = "data_dir" if kind == "data_dir" else "data_files"
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  {key}: {value!r}\n---\n")
    with LoopbackHub() as hub:
        name = str(tmp_path / "set")
        if place == "hub":
            redirect(hub.url, tmp_path / "cache", monkeypatch.setattr)
            hub.add_repository("user/set", tmp_path / "set")
            name = "user/set"
        with pytest.raises(CorpusError, match="is refused: its README.md names .*a path out of the data set") as error:
            open_corpus(name, "train")
    assert "\n" not in str(error.value) and not seen


def test_a_card_that_repeats_itself_without_end_is_read(tmp_path, spoken):
    write(tmp_path, spoken, [])
    bomb = "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12))
    text = f"---\na: &a [x]\n{bomb}configs:\n- config_name: default\n  data_files: train.jsonl\n  more: *m\n---\n"
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(CorpusError, match="no split"):
        open_corpus(str(tmp_path), "dev")


@given(st.text(st.sampled_from("ab./:\\ ~"), max_size=12))
@pytest.mark.parametrize("root", [HUB, "/sets/speech"])
def test_an_address_is_below_the_root_or_refused(root, path):
    try:
        address = own_file(root, path)
    except UnreadableFile:
        return
    assert address.startswith(f"{root}/")
    assert "://" not in address.removeprefix("hf://") and "::" not in address
    assert ".." not in address.split("/")


def test_addresses_as_datasets_writes_them():
    assert own_file(HUB, f"{HUB}/a/b.flac") == f"{HUB}/a/b.flac"
    assert own_file(HUB, f"zip://b.flac::{HUB}/a.zip") == f"zip://b.flac::{HUB}/a.zip"
    assert own_file("/sets/speech", "/sets/speech/a/b.flac") == "/sets/speech/a/b.flac"
    with pytest.raises(UnreadableFile, match="a path out of the data set"):
        own_file("/sets/speech", "/sets/speech2/a.flac")


def test_a_reference_set_that_names_what_is_not_its_own_is_one_line(tmp_path):
    columns = "".join(f"  - {{name: timestamps_{end}, sequence: float64}}\n" for end in ("start", "end"))
    card = f"---\ndataset_info:\n  features:\n  - {{name: audio, dtype: audio}}\n{columns}"
    (tmp_path / "README.md").write_text(card + "  - {name: speakers, sequence: string}\n---\n")
    row = {"audio": {"path": "/etc/hostname", "bytes": None}, "timestamps_start": [0.0], "timestamps_end": [1.0]}
    (tmp_path / "test.jsonl").write_text(json.dumps({**row, "speakers": ["A"]}) + "\n")
    with pytest.raises(SourceError, match="names '/etc/hostname' in row 0, a path out of the data set"):
        list(from_hub(str(tmp_path), None, "test"))
