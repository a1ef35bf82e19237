"""A directory is one run's and one process's, a crash leaves it free, and what others put there stays."""

import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training import ownership
from training.checkpoints import CheckpointError, Keeper, discard_old, newest
from training.ownership import LOCK, RUN, Drive, Hold, RunDirectory
from training.sealing import fault_of, local_checkpoints, mark, seal, step_of

_context = multiprocessing.get_context("fork")


def write(run: Path, step: int, name: str | None) -> Path:
    checkpoint = run / f"checkpoint-{step}"
    if name:
        mark(checkpoint, {"run": name})
    else:  # as up to version 0.1
        checkpoint.mkdir(parents=True)
        (checkpoint / "stream_state_0.json").write_text("{}")
    (checkpoint / "trainer_state.json").write_text("{}")
    seal(checkpoint)
    return checkpoint


def write_elsewhere(run: Path, step: int) -> dict[str, bytes]:
    """A checkpoint as transformers' Trainer writes it."""
    checkpoint = run / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        (checkpoint / name).write_bytes(name.encode())
    return contents(run)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}


def hold_until_killed(directory: Path) -> None:
    Hold(directory)
    time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the directory."""
    process = _context.Process(target=hold_until_killed, args=(tmp_path,), daemon=True)
    process.start()
    while not (tmp_path / LOCK).exists() or not (tmp_path / LOCK).read_text():
        time.sleep(0.01)
    yield process
    process.kill()


@pytest.mark.process
def test_a_process_that_lives_holds_and_one_that_was_killed_does_not(tmp_path, holder):
    with pytest.raises(CheckpointError, match=f"is in use by process {holder.pid}; wait for it") as error:
        RunDirectory(tmp_path, resume=True)
    assert "\n" not in str(error.value)
    holder.kill()
    holder.join()
    RunDirectory(tmp_path, resume=True).hold.release()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.process
def test_one_that_nobody_has_buried_does_not_hold(tmp_path, holder):
    os.kill(holder.pid, 9)
    while Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    Hold(tmp_path).release()


@pytest.mark.process
def test_another_process_of_the_same_number_does_not_hold(tmp_path, holder):
    found = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps(found | {"started": "some other time"}))
    Hold(tmp_path).release()


@pytest.mark.parametrize("silent, held", [(0, True), (100, True), (-100, True), (130, False), (-1e9, False)])
def test_another_machine_holds_as_long_as_it_gives_signs_of_life(tmp_path, monkeypatch, silent, held):
    monkeypatch.setattr(ownership.time, "time", lambda now=time.time(): now)
    found = {"host": "elsewhere", "pid": 7, "started": "then", "secret": "x", "time": time.time() - silent}
    (tmp_path / LOCK).write_text(json.dumps(found))
    if held:
        with pytest.raises(CheckpointError, match="process 7 of elsewhere, which was active .* s ago"):
            Hold(tmp_path)
    else:
        Hold(tmp_path).release()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x"}', '{"pid": 1, "host": "elsewhere"}', "[" * 10_000])
def test_a_lock_that_says_nothing_holds_nobody_up(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    Hold(tmp_path).release()


def test_signs_of_life_are_given_until_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.01)
    hold = Hold(tmp_path)

    def said() -> float:
        try:
            return json.loads((tmp_path / LOCK).read_text())["time"]
        except ValueError:  # in the middle of being written
            return said()

    first = said()
    while said() == first:
        time.sleep(0.01)
    assert not hold.is_lost()
    hold.release()


def test_a_directory_that_was_taken_is_not_written_to_any_more(tmp_path):
    run = RunDirectory(tmp_path, resume=True)
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 7, "secret": "another", "time": time.time()}))
    with pytest.raises(CheckpointError, match="was taken by process 7 of elsewhere.*; this run ends here"):
        run.check()
    run.hold.release()
    assert (tmp_path / LOCK).exists(), "it is the other's"


@pytest.mark.parametrize("resume", [True, False])
def test_a_checkpoint_of_another_program_is_refused_and_stays(tmp_path, resume):
    before = write_elsewhere(tmp_path, 500)
    with pytest.raises(CheckpointError, match="checkpoint-500 was written by another program; choose another") as error:
        RunDirectory(tmp_path, resume)
    assert "\n" not in str(error.value) and contents(tmp_path) == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_model_of_somebody_else_is_refused_and_stays(tmp_path, resume):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(b"weeks of work")
    with pytest.raises(CheckpointError, match="model is not of a run here; choose another --output_dir, or move it"):
        RunDirectory(tmp_path, resume)
    assert contents(tmp_path) == {"model/model.onnx": b"weeks of work"}


def test_a_run_knows_its_own_model_and_only_goes_on_when_told(tmp_path):
    run = RunDirectory(tmp_path, resume=False)
    run.begin(None)
    run.will_write_model()
    (tmp_path / "model").mkdir()
    run.hold.release()
    with pytest.raises(CheckpointError, match="already holds a run; add --resume to continue it, or choose another"):
        RunDirectory(tmp_path, resume=False)
    again = RunDirectory(tmp_path, resume=True)
    assert again.name == run.name
    again.hold.release()


def test_a_run_that_never_saved_anything_is_begun_anew(tmp_path):
    run = RunDirectory(tmp_path, resume=False)
    run.begin(None)
    run.hold.release()
    RunDirectory(tmp_path, resume=False).hold.release()


def test_a_run_of_an_earlier_version_goes_on_with_its_model(tmp_path):
    write(tmp_path, 10, None)
    (tmp_path / "model").mkdir()
    run = RunDirectory(tmp_path, resume=True)
    run.begin(None)
    run.hold.release()
    write(tmp_path, 20, run.name)
    write(tmp_path, 30, run.name)
    discard_old(tmp_path, 1, run.name)
    assert [step_of(c) for c in local_checkpoints(tmp_path)] == [30, 10], "it deletes only what bears its name"


def test_torn_checkpoints_are_its_own_and_those_of_other_runs_stay(tmp_path):
    for step, name in ((10, "mine"), (20, "other"), (30, "mine"), (40, "mine")):
        write(tmp_path, step, name)
    (tmp_path / "checkpoint-30" / "manifest.json").unlink()
    (tmp_path / "checkpoint-50").mkdir()
    RunDirectory(tmp_path, resume=True).hold.release()
    discard_old(tmp_path, 1, "mine")
    assert [step_of(c) for c in local_checkpoints(tmp_path)] == [50, 40, 20]
    assert fault_of(tmp_path / "checkpoint-50") == "it was not finished"


@pytest.mark.process
@pytest.mark.parametrize("name", ["made_by.json", "manifest.json", "trainer_state.json"])
def test_a_kill_while_a_checkpoint_is_removed_leaves_nothing_foreign(tmp_path, name):
    for step in (10, 20):
        write(tmp_path, step, "mine")

    def removing() -> None:
        def hook(event: str, arguments: tuple) -> None:
            if event == "os.remove" and Path(arguments[0]).name == name:
                os.kill(os.getpid(), 9)

        sys.addaudithook(hook)
        discard_old(tmp_path, 1, "mine")

    process = _context.Process(target=removing)
    process.start()
    process.join()
    assert process.exitcode == -9
    RunDirectory(tmp_path, resume=True).hold.release()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-20"]


def test_what_a_killed_process_was_unpacking_is_cleared_away(tmp_path):
    (tmp_path / "unpacking.part" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "download.part").mkdir()
    (tmp_path / "checkpoint-packed.zip").write_bytes(b"half")
    run = RunDirectory(tmp_path, resume=True)
    run.hold.release()
    assert not list(tmp_path.iterdir())


# Drives


def kept(keeper: Keeper, checkpoint: Path) -> None:
    keeper.keep(checkpoint)
    keeper.thread.join(60)


def test_a_drive_belongs_to_one_run(tmp_path):
    place = tmp_path / "drive"
    place.mkdir()
    drive = Drive(place, "one")
    drive.begin("one")
    kept(Keeper(place, None, drive.check), write(tmp_path / "one", 10, "one"))
    drive.hold.release()
    before = contents(place)
    with pytest.raises(CheckpointError, match="holds the checkpoints of run one, and this is run two; name another"):
        Drive(place, "two")
    assert contents(place) == before
    assert Drive(place, None).run == "one", "an empty machine goes on with it"


@pytest.mark.process
def test_a_second_run_on_a_drive_in_use_is_refused(tmp_path, holder):
    for run in ("one", None):
        with pytest.raises(CheckpointError, match="is in use by process"):
            Drive(tmp_path, run)


def test_who_lost_the_drive_copies_nothing_there_any_more(tmp_path, caplog):
    place = tmp_path / "drive"
    place.mkdir()
    drive = Drive(place, "one")
    drive.begin("one")
    keeper = Keeper(place, None, drive.check)
    kept(keeper, write(tmp_path / "one", 10, "one"))
    before = {name: data for name, data in contents(place).items() if name.endswith(".zip")}
    (place / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 7, "secret": "another", "time": time.time()}))
    kept(keeper, write(tmp_path / "one", 20, "one"))
    assert "checkpoint-20 not copied" in caplog.text and "was taken by another process" in caplog.text
    (place / LOCK).unlink()
    (place / RUN).write_text('{"run": "two"}')
    kept(keeper, write(tmp_path / "one", 30, "one"))
    assert "belongs to another run" in caplog.text
    assert {name: data for name, data in contents(place).items() if name.endswith(".zip")} == before


def test_a_drive_that_is_away_is_taken_once_it_is_there(tmp_path):
    drive = Drive(tmp_path / "drive", None)
    drive.begin("one")
    keeper = Keeper(tmp_path / "drive", None, drive.check)
    kept(keeper, write(tmp_path / "one", 10, "one"))
    (tmp_path / "drive").mkdir()
    keeper.close()
    assert step_of(newest(tmp_path / "fresh", tmp_path / "drive", None)) == 10
    assert json.loads((tmp_path / "drive" / RUN).read_text()) == {"run": "one"}


@pytest.mark.process
def test_a_full_disk_does_not_end_a_run_by_its_signs_of_life(tmp_path, monkeypatch):
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.01)
        run = RunDirectory(place, resume=True)
        (place / "somebody else's").write_bytes(b"\0" * (os.statvfs(place).f_bavail * 4096))
        for _ in range(20):
            time.sleep(0.01)
            run.check()
        run.hold.release()
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        shutil.rmtree(place, ignore_errors=True)


def test_the_name_of_this_machine_is_in_the_lock(tmp_path):
    hold = Hold(tmp_path)
    found = json.loads((tmp_path / LOCK).read_text())
    assert (found["host"], found["pid"]) == (platform.node(), os.getpid())
    hold.release()
