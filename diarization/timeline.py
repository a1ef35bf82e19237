"""A picture of who speaks when."""

from collections.abc import Sequence
from pathlib import Path

from modeling.linking_fast_diarization import Segment


def plot_timeline(file: Path, title: str, segments: Sequence[Segment], reference: Sequence[Segment] = ()):
    """Write a PNG with one row a speaker, darker where more confident, the reference below where there is one.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [("", s) for s in segments] + [("reference ", s) for s in reference]
    names = list(dict.fromkeys(group + s.speaker for group, s in rows))
    figure = Figure(figsize=(12, 1.2 + 0.35 * max(len(names), 1)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        mine = [s for group, s in rows if group + s.speaker == name]
        hue = "tab:gray" if name.startswith("reference ") else f"C{row % 10}"
        axes.broken_barh(
            [(s.start, s.end - s.start) for s in mine], (row - 0.4, 0.8), color=hue, alpha=[_shade(s) for s in mine]
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.set_xlim(0, max([s.end for _, s in rows], default=1))
    axes.set_xlabel("seconds")
    axes.set_title(title if segments else f"{title}: no speech found")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=100, format="png")


def _shade(segment: Segment) -> float:
    return 0.2 + 0.8 * min(max(segment.confidence, 0.0), 1.0)
