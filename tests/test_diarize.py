"""`diarize.py` as people use it: known answers in every format, bad input, exit codes, no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from two_tones import TURNS, write_model, write_recording

import diarize
from data.rttm import read_rttm
from diarization.formats import FORMATS
from diarization.timeline import plot_timeline, text_timeline
from modeling.segments_fast_diarization import Segment

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["transformers"] = None
sys.argv[0] = "diarize.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def call(tmp_path, monkeypatch, model):
    """Runs diarize.py with the two-tone model in an empty directory that holds `call.wav`."""
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "call.wav")
    return lambda *arguments: diarize.main([*map(str, arguments), "--model", str(model)])


def turns_of(file) -> list[tuple[float, float, int]]:
    (annotation,) = read_rttm(file).values()
    return [(t.start, t.end, int(s[-2:])) for t, _, s in annotation.itertracks(yield_label=True)]


def assert_true_turns(turns):
    assert [speaker for *_, speaker in turns] == [speaker for *_, speaker in TURNS]
    np.testing.assert_allclose([t[:2] for t in turns], [t[:2] for t in TURNS], atol=0.021)


@pytest.mark.process
def test_numbers_of_speakers_that_contradict_each_other_are_wrong_usage(capsys):
    flags = {"--num_speakers": 2, "--min_speakers": 3}
    assert diarize.main(["call.wav", *(str(word) for pair in flags.items() for word in pair)]) == 2
    assert capsys.readouterr().err == "error: min_speakers is 3, more than num_speakers, which is 2\n"


def test_every_format_without_torch(call, model, tmp_path):
    # The two-tone model answers on exact frames, so every format has one right text.
    script = WITHOUT_TORCH.replace('"diarize.py"', repr(str(ROOT / "diarize.py")))
    names = ",".join(name for name in FORMATS if name != "txt")  # whose suffix Audacity's labels have too
    command = [sys.executable, "-c", script, "call.wav", "--model", model, "--format", names, "--plot"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    results = tmp_path / "results"
    assert_true_turns(turns_of(results / "call.rttm"))
    assert (results / "call.rttm").read_text().startswith("SPEAKER call 1 0.000 4.000 <NA> <NA> SPEAKER_00 <NA> <NA>\n")
    assert (results / "call.csv").read_text().splitlines()[:2] == [
        "start,end,speaker,confidence",
        "0.000,4.000,SPEAKER_00,0.9995",
    ]
    assert (results / "call.txt").read_text() == (
        "0.000\t4.000\tSPEAKER_00\n5.000\t9.000\tSPEAKER_01\n10.000\t14.000\tSPEAKER_00\n"
    )
    assert (
        (results / "call.srt")
        .read_text()
        .startswith("1\n00:00:00,000 --> 00:00:04,000\nSPEAKER_00\n\n2\n00:00:05,000 --> 00:00:09,000\nSPEAKER_01\n\n")
    )
    assert (results / "call.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:04.000\n<v SPEAKER_00>SPE")
    assert call("call.wav", "--format", "txt", "--output", "plain") == 0
    assert Path("plain/call.txt").read_text() == "[0:00] SPEAKER_00\n[0:05] SPEAKER_01\n[0:10] SPEAKER_00\n"
    answer = json.loads((results / "call.json").read_text())
    assert answer["recording"] == "call"
    assert answer["segments"][1] == {"start": 5.0, "end": 9.0, "speaker": "SPEAKER_01", "confidence": 0.9995}
    assert (results / "call.png").read_bytes().startswith(b"\x89PNG")
    assert "call.wav -> results/call.rttm" in done.stdout
    assert "0:10.00      0:14.00  SPEAKER_00  1.00" in done.stdout


@pytest.mark.slow
def test_bad_files_are_one_line_each_and_the_others_go_on(call, tmp_path, capsys):
    good = (tmp_path / "call.wav").read_bytes()
    waveform, rate = soundfile.read("call.wav", dtype="float32")
    Path("text.wav").write_text("Dear recording,\n" * 100)
    Path("cut.wav").write_bytes(good[: len(good) // 2])
    Path("zero.wav").write_bytes(b"")
    Path("folder.wav").mkdir()
    soundfile.write("no_samples.wav", waveform[:0], rate)
    soundfile.write("tiny.wav", waveform[:100], rate)
    soundfile.write("silence.wav", 0 * waveform, rate)
    soundfile.write("8_bit.wav", waveform, rate, subtype="PCM_U8")
    write_recording(Path("192_kHz.flac"), 192_000)
    soundfile.write("24_channels.wav", np.repeat(waveform[:, None], 24, axis=1), rate)
    nan = waveform.copy()
    nan[4 * rate : 5 * rate] = np.nan
    soundfile.write("nan.wav", nan, rate, subtype="FLOAT")
    write_video(Path("video.mp4"), waveform)

    names = ["text", "cut", "zero", "folder", "no_samples", "tiny", "silence", "8_bit", "24_channels", "nan", "missing"]
    assert call(*(f"{name}.wav" for name in names), "192_kHz.flac", "video.mp4", "call.wav") == 1
    said = capsys.readouterr()
    errors = said.err.splitlines()
    for name, reason in {
        "text.wav": "not a recording",
        "zero.wav": "empty",
        "folder.wav": "directory",
        "no_samples.wav": "no samples",
        "missing.wav": "No such file",
    }.items():
        (line,) = [line for line in errors if name in line]
        assert line.startswith("error: ") and reason in line
        assert not Path("results", name).with_suffix(".rttm").exists()
    for name, damage in {"cut.wav": "truncated", "nan.wav": "NaN"}.items():
        (line,) = [line for line in errors if name in line]
        assert line.startswith("warning: ") and damage in line
    assert len(errors) == 7
    assert Path("results/silence.rttm").read_text() == Path("results/tiny.rttm").read_text() == ""
    assert said.out.count("no speech found") == 2
    for name in ("8_bit", "192_kHz", "24_channels", "nan", "video", "call"):
        assert_true_turns(turns_of(f"results/{name}.rttm"))
    assert turns_of("results/cut.rttm")[0] == turns_of("results/call.rttm")[0]


def test_a_name_or_a_tag_that_is_no_unicode_stops_nothing(call, tmp_path):
    good = (tmp_path / "call.wav").read_bytes()
    info = b"INFOINAM\x0a\0\0\0Gespr\xe4ch\0\0"
    Path("tagged.wav").write_bytes(good + b"LIST" + len(info).to_bytes(4, "little") + info)
    odd = os.fsdecode(b"caf\xe9.wav")
    for name in (odd, "a$_$b.wav"):
        Path(name).write_bytes(good)
    assert call("tagged.wav", odd, "a$_$b.wav", "call.wav", "--plot", "--format", "rttm,json") == 0
    for name in ("tagged", odd.removesuffix(".wav"), "a$_$b", "call"):
        assert_true_turns(turns_of(f"results/{name}.rttm"))
        assert Path(f"results/{name}.png").stat().st_size > 1000


@pytest.mark.process
def test_a_pipe_is_heard_from_its_beginning(model, tmp_path):
    write_recording(tmp_path / "call.flac")
    command = f"cat call.flac | {sys.executable} {ROOT / 'diarize.py'} /dev/stdin --model {model}"
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert_true_turns(turns_of(tmp_path / "results" / "stdin.rttm"))


@pytest.mark.process
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_standard_output_that_is_full_is_no_wrong_usage(model, tmp_path):
    write_recording(tmp_path / "call.wav")
    command = [sys.executable, ROOT / "diarize.py", "call.wav", "--model", model]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, last) == (1, "error: standard output: No space left on device")


@pytest.mark.slow
def test_standard_input_and_the_choice_of_a_channel(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "call.wav")
    waveform, rate = soundfile.read("call.wav", dtype="float32")
    low, high = waveform.copy(), waveform.copy()
    low[5 * rate : 9 * rate], high[: 5 * rate], high[9 * rate :] = 0, 0, 0
    noise = np.random.default_rng(0).standard_normal((2, len(low))) * 1e-4
    soundfile.write("stereo.wav", np.stack([low, high] + noise, axis=1), rate)
    command = [sys.executable, ROOT / "diarize.py", "-", "--model", model, "--channels", "separate"]
    with open("stereo.wav", "rb") as file:
        subprocess.run(command, stdin=file, check=True, cwd=tmp_path, capture_output=True)
    assert_true_turns(turns_of("results/stdin.rttm"))
    arguments = ["stereo.wav", "--model", str(model)]
    assert diarize.main([*arguments, "--channels", "1"]) == 0
    assert [turn[2] for turn in turns_of("results/stereo.rttm")] == [0, 0]
    assert diarize.main(["call.wav", *arguments[1:], "--channels", "separate"]) == 1
    said = "error: call.wav has one channel, so its speakers cannot be kept separate by channel; mix it\n"
    assert capsys.readouterr().err == said
    assert diarize.main([*arguments, "--channels", "3"]) == 1
    assert capsys.readouterr().err == "error: stereo.wav: there is no channel 3; it has channels 1 to 2\n"
    assert diarize.main([*arguments, "--track", "2"]) == 1
    assert capsys.readouterr().err == "error: stereo.wav: there is no track 2; it has only one audio track\n"
    assert diarize.main([*arguments, "--channels", "left"]) == 2
    assert "channels must be mix, separate or the number of a channel" in capsys.readouterr().err


def write_video(file: Path, waveform: np.ndarray):
    """MPEG-4 with a picture and stereo sound at 44.1 kHz."""
    with av.open(str(file), "w") as container:
        picture = container.add_stream("mpeg4", rate=5)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=44_100, layout="stereo")
        for _ in range(10):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        frame = av.AudioFrame.from_ndarray(waveform[None], "fltp", "mono")
        frame.rate = 16_000
        for resampled in av.AudioResampler("fltp", "stereo", 44_100).resample(frame):
            container.mux(sound.encode(resampled))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_speakers", "0"], "num_speakers must be a whole number from 1 to 100, got 0"),
        (["--num_speakers", "1000"], "num_speakers must be a whole number from 1 to 100, got 1000"),
        (["--min_speakers", "3", "--max_speakers", "2"], "min_speakers is 3, more than max_speakers, which is 2"),
        (["--output", "call.wav"], "--output call.wav: File exists; name a directory that can be written"),
        (["--output", "/proc/answers"], "--output /proc/answers: "),
        (["call.wav"], "call.wav is given twice; leave one out"),
        (["--words", "absent.json"], "--words absent.json: No such file or directory"),
        (["--rename", "A=B", "absent.rttm"], "--rename absent.rttm: No such file or directory"),
        (["sub/call.wav"], "call.wav and sub/call.wav would both be written as 'call'"),
        (["--reference", "absent.rttm"], "--reference absent.rttm: No such file or directory; give an RTTM file or"),
        (["--reference", "other.rttm", "b.wav"], "--reference other.rttm has no recording 'call', only: other; a"),
        (["--reference", "call.rttm", "--output", "."], "a result would replace the reference call.rttm"),
    ],
)
def test_wrong_usage_is_one_line_and_two(call, arguments, message, capsys):
    Path("other.rttm").write_text("SPEAKER other 1 0 1 <NA> <NA> a <NA> <NA>\n")
    Path("call.rttm").write_text("SPEAKER call 1 0 1 <NA> <NA> a <NA> <NA>\n")
    assert call("call.wav", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one or more recordings, or --dataset HUB_ID"),
        (["call.wav", "--dataset", "user/name"], "give one or more recordings, or --dataset HUB_ID"),
        (["call.wav", "--format", "rttm,docx"], "'docx' is not one of rttm, json, csv, srt, vtt, txt, audacity"),
        (["--dataset", "user/name", "--plot"], "--dataset writes Parquet"),
        (["call.wav", "--config", "ihm"], "--config and --split are for --dataset"),
        (["call.wav", "--split", "test"], "--config and --split are for --dataset"),
        (["--dataset", "user/name", "--track", "2"], "--track and --channels are for files"),
        (["--dataset", "user/name", "--exclusive"], "--words and --exclusive are for files"),
        (["call.wav", "--words", "asr.json", "--format", "rttm,csv"], "--words needs one of json, srt, vtt, txt in"),
        (["call.wav", "--channels", "separate", "--num_speakers", "2"], "give no number of speakers"),
    ],
)
def test_the_command_line_says_what_is_wrong(call, arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        call(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["absent", "text", "another network", "no config"])
def test_a_model_that_cannot_be_used_is_one_line(kind, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_recording(Path("call.wav"))
    directory = tmp_path / "bad"
    if kind != "absent":
        directory.mkdir()
    if kind == "text":
        (directory / "model.onnx").write_text("no network")
    if kind == "another network":
        (directory / "config.json").write_text("{}")
        write_identity(directory / "model.onnx")
    if kind == "no config":
        (directory / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    assert diarize.main(["call.wav", "--model", str(directory)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: model {directory}")
    assert "train one" in line or "give a model that train.py or export.py wrote" in line


def write_identity(file: Path):
    import onnx
    from onnx import TensorProto, helper

    a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab")
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", [a], [b])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), file)


def test_without_a_published_model_the_way_to_one_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diarize, "DEFAULT_MODEL", str(tmp_path / "pretrained/lightweight-cnn"))
    assert diarize.main(["call.wav"]) == 2
    assert (
        "no such directory; train one (accelerate launch train.py) and name it with --model" in capsys.readouterr().err
    )


@pytest.mark.process
def test_two_processes_share_the_files_and_answer_as_one_would(model, tmp_path):
    for name in "abc":
        write_recording(tmp_path / f"{name}.wav")
    (tmp_path / "damaged.wav").write_bytes(b"no recording")
    (tmp_path / "truth.rttm").write_text(
        "".join(
            f"SPEAKER {name} 1 {start} {end - start} <NA> <NA> p{who} <NA> <NA>\n"
            for name in ("a", "b", "c", "damaged")
            for start, end, who in TURNS
        )
    )
    wanted = ["a.wav", "damaged.wav", "b.wav", "c.wav", "--model", model, "--reference", "truth.rttm"]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    done = {}
    for directory, launcher in (("one", []), ("two", launch)):
        command = [sys.executable, *launcher, ROOT / "diarize.py", *wanted, "--output", directory]
        settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done[directory] = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True)
        assert done[directory].returncode == 1
        assert done[directory].stderr.count("error: damaged.wav") == 1
    for name in "abc":
        assert done["two"].stdout.count(f"{name}.wav -> ") == 1, "done once, by one of the two"
        assert_true_turns(turns_of(tmp_path / "two" / f"{name}.rttm"))
        assert (tmp_path / "two" / f"{name}.rttm").read_text() == (tmp_path / "one" / f"{name}.rttm").read_text()
    table = done["one"].stdout.index("| ")
    assert done["one"].stdout[table:] in done["two"].stdout


def test_reference_prints_der_and_its_parts(call, capsys):
    Path("truth.rttm").write_text(
        "".join(f"SPEAKER call 1 {start} {end - start} <NA> <NA> p{who} <NA> <NA>\n" for start, end, who in TURNS)
        + "SPEAKER call 1 14 1 <NA> <NA> p1 <NA> <NA>\n"
    )
    assert call("call.wav", "--reference", "truth.rttm", "--plot") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| call"))
    der, missed, alarm, confusion = (float(cell.split()[0]) for cell in row.split("|")[3:7])
    assert (der, missed, alarm, confusion) == pytest.approx((7.7, 7.7, 0, 0), abs=0.2)


def test_two_references_of_one_recording_are_refused(call, capsys):
    assert call("call.wav") == 0
    for name in ("one", "other"):
        Path("truth").mkdir(exist_ok=True)
        Path("truth", f"{name}.rttm").write_bytes(Path("results/call.rttm").read_bytes())
    capsys.readouterr()
    assert call("call.wav", "--output", "again", "--reference", "truth") == 2
    assert capsys.readouterr().err == (
        "error: --reference truth has more than one reference of 'call'; keep the true one\n"
    )


def test_terminal_timeline():
    segments = [Segment(0, 5, "SPEAKER_00", 0.9), Segment(3, 10, "SPEAKER_01", 0.8), Segment(7.5, 8, "SPEAKER_00", 0.6)]
    assert text_timeline(segments, 33).splitlines() == [
        "  SPEAKER_00    0:06  44%   2 turns  █████  ▄",
        "  SPEAKER_01    0:07  56%   1 turn      ███████",
        "                                     0:00  0:10",
        "      0:00.00      0:05.00  SPEAKER_00  0.90",
        "      0:03.00      0:10.00  SPEAKER_01  0.80",
        "      0:07.50      0:08.00  SPEAKER_00  0.60",
    ]
    long = [Segment(70.0 * i, 70.0 * i + 60, "SPEAKER_00", 0.9) for i in range(100)]
    assert text_timeline(long, 80).splitlines()[1].endswith("1:56:30")
    assert len(text_timeline(long, 80).splitlines()) == 2


def test_picture_has_a_row_each_and_confidence_as_shade(tmp_path):
    from matplotlib.image import imread

    sure, unsure = Segment(0, 4, "SPEAKER_00", 1.0), Segment(6, 10, "SPEAKER_00", 0.6)
    plot_timeline(tmp_path / "a.png", "call", [sure, unsure], [Segment(10, 30, "agent", 1.0)])
    picture = imread(tmp_path / "a.png")[..., :3]
    blue = (picture[..., 2] - picture[..., 0]) > 0.1
    columns = np.flatnonzero(blue.any(axis=0))
    row = int(np.flatnonzero(blue.any(axis=1)).mean())
    left, right = columns[len(columns) // 4], columns[-len(columns) // 4]
    assert picture[row, left].sum() < picture[row, right].sum() - 0.3
    grey = np.ptp(picture, axis=-1) < 0.01
    assert (grey & (picture[..., 0] > 0.3) & (picture[..., 0] < 0.6)).sum(axis=1).max() > 500
    plot_timeline(tmp_path / "empty.png", "call", [])
    assert imread(tmp_path / "empty.png").shape[1] == 1200
