"""How much a score hangs on where the windows happen to lie: the same recording with a little silence before it.

The start of a recording is an accident, yet half a hop of it can decide between one speaker and two. So a recording is
diarized several times, each time with another part of a hop of silence before it, and a figure is a mean with a range.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evaluation.recording_scores import RATES
from modeling.segments_fast_diarization import Segment
from modeling.settings_fast_diarization import SAMPLING_RATE, LinkingSettings


def shift_samples(settings: LinkingSettings, shifts: int) -> list[int]:
    """Samples of silence before the recording: 0 and every `1/shifts` of a hop."""
    hop = settings.hop_seconds * SAMPLING_RATE
    return [round(number * hop / shifts) for number in range(shifts)]


def shifted(waveform: np.ndarray, samples: int) -> np.ndarray:
    """A waveform (samples,) with silence before it."""
    return np.concatenate([np.zeros(samples, waveform.dtype), waveform]) if samples else waveform


def shifted_back(segments: Sequence[Segment], samples: int) -> list[Segment]:
    """Segments of a shifted recording in its own time; what lies before its start is cut off."""
    seconds = samples / SAMPLING_RATE
    moved = (replace(s, start=max(s.start - seconds, 0.0), end=s.end - seconds) for s in segments)
    return [segment for segment in moved if segment.end > segment.start]


def over_shifts(seconds: Sequence[float], results: Sequence[dict]) -> dict:
    """The figures that vary, each a list in the order of the shifts.

    Args:
        seconds: of silence before the recordings.
        results: `RecordingScores.result` of each shift.

    Returns:
        `seconds`; `total`, the rates and shares of recordings with the right number of speakers; `recordings`, the
        diarization error rate and the number of speakers of each.
    """
    total, recordings = results[0]["total"], results[0]["recordings"]
    return {
        "seconds": list(seconds),
        "total": {
            name: [result["total"][name] for result in results]
            for name in (*RATES, "count_exact", "count_within_one", "false_alarm_seconds")
            if name in total
        },
        "recordings": {
            recording: {
                name: [result["recordings"][recording][name] for result in results]
                for name in ("diarization_error_rate", "hypothesis_speakers", "false_alarm_seconds")
                if name in recordings[recording]
            }
            for recording in recordings
        },
    }


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, lowest and highest."""
    return sum(values) / len(values), min(values), max(values)
