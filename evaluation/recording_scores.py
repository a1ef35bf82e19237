"""Scores of whole recordings through pyannote.metrics, beside the scores of a one-speaker oracle (the floor).

Without an evaluation map a recording is scored from the first to the last turn of reference or hypothesis; outside
there is nothing to score, so the length of the audio does not matter. The oracle knows when anyone speaks and gives all
of it to one speaker.
"""

import math
from itertools import repeat

from pyannote.core import Annotation, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

from common.markdown import table
from evaluation.rates import HEADINGS, beside_floor

# Our names and those of pyannote.metrics.
ERRORS = {"missed_speech": "missed detection", "false_alarm": "false alarm", "confusion": "confusion"}
RATES = ("diarization_error_rate", *ERRORS, "jaccard_error_rate")


class RecordingScores:
    """Accumulates the scores of recordings; the total is the sum of errors over the sum of reference speech.

    Args:
        collar: seconds not scored around each boundary of a reference turn, in TOTAL as pyannote.metrics has
            it: 0.5 means 0.25 s on each side, which NIST tools call a collar of 0.25.
        skip_overlap: do not score regions with two or more reference speakers.

    Raises:
        ValueError: the collar is negative or not a number.
    """

    def __init__(self, collar: float = 0.0, skip_overlap: bool = False) -> None:
        if not 0 <= collar < math.inf:
            raise ValueError(f"collar is {collar}; expected seconds, 0 or more (total width around a boundary)")
        self._settings = {"collar": collar, "skip_overlap": skip_overlap}
        self._metrics = {
            prefix: (DiarizationErrorRate(**self._settings), JaccardErrorRate(**self._settings))
            for prefix in ("", "floor_")
        }
        self._recordings: dict[str | None, dict[str, float]] = {}

    def add(self, reference: Annotation, hypothesis: Annotation, uem: Timeline | None = None) -> dict[str, float]:
        """Scores one recording, named by `reference.uri`.

        Overlapping turns of the same speaker are merged first.

        Args:
            reference: reference turns, in seconds.
            hypothesis: hypothesis turns; speaker names need not match.
            uem: regions to score; the whole file by default.

        Returns:
            `speech` (reference speech in seconds, overlap counted per speaker), `diarization_error_rate` and
            its parts `missed_speech`, `false_alarm`, `confusion` over `speech`, `jaccard_error_rate`, the same
            rates with the prefix `floor_`, `reference_speakers`, `hypothesis_speakers` and their absolute
            difference `speaker_count_error`. Without any reference speech a rate is 0.0 when there is no error
            and 1.0 when there is.

        Raises:
            ValueError: a recording of that name has already been added.
        """
        if reference.uri in self._recordings:
            raise ValueError(f"recording {reference.uri!r} is there twice; give each its own name")
        if uem is None:
            uem = Timeline([reference.get_timeline().extent() | hypothesis.get_timeline().extent()])
        reference, hypothesis = reference.support(), hypothesis.support()
        speakers, found = (len(turns.crop(uem).labels()) for turns in (reference, hypothesis))
        hypotheses = {"": hypothesis, "floor_": _floor(reference)}
        components = {
            prefix: [metric(reference, hypotheses[prefix], uem=uem, detailed=True) for metric in metrics]
            for prefix, metrics in self._metrics.items()
        }
        self._recordings[reference.uri] = _summarize(components) | {
            "reference_speakers": speakers,
            "hypothesis_speakers": found,
            "speaker_count_error": abs(found - speakers),
        }
        return self._recordings[reference.uri]

    def result(self) -> dict:
        """`collar`, `skip_overlap`, `recordings` (the scores of `add` by name) and `total`.

        The total holds the same rates over all recordings, `speech` in seconds, and the mean over recordings of
        `speaker_count_error`. The Jaccard error rate is a mean over reference speakers.

        Raises:
            ValueError: no recording was added.
        """
        if not self._recordings:
            raise ValueError("there is no recording to score: add one or more first")
        total = _summarize({prefix: [metric[:] for metric in metrics] for prefix, metrics in self._metrics.items()})
        miscounts = [scores["speaker_count_error"] for scores in self._recordings.values()]
        total["speaker_count_error"] = sum(miscounts) / len(miscounts)
        return {**self._settings, "recordings": dict(self._recordings), "total": total}


def score_recording(
    reference: Annotation,
    hypothesis: Annotation,
    uem: Timeline | None = None,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> dict[str, float]:
    """`RecordingScores.add` of a single recording."""
    return RecordingScores(collar, skip_overlap).add(reference, hypothesis, uem)


def recording_table(result: dict) -> str:
    """A table of `RecordingScores.result` in percent, with floors in brackets."""
    each_side = f"{result['collar'] / 2:g} s on each side" if result["collar"] else "nothing forgiven"
    overlap = "not scored" if result["skip_overlap"] else "scored"
    header = ["% (floor)", "speech (s)", *(HEADINGS[name] for name in RATES), "speakers (true)"]
    rows = [
        [name, f"{scores['speech']:.1f}", *(beside_floor(scores, rate) for rate in RATES)]
        + [f"{scores['hypothesis_speakers']} ({scores['reference_speakers']})"]
        for name, scores in result["recordings"].items()
    ]
    total = result["total"]
    rows.append(
        ["total", f"{total['speech']:.1f}", *(beside_floor(total, rate) for rate in RATES)]
        + [f"off by {total['speaker_count_error']:.1f}"]
    )
    caption = f"Collar {result['collar']:g} s in total ({each_side}), overlap {overlap}."
    return f"{caption}\n\n{table(header, rows)}"


def _floor(reference: Annotation) -> Annotation:
    return reference.get_timeline().support().to_annotation(generator=repeat("anyone"))


def _summarize(components: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Speech and rates from the components of both metrics, by prefix, of one recording or accumulated."""
    summary = {"speech": components[""][0]["total"]}
    for prefix, (errors, jaccard) in components.items():
        summary |= {prefix + name: rate for name, rate in _rates(errors, jaccard).items()}
    return summary


def _rates(errors: dict[str, float], jaccard: dict[str, float]) -> dict[str, float]:
    seconds = {"diarization_error_rate": sum(errors[theirs] for theirs in ERRORS.values())}
    seconds |= {name: errors[theirs] for name, theirs in ERRORS.items()}
    speech, speakers = errors["total"], jaccard["speaker count"]
    rates = {name: value / speech if speech else float(value > 0) for name, value in seconds.items()}
    jaccard_rate = jaccard["speaker error"] / speakers if speakers else rates["diarization_error_rate"]
    return rates | {"jaccard_error_rate": jaccard_rate}
