"""A small share of `python -m tests.fuzz`, and that it finds what it looks for."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import fuzz, fuzz_audio

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("kind", "count"), [("audio", 60), ("configurations", 40)])
def test_a_share_of_the_cases_has_no_finding(kind, count):
    command = [sys.executable, "-m", "tests.fuzz", kind, "--count", str(count), "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{kind}, seed 1: {count} cases, 0 findings\n"), done.stderr


@pytest.mark.parametrize("case", [156, 184, 361])
def test_a_place_outside_of_the_file_is_no_matter_for_standard_error(case, tmp_path, capfd):
    """Damaged W64 and CAF send FFmpeg there; PyAV printed the exception of that, traceback and all."""
    assert fuzz_audio.run(np.random.default_rng([0, case]), fuzz_audio.prepare(tmp_path)) is None
    assert all(line.startswith(fuzz.SAID_FIRST) for line in capfd.readouterr().err.splitlines())


def prepare(directory: Path) -> Path:
    return directory


def run(rng, directory: Path) -> str | None:
    """Another fault in every case."""
    drawn = rng.integers(2**32)
    case = next(case for case in range(8) if np.random.default_rng([0, case]).integers(2**32) == drawn)
    match case:
        case 1:
            raise KeyError("one")
        case 2:
            sys.stderr.write("error: of ours\nPyAV says something\n")
        case 3:
            time.sleep(600)
        case 4:
            held = bytearray(12 * 10**8)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(600)
        case 5:
            os.abort()
    return "a complaint" if case == 6 else None


def test_every_kind_of_finding_is_found(monkeypatch):
    def finding(child, case, finding=fuzz.Child.finding):
        monkeypatch.setattr(fuzz, "MOST_SECONDS", 1.0 if case == 3 else 300.0)
        return finding(child, case)

    monkeypatch.setattr(fuzz.Child, "finding", finding)
    found = dict(fuzz.findings("tests.test_fuzz", 0, 8))
    assert found.keys() == {1, 2, 3, 4, 5, 6}
    assert found[1] == "KeyError: 'one'" and found[6] == "a complaint"
    assert found[2] == "on standard error: PyAV says something"
    assert found[3] == "not done after 1 s" and found[4] == "more than 1 GB"
    assert found[5].startswith("the process died, exit code -")
