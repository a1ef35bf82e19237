"""What each part of training is worth: the same run without one part at a time, scored on the same frozen windows.

    python -m publishing.ablation --dataset path/to/speech --noise path/to/noise --steps 1000
    python -m publishing.ablation --set evaluation/sets/demo.json --steps 200        # the demo corpus
    python -m publishing.ablation ... --variants "everything" "no rooms and noise"   # only some

Every run is `train.py` with `--resume`: run the same command again after an interruption. Other flags are handed on to
train.py. `ablation.json` in the output directory becomes a table of docs/RESULTS.md by `python -m publishing.report`.
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
    """Train one variant, or go on with it, and return its model directory.

    Raises:
        SystemExit: training failed or was interrupted, or the run is one of more steps.
    """
    run = arguments.output / variant.replace(" ", "-")
    flags = ["--dataset", arguments.dataset, "--output_dir", str(run), "--max_steps", str(arguments.steps)]
    flags += ["--noise", arguments.noise] if arguments.noise else []
    flags += [*VARIANTS[variant].split(), *rest, "--resume"]
    done = subprocess.run([sys.executable, ROOT / "train.py", *flags])
    if done.returncode:
        raise SystemExit(f"error: training {variant!r} ended with exit code {done.returncode}; see above")
    steps = json.loads((run / "model" / "training.json").read_text())["steps"]
    if steps != arguments.steps:
        raise SystemExit(f"error: {run} was trained for {steps} steps, not {arguments.steps}; name another --output")
    return run / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo", help="a corpus as train.py takes it (default demo)")
    parser.add_argument("--noise", help="directory of background recordings")
    parser.add_argument("--steps", type=int, default=1000, help="of every run (default 1000)")
    parser.add_argument("--set", default=str(ROOT / "evaluation/sets/windows.json"), help="frozen windows to score on")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"), help="default: runs/ablation")
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
