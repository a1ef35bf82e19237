"""Diarization error rate and frame accuracy of short windows.

    metric = evaluate.load("evaluation/diarization_error_rate")
    metric.compute(predictions=predictions, references=references)

`evaluate` copies this file alone, so it imports nothing from the project. `count_errors`, `error_rates` and
`floor` are the same computation as plain functions on whole batches.
"""

from collections.abc import Mapping
from itertools import permutations

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

MAX_ENUMERATED_TRACKS = 4
ERRORS = ("missed_speech", "false_alarm", "confusion")

DESCRIPTION = """\
Diarization error rate (DER) of windows of frame-level speaker activity, with its parts and the exact frame
accuracy, each beside its floor: the score of an oracle that knows when anyone speaks and puts it all on one
speaker. No collar; overlapped speech is scored. Every window has its own best permutation of speakers.
"""

INPUTS = """
Args:
    predictions: one (frames, speakers) array or nested list of 0 and 1 per window.
    references: the same for the reference; frames must agree within a window, the number of speakers need not.
Returns:
    diarization_error_rate: missed speech + false alarm + confusion, over reference speech.
    missed_speech, false_alarm, confusion: the three parts, over reference speech.
    frame_accuracy: share of frames in which every speaker's state is right.
    floor_*: the same five figures for the oracle that puts all speech on one speaker.
    Sums run over all windows before the division. Without any reference speech a rate is 0.0 when there is no
    error and 1.0 when there is, as in pyannote.metrics.
"""

CITATION = """\
@inproceedings{pyannote.metrics,
  author = {Herv\\'e Bredin},
  title = {{pyannote.metrics: a toolkit for reproducible evaluation, diagnostic, and error analysis of speaker
            diarization systems}},
  booktitle = {Interspeech 2017},
  year = {2017},
}
"""


def count_errors(predictions: ArrayLike, references: ArrayLike, mask: ArrayLike | None = None) -> dict[str, np.ndarray]:
    """Counts the errors of each window after its best permutation of speakers.

    Per frame, with the definitions of pyannote.metrics: missed speech is max(0, reference - predicted speakers),
    false alarm max(0, predicted - reference), confusion min(reference, predicted) - correctly named speakers.
    The permutation is the one with the fewest errors in the window; up to four speakers, equally good ones are
    told apart by the number of entirely correct frames.

    Args:
        predictions: 0/1 of shape (windows, frames, predicted speakers).
        references: 0/1 of shape (windows, frames, reference speakers).
        mask: true where a frame is scored, of shape (windows, frames); every frame by default.

    Returns:
        Integer arrays of shape (windows,): `speakers` (reference speakers heard in the window), `speech`,
        `missed_speech`, `false_alarm`, `confusion` (speaker frames), `correct_frames` (every speaker's state
        right) and `frames`; the latter six also as `overlap_*`, over the frames with two or more reference
        speakers, under the same permutation.

    Raises:
        ValueError: shapes disagree, or a value is neither 0 nor 1.
    """
    hypothesis, reference, scored = _agreeing(predictions, references, mask)
    tracks = max(hypothesis.shape[2], reference.shape[2])
    hypothesis = _by_track(hypothesis, tracks) & scored
    reference = _by_track(reference, tracks) & scored
    permutation = _best_permutation(hypothesis, reference)
    hypothesis = np.take_along_axis(hypothesis, permutation[:, :, None], axis=0)

    speaking, predicted, named = (
        activity.sum(axis=0, dtype=np.int16) for activity in (reference, hypothesis, reference & hypothesis)
    )
    per_frame = {
        "speech": speaking,
        "missed_speech": np.maximum(speaking - predicted, 0),
        "false_alarm": np.maximum(predicted - speaking, 0),
        "confusion": np.minimum(speaking, predicted) - named,
        "correct_frames": scored & (named == speaking) & (named == predicted),
        "frames": scored,
    }
    overlap = speaking > 1
    counts = {"speakers": reference.any(axis=2).sum(axis=0)}
    counts |= {name: values.sum(axis=1) for name, values in per_frame.items()}
    counts |= {f"overlap_{name}": (values * overlap).sum(axis=1) for name, values in per_frame.items()}
    return counts


def floor(references: ArrayLike) -> np.ndarray:
    """Predictions of an oracle that knows when anyone speaks and puts it all on the first speaker.

    Args:
        references: 0/1 of shape (..., frames, speakers).

    Returns:
        Booleans of the same shape.
    """
    references = np.asarray(references, dtype=bool)
    predictions = np.zeros_like(references)
    predictions[..., 0] = references.any(axis=-1)
    return predictions


def error_rates(counts: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Turns the counts of `count_errors` (arrays, or sums of them) into rates over all their windows.

    Returns:
        `diarization_error_rate` and its parts `missed_speech`, `false_alarm`, `confusion` over reference speech
        (without any: 0.0 if there is no error, else 1.0, as pyannote.metrics), and `frame_accuracy`.

    Raises:
        ValueError: there is no frame to score.
    """
    total = {name: int(np.sum(values)) for name, values in counts.items()}
    if not total["frames"]:
        raise ValueError("there is no frame to score: every one is masked, or the windows are empty")
    speech = total["speech"]
    errors = {"diarization_error_rate": sum(total[name] for name in ERRORS)}
    errors |= {name: total[name] for name in ERRORS}
    rates = {name: value / speech if speech else float(value > 0) for name, value in errors.items()}
    return rates | {"frame_accuracy": total["correct_frames"] / total["frames"]}


class DiarizationErrorRate(evaluate.Metric):
    """`evaluate` module over `count_errors`; see `inputs_description`."""

    def _info(self) -> evaluate.MetricInfo:
        window = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": window, "references": window}),
            reference_urls=["https://github.com/pyannote/pyannote-metrics"],
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        hypothesis, predicted_frames = _stack(predictions, "predictions")
        reference, frames = _stack(references, "references")
        for index in np.flatnonzero(predicted_frames != frames):
            raise ValueError(
                f"window {index} has {predicted_frames[index]} frames in predictions and {frames[index]} in "
                "references; they must agree"
            )
        mask = np.arange(reference.shape[1]) < frames[:, None]
        rates = error_rates(count_errors(hypothesis, reference, mask))
        floor_rates = error_rates(count_errors(floor(reference), reference, mask))
        return rates | {f"floor_{name}": value for name, value in floor_rates.items()}


def _agreeing(
    predictions: ArrayLike, references: ArrayLike, mask: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of `count_errors` as booleans, their shapes compared."""
    hypothesis, reference = _activity(predictions, "predictions"), _activity(references, "references")
    if hypothesis.shape[:2] != reference.shape[:2]:
        raise ValueError(
            f"predictions have shape {hypothesis.shape} and references {reference.shape}; "
            "they must agree in (windows, frames)"
        )
    scored = np.ones(reference.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if scored.shape != reference.shape[:2]:
        raise ValueError(f"mask has shape {scored.shape}; expected (windows, frames) = {reference.shape[:2]}")
    return hypothesis, reference, scored


def _activity(values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 3:
        raise ValueError(f"{name} have shape {values.shape}; expected (windows, frames, speakers)")
    if values.dtype != bool:
        wrong = values[(values != 0) & (values != 1)]
        if wrong.size:
            raise ValueError(f"{name} hold the value {wrong[0]:g}; expected 0 or 1, so threshold scores first")
    return values.astype(bool)


def _by_track(activity: np.ndarray, tracks: int) -> np.ndarray:
    """(windows, frames, speakers) as (tracks, windows, frames), which numpy reduces much faster."""
    return np.pad(np.moveaxis(activity, 2, 0), ((0, tracks - activity.shape[2]), (0, 0), (0, 0)))


def _best_permutation(hypothesis: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Predicted track of each reference track, (tracks, windows), from two (tracks, windows, frames)."""
    tracks, windows, frames = reference.shape
    together = hypothesis.astype(np.float32).swapaxes(0, 1) @ reference.astype(np.float32).transpose(1, 2, 0)
    if tracks > MAX_ENUMERATED_TRACKS:
        best = [linear_sum_assignment(pairs.T, maximize=True)[1] for pairs in together]
        return np.array(best, dtype=int).reshape(windows, tracks).T
    candidates = np.array(list(permutations(range(tracks))))
    named = together[:, candidates, np.arange(tracks)].sum(axis=2).astype(np.int64)
    # A frame's states as one number: row k of `bits` reads the predicted tracks in the order of candidate k.
    bits = (1 << np.argsort(candidates, axis=1)).astype(np.uint8)
    states, expected = (
        (weights @ activity.astype(np.uint8).reshape(tracks, -1)).reshape(len(weights), windows, frames)
        for weights, activity in ((bits, hypothesis), (bits[:1], reference))
    )
    correct = (states == expected).sum(axis=2).T
    return candidates[np.argmax(named * (frames + 1) + correct, axis=1)].T


def _stack(windows: list, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pads (frames, speakers) windows with silence into one batch; returns it and each window's frames."""
    if not windows:
        raise ValueError(f"{name} hold no window to score; give one or more")
    windows = [np.asarray(window) for window in windows]
    for index, window in enumerate(windows):
        if window.ndim != 2:
            raise ValueError(f"window {index} of {name} has shape {window.shape}; expected (frames, speakers)")
    batch = np.zeros((len(windows), *np.max([window.shape for window in windows], axis=0)))
    for padded, window in zip(batch, windows, strict=True):
        padded[: window.shape[0], : window.shape[1]] = window
    return batch, np.array([len(window) for window in windows])
