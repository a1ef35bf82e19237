"""Systems to score on the same windows: our networks and pyannote's segmentation-3.0."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from common.errors import first_line
from diarization.backends import ModelError, open_network
from modeling.settings_fast_diarization import FRAME_SAMPLES, MIN_SAMPLES, SAMPLING_RATE


class System(Protocol):
    """Anything that detects which speakers are active in windows."""

    name: str

    def activity(self, windows: np.ndarray, frames: int) -> np.ndarray:
        """float32 (windows, samples) at 16 kHz -> bool (windows, frames, tracks), `frames` spread over the window."""


class Ours:
    """A model directory, ONNX file or Hub id."""

    def __init__(self, model: str, name: str):
        self.name = name
        self.network, self.settings = open_network(model)

    @cached_property
    def num_speakers(self) -> int:
        """Speakers told apart in one window."""
        return self.network(np.zeros((1, MIN_SAMPLES), np.float32))[0].shape[2]

    def activity(self, windows: np.ndarray, frames: int) -> np.ndarray:
        logits = self.network(windows)[0]
        seconds = windows.shape[1] / SAMPLING_RATE
        return nearest(logits > 0, FRAME_SAMPLES / SAMPLING_RATE, FRAME_SAMPLES / SAMPLING_RATE / 2, seconds, frames)


class Segmentation3:
    """pyannote segmentation-3.0 as ONNX: waveform (batch, 1, samples) in, log-softmax over 7 speaker sets out.

    Each frame of 16.875 ms gets the most probable set of at most two of three speakers (Plaquet and Bredin,
    Interspeech 2023). The network was trained on 10 s windows; say so wherever shorter ones are scored.

    Raises:
        ModelError: the file cannot be opened, or is a different model.
    """

    SETS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
    STEP, FIRST = 270 / SAMPLING_RATE, 495 / SAMPLING_RATE

    def __init__(self, file: str):
        import onnxruntime

        self.name = Path(file).stem
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no base class for what it raises
            raise ModelError(
                f"peer {file!r} cannot be opened ({first_line(error)}); give segmentation-3.0 as an ONNX file"
            ) from error
        self.input = self.session.get_inputs()[0].name
        sets = self.session.get_outputs()[0].shape[-1]
        if sets != len(self.SETS):
            raise ModelError(f"peer {file!r} gives {sets} values per frame; segmentation-3.0 gives {len(self.SETS)}")

    def activity(self, windows: np.ndarray, frames: int) -> np.ndarray:
        scores = self.session.run(None, {self.input: windows[:, None]})[0]
        seconds = windows.shape[1] / SAMPLING_RATE
        return nearest(self.SETS[scores.argmax(-1)], self.STEP, self.FIRST, seconds, frames)


def open_systems(models: Sequence[str], peer: str | None = None) -> list[System]:
    """Open our models, each named by the last part of its path if that is unique, and the peer if given.

    Raises:
        ModelError: a model cannot be opened, or is given twice.
    """
    names = [model_name(model) for model in models]
    if len(set(names)) < len(names):
        names = list(models)
    if len(set(names)) < len(names):
        raise ModelError(f"a model is given twice among: {', '.join(models)}")
    ours = [Ours(model, name) for model, name in zip(models, names)]
    return ours + ([Segmentation3(peer)] if peer else [])


def model_name(model: str) -> str:
    """`lightweight-cnn` of a directory or Hub id, `lightweight-cnn/model.onnx` of a file in it."""
    path = Path(model)
    return f"{path.resolve().parent.name}/{path.name}" if path.suffix == ".onnx" else path.name


def nearest(activity: np.ndarray, step: float, first: float, seconds: float, frames: int) -> np.ndarray:
    """Resample activity to another frame grid, by nearest frame centres.

    Args:
        activity: (windows, frames, tracks), one frame every `step` seconds, the first centred at `first` seconds.
        seconds: length of the window that `frames` new frames are spread over.
    """
    centres = (np.arange(frames) + 0.5) * seconds / frames
    return activity[:, np.clip(np.round((centres - first) / step), 0, activity.shape[1] - 1).astype(int)]
