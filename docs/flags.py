"""The flags of the programs of docs/; apart from what they run, which takes seconds to import."""

import argparse
from pathlib import Path

from common.flags import FlagParser
from modeling.task_fast_diarization import Task


def of_example(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--dataset", default="demo", help="corpus: any that train.py accepts (default: demo)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length in seconds (default: 20)")
    parser.add_argument(
        "--num_speakers", type=int, default=Task.num_speakers, help="number of speakers (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the conversation (default: 0)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/example"), help="directory to write to (default: runs/example)"
    )
    return parser.parse_args()


def of_pictures(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--model", type=Path, help="directory of a model whose hypothesis to draw")
    return parser.parse_args()
