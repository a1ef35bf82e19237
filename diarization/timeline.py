"""Pictures of who speaks when, for files and for the terminal."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from diarization.matching import match_speakers
from diarization.talk_time import talk_times
from modeling.segments_fast_diarization import Segment

BLOCKS = np.array(list(" ▁▂▃▄▅▆▇█"))
TICK_SECONDS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MOST_LISTED = 40
"""Turns of a short recording are listed one by one in the terminal."""


def plot_timeline(file: Path | BinaryIO, title: str, segments: Sequence[Segment], reference: Sequence[Segment] = ()):
    """Write a PNG with one row a speaker, darker where more confident, the reference below where there is one.

    A speaker of the reference has the colour of the one found in its place, and is grey if there is none.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    hues = {name: f"C{row % 10}" for row, name in enumerate(_names(segments))}
    rows = [(name, [s for s in segments if s.speaker == name], hue) for name, hue in hues.items()]
    matched = {true: hues[name] for name, true in match_speakers(segments, reference).items()} if reference else {}
    rows += [
        (f"reference {name}", [s for s in reference if s.speaker == name], matched.get(name, "dimgray"))
        for name in _names(reference)
    ]
    figure = Figure(figsize=(12, 1.3 + 0.4 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    for row, (_, turns, hue) in enumerate(rows):
        spans = [(s.start, s.end - s.start) for s in turns]
        axes.broken_barh(spans, (row - 0.4, 0.8), color=hue, alpha=[_shade(s) for s in turns], linewidth=0)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], parse_math=False)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    seconds = _seconds([*segments, *reference]) or 1
    step = next((step for step in TICK_SECONDS if seconds / step <= 12), seconds / 12)
    axes.set_xlim(0, seconds)
    axes.set_xticks(ticks := np.arange(0, seconds, step), [clock(tick) for tick in ticks])
    axes.set_axisbelow(True)
    title = title.encode(errors="replace").decode()  # a file name may be no Unicode
    axes.set_title(title if segments else f"{title}: no speech found", loc="left", parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=100, format="png")


def text_timeline(segments: Sequence[Segment], width: int | None = None, listed: bool = True) -> str:
    """Lines of `width` characters (as wide as the terminal): one row a speaker, higher blocks where more is said.

    A short recording's turns follow one by one if `listed`.
    """
    if not segments:
        return "  no speech found\n"
    width, seconds = width or shutil.get_terminal_size().columns, _seconds(segments)
    names = _names(segments)
    talk = {one.speaker: one for one in talk_times(segments)}
    facts = {name: f"{clock(one.seconds):>7} {one.share:4.0%} {_turns(one.turns)}" for name, one in talk.items()}
    longest = max(map(len, names))
    margin = longest + max(map(len, facts.values())) + 5
    columns = max(width - margin - 1, 10)
    edges = np.linspace(0, seconds, columns + 1)
    lines = []
    for name in names:
        turns = [s for s in segments if s.speaker == name]
        said = sum(np.clip(edges, s.start, s.end) for s in turns)
        levels = np.ceil(np.diff(said) / (seconds / columns) * (len(BLOCKS) - 1) - 1e-6).astype(int)
        bar = "".join(BLOCKS[levels.clip(0, len(BLOCKS) - 1)])
        lines.append(f"  {name:{longest}} {facts[name]:{margin - longest - 5}}  {bar}".rstrip())
    lines.append(" " * margin + "0:00" + clock(seconds).rjust(columns - 4))
    if listed and len(segments) <= MOST_LISTED:
        lines += [
            f"  {clock(s.start, 2):>11}  {clock(s.end, 2):>11}  {s.speaker}  {s.confidence:.2f}" for s in segments
        ]
    return "\n".join(lines) + "\n"


def clock(seconds: float, digits: int = 0) -> str:
    """`1:02:03`, or `2:03` below an hour; with `digits` of seconds."""
    minutes, seconds = divmod(round(seconds, digits), 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{seconds:0{3 + digits if digits else 2}.{digits}f}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def _names(segments: Sequence[Segment]) -> list[str]:
    return sorted({s.speaker for s in segments})


def _turns(turns: int) -> str:
    return f"{turns:3} turn{'s' * (turns != 1)}"


def _seconds(segments: Sequence[Segment]) -> float:
    return max((s.end for s in segments), default=0.0)


def _shade(segment: Segment) -> float:
    """Opacity: a segment's mean activity is seldom below a half."""
    return 0.2 + 1.6 * min(max(segment.confidence - 0.5, 0.0), 0.5)
