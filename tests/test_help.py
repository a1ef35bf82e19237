"""Help costs no imports that take seconds, and says what the parsers know; flags may be written with hyphens."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

import train
from common.flags import FlagParser
from training.arguments import Parser
from training.flags import HELP, WIDTH, show_help

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "datasets", "pyannote", "scipy", "matplotlib", "onnx", "onnxruntime", "gradio")
PROGRAMS = (
    "diarize.py",
    "train.py",
    "export.py",
    "bench.py",
    "bench.py latency",
    "bench.py train",
    "bench.py gpu",
    "bench.py peers",
    "-m evaluation",
    "-m evaluation.tuning",
    "-m evaluation.live",
    "-m evaluation.sets",
    "-m evaluation.words",
    "-m evaluation.calibration",
    "-m evaluation.identification",
    "-m publishing.card",
    "-m publishing.report",
    "-m publishing.publish",
    "-m publishing.ablation",
    "-m training.curves",
    "-m training.teacher_voices",
    "-m data.turn_statistics",
    "-m data.speech_agreement",
    "-m docs.example",
    "-m docs.pictures",
    "-m benchmark.gpu_table",
    "-m space.assemble",
    "-m space.app",
)
ROOMS = ("data", "diarization", "evaluation", "training", "publishing", "benchmark", "space", "docs")
OTHER_USAGE = {"train.py": "accelerate launch train.py", "-m space.assemble": "python space/assemble.py"}
"""What is called otherwise than it is started here."""
WITHOUT_FLAGS = ("training/flags.py", "space/worker.py")


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_imports_nothing_that_takes_seconds(program):
    command = [sys.executable, "-X", "importtime", *program.split(), "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    usage = OTHER_USAGE.get(program, f"python {program}" if program.startswith("-m") else program)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {usage} [-")
    assert "--help" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported and not imported & set(HEAVY)


def test_every_program_is_among_them():
    files = [file for place in (".", *ROOMS) for file in (ROOT / place).glob("*.py")]
    programs = {file.relative_to(ROOT) for file in files if '__name__ == "__main__"' in file.read_text()}
    tried = {Path(p.removeprefix("-m ").split()[0].removesuffix(".py").replace(".", "/") + ".py") for p in PROGRAMS}
    assert {str(program) for program in programs - tried} == {"evaluation/__main__.py", *WITHOUT_FLAGS}


@pytest.mark.skipif(transformers.__version__ < "5", reason="its words for its own flags are those of transformers 5")
def test_the_kept_help_of_training_is_that_of_its_parser(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    with pytest.raises(SystemExit) as left:
        show_help(train.__doc__, ["--dataset", "demo", "--help"])
    assert not left.value.code
    expected = Parser(train.__doc__).format_help()
    shown = capsys.readouterr().out
    assert shown.split() == expected.split(), f"python -m training.flags writes {HELP.name} again"
    show_help(train.__doc__, ["--help_all"])
    assert not capsys.readouterr().out


def test_a_negated_flag_is_not_called_what_it_turns_off():
    assert re.search(r"--no_augment +Same as --augment false\.\n", HELP.read_text())


@pytest.mark.parametrize("flags", ["--num-speakers 2 --x", "--num_speakers=2 -- --num-speakers"])
def test_hyphens_and_underscores_are_the_same(flags):
    parser = FlagParser()
    parser.add_argument("--num_speakers", type=int)
    parser.add_argument("--x", action="store_true")
    parser.add_argument("files", nargs="*")
    assert parser.parse_args(flags.split()) == argparse.Namespace(
        num_speakers=2, x="--x" in flags.split(), files=["--num-speakers"] if "-- " in flags else []
    )


def test_hyphens_are_taken_by_commands_below_a_command():
    parser = FlagParser()
    below = parser.add_subparsers().add_parser("latency")
    below.add_argument("--window_seconds", type=float)
    assert parser.parse_args(["latency", "--window-seconds", "3"]).window_seconds == 3


@pytest.mark.parametrize(
    "program",
    [
        "export.py --model nowhere/to/be --quant int8",
        "export.py --model nowhere/to/be --dataset demo",
        "bench.py latency --mod x",
    ],
)
def test_wrong_usage_is_one_line_and_fast(program):
    env = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([sys.executable, *program.split()], cwd=ROOT, capture_output=True, text=True, env=env)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and "error: " in lines[-1] and "torch" not in done.stderr
