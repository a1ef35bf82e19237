"""Opening of a model as a function of numpy arrays, on torch or on ONNX Runtime, whichever the model is for."""

import importlib.util
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.errors import first_line
from modeling.settings_fast_diarization import LinkingSettings
from modeling.windows_fast_diarization import Network

ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"
OUTPUTS = ["logits", "speaker_embeddings"]
REMEDY = "give a model that train.py or export.py wrote (such as runs/demo/model) or a Hub id"


class ModelError(ValueError):
    """A model that cannot be used; the message is one line."""


def open_network(model: str) -> tuple[Network, LinkingSettings]:
    """
    Args:
        model: a directory as `train.py` or `export.py` writes it or the one above such a `model/`, a file in it, or a
            Hub id. A directory with an ONNX file runs on ONNX Runtime, which needs neither torch nor transformers and
            starts in a second; on a machine with an NVIDIA GPU, and without an ONNX file, it runs on torch. Naming the
            file decides.

    Raises:
        ModelError: no such model, or what is there cannot be used.
    """
    path = Path(model)
    if not (path / "config.json").exists() and (path / "model" / "config.json").is_file():
        path, model = path / "model", str(path / "model")
    if path.suffix == ".onnx":
        return _open_onnx(path)
    if path.name == WEIGHTS_FILE:
        return _open_torch(str(path.parent))
    if (path / ONNX_FILE).is_file() and not ((path / WEIGHTS_FILE).is_file() and _has_gpu_and_torch()):
        return _open_onnx(path / ONNX_FILE)
    return _open_torch(model)


def _has_gpu_and_torch() -> bool:
    return shutil.which("nvidia-smi") is not None and importlib.util.find_spec("torch") is not None


def _open_onnx(file: Path) -> tuple[Network, LinkingSettings]:
    import onnxruntime

    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        config = json.loads((file.parent / "config.json").read_text())
    except Exception as error:  # onnxruntime has no base class for what it raises
        raise ModelError(f"model {file} cannot be opened ({first_line(error)}); {REMEDY}") from error
    check_graph(session, file)
    return onnx_network(session, cores()), LinkingSettings.of(config)


def check_graph(session, file: Path) -> None:
    """
    Raises:
        ModelError: the ONNX Runtime session of a file has other inputs and outputs than our networks.
    """
    found = [[value.name for value in values] for values in (session.get_inputs(), session.get_outputs())]
    if found != [["input_values"], OUTPUTS]:
        raise ModelError(f"model {file} maps {found[0]} to {found[1]} and not ['input_values'] to {OUTPUTS}; {REMEDY}")


def cores() -> int:
    """Those this process may use, shared with the others that `accelerate launch` or `torchrun` started."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def onnx_network(session, threads: int) -> Network:
    """A session of one thread as a function; the windows of a batch are shared out over `threads`.

    Whole windows side by side cost less than every operator shared out, which is what ONNX Runtime's own threads do.
    """
    pool = ThreadPoolExecutor(threads)

    def network(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = np.array_split(windows, min(threads, len(windows)))
        answers = pool.map(lambda part: session.run(OUTPUTS, {"input_values": part}), parts)
        return tuple(np.concatenate(values) for values in zip(*answers))

    return network


def _open_torch(model: str) -> tuple[Network, LinkingSettings]:
    import torch

    from modeling.pipeline_fast_diarization import torch_network

    network = load_weights(model).to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    return torch_network(network), LinkingSettings.of(network.config.to_dict())


def load_weights(model: str):
    """The `FastDiarizationForAudioFrameClassification` of a directory or Hub id, to be run and not trained.

    Raises:
        ModelError: no such model, or it is another kind of network.
    """
    from safetensors import SafetensorError

    from modeling import FastDiarizationForAudioFrameClassification

    is_no_hub_id = model.count("/") != 1 or model.startswith((".", "/", "~", "runs/", "pretrained/"))
    if is_no_hub_id and not Path(model).exists():
        raise ModelError(
            f"model {model}: no such directory; train one (accelerate launch train.py) and name it with --model"
        )
    try:
        network, found = FastDiarizationForAudioFrameClassification.from_pretrained(model, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model {model} cannot be opened ({first_line(error)}); {REMEDY}") from error
    if found["missing_keys"]:
        raise ModelError(
            f"model {model} is no Fast Diarization model: it has no {min(found['missing_keys'])}; {REMEDY}"
        )
    return network.eval()
