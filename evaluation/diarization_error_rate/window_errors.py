"""Diarization error rate and frame accuracy of whole batches of windows, as plain functions."""

from collections.abc import Mapping
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

MAX_ENUMERATED_TRACKS = 4
ERRORS = ("missed_speech", "false_alarm", "confusion")


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
