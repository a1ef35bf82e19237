"""Checkpoints on disk, drive and Hub: complete ones are found, broken ones passed over, places that fail do no harm."""

import errno
import logging
import os
import random
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from loopback_clients import redirect
from loopback_faults import TRANSIENT
from loopback_hub import LoopbackHub

from common import retry
from training import checkpoints, hub
from training.checkpoints import (
    HUB_FILE,
    SLOTS,
    CheckpointError,
    Keeper,
    discard_old,
    newest,
    newest_local,
    open_drive,
    store,
)
from training.hub import HubRepository
from training.packing import pack, packed_step, unpack
from training.sealing import MANIFEST, fault_of, local_checkpoints, seal, step_of

FILES = ("model.safetensors", "optimizer.safetensors", "rng_state.json", "stream_state_0.json", "trainer_state.json")
TOKEN = "hf_never_shown"


def contents(checkpoint: Path) -> dict[str, bytes]:
    return {name: (checkpoint / name).read_bytes() for name in FILES}


def write(run: Path, step: int) -> Path:
    """A complete checkpoint whose files are a function of the step."""
    checkpoint = run / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    rng = np.random.default_rng(step)
    for name in FILES:
        (checkpoint / name).write_bytes(rng.normal(size=int(rng.integers(20, 200))).astype(np.float32).tobytes())
    seal(checkpoint)
    return checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> SimpleNamespace:
    """A run with the checkpoints 10 and 20, and a drive that has 5 and 15 in its slots."""
    root = tmp_path_factory.mktemp("written")
    elsewhere = [write(root / "elsewhere", step) for step in (5, 15)]
    (root / "drive").mkdir()
    for checkpoint in elsewhere:
        pack(checkpoint, root / "packed.zip")
        store(root / "packed.zip", root / "drive")
    here = [write(root / "run", step) for step in (10, 20)]
    return SimpleNamespace(root=root, expected={step_of(c): contents(c) for c in (*here, *elsewhere)})


def damage(rng: random.Random, file: Path, files: list[Path]) -> None:
    """Truncate, flip, delete, duplicate or change the time of a file, or swap it with another."""
    data = bytearray(file.read_bytes())
    kind = rng.choice(["truncate", "flip", "flip", "delete", "duplicate", "swap", "empty", "grow", "time", "directory"])
    if kind == "truncate":
        file.write_bytes(data[: rng.randrange(len(data) or 1)])
    elif kind == "flip" and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
    elif kind == "delete":
        file.unlink()
    elif kind == "duplicate":
        name = rng.choice(["checkpoint-99", file.name, "checkpoint-slot-1.zip"])
        (rng.choice(files).parent / name).write_bytes(data)
    elif kind == "swap":
        other = rng.choice(files)
        if other.is_file():
            file.write_bytes(other.read_bytes())
            other.write_bytes(data)
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "grow":
        file.write_bytes(bytes(data) + rng.randbytes(rng.randrange(1, 600)))
    elif kind == "time":
        os.utime(file, (rng.randrange(2**31), rng.randrange(2**31)))
    elif kind == "directory" and file.parent.name.startswith("checkpoint-"):
        target = file.parent.with_name(f"checkpoint-{rng.choice(['5', '15', '30', '²', 'x', '020'])}")
        if not target.exists():
            shutil.copytree(file.parent, target)


@pytest.mark.slow
def test_damage_never_loads_a_wrong_state(written, tmp_path):
    for seed in range(200):
        damaged(written, tmp_path / str(seed), random.Random(seed))
        shutil.rmtree(tmp_path / str(seed))


def damaged(written, tmp_path: Path, rng: random.Random) -> None:
    """Damage up to six files of a run and its drive, and see what is found."""
    run, drive = (Path(shutil.copytree(written.root / name, tmp_path / name)) for name in ("run", "drive"))
    files = [file for file in [*run.rglob("*"), *drive.iterdir()] if file.is_file()]
    touched = rng.choices(files, k=rng.randint(1, 6))
    for file in touched:
        if file.is_file():
            damage(rng, file, files)

    def untouched(name: str) -> bool:
        now = {f.relative_to(tmp_path / name): f.read_bytes() for f in (tmp_path / name).rglob("*") if f.is_file()}
        before = written.root / name
        return now == {f.relative_to(before): f.read_bytes() for f in before.rglob("*") if f.is_file()}

    found = newest(run, drive, None)
    if untouched("run"):
        assert step_of(found) == 20
    elif untouched("drive"):
        assert step_of(found) >= 15
    if found:
        assert contents(found) == written.expected[step_of(found)]
        assert fault_of(found) is None
    pack(write(tmp_path / "next", 40), tmp_path / "next.zip")
    store(tmp_path / "next.zip", drive)
    assert step_of(newest(run, drive, None)) == 40, "the next save is found whatever was broken before"


def test_each_single_fault_is_said(written, tmp_path, caplog):
    def said(harm) -> str:
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(written.root / "run", run)
        harm(run / "checkpoint-20")
        caplog.clear()
        assert step_of(newest_local(run)) == 10
        return caplog.text

    assert "optimizer.safetensors is missing" in said(lambda c: (c / "optimizer.safetensors").unlink())
    assert "model.safetensors does not match" in said(lambda c: (c / "model.safetensors").write_bytes(b"\0" * 9))
    assert "was not finished" in said(lambda c: (c / MANIFEST).unlink())
    assert "manifest cannot be read" in said(lambda c: (c / MANIFEST).write_text('{"step": 20, "files"'))
    assert "does not name trainer_state.json" in said(lambda c: (c / MANIFEST).write_text('{"step": 20, "files": {}}'))
    assert "manifest is of step 20" in said(lambda c: c.rename(c.with_name("checkpoint-30")))


def test_packing_gives_back_every_byte(written, tmp_path):
    for checkpoint in local_checkpoints(written.root / "run"):
        pack(checkpoint, tmp_path / "packed.zip")
        assert contents(unpack(tmp_path / "packed.zip", tmp_path)) == contents(checkpoint)


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside-of-checkpoints", "a/../../../outside", "."])
def test_names_that_lead_out_of_the_directory_are_refused(written, tmp_path, name):
    archive = tmp_path / "packed.zip"
    pack(written.root / "run" / "checkpoint-20", archive)
    with zipfile.ZipFile(archive, "a") as bundle:
        bundle.writestr(name, b"escaped")
    (tmp_path / "into").mkdir()
    with pytest.raises(ValueError, match="holds the file name"):
        unpack(archive, tmp_path / "into")
    assert not list((tmp_path / "into").iterdir()) and not Path("/tmp/outside-of-checkpoints").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["into", "packed.zip"]


def test_the_newest_place_wins(written, tmp_path):
    run, drive = (Path(shutil.copytree(written.root / name, tmp_path / name)) for name in ("run", "drive"))
    assert step_of(newest(run, drive, None)) == 20
    shutil.rmtree(run / "checkpoint-20")
    assert step_of(newest(run, drive, None)) == 15
    assert step_of(newest(tmp_path / "empty machine", drive, None)) == 15
    assert newest(tmp_path / "nothing", None, None) is None
    assert [p.name for p in (tmp_path / "empty machine").iterdir()] == ["checkpoint-15"], "nothing else is left"


def test_discarding_never_counts_what_is_broken(tmp_path):
    for step in (10, 20, 30, 40):
        write(tmp_path, step)
    (tmp_path / "checkpoint-30" / MANIFEST).unlink()
    (tmp_path / "checkpoint-40" / "optimizer.safetensors").write_bytes(b"torn")
    discard_old(tmp_path, None)
    assert len(local_checkpoints(tmp_path)) == 4
    discard_old(tmp_path, 1)
    assert [step_of(c) for c in local_checkpoints(tmp_path)] == [20]


# Drives


def test_the_older_or_broken_slot_is_written_over(tmp_path):
    (tmp_path / "drive").mkdir()
    for step in (10, 20, 30):
        pack(write(tmp_path / "run", step), tmp_path / "packed.zip")
        store(tmp_path / "packed.zip", tmp_path / "drive")
    steps = {slot: packed_step(tmp_path / "drive" / slot) for slot in SLOTS}
    assert sorted(steps.values()) == [20, 30] and len(list((tmp_path / "drive").iterdir())) == 2
    newer = max(steps, key=steps.get)
    data = bytearray((tmp_path / "drive" / newer).read_bytes())
    data[len(data) // 3] ^= 1
    (tmp_path / "drive" / newer).write_bytes(data)
    pack(write(tmp_path / "run", 40), tmp_path / "packed.zip")
    assert store(tmp_path / "packed.zip", tmp_path / "drive").name == newer


@pytest.fixture
def tmpfs(tmp_path):
    """A file system of 100 kB of its own, where this machine allows to mount one."""
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", place], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def kept(keeper: Keeper, checkpoint: Path) -> None:
    keeper.keep(checkpoint)
    keeper.thread.join(60)


@pytest.mark.process
def test_a_full_and_a_read_only_drive(tmpfs, tmp_path, caplog, cell):
    drive = tmpfs / "drive"
    open_drive(drive)
    keeper = Keeper(drive, None)
    kept(keeper, write(tmp_path / "run", 10))
    (tmpfs / "somebody else's").write_bytes(b"\0" * (os.statvfs(tmpfs).f_bavail * 4096))
    kept(keeper, write(tmp_path / "run", 20))
    assert "checkpoint-20 not copied" in caplog.text and "No space left" in caplog.text
    assert step_of(newest(tmp_path / "fresh", drive, None)) == 10
    (tmpfs / "somebody else's").unlink()
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    kept(keeper, write(tmp_path / "run", 30))
    assert "Read-only file system" in caplog.text
    assert step_of(newest(tmp_path / "again", drive, None)) == 10
    subprocess.run(["mount", "-o", "remount,rw", tmpfs], check=True)
    keeper.close()
    assert step_of(newest(tmp_path / "at last", drive, None)) == 30, "tried once more at the end"
    cell("full or read-only", "drive", "reported, repeated at the next save")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOTCONN, errno.EIO])
def test_a_drive_that_fails_in_the_middle_of_a_copy(tmp_path, monkeypatch, caplog, number, cell):
    drive = tmp_path / "drive"
    open_drive(drive)
    keeper = Keeper(drive, None)
    for step in (10, 20):
        kept(keeper, write(tmp_path / "run", step))
    copy = shutil.copyfile

    def half(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoints.shutil, "copyfile", half)
    kept(keeper, write(tmp_path / "run", 30))
    assert os.strerror(number) in caplog.text and "trying again at the next save" in caplog.text
    assert step_of(newest(tmp_path / "fresh", drive, None)) == 20, "the newer slot was not touched"
    monkeypatch.setattr(checkpoints.shutil, "copyfile", copy)
    kept(keeper, write(tmp_path / "run", 40))
    assert step_of(newest(tmp_path / "fresher", drive, None)) == 40
    assert {p.name for p in drive.iterdir()} <= {*SLOTS, *(s.replace("zip", "part") for s in SLOTS)}
    cell(errno.errorcode[number], "drive", "reported, repeated at the next save; the newer slot stays")


def test_a_drive_that_vanishes_is_not_made_anew(tmp_path, caplog):
    mount = tmp_path / "mount"
    mount.mkdir()
    drive = mount / "checkpoints"
    open_drive(drive)
    keeper = Keeper(drive, None)
    kept(keeper, write(tmp_path / "run", 10))
    mount.rename(tmp_path / "gone")
    kept(keeper, write(tmp_path / "run", 20))
    assert "checkpoint-20 not copied" in caplog.text and not mount.exists()
    assert step_of(newest(tmp_path / "run", drive, None)) == 20
    assert "cannot be reached" in caplog.text
    with pytest.raises(CheckpointError, match="checkpoints cannot be reached .*try again"):
        newest(tmp_path / "empty machine", drive, None)
    with pytest.raises(CheckpointError, match="mount is not a directory; mount the drive"):
        open_drive(drive)
    (tmp_path / "gone").rename(mount)
    keeper.close()
    assert step_of(newest(tmp_path / "fresh", drive, None)) == 20


def test_a_slow_drive_holds_nobody_up(tmp_path, monkeypatch, caplog):
    drive, copy = tmp_path / "drive", shutil.copyfile
    open_drive(drive)
    keeper = Keeper(drive, None)

    free = Event()

    def slowly(source, target):
        free.wait()
        return copy(source, target)

    monkeypatch.setattr(checkpoints.shutil, "copyfile", slowly)
    for step in (10, 20, 30):
        keeper.keep(write(tmp_path / "run", step))
    keeper.close(seconds=0.1)
    # It came here, so neither training nor leaving waited for the drive.
    assert "still under way; checkpoint-30 stays local" in caplog.text and "did not finish" in caplog.text
    free.set()
    keeper.close()
    assert step_of(newest(tmp_path / "fresh", drive, None)) == 30, "the last one is copied in the end"


# The Hub


@pytest.fixture
def hugging(monkeypatch, tmp_path):
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(retry.time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(hub, "PATIENCE", 1.0)
    with LoopbackHub() as server:
        redirect(server.url, tmp_path / "cache", monkeypatch.setattr)
        yield server


@pytest.mark.hub
def test_an_empty_machine_goes_on_from_the_hub(hugging, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    repository = HubRepository("a-run", token=TOKEN)
    assert repository.name == "tester/a-run" and not repository.has_checkpoint()
    assert newest(tmp_path / "empty", None, repository.download_checkpoint) is None
    keeper = Keeper(None, repository.upload_checkpoint)
    for step in (10, 20):
        kept(keeper, write(tmp_path / "run", step))
    keeper.close()
    assert repository.has_checkpoint()
    found = newest(tmp_path / "empty", None, repository.download_checkpoint)
    assert contents(found) == contents(tmp_path / "run" / "checkpoint-20")
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["checkpoint-20"]
    assert TOKEN not in caplog.text


@pytest.mark.hub
@pytest.mark.parametrize("fault", [("status", {"code": 503}), ("status", {"code": 429}), ("refuse", {"code": 403})])
def test_a_push_that_fails_is_tried_again_at_the_next_save(hugging, tmp_path, caplog, fault, cell):
    repository = HubRepository("tester/a-run", token=TOKEN)
    keeper = Keeper(None, repository.upload_checkpoint)
    kept(keeper, write(tmp_path / "run", 10))
    kind, options = fault
    hugging.faults.add("*/commit/*", kind, times=None, **options)
    kept(keeper, write(tmp_path / "run", 20))
    assert "checkpoint-20 not copied to the Hub" in caplog.text and TOKEN not in caplog.text
    hugging.faults.clear()
    assert step_of(newest(tmp_path / "one", None, repository.download_checkpoint)) == 10
    kept(keeper, write(tmp_path / "run", 30))
    assert step_of(newest(tmp_path / "two", None, repository.download_checkpoint)) == 30
    cell(str(options["code"]), "push of a checkpoint", "reported, repeated at the next save")


@pytest.mark.hub
def test_a_damaged_checkpoint_on_the_hub_is_passed_over(hugging, tmp_path, caplog):
    repository = HubRepository("tester/a-run", token=TOKEN)
    pack(write(tmp_path / "run", 30), tmp_path / "packed.zip")
    (tmp_path / "packed.zip").write_bytes((tmp_path / "packed.zip").read_bytes()[:-50])
    repository.upload_checkpoint(tmp_path / "packed.zip")
    write(tmp_path / "other", 10)
    assert step_of(newest(tmp_path / "other", None, repository.download_checkpoint)) == 10
    assert "passing over" in caplog.text


@pytest.mark.hub
@pytest.mark.parametrize(
    "fault", [f for f in TRANSIENT if f not in ("stall", "whole file for a range", "another range")]
)
def test_a_checkpoint_is_fetched_with_patience(hugging, tmp_path, fault, cell):
    repository = HubRepository("tester/a-run", token=TOKEN)
    pack(write(tmp_path / "run", 30), tmp_path / "packed.zip")
    repository.upload_checkpoint(tmp_path / "packed.zip")
    kind, options = TRANSIENT[fault]
    hugging.faults.add(f"*/{HUB_FILE}", kind, times=2, **options)
    found = newest(tmp_path / "fresh", None, repository.download_checkpoint)
    assert contents(found) == contents(tmp_path / "run" / "checkpoint-30")
    assert [p.name for p in (tmp_path / "fresh").iterdir()] == ["checkpoint-30"]
    cell(fault, "checkpoint on the Hub", "same bytes")


@pytest.mark.hub
@pytest.mark.parametrize("fault", ["HTML with 200", "short 206"])
def test_a_checkpoint_that_never_comes_starts_no_new_run(hugging, tmp_path, fault):
    repository = HubRepository("tester/a-run", token=TOKEN)
    pack(write(tmp_path / "run", 30), tmp_path / "packed.zip")
    repository.upload_checkpoint(tmp_path / "packed.zip")
    hugging.faults.add(f"*/{HUB_FILE}", TRANSIENT[fault][0], times=None)
    with pytest.raises(CheckpointError, match="the Hub cannot be reached") as error:
        newest(tmp_path / "fresh", None, repository.download_checkpoint)
    assert "\n" not in str(error.value)


@pytest.mark.hub
def test_a_hub_that_is_away_starts_no_new_run(hugging, tmp_path, caplog):
    repository = HubRepository("tester/a-run", token=TOKEN)
    hugging.faults.add(f"*/{HUB_FILE}", "status", times=2, code=500)
    assert newest(tmp_path / "slow answer", None, repository.download_checkpoint) is None
    hugging.close()
    write(tmp_path / "run", 10)
    assert step_of(newest(tmp_path / "run", None, repository.download_checkpoint)) == 10
    with pytest.raises(CheckpointError, match="the Hub cannot be reached .*try again, or leave it out") as error:
        newest(tmp_path / "empty", None, repository.download_checkpoint)
    assert "\n" not in str(error.value) and TOKEN not in str(error.value)
    with pytest.raises(CheckpointError, match="cannot push to the Hub"):
        HubRepository("tester/a-run", token=TOKEN)
