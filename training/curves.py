"""Plot the curves of a run, finished or not: the loss and its terms, and the scores of held-out speakers.

python -m training.curves --run runs/demo
python -m training.curves --run runs/first runs/second      # the second run started from the weights of the first
"""

import json
from pathlib import Path

from common.program import end_quietly
from training.flags import of_curves

if __name__ == "__main__":
    end_quietly()
    of_curves(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np

from training.checkpoints import newest_local

LOSS = "loss"
PANELS = {
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

    terms = dict.fromkeys(name for entry in log for name in entry if name.startswith(f"{LOSS}_"))
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 1 + len(PANELS)), [(LOSS, (LOSS, *terms)), *PANELS.items()]):
        for number, name in enumerate(names):
            points = [(entry["step"], entry[name]) for entry in log if entry.get(name) is not None]
            if not points:
                continue
            steps, values = zip(*points)
            values = [100 * value for value in values] if name.startswith("eval") else values
            style = {"color": "tab:gray", "linestyle": "--"} if "floor" in name else {"color": f"C{number}"}
            axes.plot(steps, values, label=_label(name), **style)
        if title == LOSS and axes.lines:
            title = _limit(axes)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend()
    figure.savefig(file, dpi=100, format="png")


def _label(name: str) -> str:
    if name.startswith("eval"):
        return "floor" if "floor" in name else "model"
    return "weighted sum" if name == LOSS else name.removeprefix(f"{LOSS}_")


def _limit(axes) -> str:
    """Cut off values that would flatten the others; returns the title of the panel, which says so."""
    values = axes.lines[0].get_ydata()
    if max(values) <= (most := 2 * np.median(values)):
        return LOSS
    axes.set_ylim(min(min(line.get_ydata()) for line in axes.lines) - 0.05 * most, most)
    return f"loss (highest, {max(values):.0f}, beyond the axis)"


def main() -> None:
    arguments = of_curves(__doc__)
    log, steps = [], 0
    for run in arguments.run:
        if not run.is_dir():
            raise SystemExit(f"error: --run {run}: no such directory; give the --output_dir of a run of train.py")
        checkpoint = newest_local(run)
        if checkpoint is None:
            raise SystemExit(f"error: {run} holds no complete checkpoint yet; wait for the first one")
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        log += [entry | {"step": steps + entry["step"]} for entry in state["log_history"]]
        steps += state["global_step"]
    file = arguments.output or arguments.run[-1] / "curves.png"
    plot_curves(log, file)
    print(file)


if __name__ == "__main__":
    main()
