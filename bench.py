"""Measure speed on this machine.

    python bench.py latency --model runs/demo/model --provider cpu --threads 1 --json latency.json
    python bench.py data --dataset path/to/speech --noise path/to/noise
    python bench.py recording --model runs/demo/model --minutes 1 10 60
    python bench.py peers path/to/recordings --model runs/demo/model
    python bench.py train --dataset demo
    python bench.py gpu --model pretrained/lightweight-cnn --minutes 12

Exit code: 0 on success, 1 if something cannot be measured, 2 if the requested GPU is not available.
"""

import argparse
import ast
import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmark import arguments as flags
from common.flags import FlagParser
from common.output import OutputError, make_directory
from common.program import ALL, end_quietly
from diarization.providers import NoProvider

COMMANDS = {
    "latency": (flags.of_latency, "latency from waveform to logits: percentiles, batches, memory, cold start"),
    "data": (flags.of_data, "training windows per second, by stage"),
    "recording": (flags.of_recording, "CPU time over audio time of whole recordings"),
    "peers": (flags.of_peers, "DER and processor time of our models and other systems, on the same recordings"),
    "train": (flags.of_train, "training steps per second, by part"),
    "gpu": (flags.of_gpu, "on a GPU: latency, training steps per second, an fp16 run killed and resumed"),
}
MODULES = {"data": "training_windows", "recording": "whole_recordings", "train": "training_steps"}
"""Those of benchmark/ that are not named like their command."""
PACKAGES = (
    *("accelerate", "datasets", "huggingface_hub", "numpy", "onnx", "onnxruntime", "pyarrow", "requests"),
    *("safetensors", "scipy", "soundfile", "torch", "tqdm", "transformers"),
)
"""What a bare machine may lack, to be named all together."""


def main() -> int:
    arguments = parse()
    try:
        measurement = import_module(f"benchmark.{MODULES.get(arguments.command, arguments.command)}")
    except ModuleNotFoundError as error:
        missing = [name for name in PACKAGES if find_spec(name) is None] or [error.name]
        needed = f"bench.py {arguments.command} needs {', '.join(missing)}; not installed here"
        print(f"error: {needed}; {ALL}", file=sys.stderr)
        return 1
    try:
        if arguments.json:
            make_directory(Path(arguments.json).parent, "--json")
            if Path(arguments.json).is_dir():
                raise OutputError(f"--json {arguments.json} is a directory; name a file")
        result = measurement.run(arguments)
    except NoProvider as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = FlagParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (add_flags, text) in COMMANDS.items():
        source = Path(__file__).parent / "benchmark" / f"{MODULES.get(name, name)}.py"
        # Read and not imported, which takes seconds.
        command = commands.add_parser(name, help=text, description=ast.get_docstring(ast.parse(source.read_text())))
        add_flags(command)
        command.add_argument("--json", help="file to write the result to")
    arguments = parser.parse_args()
    for name, value in vars(arguments).items():
        for number in value if isinstance(value, list) else [value]:
            least = 0 if name == "workers" else {int: 1, float: 0.1}.get(type(number))
            if least is not None and not number >= least:
                parser.error(f"--{name} must be {least} or more, got {number}")
    return arguments


if __name__ == "__main__":
    end_quietly()
    sys.exit(main())
