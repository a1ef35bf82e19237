"""Packed checkpoints whatever the clock says, and archives that would fill memory or disk."""

import json
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training import packing
from training.checkpoints import CheckpointError, newest
from training.packing import pack, packed_step, unpack
from training.sealing import MANIFEST, mark, run_of, seal


def write(run: Path, step: int, files: dict[str, bytes], name: str = "a run") -> Path:
    checkpoint = run / f"checkpoint-{step}"
    mark(checkpoint, {"run": name})
    for file, content in files.items():
        (checkpoint / file).write_bytes(content)
    seal(checkpoint)
    return checkpoint


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 40), max_size=4), st.integers(1, 9))
def test_every_size_comes_back_whatever_the_pieces(tmp_path, sizes, chunk):
    rng = np.random.default_rng(sum(sizes))
    files = {f"{number}.bin": rng.bytes(size) for number, size in enumerate(sizes)}
    checkpoint = write(tmp_path / "run", 3, {**files, "trainer_state.json": b"{}"})
    pack(checkpoint, tmp_path / "packed.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        found = unpack(tmp_path / "packed.zip", tmp_path)
    assert {f.name: f.read_bytes() for f in found.iterdir()} == {f.name: f.read_bytes() for f in checkpoint.iterdir()}
    assert run_of(found) == "a run"


@pytest.mark.parametrize("year", [1970, 1979, 2038, 2200])
def test_a_clock_that_is_wrong_is_no_matter(tmp_path, monkeypatch, year):
    wrong = time.struct_time((year, 1, 1, 0, 0, 0, 3, 1, 0))
    monkeypatch.setattr(time, "localtime", lambda *_: wrong)
    checkpoint = write(tmp_path / "run", 3, {"trainer_state.json": b"{}"})
    pack(checkpoint, tmp_path / "packed.zip")
    assert unpack(tmp_path / "packed.zip", tmp_path).name == "checkpoint-3"


def zeros(megabytes: int) -> tuple[bytes, int]:
    """Deflated zeros, and how many: a thousandth of their size."""
    deflate = zlib.compressobj(wbits=-15)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + deflate.flush(), megabytes << 20


def bomb(archive: Path, megabytes: int, declared: int | None = None, kind: int = zipfile.ZIP_DEFLATED) -> None:
    """A packed checkpoint with one more file, of zeros, of which the archive and the manifest say `declared` bytes."""
    checkpoint = write(archive.with_name(f"{archive.name} run"), 9, {"trainer_state.json": b"{}"})
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["files"]["zeros"] = {"size": megabytes << 20 if declared is None else declared, "sha256": "0" * 64}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    pack(checkpoint, archive)
    if kind != zipfile.ZIP_DEFLATED:
        with zipfile.ZipFile(archive, "a") as bundle:
            bundle.writestr("zeros", bytes(megabytes << 20), kind)
        return
    deflated, size = zeros(megabytes)
    with zipfile.ZipFile(archive, "a") as bundle:
        bundle.writestr("zeros", deflated, zipfile.ZIP_STORED)
        member = bundle.getinfo("zeros")
        member.compress_type, member.file_size = zipfile.ZIP_DEFLATED, size if declared is None else declared
        member.compress_size = len(deflated)
    data = archive.read_bytes()
    local = data.index(b"zeros") - 30
    archive.write_bytes(data[: local + 8] + b"\x08\x00" + data[local + 10 :])


def passed_over(tmp_path: Path, archive: Path, megabytes: float) -> None:
    """A drive with that archive has no checkpoint, and to find that out takes little memory and leaves nothing."""
    drive, run = tmp_path / "drive", tmp_path / "fresh"
    drive.mkdir()
    archive.rename(drive / "checkpoint-slot-0.zip")
    tracemalloc.start()
    assert newest(run, drive, None) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < megabytes * 1e6
    assert not list(run.iterdir())


def test_an_archive_of_gigabytes_of_zeros_is_passed_over(tmp_path, caplog):
    bomb(tmp_path / "bomb.zip", 2600)
    assert (tmp_path / "bomb.zip").stat().st_size < 4e6
    passed_over(tmp_path, tmp_path / "bomb.zip", 40)
    assert "not a complete checkpoint" in caplog.text


def test_an_archive_within_the_limit_takes_little_memory(tmp_path, caplog):
    bomb(tmp_path / "bomb.zip", 100)
    passed_over(tmp_path, tmp_path / "bomb.zip", 40)
    assert "passing over" in caplog.text


@pytest.mark.parametrize("declared", [0, 1, 1000])
def test_an_archive_that_declares_less_than_it_holds_is_passed_over(tmp_path, declared):
    bomb(tmp_path / "bomb.zip", 100, declared)
    passed_over(tmp_path, tmp_path / "bomb.zip", 40)


def test_a_file_that_the_manifest_does_not_name_is_not_unpacked(tmp_path):
    pack(write(tmp_path / "run", 9, {"trainer_state.json": b"{}"}), tmp_path / "packed.zip")
    with zipfile.ZipFile(tmp_path / "packed.zip", "a") as bundle:
        bundle.writestr("more", b"")
    with pytest.raises(ValueError, match="holds 'more', which differs from its manifest"):
        unpack(tmp_path / "packed.zip", tmp_path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_passed_over(tmp_path, kind):
    bomb(tmp_path / "bomb.zip", 20, kind=kind)
    passed_over(tmp_path, tmp_path / "bomb.zip", 3)


def test_an_archive_of_very_many_files_is_passed_over(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as bundle:
        for number in range(5_000):
            bundle.writestr(zipfile.ZipInfo(str(number)), b"")
    passed_over(tmp_path, tmp_path / "many.zip", 3)


def test_a_manifest_of_megabytes_is_passed_over(tmp_path):
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(MANIFEST, bytes(50 << 20))
    passed_over(tmp_path, tmp_path / "large.zip", 3)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    pack(write(tmp_path / "other", 9, {"trainer_state.json": b"{}"}, "another"), drive / "checkpoint-slot-0.zip")
    own = write(tmp_path / "run", 3, {"trainer_state.json": b"{}"}, "mine")
    with pytest.raises(CheckpointError, match="is a checkpoint of run another, and .* is of run mine") as error:
        newest(tmp_path / "run", drive, None, "mine")
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="run another"):
        newest(tmp_path / "run", drive, None)
    assert json.loads((own / MANIFEST).read_text())["run"] == "mine"
    assert newest(tmp_path / "fresh", drive, None).name == "checkpoint-9"


@pytest.mark.slow
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_archives_are_whole_or_passed_over(tmp_path, data):
    archive = tmp_path / "packed.zip"
    if not archive.exists():
        pack(write(tmp_path / "run", 3, {"trainer_state.json": b"{}", "a.bin": bytes(range(200))}), archive)
    whole = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    changed = tmp_path / "changed.zip"
    changed.write_bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))])
    packed_step(changed, whole=True)
    (tmp_path / "into").mkdir(exist_ok=True)
    try:
        found = unpack(changed, tmp_path / "into")
    except ValueError:
        return
    assert (found / "a.bin").read_bytes() == bytes(range(200))
