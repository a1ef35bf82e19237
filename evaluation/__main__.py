"""Score models against references; in brackets the floor, the score of a one-speaker oracle.

    python -m evaluation RECORDINGS --model runs/mine/model --output scores      # directory of audio and RTTM files
    python -m evaluation diarizers-community/voxconverse --split test --limit 20 # streamed from the Hub
    python -m evaluation diarizers-community/ami --config ihm --split test
    python -m evaluation evaluation/sets/demo.json                               # frozen simulated windows
    python -m evaluation evaluation/sets/windows.json --dataset path/to/speech --noise path/to/noise
    python -m evaluation evaluation/sets/sounds.json --noise path/to/clips        # false speech on non-speech sound
    python -m evaluation voices --dataset path/to/speech                         # equal error rate of embeddings

The oracle knows when anyone speaks and attributes all of it to one speaker. The first window of a recording starts by
accident where the recording does, which can change its score much: recordings are diarized --shifts times, with
different parts of a hop of silence before them, and a table gives mean and range. Several models are scored side by
side, and with --peer segmentation-3.0 on the same windows. An RTTM file of a directory may hold one recording or many;
audio and reference are matched by name. The output is Markdown. The exit code is 1 if a recording could not be read, 2
for wrong usage.
"""

import argparse
import json
import sys
import warnings
from dataclasses import fields
from pathlib import Path

from common.flags import FlagParser
from common.output import OwnFiles, make_directory
from common.program import end_quietly
from common.terminal import OutputLost, report, say, warn

FLAGS = {"counts": "--num_speakers", "hop_seconds": "--hop"}
"""Flags whose names differ from the option they set."""
DEFAULT_MODEL = Path(__file__).parent.parent / "pretrained" / "lightweight-cnn"


def main() -> int:
    """Run the command line and return its exit code; an error is one line on standard error."""
    warnings.showwarning = lambda message, *_: warn(message)
    try:
        return run(parse())
    except OutputLost as error:
        report(error)
        return 1
    except (ValueError, OSError) as error:
        report(error)
        return 2


def run(arguments: argparse.Namespace) -> int:
    from evaluation.results import TAKEN, Options, evaluate, kind_of  # takes ten seconds, which --help need not
    from evaluation.systems import open_systems
    from evaluation.tables import result_tables

    output = open_output(arguments) if arguments.output else None
    kind = kind_of(arguments.source)
    given = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    given = {name: value for name, value in given.items() if value is not None} | {"output": output}
    for name in given.keys() - TAKEN[kind]:
        raise ValueError(
            f"{FLAGS.get(name, f'--{name}')} does not apply to {kind}, which {arguments.source!r} is; leave it out"
        )
    systems = open_systems(arguments.model, arguments.peer)
    options = Options(**given)
    result = evaluate(arguments.source, systems, options)
    text = result_tables(result)
    say(text)
    if output:
        for name, content in (("scores.md", text), ("scores.json", json.dumps(result, indent=1))):
            output.write_file(output.directory / name, f"{content}\n".encode())
    return 1 if result.get("failed") else 0


def open_output(arguments: argparse.Namespace) -> OwnFiles:
    """The directory of --output, which replaces no file that it is not to have written."""
    directory = Path(arguments.output)
    make_directory(directory, "--output")
    output = OwnFiles(
        directory, "python -m evaluation", {"source": [arguments.source], "UEM file": [arguments.uem or ""]}
    )
    output.check_files([directory / "scores.md", directory / "scores.json"])
    return output


def parse() -> argparse.Namespace:
    parser = FlagParser(description=__doc__)
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="directory, Hub id, frozen set (.json), or the word voices for speaker embeddings",
    )
    add(
        "--model",
        nargs="+",
        default=[str(DEFAULT_MODEL)],
        help="model directories, ONNX files or Hub ids (default pretrained/lightweight-cnn)",
    )
    add("--peer", metavar="ONNX", help="pyannote segmentation-3.0, scored on the same windows")
    add(
        "--output",
        metavar="DIR",
        help="directory for scores.md, scores.json, and each hypothesis as RTTM and as a picture",
    )
    add(
        "--num_speakers",
        dest="counts",
        nargs="+",
        type=_count,
        metavar="N",
        help="unknown (default), known (from the reference), or N; frozen sets are scored with both",
    )
    add("--collar", type=float, help="unscored seconds around each boundary, TOTAL width (default 0)")
    add("--skip_overlap", action="store_const", const=True, help="do not score overlapped speech")
    add(
        "--hop",
        dest="hop_seconds",
        type=_seconds,
        help="step in seconds between the 3 s windows of recordings (default 1)",
    )
    add("--uem", metavar="UEM", help="UEM file: the regions of recordings to score (default: whole recordings)")
    add(
        "--shifts",
        type=_whole,
        metavar="N",
        help="diarize recordings N times, each shifted by 1/N of the model's own hop_seconds, not of --hop (default 4)",
    )
    add("--dataset", help="corpus of a frozen set or of voices: any that train.py accepts (default demo)")
    add("--noise", metavar="DIR", help="background recordings, or clips of sounds, for a frozen set")
    add("--part", metavar="NAME", help="score only this condition or group of a frozen set")
    add("--split", help="split of the corpus or Hub data set (default validation)")
    add("--config", help="configuration of the Hub data set, such as ihm")
    add("--limit", type=_whole, help="number of recordings to score of a Hub data set (default all)")
    return parser.parse_args()


def _count(value: str) -> str | int:
    if value in ("unknown", "known"):
        return value
    return _whole(value, "neither unknown, known nor ")


def _whole(value: str, expected: str = "not ") -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is {expected}a number of at least 1")
    return int(value)


def _seconds(value: str) -> float:
    try:
        if (seconds := float(value)) >= 0.02:
            return seconds
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds of at least 0.02, one frame")


if __name__ == "__main__":
    end_quietly()
    sys.exit(main())
