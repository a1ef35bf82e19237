"""How a program ends: with one line where a package is not installed, and with none on Ctrl-C."""

import os
import signal
import sys
from threading import Timer

from common.terminal import report

ALL = "pip install -r requirements.txt"
OF_RECORDINGS = (
    f"pip install numpy onnxruntime av is enough for recordings; scores, pictures, data sets and training need {ALL}"
)
OF_PAGE = "pip install -r space/requirements.txt"
INTERRUPTED = 130
PATIENCE = 5.0


def end_quietly(remedy: str = ALL) -> None:
    """Make this program end in one line where it imports what is not installed, and without one on Ctrl-C.

    Call it before imports that take seconds. Ctrl-C can be lost in a callback of a C library: if the program still runs
    after `PATIENCE` seconds, it is ended.

    Args:
        remedy: what to install, and how.
    """
    shown = sys.excepthook

    def show(kind, error, traceback) -> None:
        if isinstance(error, ModuleNotFoundError):
            report(f"{error.name} is not installed; {remedy}")
        elif not isinstance(error, KeyboardInterrupt):
            shown(kind, error, traceback)

    sys.excepthook = show
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the program at once
    last = Timer(PATIENCE, os._exit, [INTERRUPTED])
    last.daemon = True
    last.start()
    raise KeyboardInterrupt
