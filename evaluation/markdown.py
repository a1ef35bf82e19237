"""Markdown tables in which every rate stands beside its floor."""

from collections.abc import Mapping, Sequence

HEADINGS = {
    "diarization_error_rate": "DER",
    "missed_speech": "missed",
    "false_alarm": "false alarm",
    "confusion": "confusion",
    "jaccard_error_rate": "JER",
    "frame_accuracy": "frame accuracy",
}


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """One Markdown table: the first column to the left, the others to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def beside_floor(rates: Mapping[str, float], name: str) -> str:
    """`rates[name]` and, in brackets, its floor, in percent with one decimal."""
    return f"{100 * rates[name]:.1f} ({100 * rates['floor_' + name]:.1f})"
