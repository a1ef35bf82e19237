"""Scores of whole recordings as pyannote.metrics defines them, beside those of a one-speaker oracle (the floor).

Without an evaluation map a recording is scored from the first to the last turn of reference or hypothesis; outside
there is nothing to score, so the length of the audio does not matter. The oracle knows when anyone speaks and gives all
of it to one speaker.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np
from pyannote.core import Annotation, Timeline

from common.markdown import table
from data.annotations import SLACK_SECONDS
from evaluation.rates import HEADINGS, beside_floor
from evaluation.turn_errors import Turns, to_spans, turn_errors

ERRORS = ("missed_speech", "false_alarm", "confusion")
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
        self._totals: dict[str, Counter] = {"": Counter(), "floor_": Counter()}
        self._recordings: dict[str | None, dict[str, float]] = {}
        self._scored: dict[str | None, float] = {}

    def add(
        self,
        reference: Annotation,
        hypothesis: Annotation,
        uem: Timeline | None = None,
        seconds: float | None = None,
    ) -> dict[str, float]:
        """Scores one recording, named by `reference.uri`.

        Overlapping turns of the same speaker are merged first.

        Args:
            reference: reference turns, in seconds.
            hypothesis: hypothesis turns; speaker names need not match.
            uem: regions to score; the whole file by default.
            seconds: length of the recording; by default it ends with the last turn.

        Returns:
            `speech` (reference speech in seconds, overlap counted per speaker), `diarization_error_rate` and
            its parts `missed_speech`, `false_alarm`, `confusion` over `speech`, `jaccard_error_rate`, the same
            rates with the prefix `floor_`, `reference_speakers`, `hypothesis_speakers` and their absolute
            difference `speaker_count_error`. Without any reference speech a rate is 0.0 when there is no error and
            1.0 when there is; `false_alarm_seconds` and `scored_seconds` (of the regions, or of the file) then say
            how much there is.

        Raises:
            ValueError: a recording of that name has already been added.
        """
        if reference.uri in self._recordings:
            raise ValueError(f"recording {reference.uri!r} is there twice; give each its own name")
        true, found = Turns.of(reference), Turns.of(hypothesis)
        spans = np.concatenate([true.spans, found.spans])
        whole = np.array([[spans.min(initial=math.inf), spans.max(initial=0.0)]][: len(spans)]).reshape(-1, 2)
        regions = whole if uem is None else to_spans(uem.support())
        scored = float(np.diff(regions).sum() if uem is not None else max(seconds or 0.0, spans.max(initial=0.0)))
        _warn_beyond(reference.uri, true.spans, None if uem is None else regions, seconds)
        errors = {
            prefix: turn_errors(true, turns, regions, **self._settings)
            for prefix, turns in (("", found), ("floor_", true.of_anyone()))
        }
        for prefix, counts in errors.items():
            self._totals[prefix].update(counts)
        numbers = {name: errors[""][name] for name in ("reference_speakers", "hypothesis_speakers")}
        off = abs(numbers["hypothesis_speakers"] - numbers["reference_speakers"])
        scores = _summarize(errors) | numbers | {"speaker_count_error": off}
        if not errors[""]["speech"]:
            scores |= {"false_alarm_seconds": errors[""]["false_alarm"], "scored_seconds": scored}
        self._recordings[reference.uri], self._scored[reference.uri] = scores, scored
        return scores

    def result(self) -> dict:
        """`collar`, `skip_overlap`, `recordings` (the scores of `add` by name) and `total`.

        The total holds the same rates over all recordings, `speech` in seconds, the mean over recordings of
        `speaker_count_error`, and the shares of recordings whose number of speakers is exact (`count_exact`) and off
        by one at most (`count_within_one`). The Jaccard error rate is a mean over reference speakers.

        Raises:
            ValueError: no recording was added.
        """
        if not self._recordings:
            raise ValueError("there is no recording to score: add one or more first")
        total = _summarize(self._totals)
        total |= count_shares(self._recordings)
        if not total["speech"]:
            alarm = self._totals[""]["false_alarm"]
            total |= {"false_alarm_seconds": alarm, "scored_seconds": sum(self._scored.values())}
        return {**self._settings, "recordings": dict(self._recordings), "total": total}


def _warn_beyond(name: str, turns: np.ndarray, regions: np.ndarray | None, seconds: float | None) -> None:
    """Warn where a reference, or what is to be scored, goes on after the end of the recording."""
    for what, spans in (("reference", turns), ("UEM", regions)):
        last = 0.0 if spans is None else spans.max(initial=0.0)
        if seconds is not None and last > seconds + SLACK_SECONDS:
            warnings.warn(
                f"the {what} of {name!r} goes on to {last:.1f} s, its audio ends at {seconds:.1f} s; is it of a longer "
                "recording?",
                stacklevel=3,
            )


def score_recording(
    reference: Annotation,
    hypothesis: Annotation,
    uem: Timeline | None = None,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> dict[str, float]:
    """`RecordingScores.add` of a single recording."""
    return RecordingScores(collar, skip_overlap).add(reference, hypothesis, uem)


def count_shares(recordings: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`speaker_count_error`, `count_exact` and `count_within_one` of `RecordingScores.result`."""
    miscounts = [scores["speaker_count_error"] for scores in recordings.values()]
    return {
        "speaker_count_error": sum(miscounts) / len(miscounts),
        "count_exact": sum(error == 0 for error in miscounts) / len(miscounts),
        "count_within_one": sum(error <= 1 for error in miscounts) / len(miscounts),
    }


def recording_table(result: dict) -> str:
    """A table of `RecordingScores.result` in percent, with floors in brackets.

    Of a recording without reference speech the false alarm is given in seconds, and in seconds a minute.
    """
    each_side = f"{result['collar'] / 2:g} s on each side" if result["collar"] else "nothing forgiven"
    overlap = "not scored" if result["skip_overlap"] else "scored"
    header = ["% (floor)", "speech (s)", *(HEADINGS[name] for name in RATES), "speakers (true)"]
    rows = [
        [name, *_row(scores), f"{scores['hypothesis_speakers']} ({scores['reference_speakers']})"]
        for name, scores in result["recordings"].items()
    ]
    total = result["total"]
    rows.append(["total", *_row(total), f"off by {total['speaker_count_error']:.1f}"])
    caption = f"Collar {result['collar']:g} s in total ({each_side}), overlap {overlap}."
    return f"{caption}\n\n{table(header, rows)}"


def _row(scores: Mapping[str, float]) -> list[str]:
    if "false_alarm_seconds" not in scores:
        return [f"{scores['speech']:.1f}", *(beside_floor(scores, rate) for rate in RATES)]
    seconds, minutes = scores["false_alarm_seconds"], scores["scored_seconds"] / 60
    alarm = f"{seconds:.1f} s" + (f", {seconds / minutes:.1f} s a minute" if minutes else "")
    return ["0.0", *(alarm if rate == "false_alarm" else "-" for rate in RATES)]


def _summarize(errors: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Speech and rates from `turn_errors` of hypothesis and floor, by prefix, of one recording or summed."""
    summary = {"speech": errors[""]["speech"]}
    for prefix, counts in errors.items():
        summary |= {prefix + name: rate for name, rate in _rates(counts).items()}
    return summary


def _rates(errors: Mapping[str, float]) -> dict[str, float]:
    seconds = {"diarization_error_rate": sum(errors[name] for name in ERRORS)}
    seconds |= {name: errors[name] for name in ERRORS}
    speech, speakers = errors["speech"], errors["scored_speakers"]
    rates = {name: value / speech if speech else float(value > 0) for name, value in seconds.items()}
    jaccard_rate = errors["jaccard"] / speakers if speakers else rates["diarization_error_rate"]
    return rates | {"jaccard_error_rate": jaccard_rate}
