"""The curves of a run, finished or not, as a picture: loss, and scores of unseen speakers beside their floors.

python -m training.curves --run runs/demo
python -m training.curves --run runs/first runs/second      # the second one started from the weights of the first
"""

import argparse
import json
from pathlib import Path

import numpy as np

from training.checkpoints import newest_local

PANELS = {
    "loss": ("loss",),
    "DER of all windows (%)": ("eval_der", "eval_floor_der"),
    "exact frame accuracy (%)": ("eval_frame_accuracy", "eval_floor_frame_accuracy"),
}


def plot_curves(log: list[dict], file: Path) -> None:
    """
    Args:
        log: `log_history` of a `trainer_state.json`.
        file: PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in log if entry.get(name) is not None]
            if not points:
                continue
            steps, values = zip(*points)
            values = [100 * value for value in values] if name.startswith("eval") else values
            dashed = {"color": "tab:gray", "linestyle": "--"} if "floor" in name else {"color": "C0"}
            axes.plot(steps, values, label="floor" if "floor" in name else "model", **dashed)
        if title == "loss" and axes.lines:
            values = axes.lines[0].get_ydata()
            if max(values) > (most := 2 * np.median(values)):  # one high value would flatten the rest
                axes.set_ylim(min(values) - 0.05 * most, most)
                title = f"loss (highest, {max(values):.0f}, beyond the axis)"
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(names) > 1 and axes.lines:
            axes.legend()
    figure.savefig(file, dpi=100, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, nargs="+", help="output_dir of train.py")
    parser.add_argument("--output", type=Path, help="picture to write (default: curves.png in the last run)")
    arguments = parser.parse_args()
    log, steps = [], 0
    for run in arguments.run:
        checkpoint = newest_local(run)
        if checkpoint is None:
            raise SystemExit(f"error: {run} holds no complete checkpoint yet; curves come with the first one")
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        log += [entry | {"step": steps + entry["step"]} for entry in state["log_history"]]
        steps += state["global_step"]
    file = arguments.output or arguments.run[-1] / "curves.png"
    plot_curves(log, file)
    print(file)


if __name__ == "__main__":
    main()
