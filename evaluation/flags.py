"""The flags of the programs of evaluation/; apart from what they run, which takes seconds to import."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.flags import FlagParser

CORPUS = "corpus: any that train.py accepts"
CORPORA = "corpora: any that train.py accepts (default demo)"
MODEL = "directory, ONNX file or Hub id"
NOISE = "directory of background recordings"


def of_tuning(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--dataset", default="demo", help=f"{CORPUS} (default %(default)s)")
    parser.add_argument("--noise", help=NOISE)
    parser.add_argument(
        "--recordings",
        nargs="+",
        default=["48"],
        metavar="N or DIR",
        help="number of simulated recordings (default 48), or corpora of annotated recordings",
    )
    parser.add_argument(
        "--windows",
        type=float,
        nargs="+",
        default=[3, 5, 10],
        help="window lengths to try, in seconds (default 3 5 10)",
    )
    parser.add_argument(
        "--hops",
        type=float,
        nargs="+",
        default=[0.5, 1.0],
        help="steps between windows to try, in seconds (default 0.5 1.0)",
    )
    parser.add_argument("--write", action="store_true", help="write the best settings to the model's config.json")
    return parser.parse_args()


def of_live(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--dataset", default="demo", help=f"{CORPUS} (default %(default)s)")
    parser.add_argument("--noise", help=NOISE)
    parser.add_argument(
        "--recordings", type=int, default=8, help="number of recordings of 2 to 4 speakers (default %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="length of each recording (default %(default)s)")
    parser.add_argument(
        "--latency", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="latencies in seconds (default 0.5 1 2)"
    )
    return parser.parse_args()


def of_sets(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("sets", nargs="+", metavar="SET.json")
    parser.add_argument("--dataset", required=True, help=CORPUS)
    parser.add_argument("--splits", nargs="+", default=["validation", "test"], help="default: validation test")
    parser.add_argument("--noise", help=NOISE)
    return parser.parse_args()


def of_words(description: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("directory", metavar="DIR", help="directory of audio files and NAME.words.json")
    parser.add_argument("--model", nargs="+", required=True, help="model directories, ONNX files or Hub ids")
    return parser.parse_args(arguments)


def of_identification(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--dataset", nargs="+", default=["demo"], help=CORPORA)
    parser.add_argument("--split", default="validation", help="of the corpora (default %(default)s)")
    parser.add_argument("--noise", help=NOISE)
    parser.add_argument("--recordings", type=int, default=24, help="per corpus and seed (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="number of seeds (default %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the threshold to the model's config.json")
    return parser.parse_args()


def of_calibration(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--dataset", nargs="+", default=["demo"], help=CORPORA)
    parser.add_argument("--noise", help=NOISE)
    parser.add_argument("--recordings", type=int, default=33, help="per corpus and seed (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default %(default)s)")
    parser.add_argument("--seed", type=int, default=11, help="the first of them (default %(default)s)")
    parser.add_argument(
        "--conversations", nargs="+", default=[], metavar="DIR", help="annotated recordings to score as well"
    )
    parser.add_argument("--picture", type=Path, metavar="PNG", help="file for a picture of the reliability curve")
    parser.add_argument(
        "--write", action="store_true", help="choose settings and write them to the model's config.json"
    )
    return parser.parse_args()
