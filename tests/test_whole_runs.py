"""Runs from start to end that lose nothing: on an empty machine, a full disk, a wrong clock, edited checkpoints."""

import contextlib
import functools
import io
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from loopback_clients import redirect
from loopback_hub import LoopbackHub
from training_runs import start, write_corpus

from training.checkpoints import HUB_FILE, newest, newest_local
from training.packing import unpack
from training.sealing import seal, step_of

pytestmark = pytest.mark.training

TOKEN = "hf_never_shown"


def contents_of(directory: Path) -> dict[str, bytes]:
    return {f.relative_to(directory).as_posix(): f.read_bytes() for f in directory.rglob("*") if f.is_file()}


def on_the_hub(url: str, cache: Path) -> None:
    redirect(url, cache)
    subprocess.run = lambda *_args, **_kwargs: SimpleNamespace(returncode=0)


def test_a_run_pushes_and_goes_on_on_an_empty_machine(tmp_path):
    write_corpus(tmp_path / "corpus")
    settings = ["--dataset", str(tmp_path / "corpus"), "--save_steps", "2", "--dataloader_num_workers", "0"]
    settings += ["--checkpoint_dir", str(tmp_path / "drive"), "--push_to_hub", "--hub_model_id", "tester/a-run"]
    with LoopbackHub() as server:
        prepare = functools.partial(on_the_hub, server.url, tmp_path / "cache")

        def run(name: str, steps: int, *flags: str):
            directory, log = tmp_path / name, tmp_path / f"{name}.log"
            flags = (*settings, "--output_dir", str(directory), "--max_steps", str(steps), *flags)
            return start(*flags, "--hub_token", TOKEN, log=log, prepare=prepare).ended()

        first = run("first", 4, "--lr_scheduler_type", "constant")
        assert first.exitcode == 0, first.text()
        refused = run("other", 8)
        assert refused.exitcode == 1 and "already holds a run; add --resume" in refused.text()
        shutil.rmtree(tmp_path / "drive")
        second = run("second", 8, "--resume", "--lr_scheduler_type", "constant")
        assert second.exitcode == 0 and "resuming from" in second.text(), second.text()
        assert "checkpoint-4" in second.text()
        third = run("first", 8, "--resume", "--lr_scheduler_type", "constant")
        assert third.exitcode == 0, third.text()
        pushed = server.files("tester/a-run")
    one, other = (tmp_path / name / "checkpoint-8" for name in ("first", "second"))
    for name in ("model.safetensors", "optimizer.safetensors", "rng_state.json", "stream_state_0.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert {"model.safetensors", "config.json", "README.md", "modeling_fast_diarization.py", HUB_FILE} <= set(pushed)
    with zipfile.ZipFile(io.BytesIO(pushed[HUB_FILE])) as bundle:
        assert not [name for name in bundle.namelist() if not name.endswith((".json", ".safetensors", ".py"))]
    (tmp_path / "pushed.zip").write_bytes(pushed[HUB_FILE])
    packed = contents_of(unpack(tmp_path / "pushed.zip", tmp_path))
    said = (first.text() + second.text() + third.text()).encode()
    assert not [name for name in pushed if name.endswith((".bin", ".pt", ".pth"))], "pickles"
    for content in [said, *pushed.values(), *packed.values()]:
        assert TOKEN.encode() not in content


class Intruder:
    def __reduce__(self):
        return os.mkdir, ("intruded",)


class Small:
    """Runs on one small corpus, without the export, that go on in the directory `run` or another one."""

    def __init__(self, directory: Path):
        self.directory, self.count = directory, 0
        write_corpus(directory / "corpus")

    def run(self, steps: int, *flags: str, prepare=None, place: Path | None = None):
        self.count += 1
        prepare = prepare or functools.partial(on_the_hub, "http://nowhere", self.directory / "cache")
        settings = ["--dataset", self.directory / "corpus", "--output_dir", place or self.directory / "run"]
        settings += ["--resume", "--dataloader_num_workers", "0", "--save_steps", "2", "--max_steps", steps, *flags]
        log = self.directory / f"{self.count}.log"
        return start(*map(str, settings), log=log, prepare=prepare).ended()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    small = Small(tmp_path_factory.mktemp("small"))
    ended = small.run(2)
    assert ended.exitcode == 0, ended.text()
    return small


def copied(small: Small, tmp_path: Path) -> Path:
    """The checkpoint of the run, in a directory to change."""
    shutil.copytree(small.directory / "run", tmp_path / "run")
    return tmp_path / "run" / "checkpoint-2"


def refused(run) -> str:
    """The last line of a run that ended with an error, and without a traceback."""
    assert run.exitcode == 1, run.text()
    assert "Traceback" not in run.text() and run.text().splitlines()[-1].startswith("error: ")
    return run.text().splitlines()[-1]


def test_nothing_that_a_run_writes_is_a_pickle(small):
    files = [f for f in (small.directory / "run").rglob("*") if f.is_file()]
    assert {f.suffix for f in files} == {".json", ".safetensors", ".py", ".md", ".png"}
    assert not [f for f in files if f.read_bytes().startswith((b"PK", b"\x80"))], "ZIP of torch, or plain"


@pytest.mark.parametrize("new, old", [("optimizer.json", "optimizer.pt"), ("rng_state.json", "rng_state.pth")])
def test_pickles_of_others_are_not_run(small, tmp_path, new, old):
    checkpoint = copied(small, tmp_path)
    (checkpoint / new).unlink()
    torch.save({"state": Intruder()}, checkpoint / old)
    assert b"intruded" in (checkpoint / old).read_bytes()
    seal(checkpoint)
    assert "cannot be resumed (UnpicklingError" in refused(small.run(4, place=checkpoint.parent))
    assert not Path("intruded").exists() and not list(tmp_path.rglob("intruded"))


EDITS = {
    "trainer_state.json": ['{"global_step": 2', "[]", '{"global_step": 7}', '{"global_step": 2, "max_steps": "x"}'],
    "stream_state_0.json": ["{}", '{"turn": -1, "lanes": [], "stream": {}}', '{"turn": 0, "lanes": 3, "stream": {}}'],
    "scheduler.json": ["[]", '{"base_lrs": "x", "lr_lambdas": 3}'],
    "rng_state.json": ["{}", '{"python": [3, [1], null], "numpy": [], "cpu": "zz", "cuda": []}'],
}


@pytest.mark.parametrize("name", EDITS)
def test_what_was_edited_and_sealed_again_is_one_line(small, tmp_path, name):
    checkpoint = copied(small, tmp_path)
    for text in EDITS[name]:
        (checkpoint / name).write_text(text)
        seal(checkpoint)
        assert "cannot be resumed (" in refused(small.run(4, place=checkpoint.parent)), text


def test_a_checkpoint_of_fp16_goes_on_without_it(small, tmp_path):
    reference = small.run(4, "--save_total_limit", "9", place=tmp_path / "reference")
    assert reference.exitcode == 0
    checkpoint = copied(small, tmp_path)
    torch.save(torch.amp.GradScaler("cpu").state_dict(), checkpoint / "scaler.pt")
    seal(checkpoint)
    ended = small.run(4, place=checkpoint.parent)
    assert ended.exitcode == 0, ended.text()
    assert ended.text().count("the checkpoint's scale of the loss is left out: this run does not use fp16") == 1


def wrong_clock(cache: Path) -> None:
    """A process whose clock stands in 1970."""
    on_the_hub("http://nowhere", cache)
    early, really = time.struct_time((1970, 1, 1, 0, 0, 9, 3, 1, 0)), time.time()
    time.time = lambda now=time.time: now() - really
    time.localtime = lambda *_: early


def test_a_clock_in_1970_loses_nothing(small, tmp_path):
    (tmp_path / "drive").mkdir()
    prepare = functools.partial(wrong_clock, tmp_path / "cache")
    ended = small.run(2, "--checkpoint_dir", tmp_path / "drive", place=tmp_path / "run", prepare=prepare)
    assert ended.exitcode == 0 and "could not be" not in ended.text(), ended.text()
    found = newest(tmp_path / "fresh", tmp_path / "drive", None)
    assert (found / "model.safetensors").read_bytes() == (
        small.directory / "run" / "checkpoint-2" / "model.safetensors"
    ).read_bytes()


def full_disk(cache: Path, place: Path) -> None:
    """A process whose disk is full by the time it writes the model."""
    from training.trainer import StreamingTrainer

    on_the_hub("http://nowhere", cache)
    save = StreamingTrainer.save_model

    def save_model(self, output_dir=None, _internal_call=False):
        if not _internal_call:
            with contextlib.suppress(OSError), (place / "somebody else's").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        return save(self, output_dir, _internal_call)

    StreamingTrainer.save_model = save_model


@pytest.mark.parametrize("before", [False, True])
def test_a_disk_that_is_full_at_the_end_costs_neither_checkpoints_nor_the_model_before(small, tmp_path, before):
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        run = place / "run"
        if before:
            shutil.copytree(small.directory / "run", run)
        model = contents_of(run / "model")
        ended = small.run(4, place=run, prepare=functools.partial(full_disk, tmp_path / "cache", place))
        line = refused(ended)
        assert "model cannot be written (" in line and "No space left on device" in line
        assert "make room and run the same command with --resume: the checkpoints are kept" in line
        assert step_of(newest_local(run)) == 4
        assert contents_of(run / "model") == model and not (run / "model.part").exists()
        (place / "somebody else's").unlink()
        again = small.run(4, place=run)
        assert again.exitcode == 0, again.text()
        assert (run / "model" / "model.safetensors").read_bytes() == (
            run / "checkpoint-4" / "model.safetensors"
        ).read_bytes()
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_what_others_put_into_the_directory_stays(small, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint-500").mkdir(parents=True)
    (run / "checkpoint-500" / "trainer_state.json").write_text("weeks of work")
    assert "checkpoint-500 was written by another program" in refused(small.run(2, place=run))
    shutil.move(run / "checkpoint-500", run / "model")
    assert "model is not of a run here" in refused(small.run(2, place=run))
    assert contents_of(run) == {"model/trainer_state.json": b"weeks of work"}
