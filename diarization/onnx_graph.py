"""Whether an ONNX file is a network like ours: told by its description, then by a run on a little noise."""

from pathlib import Path

import numpy as np

from common.errors import first_line
from modeling.settings_fast_diarization import FRAME_SAMPLES, MIN_SAMPLES, SAMPLING_RATE
from modeling.task_fast_diarization import MOST_TRACKS
from modeling.windows_fast_diarization import finite

ONNX_FILE = "model.onnx"
INPUT, OUTPUTS = "input_values", ["logits", "speaker_embeddings"]
FLOAT = "tensor(float)"
TRIED = ((1, MIN_SAMPLES), (2, 3 * SAMPLING_RATE))
"""(windows, samples) of the noise."""
REMEDY = "give a model that train.py or export.py wrote (such as runs/demo/model) or a Hub id"


class ModelError(ValueError):
    """A model that cannot be used; the message is one line."""


def check_graph(session, file: Path) -> None:
    """
    Raises:
        ModelError: the ONNX Runtime session of a file has other inputs and outputs than our networks: names, types,
            dimensions, or lengths that are fixed.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = [[value.name for value in values] for values in (inputs, outputs)]
    if found != [[INPUT], OUTPUTS]:
        raise ModelError(f"model {file} maps {found[0]} to {found[1]} and not {[INPUT]} to {OUTPUTS}; {REMEDY}")
    for value in (*inputs, *outputs):
        if value.type != FLOAT:
            raise ModelError(f"model {file} has {value.name} of {value.type} and not of {FLOAT}; {REMEDY}")
    shape = inputs[0].shape
    if len(shape) != 2:
        raise ModelError(f"model {file} takes {INPUT} of shape {shape} and not (batch, samples); {REMEDY}")
    if any(isinstance(axis, int) for axis in shape):
        raise ModelError(
            f"model {file} takes {INPUT} of shape {shape} only, and batch and samples must be free; export it anew by "
            "python export.py"
        )


def try_graph(session, file: Path) -> None:
    """Run a session on noise of the least length and of 3 s.

    Raises:
        ModelError: it fails, or the outputs have other shapes than those of our networks, or are NaN.
    """
    for batch, samples in TRIED:
        noise = 0.1 * np.random.default_rng(0).standard_normal((batch, samples), np.float32)
        try:
            logits, embeddings = session.run(OUTPUTS, {INPUT: noise})
        except Exception as error:  # onnxruntime has no base class for what it raises
            raise ModelError(f"model {file} fails on {samples} samples ({first_line(error)}); {REMEDY}") from error
        tracks = logits.shape[-1] if logits.ndim == 3 else 0
        if (
            logits.shape != (batch, samples // FRAME_SAMPLES, tracks)
            or embeddings.shape != (batch, tracks, *embeddings.shape[2:3])
            or embeddings.ndim != 3
            or not 1 <= tracks <= MOST_TRACKS
        ):
            raise ModelError(
                f"model {file} gives {OUTPUTS[0]} of shape {logits.shape} and {OUTPUTS[1]} of {embeddings.shape} for "
                f"{batch} x {samples} samples, and not ({batch}, {samples // FRAME_SAMPLES}, speakers) and "
                f"({batch}, speakers, dim); {REMEDY}"
            )
        try:
            finite(logits, embeddings)
        except ValueError as error:
            raise ModelError(f"model {file}: {error}") from None
