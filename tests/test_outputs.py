"""What `diarize.py` may write and under which names: nothing of the user's is replaced, no two recordings collide."""

import argparse
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from two_tones import write_model, write_recording

import diarize
from common.flags import split_flags
from common.output import RECORD, ignores_case
from data.names import recording_name
from diarization.backends import of_run
from diarization.names import find_recordings, listed, recording_stem
from diarization.outputs import Outputs
from evaluation.__main__ import open_output
from modeling.segments_fast_diarization import Segment

ROOT = Path(__file__).resolve().parent.parent
SEGMENTS = [Segment(0.0, 1.0, "SPEAKER_00", 0.9)]
TURN = "SPEAKER call 1 0 1 <NA> <NA> a <NA> <NA>\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def call(tmp_path, monkeypatch, model):
    """Runs diarize.py with the two-tone model in a directory that holds `call.wav`."""
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "call.wav")
    return lambda *arguments: diarize.main([*map(str, arguments), "--model", str(model)])


def copy(name: str) -> Path:
    Path(name).write_bytes(Path("call.wav").read_bytes())
    return Path(name)


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def refused(call, capsys, *arguments) -> str:
    """The one line of an error of usage, after which every file is as before."""
    before = everything()
    assert call(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and everything() == before
    return line


# Files


@pytest.mark.parametrize(
    ("made", "arguments"),
    [
        ("talk.rttm", ["call.wav", "talk.wav"]),
        ("talk.json", ["talk.wav", "--format", "rttm,json"]),
        ("talk.txt", ["talk.wav", "--format", "audacity"]),
        ("talk.csv", ["talk.wav", "--format", "csv"]),
        ("talk.srt", ["talk.wav", "--format", "srt"]),
        ("talk.png", ["talk.wav", "--plot"]),
    ],
)
def test_a_file_made_by_somebody_else_is_kept_unless_asked(call, made, arguments, capsys):
    copy("talk.wav")
    Path(made).write_text("made by hand")
    line = refused(call, capsys, *arguments, "--output", ".")
    assert made in line and "--overwrite" in line
    assert call(*arguments, "--output", ".", "--overwrite") == 0
    assert Path(made).read_bytes() != b"made by hand"


def test_the_same_command_may_be_given_again_and_again(call):
    wanted = ["call.wav", "--format", "rttm,json,csv,srt,audacity", "--plot", "--output", "."]
    assert call(*wanted) == 0
    first = everything()
    assert call(*wanted) == call(*wanted) == 0
    assert {name: content for name, content in everything().items() if name != RECORD} == {
        name: content for name, content in first.items() if name != RECORD
    }
    assert call(*wanted, "--num_speakers", "1") == call(*wanted) == 0, "with other content too"


def test_what_was_corrected_by_hand_since_is_kept(call, capsys):
    assert call("call.wav") == 0
    Path("results/call.rttm").write_text(Path("results/call.rttm").read_text().replace("SPEAKER_00", "Anna"))
    assert "results/call.rttm already exists and was not written by diarize.py, or was edited since; name" in refused(
        call, capsys, "call.wav"
    )


def test_the_number_of_files_in_the_way_is_told(call, capsys):
    Path("results").mkdir()
    for name in ("call.rttm", "call.json"):
        Path("results", name).touch()
    assert "results/call.rttm and 1 more already exist and were not written" in refused(
        call, capsys, "call.wav", "--format", "rttm,json"
    )


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_input_is_never_replaced_whatever_path_leads_to_it(call, link, overwrite, capsys):
    Path("results").mkdir()
    link(Path("call.wav").resolve(), "results/other.rttm")
    copy("other.wav")
    line = refused(call, capsys, "other.wav", "call.wav", *overwrite)
    assert line == "error: a result would replace the recording call.wav; name another --output"


def test_a_recording_named_like_its_result_is_never_replaced(call, capsys):
    for name in ("rec.png", "talk.txt", "x.json", "y.rttm"):
        content = copy(name).read_bytes()
        assert call(name, "--output", ".", "--plot", "--format", "rttm,json,audacity", "--overwrite") == 0
        assert Path(name).read_bytes() == content and Path(f"{name}.rttm").is_file()
    copy("rec.wav")
    line = refused(call, capsys, "rec.wav", "rec.png", "--output", ".", "--plot", "--overwrite")
    assert "would replace the recording rec.png" in line


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_references_maps_and_the_model_are_inputs_too(call, model, overwrite, capsys):
    Path("call.rttm").write_text(TURN)
    Path("call.txt").write_text("call 1 0 10\n")
    told = ["call.wav", "--reference", "call.rttm", "--output", ".", *overwrite]
    assert "would replace the reference call.rttm" in refused(call, capsys, *told)
    told = [*told, "--format", "audacity", "--uem", "call.txt"]
    assert "would replace the UEM file call.txt" in refused(call, capsys, *told)
    copy("config.wav")
    line = refused(call, capsys, "config.wav", "--format", "json", "--output", model, *overwrite)
    assert f"would replace the model {model}/config.json" in line


def test_links_and_directories_in_the_way_are_left(call, capsys):
    Path("results").mkdir()
    Path("truth.txt").write_text("true")
    Path("results/call.rttm").symlink_to("../truth.txt")
    assert "already exists" in refused(call, capsys, "call.wav")
    assert call("call.wav", "--overwrite") == 0
    assert Path("truth.txt").read_text() == "true" and not Path("results/call.rttm").is_symlink()
    Path("results/call.json").mkdir()
    assert "results/call.json: a directory" in refused(call, capsys, "call.wav", "--format", "json", "--overwrite")


def test_a_file_that_comes_during_the_work_is_kept(tmp_path):
    outputs = Outputs(tmp_path, ["rttm"])
    outputs.check(["call"])
    (tmp_path / "call.rttm").write_text(TURN)
    with pytest.raises(ValueError, match="already exists"):
        outputs.write("call", SEGMENTS)
    assert (tmp_path / "call.rttm").read_text() == TURN
    assert [path.name for path in tmp_path.iterdir()] == ["call.rttm"]


def test_names_that_differ_by_case_are_two_files_where_case_counts(tmp_path, monkeypatch):
    outputs = Outputs(tmp_path, ["rttm"])
    (tmp_path / "a").touch()
    assert ignores_case(tmp_path) == (tmp_path / "A").exists()
    if not ignores_case(tmp_path):
        outputs.check(["call", "Call"])
    monkeypatch.setattr("diarization.outputs.ignores_case", lambda directory: True)
    with pytest.raises(ValueError, match="does not tell 'Call' and 'call' apart; rename one"):
        outputs.check(["call", "other", "Call"])
    outputs.check(["call", "other"])


def test_scores_replace_scores_alone(tmp_path):
    told = argparse.Namespace(source="calls", uem=None, output=str(tmp_path / "scores"))
    output = open_output(told)
    output.write_file(tmp_path / "scores" / "scores.md", b"first")
    open_output(told).write_file(tmp_path / "scores" / "scores.md", b"second")
    (tmp_path / "scores" / "scores.json").write_text("of somebody else")
    with pytest.raises(
        ValueError, match="scores.json already exists and was not written by python -m evaluation, or was edited"
    ):
        open_output(told)
    told.uem = str(tmp_path / "scores" / "scores.md")
    with pytest.raises(ValueError, match="would replace the UEM file .*scores.md; name another --output"):
        open_output(told)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    outputs = Outputs(tmp_path, ["rttm"])
    outputs.write("call", SEGMENTS)
    before = (tmp_path / "call.rttm").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        outputs.write("call", [*SEGMENTS, Segment(2.0, 3.0, "SPEAKER_01", 0.9)])
    assert (tmp_path / "call.rttm").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "call.rttm"]


# Names


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("calls/1505728826.11848331", "1505728826.11848331"),
        ("1505728826.11848331.wav", "1505728826.11848331"),
        ("meeting.2024.05", "meeting.2024.05"),
        ("talk.MP4", "talk"),
        ("talk.tar.mka", "talk.tar"),
        ("notes.txt", "notes.txt"),
        (".wav", ".wav"),
        ("/dev/stdin", "stdin"),
        ("-", "stdin"),
    ],
)
def test_only_the_suffix_of_media_is_cut(file, stem):
    assert recording_stem(file) == stem


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20))
def test_a_name_in_rttm_is_one_field_of_normalised_text(stem):
    name = recording_name(stem)
    assert name.encode() and name.split() == [name]
    assert name == unicodedata.normalize("NFC", name) == recording_name(unicodedata.normalize("NFD", stem))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a b.wav", "a_b.wav"], "a b.wav and a_b.wav would both be recording 'a_b' in RTTM; rename one, or"),
        (["a/call.wav", "b/call.mp3"], "a/call.wav and b/call.mp3 would both be written as 'call'; rename one, or"),
        (["caf\u00e9.wav", "cafe\u0301.wav"], "would both be recording 'caf\u00e9' in RTTM"),
    ],
)
def test_names_that_collide_are_told_before_the_work(files, message):
    with pytest.raises(ValueError) as caught:
        find_recordings(files)
    assert message in str(caught.value) and "another --output" in str(caught.value)


def test_a_file_given_twice_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("call.wav").touch()
    Path("link.wav").symlink_to("call.wav")
    for files, message in (
        (["call.wav", "call.wav"], "call.wav is given twice; leave one out"),
        (["call.wav", "./call.wav"], "call.wav and ./call.wav are the same file; leave one out"),
        (["-", "-"], "- is given twice; leave one out"),
    ):
        with pytest.raises(ValueError) as caught:
            find_recordings(files)
        assert str(caught.value) == message
    assert list(find_recordings(["call.wav", "link.wav"])) == ["call", "link"]


def test_two_formats_of_one_suffix_are_named(tmp_path):
    with pytest.raises(ValueError, match="^--format: txt and audacity both write .txt; choose one$"):
        Outputs(tmp_path, ["rttm", "txt", "audacity"]).check(["call"])


def test_names_that_are_no_unicode_stay_apart():
    odd = [os.fsdecode(name) for name in (b"caf\xe9.wav", b"caf\xe8.wav")]
    assert list(find_recordings(odd).values()) == odd


def test_a_name_too_long_for_the_file_system_is_refused_before_the_work(call, capsys):
    copy("n" * 251)
    assert "File name too long; rename the recording" in refused(call, capsys, "call.wav", "n" * 251)
    copy("n" * 250)
    assert call("n" * 250) == 0


def test_a_directory_stands_for_the_media_files_below_it(call, capsys):
    for place in ("calls/2026/05", "calls/.trash", "elsewhere", "none"):
        Path(place).mkdir(parents=True)
    for name in ("b.WAV", "a.flac", ".hidden.wav", ".trash/d.wav", "2026/05/c.wav", "../elsewhere/e.wav"):
        copy(f"calls/{name}")
    Path("calls/a.rttm").write_text(TURN)
    Path("calls/linked").symlink_to(Path("elsewhere").absolute())
    Path("calls/2026/loop").symlink_to(Path("calls").absolute())
    below = {"c": "calls/2026/05/c.wav", "a": "calls/a.flac", "b": "calls/b.WAV"}
    assert find_recordings(["calls", "call.wav"]) == {**below, "call": "call.wav"}
    assert call("none", "calls") == 1
    said = capsys.readouterr()
    assert said.err == "error: none: a directory without recordings; give files, or a directory that holds some\n"
    assert [line.split()[0] for line in said.out.splitlines() if " -> " in line] == list(below.values())
    copy("calls/2026/a.mp3")
    assert "calls/2026/a.mp3 and calls/a.flac would both be written as 'a'" in refused(call, capsys, "calls")


# Calling forms


def test_hyphens_are_as_good_as_underscores():
    assert split_flags(["a-b.wav", "--num-speakers", "2", "--min-speakers=1-2", "--", "--x-y", "-z"]) == (
        ["a-b.wav", "--num_speakers", "2", "--min_speakers=1-2"],
        ["--x-y", "-z"],
    )
    assert diarize.parse(["a.wav", "--num-speakers", "2", "b.wav", "--", "-c.wav"]).files == [
        "a.wav",
        "b.wav",
        "-c.wav",
    ]


def test_a_name_that_begins_with_a_hyphen_is_given_after_two(call, model):
    copy("-dash.wav")
    assert diarize.main(["call.wav", "--model", str(model), "--num-speakers", "2", "--", "-dash.wav"]) == 0
    assert Path("results/-dash.rttm").read_text().startswith("SPEAKER -dash 1 0.000 4.000")


@pytest.mark.process
@pytest.mark.parametrize("streams", ["| head -1", "2>&1 | head -1"])
def test_a_reader_that_leaves_does_not_end_the_work(call, model, streams):
    copy("empty.wav").write_bytes(b"")
    for name in "abcdef":
        copy(f"{name}.wav")
    files = "a.wav empty.wav b.wav c.wav d.wav e.wav f.wav"
    command = f"({sys.executable} {ROOT / 'diarize.py'} {files} --model {model}; echo $? > code) {streams}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert Path("code").read_text() == "1\n", "of the one recording that cannot be read"
    assert sorted(path.stem for path in Path("results").glob("*.rttm")) == list("abcdef")


def test_another_number_of_speakers_than_asked_for_is_said(call, capsys):
    assert call("call.wav", "--num_speakers", "20", "--format", "json") == 0
    assert capsys.readouterr().err == "warning: call.wav: 2 speakers found, --num_speakers 20 asked for\n"
    found = json.loads(Path("results/call.json").read_text())
    assert (found["num_speakers"], found["num_speakers_requested"]) == (2, 20)
    for told in ([], ["--num_speakers", "2"], ["--max_speakers", "5"], ["--min_speakers", "2"]):
        assert call("call.wav", *told) == 0
        assert capsys.readouterr().err == ""


def test_a_model_is_found_below_the_directory_of_its_run(call, model, capsys):
    Path("runs/demo").mkdir(parents=True)
    Path("runs/demo/model").symlink_to(model)
    assert diarize.main(["call.wav", "--model", "runs/demo"]) == 0
    assert of_run("runs/demo") == "runs/demo/model" and of_run("user/name") == "user/name"
    assert of_run("runs/demo/model") == "runs/demo/model"


def test_the_list_of_names_in_a_message_is_short():
    assert listed([]) == "none" and listed("ab") == "a, b"
    assert listed(map(str, range(200_000))) == "0, 1, 2, 3, 4 and 199995 more"
