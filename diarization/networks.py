"""Opening of a model as a function of numpy arrays, on torch or on ONNX Runtime, whichever the model is for."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np

from modeling.linking_fast_diarization import LinkingSettings, Network

ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"


class ModelError(ValueError):
    """A model that cannot be used; the message is one line."""


def open_network(model: str) -> tuple[Network, LinkingSettings]:
    """
    Args:
        model: an ONNX file with its `config.json` beside it, a directory as `train.py` or `export.py` writes it, or
            a Hub id. ONNX files, and directories with no other weights, need neither torch nor transformers, and
            neither do directories with both where torch is not installed.

    Raises:
        ModelError: no such model, or what is there cannot be used.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        return _open_onnx(path)
    weights = (path / WEIGHTS_FILE).is_file() and importlib.util.find_spec("torch") is not None
    if (path / ONNX_FILE).is_file() and not weights:
        return _open_onnx(path / ONNX_FILE)
    if not path.is_dir() and (model.count("/") != 1 or model.startswith((".", "/", "~", "runs/", "pretrained/"))):
        raise ModelError(f"model {model!r}: no such directory; train one with train.py or name another with --model")
    return _open_torch(model)


def _open_onnx(file: Path) -> tuple[Network, LinkingSettings]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        config = json.loads((file.parent / "config.json").read_text())
    except Exception as error:  # onnxruntime has no base class for what it raises
        raise ModelError(f"model {str(file)!r} cannot be opened: {_line(error)}") from error

    def network(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(session.run(["logits", "speaker_embeddings"], {"input_values": windows}))

    return network, LinkingSettings.of(config)


def _open_torch(model: str) -> tuple[Network, LinkingSettings]:
    import torch

    from modeling import FastDiarizationForAudioFrameClassification
    from modeling.pipeline_fast_diarization import torch_network

    try:
        network = FastDiarizationForAudioFrameClassification.from_pretrained(model)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"model {model!r} cannot be opened: {_line(error)}") from error
    network.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu").eval()
    return torch_network(network), LinkingSettings.of(network.config.to_dict())


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
