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

from data.corpora import CorpusError
from diarization.backends import ModelError
from evaluation.results import Options, evaluate
from evaluation.sets import read_definition
from evaluation.systems import Ours

ROOT = Path(__file__).parent.parent
VARIANTS = {
    "everything": "",
    "turns without statistics": "--turn_taking independent",
    "no rooms and noise": "--augment false",
    "no contrastive loss": "--speaker_loss_weight 0",
    "no affinity loss": "--affinity_loss_weight 0",
}


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    arguments, rest = parser.parse_known_args()
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
