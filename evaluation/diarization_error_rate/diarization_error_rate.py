"""Diarization error rate and frame accuracy of short windows.

    metric = evaluate.load("evaluation/diarization_error_rate")
    metric.compute(predictions=predictions, references=references)

`evaluate` copies this file and `window_errors.py`, which computes, and nothing else of the project.
"""

import datasets
import evaluate
import numpy as np

from .window_errors import count_errors, error_rates, floor

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
