"""Headings of the rates, and a rate with its floor (the one-speaker oracle's)."""

from collections.abc import Mapping

HEADINGS = {
    "diarization_error_rate": "DER",
    "missed_speech": "missed",
    "false_alarm": "false alarm",
    "confusion": "confusion",
    "jaccard_error_rate": "JER",
    "frame_accuracy": "frame accuracy",
}


def beside_floor(rates: Mapping[str, float], name: str) -> str:
    """`rates[name]` with its floor in brackets, in percent with one decimal."""
    return f"{100 * rates[name]:z.1f} ({100 * rates['floor_' + name]:z.1f})"
