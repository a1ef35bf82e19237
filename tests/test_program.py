"""How programs end: where packages are not installed in one line that says what to install, and quietly on Ctrl-C."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from two_tones import write_recording

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = """
import runpy, sys
sys.modules.update({{name: None for name in {absent}}})
sys.argv[0] = {program!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
RECORDINGS = "pip install numpy onnxruntime av is enough for recordings"
EVERYTHING = "pip install -r requirements.txt"
FLAGS = {
    "diarize.py": ["call.wav"],
    "export.py": ["--model", "model"],
    "train.py": ["--max_steps", "1"],
    "bench.py": ["latency", "--model", "model"],
}


def run(program: str, absent: list[str], where: Path) -> subprocess.CompletedProcess:
    write_recording(where / "call.wav")
    code = WITHOUT.format(absent=absent, program=str(ROOT / program))
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(where)}
    command = [sys.executable, "-c", code, *FLAGS[program]]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("program", "absent", "remedy"),
    [
        ("diarize.py", ["numpy", "onnxruntime", "av"], RECORDINGS),
        ("diarize.py", ["onnxruntime"], RECORDINGS),
        ("diarize.py", ["av"], RECORDINGS),
        ("export.py", ["numpy", "torch", "transformers"], EVERYTHING),
        ("export.py", ["torch"], EVERYTHING),
        ("export.py", ["transformers"], EVERYTHING),
        ("train.py", ["numpy"], EVERYTHING),
        ("train.py", ["torch"], EVERYTHING),
        ("train.py", ["transformers"], EVERYTHING),
        ("bench.py", ["numpy", "torch", "transformers"], EVERYTHING),
        ("bench.py", ["torch"], EVERYTHING),
        ("bench.py", ["transformers"], EVERYTHING),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(program, absent, remedy, tmp_path):
    done = run(program, absent, tmp_path)
    *before, line = done.stderr.splitlines()  # torch warns where it finds no numpy
    assert done.returncode in (1, 2) and line.startswith("error: ") and remedy in line
    assert not any(word in text for text in before for word in ("Traceback", "Error", "error"))
    assert any(name in line.replace("PyAV", "av").split(";")[0] for name in absent)


def test_other_errors_are_shown_in_full():
    code = "from common.program import end_quietly\nend_quietly()\nfrom common import nothing"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr and "cannot import name 'nothing'" in done.stderr


INTERRUPTED = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from common import program
program.PATIENCE = 0.5
program.end_quietly()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    {then}
finally:
    print("cleaned up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("then", "code"), [("raise", -signal.SIGINT), ("pass  # as a callback of a C library", 130)])
def test_an_interrupt_ends_the_program_quietly_even_if_it_is_lost(then, code):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(then=then)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "cleaned up\n", "")
