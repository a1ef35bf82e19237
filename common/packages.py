"""Packages that are not installed: one line that says what to install."""

import sys

from common.terminal import report

ALL = "pip install -r requirements.txt"
OF_RECORDINGS = f"pip install numpy onnxruntime av is enough for recordings, {ALL} for everything else"


def report_missing_packages(remedy: str = ALL) -> None:
    """Make this program end in one line, exit code 1, where it imports what is not installed; call it before it does.

    Args:
        remedy: what to install, and how.
    """
    shown = sys.excepthook

    def show(kind, error, traceback) -> None:
        if isinstance(error, ModuleNotFoundError):
            report(f"{error.name} is not installed; {remedy}")
        else:
            shown(kind, error, traceback)

    sys.excepthook = show
