"""The flags of the programs of publishing/; apart from what they run, which takes seconds to import."""

import argparse
from pathlib import Path

from common.flags import FlagParser

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    "everything": "",
    "turns without statistics": "--turn_taking independent",
    "no rooms and noise": "--augment false",
    "no contrastive loss": "--speaker_loss_weight 0",
    "no affinity loss": "--affinity_loss_weight 0",
}
"""The variants of an ablation, and the flags of train.py that make them."""


def of_card(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("models", nargs="+", type=Path, metavar="DIR", help="model directories")
    return parser.parse_args()


def of_report(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("models", nargs="*", type=Path, metavar="DIR", help="directories of trained models")
    parser.add_argument("--from", dest="kept", type=Path, metavar="JSON", help="write the pages again from this file")
    parser.add_argument("--dataset", help="corpus the frozen sets were made of")
    parser.add_argument("--noise", metavar="DIR", help="background recordings the frozen sets were made with")
    parser.add_argument(
        "--clips", metavar="DIR", help="clips of ESC-10, whose fifth fold is scored as non-speech sound"
    )
    parser.add_argument("--split", default="validation", help="validation (default), or test: once, at the end")
    parser.add_argument("--recordings", metavar="DIR", help="real recordings with RTTM files")
    parser.add_argument("--peer", metavar="ONNX", help="pyannote segmentation-3.0")
    parser.add_argument("--ablation", type=Path, metavar="JSON", help="output of python -m publishing.ablation")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", metavar="DIR", help="default: docs")
    arguments = parser.parse_args()
    if not arguments.kept and not (arguments.models and arguments.dataset):
        parser.error("give model directories and --dataset to score them, or --from docs/results.json to score nothing")
    for model in arguments.models:
        if not (model / "config.json").is_file():
            parser.error(f"{model} has no config.json; give a model directory, such as pretrained/lightweight-cnn")
    return arguments


def of_publish(description: str) -> argparse.Namespace:
    parser = FlagParser(description=description)
    parser.add_argument("source", nargs="?", type=Path, help="model directory written by train.py")
    parser.add_argument("target", nargs="?", type=Path, help="directory to publish to")
    parser.add_argument("--code", nargs="+", type=Path, metavar="DIR", help="only copy modeling/ to these models")
    parser.add_argument("--speech", type=Path, metavar="DIR", help="training corpus, to name its parts in the card")
    parser.add_argument("--earlier", type=Path, metavar="JSON", help="training.json of the model it was trained from")
    parser.add_argument("--average", type=Path, metavar="DIR", help="model to average with, both weighing half")
    parser.add_argument("--quantize", choices=("int8",), help="write model_int8.onnx too, as export.py does")
    parser.add_argument("--dataset", help="corpus to calibrate and score int8 on (default demo)")
    arguments = parser.parse_args()
    if arguments.dataset and not arguments.quantize:
        parser.error("--dataset is what int8 is calibrated on; add --quantize int8, or leave it out")
    arguments.dataset = arguments.dataset or "demo"
    if not arguments.code and arguments.target is None:
        parser.error("give a trained model and a directory to publish to, or --code with published models")
    return arguments


def of_ablation(description: str) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and those for train.py."""
    parser = FlagParser(description=description)
    parser.add_argument("--dataset", default="demo", help="corpus: any that train.py accepts (default demo)")
    parser.add_argument("--noise", help="directory of background recordings")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each run (default 1000)")
    parser.add_argument("--set", default=str(ROOT / "evaluation/sets/windows.json"), help="frozen windows to score on")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants to train (default: all)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/ablation"), help="directory of the runs (default: runs/ablation)"
    )
    return parser.parse_known_args()
