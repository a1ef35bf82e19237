"""Known voices: the file of embeddings, who is named and who is not, and names given afterwards."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import scipy.optimize
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from two_tones import TONES, write_model, write_recording

import diarize
from data.rttm import read_rttm
from data.simulated_recordings import Recording
from diarization.backends import open_network
from diarization.renaming import rename_files
from diarization.subtitles import to_vtt
from diarization.talk_time import TalkTime, talk_times
from evaluation.identification import Trial, choose_threshold, equal_error, rates, who_is_who
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.counting_fast_diarization import CountEstimate, Diarization, Speaker
from modeling.enrolment_fast_diarization import KnownVoices, VoicesError, assign, check_name, fingerprint_of
from modeling.pipeline_fast_diarization import FastDiarizationPipeline, torch_network
from modeling.segments_fast_diarization import Segment

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path, monkeypatch, model):
    """Runs diarize.py with the two-tone model in a directory of `call.wav`, `low.wav` and `high.wav`."""
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "call.wav")
    for name, tone in zip(("low", "high"), TONES):
        write_tone(f"{name}.wav", tone, 5.0)
    return lambda *arguments: diarize.main([*map(str, arguments), "--model", str(model)])


def write_tone(file: str, tone: float, seconds: float) -> None:
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * tone * np.arange(int(16_000 * seconds)) / 16_000), 16_000)


def speakers_in(file: str) -> list[str]:
    (annotation,) = read_rttm(file).values()
    return [speaker for _, _, speaker in annotation.itertracks(yield_label=True)]


def test_people_enrolled_one_after_the_other_are_named_and_others_are_not(run, capsys):
    assert run("--enroll", "Anna Müller=low.wav", "--voices", "known.safetensors") == 0
    assert run("call.wav", "--voices", "known.safetensors", "--format", "rttm,json") == 0
    assert speakers_in("results/call.rttm") == ["Anna_Müller", "SPEAKER_01", "Anna_Müller"]
    answer = json.loads(Path("results/call.json").read_text())
    assert [s["speaker"] for s in answer["segments"]] == ["Anna Müller", "SPEAKER_01", "Anna Müller"]
    assert answer["speakers"][0] == {"speaker": "Anna Müller", "seconds": 8.0, "share": 0.6667, "turns": 2}
    assert run("--enroll", "Ben=high.wav", "--voices", "known.safetensors") == 0
    assert "2 known: Anna Müller (5 s), Ben (5 s)" in capsys.readouterr().out
    assert run("call.wav", "--voices", "known.safetensors") == 0
    assert speakers_in("results/call.rttm") == ["Anna_Müller", "Ben", "Anna_Müller"]


def test_what_cannot_be_enrolled_is_one_line_each_and_the_others_are(run, capsys):
    write_tone("short.wav", TONES[0], 1.0)
    soundfile.write("silent.wav", np.zeros(48_000), 16_000)
    Path("text.wav").write_text("no sound\n" * 99)
    people = ["Both=call.wav", "Short=short.wav", "Silent=silent.wav", "Text=text.wav", "Ben=high.wav", "low.wav"]
    assert run("--enroll", *people, "--voices", "known.safetensors") == 1
    said = capsys.readouterr()
    errors = said.err.splitlines()
    expected = ("call.wav: 2 speakers found (8 s, 4 s)", "short.wav: 1.0 s of speech is too little", "silent.wav: no")
    for line, start in zip(errors, (*expected, "text.wav", "low.wav: Ben sounds different from before"), strict=True):
        assert line.startswith(f"error: {start}")
    assert "1 known: Ben (5 s)" in said.out
    before = Path("known.safetensors").read_bytes()
    assert run("--enroll", "Silent=silent.wav", "--voices", "known.safetensors") == 1
    assert Path("known.safetensors").read_bytes() == before
    assert run("--enroll", "Dora=high.wav", "--voices", "known.safetensors") == 0
    assert "warning: Ben and Dora sound alike (similarity 1.00)" in capsys.readouterr().err


def others_embeddings(model: Path, file: str) -> None:
    known = KnownVoices(np.array([1.0, 0.0], np.float32), {"Anna": Speaker(np.array([1.0, 0.0], np.float32), 5.0)})
    known.save(file)


def damaged(model: Path, file: str) -> None:
    others_embeddings(model, file)
    Path(file).write_bytes(Path(file).read_bytes()[:-3])


def without_a_number(model: Path, file: str) -> None:
    fingerprint = fingerprint_of(open_network(str(model))[0])
    KnownVoices(fingerprint, {"Anna": Speaker(np.array([np.nan, 1.0], np.float32), 5.0)}).save(file)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda model, file: None, "No such file or directory; --enroll makes"),
        (lambda model, file: Path(file).write_text("Anna"), "not a file of known voices"),
        (lambda model, file: Path(file).mkdir(), "Is a directory"),
        (lambda model, file: safetensors.numpy.save_file({"Anna": np.ones(2)}, file), "not a file of known voices"),
        (damaged, "not a file of known voices"),
        (lambda model, file: safetensors.torch.save_file({"A": torch.ones(2).bfloat16()}, file), "not a file of known"),
        (without_a_number, "not a file of known voices"),
        (others_embeddings, "its embeddings are another network's; enrol everybody anew"),
    ],
)
def test_a_file_of_no_use_is_one_line_and_nothing_is_written(run, model, write, message, capsys):
    write(model, "known.safetensors")
    assert run("call.wav", "--voices", "known.safetensors") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: known.safetensors: ") and message in line
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--enroll", "Anna=low.wav"], "--enroll needs the file to add to: --voices voices.safetensors"),
        (["call.wav", "--enroll", "A=low.wav", "--voices", "k"], "a second run"),
        (["--rename", "A=B", "call.rttm", "--voices", "k"], "--voices is for recordings"),
        (["--dataset", "user/name", "--voices", "k"], "--voices and --rename are for files"),
    ],
)
def test_flags_that_do_not_belong_together_are_wrong_usage(run, arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("value", ["Anna", "=low.wav", "Anna=", "SPEAKER_01=low.wav", "\x1b[31m=low.wav"])
def test_a_name_that_cannot_be_used_is_one_line(run, value, capsys):
    assert run("--enroll", value, "--voices", "known.safetensors") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not Path("known.safetensors").exists()


@pytest.mark.process
def test_without_safetensors_the_way_to_it_is_told(tmp_path, model):
    write_recording(tmp_path / "call.wav")
    script = "import runpy, sys; sys.modules['safetensors'] = None; sys.argv[0] = 'diarize.py'\n"
    script += f"runpy.run_path({str(ROOT / 'diarize.py')!r}, run_name='__main__')"
    for flags, code in ((["--voices", "known.safetensors"], 2), ([], 0)):
        command = [sys.executable, "-c", script, "call.wav", "--model", model, *flags]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
        assert done.returncode == code and len(done.stderr.splitlines()) == (1 if code else 0)
    assert (
        "pip install safetensors"
        in subprocess.run(
            [sys.executable, "-c", script, "call.wav", "--model", model, "--voices", "known.safetensors"],
            **{"capture_output": True, "text": True, "cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT)}},
        ).stderr
    )


def test_the_pipeline_names_whom_the_file_knows(tmp_path):
    torch.manual_seed(0)
    network = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=32, onset=0.2, offset=0.1))
    pipe = FastDiarizationPipeline(model=network)
    waveform = np.random.default_rng(0).standard_normal(64_000).astype(np.float32)
    outputs = pipe._forward({"recording": waveform})
    speakers = outputs["linker"].diarization().speakers
    assert speakers
    known = KnownVoices(fingerprint_of(torch_network(network)), {"Anna": speakers["SPEAKER_00"]})
    known.save(tmp_path / "known.safetensors")
    named = pipe(waveform, voices=tmp_path / "known.safetensors")
    assert [s | {"speaker": {"Anna": "SPEAKER_00"}.get(s["speaker"], s["speaker"])} for s in named] == pipe(waveform)
    assert "Anna" in {s["speaker"] for s in named}
    other = FastDiarizationPipeline(model=FastDiarizationForAudioFrameClassification(network.config))
    with pytest.raises(VoicesError, match="another network's"):
        other(waveform, voices=tmp_path / "known.safetensors")


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), columns=st.integers(1, 9), ties=st.booleans())
@settings(deadline=None)
def test_the_assignment_is_one_to_one_and_the_best(seed, rows, columns, ties):
    similarity = np.random.default_rng(seed).standard_normal((rows, columns))
    similarity = np.maximum(similarity, 0).round() if ties else similarity
    found = [(row, column) for row, column in enumerate(assign(similarity)) if column >= 0]
    assert len({column for _, column in found}) == len(found) == min(rows, columns)
    best = similarity[scipy.optimize.linear_sum_assignment(similarity, maximize=True)].sum()
    assert sum(similarity[at] for at in found) == pytest.approx(best)


@given(seed=st.integers(0, 2**32 - 1), speakers=st.integers(0, 6), people=st.integers(0, 6), threshold=st.floats(-1, 1))
@settings(deadline=None)
def test_nobody_is_two_speakers_or_named_below_the_threshold(seed, speakers, people, threshold):
    rng = np.random.default_rng(seed)

    def some(count: int, prefix: str) -> dict[str, Speaker]:
        vectors = rng.standard_normal((count, 3))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return {f"{prefix}{i}": Speaker(vector.astype(np.float32), 5.0) for i, vector in enumerate(unit)}

    found, known = some(speakers, "SPEAKER_0"), KnownVoices(np.zeros(3), some(people, "person"))
    named = known.names(found, threshold)
    assert len(set(named.values())) == len(named)
    similarity = {(s, p): found[s].centroid @ known.people[p].centroid for s in found for p in known.people}
    assert all(similarity[pair] >= threshold for pair in named.items())
    left = [s for s in found if s not in named], [p for p in known.people if p not in named.values()]
    assert all(similarity[s, p] <= threshold for s in left[0] for p in left[1])


@pytest.mark.parametrize("name", ["", " Anna", "a" * 101, "An\nna", "SPEAKER_07", "__metadata__"])
def test_names_that_would_confuse_are_refused(name):
    with pytest.raises(VoicesError):
        check_name(name)


def test_false_rejects_and_accepts_are_counted_as_defined():
    unit = np.eye(3, dtype=np.float32)
    people = {name: Speaker(vector, 10.0) for name, vector in zip("abc", unit)}

    def trial(found: dict[str, np.ndarray], truth: dict[str, str], known: str, expected: str) -> Trial:
        some = KnownVoices(np.zeros(0), {name: people[name] for name in known})
        speakers = {name: Speaker(vector, 10.0) for name, vector in found.items()}
        return Trial(speakers, truth, some, frozenset(expected))

    right = trial({"S0": unit[0], "S1": unit[1]}, {"S0": "a", "S1": "b"}, "ac", "a")
    stranger = trial({"S0": (unit[2] + unit[1]) / 2**0.5}, {"S0": "b"}, "c", "")
    missed = trial({"S0": unit[0]}, {"S0": "a"}, "ab", "ab")
    found = rates([right, stranger, missed], 0.6)
    assert found == {
        **{"false_reject": 1 / 3, "false_accept": 1 / 2, "misnamed": 0.0},
        **{"expected": 3, "strangers": 2, "known": 2},
    }
    assert choose_threshold([right, stranger, missed]) == 0.71
    assert equal_error([right, stranger]) == 0.0


# Names given afterwards


def test_who_is_heard_in_noise_alone_is_nobody():
    segments = [Segment(0.0, 4.0, "SPEAKER_00", 0.9), Segment(6.0, 7.0, "SPEAKER_01", 0.9)]
    found = Diarization(segments, {}, CountEstimate(2, 1, 2))
    recording = Recording("call", np.zeros(16_000, np.float32), [(0.0, 1.0, "a"), (1.0, 4.0, "b")])
    assert who_is_who(found, recording) == {"SPEAKER_00": "b"}


def test_speakers_are_renamed_in_every_format(run, tmp_path):
    assert run("call.wav", "--format", "rttm,json,csv,srt,audacity") == 0
    files = sorted(map(str, (tmp_path / "results").glob("call.*")))
    before = {file: Path(file).read_text() for file in files}
    assert run("--rename", "SPEAKER_00=Anna", 'SPEAKER_01=Ben "B", jr', *files) == 0
    assert speakers_in("results/call.rttm") == ["Anna", 'Ben_"B",_jr', "Anna"]
    with open("results/call.csv", newline="") as file:
        assert [row[2] for row in csv.reader(file)] == ["speaker", "Anna", 'Ben "B", jr', "Anna"]
    answer = json.loads(Path("results/call.json").read_text())
    assert {one["speaker"] for one in answer["speakers"]} == {"Anna", 'Ben "B", jr'}
    assert Path("results/call.srt").read_text().split("\n")[6] == 'Ben "B", jr'
    assert Path("results/call.txt").read_text().splitlines()[1] == '5.000\t9.000\tBen "B", jr'
    assert run(*files, "--rename", "Anna=SPEAKER_00", "--rename", 'Ben "B", jr=SPEAKER_01') == 0
    assert {file: Path(file).read_text() for file in files} == before
    assert run(*files, "--rename", "SPEAKER_00=SPEAKER_01", "SPEAKER_01=SPEAKER_00") == 0
    assert speakers_in("results/call.rttm") == ["SPEAKER_01", "SPEAKER_00", "SPEAKER_01"]


def test_cues_with_words_keep_their_words(tmp_path):
    vtt = tmp_path / "call.vtt"
    vtt.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\n<v A>A\n\n00:01.000 --> 00:02.000\n<v A>A: I am A\n")
    srt = tmp_path / "call.srt"
    srt.write_text("1\n00:00:00,000 --> 00:00:01,000\nA: A: B\n\n2\n00:00:01,000 --> 00:00:02,000\nB: A\n")
    txt = tmp_path / "call.txt"
    txt.write_text("[0:00] A: A\n\n[0:01] B: [0:00] A\n")
    assert rename_files(["A=Al & co", str(vtt), str(srt), str(txt)]) == 0
    assert vtt.read_text().count("<v Al &amp; co>") == 2 and vtt.read_text().endswith("co>A: I am A\n")
    assert "<v Al &amp; co>Al &amp; co\n" in vtt.read_text()
    assert "Al & co: A: B\n" in srt.read_text() and srt.read_text().endswith("B: A\n")
    assert txt.read_text() == "[0:00] Al & co: A\n\n[0:01] B: [0:00] A\n"


def test_names_with_quotes_are_renamed_as_they_are_written(tmp_path):
    (file := tmp_path / "call.vtt").write_text(to_vtt("call", [Segment(0.0, 1.0, "O'Brien", 0.9)]))
    assert rename_files(["O'Brien=O\"Hara", str(file)]) == 0
    assert file.read_text() == to_vtt("call", [Segment(0.0, 1.0, 'O"Hara', 0.9)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["SPEAKER_00=Anna"], "--rename needs the files to change"),
        (["call.rttm"], "--rename needs a name of its own for each speaker"),
        (["a=", "call.rttm"], "--rename takes OLD=NEW, such as SPEAKER_00=Anna, got 'a='"),
        (["a=c", "a=d", "call.rttm"], "a cannot be both c and d"),
        (["a=c", "b=c", "call.rttm"], "a name of its own"),
        (["a=b", "call.rttm"], "call.rttm has a speaker b already; choose another name"),
        (["z=b", "call.rttm"], "call.rttm has no speaker z, only: a, b"),
        (["a=c", "call.rttm", "other.json"], "other.json has no speakers"),
        (["a=c", "call.rttm", "call.wav"], "call.wav: speakers are renamed in .rttm, .csv"),
        (["a=c", "call.rttm", "none.rttm"], "none.rttm"),
    ],
)
def test_what_cannot_be_renamed_changes_no_file(run, values, message, capsys):
    Path("call.rttm").write_text("SPEAKER x 1 0 1 <NA> <NA> a <NA> <NA>\nSPEAKER x 1 1 1 <NA> <NA> b <NA> <NA>\n")
    Path("other.json").write_text("{}")
    before = Path("call.rttm").read_text()
    assert run("--rename", *values) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert Path("call.rttm").read_text() == before


def test_talk_time_is_that_of_the_segments():
    segments = [Segment(0, 2, "a", 1), Segment(2, 3, "a", 1), Segment(2.5, 4.5, "b", 1), Segment(5, 6, "a", 1)]
    assert talk_times(segments) == [TalkTime("a", 4, 0.6667, 2), TalkTime("b", 2, 0.3333, 1)]
    assert talk_times([]) == []
