"""Without a network a Hub id is one line of error, in whatever program: no dump for each attempt."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from two_tones import write_recording

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("diarize.py {tmp}/call.wav --model user/name", "error: model user/name: no such directory here"),
        ("export.py --model user/name --output {tmp}/onnx", "error: model user/name: no such directory here"),
        ("train.py --start_from user/name --output_dir {tmp}/run", "error: --start_from user/name cannot be loaded"),
        ("diarize.py --dataset user/calls --output {tmp}/calls", "error: data set 'user/calls' cannot be opened"),
    ],
)
def test_a_hub_id_without_a_network_is_one_line(command, said, tmp_path):
    write_recording(tmp_path / "call.wav")
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    words = [sys.executable, *command.format(tmp=tmp_path).split()]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **nobody}, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert done.returncode in (1, 2) and len(lines) == 1 and lines[0].startswith(said), done.stderr
    assert "reached" in lines[0] or "connection" in lines[0]
