"""Measure what each part of training contributes: the same run without one part at a time, on the same frozen windows.

    python -m publishing.ablation --dataset path/to/speech --noise path/to/noise --steps 1000
    python -m publishing.ablation --set evaluation/sets/demo.json --steps 200        # the demo corpus
    python -m publishing.ablation ... --variants "everything" "no rooms and noise"   # some of them only

Each run is `train.py --resume`: after an interruption, run the same command again. Other flags are passed on to
train.py. `python -m publishing.report` turns `ablation.json` in the output directory into a table of docs/RESULTS.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common.program import end_quietly
from publishing.flags import VARIANTS, of_ablation

if __name__ == "__main__":
    end_quietly()
    of_ablation(__doc__)  # --help and wrong usage, before imports that take seconds

from data.corpora import CorpusError
from diarization.backends import ModelError
from evaluation.results import Options, evaluate
from evaluation.sets import read_definition
from evaluation.systems import Ours

ROOT = Path(__file__).parent.parent


def train(variant: str, arguments: argparse.Namespace, rest: list[str]) -> Path:
    """Train one variant, or resume it, and return its model directory.

    Raises:
        SystemExit: training failed or was interrupted, or the run has another number of steps.
    """
    run = arguments.output / variant.replace(" ", "-")
    flags = ["--dataset", arguments.dataset, "--output_dir", str(run), "--max_steps", str(arguments.steps)]
    flags += ["--noise", arguments.noise] if arguments.noise else []
    flags += [*VARIANTS[variant].split(), *rest, "--resume"]
    done = subprocess.run([sys.executable, ROOT / "train.py", *flags])
    if done.returncode:
        raise SystemExit(f"error: training {variant!r} ended with exit code {done.returncode}; the reason is above")
    steps = json.loads((run / "model" / "training.json").read_text())["steps"]
    if steps != arguments.steps:
        raise SystemExit(f"error: {run} was trained for {steps} steps, not {arguments.steps}; choose another --output")
    return run / "model"


def main() -> None:
    arguments, rest = of_ablation(__doc__)
    try:
        definition = read_definition(arguments.set)
        condition = next(iter(definition["conditions"]))
        models = [Ours(str(train(v, arguments, rest)), v) for v in arguments.variants]
        options = Options(dataset=arguments.dataset, noise=arguments.noise, part=condition)
        result = evaluate(arguments.set, models, options)
    except (CorpusError, ModelError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    scores = result["parts"][condition]
    kept = {v: {"flags": VARIANTS[v], "groups": scores[v]["groups"]} for v in arguments.variants}
    ablation = {"steps": arguments.steps, "set": f"{result['title']}, {condition}", "variants": kept}
    file = arguments.output / "ablation.json"
    file.write_text(json.dumps(ablation, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
