"""Recordings without annotation, labelled by a teacher: windows hold what it says, beside what has true labels."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from annotated_fixtures import talks, write_directory
from corpora_fixtures import SAMPLING_RATE, encode_flac
from training_runs import SMALL

import train
from data.acoustics import CLEAN
from data.annotated import open_unannotated
from data.streaming import PositionedLoader, StreamConfig
from training.teacher_segmentation import LICENCE, TaughtStream

pytestmark = pytest.mark.training

FRAMES, STEP, FIRST = 589, 0.016875, 0.0309375
CONFIG = StreamConfig(batch_size=4, window_seconds=2.0, units_per_block=2, augmentation=CLEAN)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """Shaped like segmentation-3.0 for 10 s: the third person alone, and with the first one from 5 s on."""
    answer = np.zeros((1, FRAMES, 7), np.float32)
    answer[..., 3] = 1
    answer[:, FIRST + STEP * np.arange(FRAMES) >= 5.0, 5] = 2
    constants = {"answer": answer, "zero": np.zeros(1, np.float32)}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceMean", ["waveform"], ["mean"], axes=[1, 2], keepdims=1),
            onnx.helper.make_node("Mul", ["mean", "zero"], ["none"]),
            onnx.helper.make_node("Add", ["none", "answer"], ["logits"]),
        ],
        "teacher",
        [onnx.helper.make_tensor_value_info("waveform", 1, ["batch", 1, "samples"])],
        [onnx.helper.make_tensor_value_info("logits", 1, ["batch", FRAMES, 7])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    file = tmp_path_factory.mktemp("teacher") / "segmentation-3.0.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), file)
    return str(file)


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("audio")
    for talk in talks(3, seconds=14.0):
        (path / f"{talk.name}.flac").write_bytes(encode_flac(talk.waveform))
    return path


def test_windows_hold_what_the_teacher_says_of_their_middle(teacher, audio):
    stream = TaughtStream(open_unannotated(str(audio)), CONFIG, teacher=teacher)
    loader = PositionedLoader(stream, 0)
    made = [batch for batch, _ in zip(loader, range(4))]
    waveforms = [np.round(talk.waveform * 32768) / 32768 for talk in talks(3, seconds=14.0)]
    for batch in made:
        assert (batch["labels"][:, :, 0] == 1).all(), "the one who speaks most comes first"
        assert (batch["labels"][:, :50, 1] == 0).all() and (batch["labels"][:, 50:, 1] == 1).all()
        assert (batch["speaker_labels"] == -1).all() and (batch["recording_labels"] >= 0).all()
        for window in batch["input_values"].numpy():
            places = [
                at
                for waveform in waveforms
                for at in np.flatnonzero(np.isclose(waveform[::320][:-99], window[0], atol=1e-4))
                if np.abs(waveform[320 * at :][: 2 * SAMPLING_RATE] - window).max() < 1e-4
            ]
            assert len(places) == 1 and 4 <= places[0] / 50 <= 8, "4 s on each side are heard by the teacher"
    again = TaughtStream(open_unannotated(str(audio)), CONFIG, state=loader.state_dict(), teacher=teacher)
    for one, other in zip(zip(loader, range(3)), zip(PositionedLoader(again, 0), range(3))):
        assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def test_recordings_that_are_too_short_are_counted(teacher, tmp_path, audio):
    for file in audio.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "short.flac").write_bytes(encode_flac(np.ones(SAMPLING_RATE, np.float32)))
    stream = TaughtStream(open_unannotated(str(tmp_path)), replace(CONFIG, units_per_block=4), teacher=teacher)
    assert sum(1 for _ in stream.block_batches(0)) > 4
    assert stream.skipped == {"shorter than 10 s": 1}


def run(monkeypatch, *flags) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL.split(), "--max_steps", "2", *map(str, flags)])
    train.main()


def test_a_run_beside_true_labels_says_whose_labels_it_used(monkeypatch, teacher, audio, tmp_path):
    monkeypatch.setattr(train.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 0}))
    taught = ["--dataset", "demo", audio, "--teacher", teacher, "--freeze_norms", "true"]
    run(monkeypatch, *taught, "--output_dir", tmp_path / "run")
    assert json.loads((tmp_path / "run/model/training.json").read_text())["teacher"] == LICENCE
    assert "MIT" in LICENCE
    assert "corpora" not in json.loads((tmp_path / "run/model/windows.json").read_text()), "it is not scored on"


@pytest.mark.parametrize(
    ("corpora", "teacher_file", "message"),
    [
        ("demo {audio}", "{tmp}/none", "--teacher .*none: No such file or directory; give segmentation-3.0"),
        ("demo {audio}", "{tmp}/text.onnx", "--teacher: peer .*text.onnx' cannot be opened"),
        ("{audio}", "{teacher}", "only what --teacher labels, so nothing to be scored on"),
        ("demo", "{teacher}", "--teacher labels directories of audio without RTTM, and --dataset has none"),
        ("demo {calls}", "{teacher}", "--dataset has none"),
    ],
)
def test_what_cannot_be_is_one_line(monkeypatch, teacher, audio, tmp_path, corpora, teacher_file, message):
    (tmp_path / "text.onnx").write_text("no network")
    write_directory(tmp_path / "calls", talks(3))
    places = {"audio": audio, "tmp": tmp_path, "teacher": teacher, "calls": tmp_path / "calls"}
    flags = ["--dataset", *corpora.format(**places).split(), "--teacher", teacher_file.format(**places)]
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, *flags, "--output_dir", tmp_path / "run")
    assert re.match(f"error: .*{message}", str(left.value)) and "\n" not in str(left.value), left.value
