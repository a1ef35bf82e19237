"""The flags of the programs of data/; apart from what they run, which takes seconds to import."""

import argparse

from common.flags import FlagParser
from modeling.task_fast_diarization import Task


def of_turn_statistics(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--dataset", default="demo", help="corpus: any that train.py accepts (default %(default)s)")
    parser.add_argument("--windows", type=int, default=512, help="training windows to count (default %(default)s)")
    parser.add_argument(
        "--num_speakers", type=int, default=Task.num_speakers, help="speakers in a window (default %(default)s)"
    )
    return parser.parse_args()


def of_speech_agreement(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--dataset", default="demo", help="corpus: any that train.py accepts (default %(default)s)")
    parser.add_argument(
        "--utterances", type=int, default=150, help="number of validation utterances to compare (default %(default)s)"
    )
    return parser.parse_args()
