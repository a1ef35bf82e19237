"""Opening of a model as a function of numpy arrays, on torch or on ONNX Runtime, whichever the model is for."""

import importlib.util
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.errors import first_line
from diarization.onnx_graph import INPUT, ONNX_FILE, OUTPUTS, REMEDY, ModelError, check_graph, try_graph
from modeling.settings_fast_diarization import LinkingSettings
from modeling.windows_fast_diarization import Network, finite

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
LARGEST_CONFIG = 2**20
"""Bytes; ours have some 2 000."""
FATAL = 4
"""Of ONNX Runtime's log, which would say on standard error what the exception says."""


def open_network(model: str) -> tuple[Network, LinkingSettings]:
    """
    Args:
        model: a directory as `train.py` or `export.py` writes it or the one above such a `model/`, a file in it, or a
            Hub id. A directory with an ONNX file runs on ONNX Runtime, which needs neither torch nor transformers and
            starts in a second; on a machine with an NVIDIA GPU, and without an ONNX file, it runs on torch. Naming the
            file decides. Of a Hub id the ONNX file is used where there is no torch.

    Raises:
        ModelError: no such model, or what is there cannot be used.
    """
    path = Path(model)
    if not (path / "config.json").exists() and (path / "model" / "config.json").is_file():
        path, model = path / "model", str(path / "model")
    if path.suffix == ".onnx":
        return _open_onnx(path)
    if path.name == WEIGHTS_FILE:
        _refuse_absent(model)
        return _open_torch(str(path.parent))
    _refuse_absent(model)
    if not path.exists() and not _has_torch():
        return _open_onnx(_download(model) / ONNX_FILE)
    if (path / ONNX_FILE).is_file() and not ((path / WEIGHTS_FILE).is_file() and _has_gpu() and _has_torch()):
        return _open_onnx(path / ONNX_FILE)
    return _open_torch(model)


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def _refuse_absent(model: str) -> None:
    """Raise a `ModelError` where a path leads nowhere and cannot be a Hub id."""
    is_no_hub_id = model.count("/") != 1 or model.startswith((".", "/", "~", "runs/", "pretrained/"))
    if is_no_hub_id and not Path(model).exists():
        raise ModelError(
            f"model {model}: no such directory; train one (accelerate launch train.py) and name it with --model"
        )


def _download(model: str) -> Path:
    """The directory of the ONNX file and configuration of a Hub id, cached by huggingface_hub."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(
            f"model {model}: no such directory here, and huggingface_hub is not installed to look for it on the Hub; "
            "check the path, or pip install huggingface_hub"
        ) from None
    try:
        directory = Path(snapshot_download(model, allow_patterns=[ONNX_FILE, CONFIG_FILE]))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {model}: no such directory here, and not to be had from the Hub ({first_line(error)}); check the "
            "name and the connection"
        ) from error
    if not (directory / ONNX_FILE).is_file():
        raise ModelError(
            f"model {model} has no {ONNX_FILE} on the Hub, and torch is not installed to run its weights; "
            "pip install -r requirements.txt"
        )
    return directory


def _open_onnx(file: Path) -> tuple[Network, LinkingSettings]:
    import onnxruntime

    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, FATAL
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no base class for what it raises
        raise ModelError(f"model {file} cannot be opened ({first_line(error)}); {REMEDY}") from error
    settings = LinkingSettings.of(_config_in(file.parent))
    check_graph(session, file)
    try_graph(session, file)
    return onnx_network(session, cores()), settings


def _config_in(directory: Path) -> dict:
    """The configuration of the model in a directory, of which the settings of linking are ours.

    Raises:
        ModelError: it is absent, or holds what no configuration of ours does.
    """
    file = directory / CONFIG_FILE
    try:
        with file.open("rb") as stream:
            text = stream.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise ValueError(f"more than {LARGEST_CONFIG} bytes")
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__} and no mapping")
        LinkingSettings.of(config)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"model {directory} cannot be opened ({CONFIG_FILE}: {first_line(error)}); {REMEDY}"
        ) from error
    return config


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
        outputs = pool.map(lambda part: session.run(OUTPUTS, {INPUT: part}), parts)
        return finite(*(np.concatenate(values) for values in zip(*outputs)))

    return network


def _open_torch(model: str) -> tuple[Network, LinkingSettings]:
    if not _has_torch():
        raise ModelError(
            f"model {model}: its weights need torch and transformers, which are not installed; pip install -r "
            f"requirements.txt, or name an {ONNX_FILE} that export.py wrote"
        )
    import torch

    from modeling.pipeline_fast_diarization import torch_network

    network = load_weights(model).to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    return torch_network(network), LinkingSettings.of(network.config.to_dict())


def load_weights(model: str):
    """The `FastDiarizationForAudioFrameClassification` of a directory or Hub id, to be run and not trained.

    Raises:
        ModelError: no such model, or it is another kind of network, or its weights are NaN or infinite.
    """
    from modeling import FastDiarizationForAudioFrameClassification

    _refuse_absent(model)
    if Path(model).is_dir():
        config = _config_in(Path(model))
        if config.get("model_type") != FastDiarizationForAudioFrameClassification.config_class.model_type:
            raise ModelError(f"model {model} is a network of type {config.get('model_type')!r:.60}; {REMEDY}")
    try:
        network, found = FastDiarizationForAudioFrameClassification.from_pretrained(model, output_loading_info=True)
    except Exception as error:  # a configuration of anything makes transformers raise anything
        raise ModelError(f"model {model} cannot be opened ({first_line(error)}); {REMEDY}") from error
    if found["missing_keys"]:
        raise ModelError(
            f"model {model} is no Fast Diarization model: it has no {min(found['missing_keys'])}; {REMEDY}"
        )
    if bad := first_non_finite(network):
        raise ModelError(
            f"model {model} has NaN or infinite weights (first in {bad}): its training diverged; use another model, or "
            "an earlier checkpoint"
        )
    return network.eval()


def first_non_finite(network) -> str | None:
    """The name of the first parameter or buffer of a torch network that holds NaN or infinity, `None` if all do not."""
    tensors = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
