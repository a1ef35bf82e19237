"""The flags of the programs of training/, and the help of train.py; apart from what takes seconds to import.

    python -m training.flags      # write help.txt again, after a flag of train.py was changed

The flags of train.py are those of transformers' TrainingArguments too, which takes all of transformers and torch to
know. So its help is kept as a text.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from common.flags import FlagParser
from common.terminal import say

HELP = Path(__file__).with_name("help.txt")
WIDTH = 100
"""Columns of that text."""


def show_help(description: str, flags: Sequence[str]) -> None:
    """Print the help of train.py and exit, if `flags` ask for it."""
    if {"-h", "--help"} & set(flags):
        usage, options = HELP.read_text().split("\n\n", 1)
        say(f"{usage}\n\n{description.strip()}\n\n{options.rstrip()}")
        raise SystemExit


def of_teacher_voices(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--dataset", required=True, help="corpus: any that train.py accepts")
    parser.add_argument("--teacher", required=True, help="CAM++ as a TorchScript file")
    parser.add_argument("--output", default="voices.safetensors", help="file to write (default %(default)s)")
    return parser.parse_args()


def of_curves(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--run", type=Path, required=True, nargs="+", help="output directories of train.py")
    parser.add_argument("--output", type=Path, help="PNG to write (default: curves.png in the last run)")
    return parser.parse_args()


def main() -> None:
    FlagParser(description=__doc__).parse_args()
    from training.arguments import Parser

    os.environ["COLUMNS"] = str(WIDTH)
    HELP.write_text(Parser("").format_help())


if __name__ == "__main__":
    main()
