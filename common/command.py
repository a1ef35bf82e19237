"""The command `fast-diarization` of the installed package: diarize.py, and by their names the other scripts.

    fast-diarization call.wav                 as python diarize.py call.wav in a clone
    fast-diarization train --dataset demo     as python train.py --dataset demo

Modules import each other as in a clone, so the package's directory is searched first, in this process alone.
"""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "train": "train",
    "export": "export",
    "bench": "bench",
    "evaluate": "evaluation",
    "page": "space.app",
}
"""Modules by the word that starts them; a recording of that name is `./train`."""
COMMANDS = """\
For `python diarize.py` in the examples, type `fast-diarization`. Other commands, each with its own --help:

    fast-diarization train       train a model                              as python train.py
    fast-diarization export      a trained model to ONNX                    as python export.py
    fast-diarization evaluate    score models against references            as python -m evaluation
    fast-diarization bench       measure speed on this machine              as python bench.py
    fast-diarization page        a page in the browser: files, microphone   as python -m space.app
"""


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from common.flags import FlagParser  # by the name that the scripts know it by

    FlagParser.program = "fast-diarization"
    script = SCRIPTS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if script:
        FlagParser.program += f" {sys.argv.pop(1)}"
    else:
        FlagParser.epilog_of_program = COMMANDS
    os.environ.setdefault("FAST_DIARIZATION_MODEL", str(ROOT / "pretrained" / "lightweight-cnn"))  # of the page
    runpy.run_module(script or "diarize", run_name="__main__", alter_sys=True)
