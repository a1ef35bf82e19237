"""Measure speed on this machine.

    python bench.py latency --model runs/demo/model --provider cpu --threads 1 --json latency.json
    python bench.py data --dataset path/to/speech --noise path/to/noise
    python bench.py recording --model runs/demo/model --minutes 1 10 60
    python bench.py peers path/to/recordings --model runs/demo/model
    python bench.py train --dataset demo

Exit code: 0 on success, 1 if something cannot be measured, 2 if the requested GPU is not available.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmark import latency, peers, training_steps, training_windows, whole_recordings
from common.output import OutputError, make_directory
from data.corpora import CorpusError
from diarization.providers import NoProvider

COMMANDS = {
    "latency": (latency, "latency from waveform to logits: percentiles, batches, memory, cold start"),
    "data": (training_windows, "training windows per second, by stage"),
    "recording": (whole_recordings, "CPU time over audio time of whole recordings"),
    "peers": (peers, "DER and processor time of our models and other systems, on the same recordings"),
    "train": (training_steps, "training steps per second, by part"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
        command.add_argument("--json", help="file to write the result to")
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    for name, value in vars(arguments).items():
        for number in value if isinstance(value, list) else [value]:
            least = 0 if name == "workers" else {int: 1, float: 0.1}.get(type(number))
            if least is not None and not number >= least:
                parser.error(f"--{name} must be {least} or more, got {number}")
    try:
        if arguments.json:
            make_directory(Path(arguments.json).parent, "--json")
            if Path(arguments.json).is_dir():
                raise OutputError(f"--json {arguments.json} is a directory; name a file")
        result = arguments.run(arguments)
    except NoProvider as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (CorpusError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
