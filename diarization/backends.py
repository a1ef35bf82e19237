"""Opening of a model as a function of numpy arrays, on torch or on ONNX Runtime, whichever the model is for."""

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.errors import first_line
from diarization.onnx_graph import INPUT, ONNX_FILE, OUTPUTS, REMEDY, ModelError, check_graph, try_graph
from diarization.providers import NoProvider, start_session
from modeling.settings_fast_diarization import LinkingSettings
from modeling.windows_fast_diarization import Network, finite

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
LARGEST_CONFIG = 2**20
"""Bytes; ours have some 2 000."""


def open_network(
    model: str, provider: str | None = None, revision: str | None = None
) -> tuple[Network, LinkingSettings]:
    """
    Args:
        model: a directory as `train.py` or `export.py` writes it or the one above such a `model/`, a file in it, or a
            Hub id. A model with an ONNX file runs on ONNX Runtime, which needs neither torch nor transformers and
            starts in a second; on a machine with an NVIDIA GPU, and without an ONNX file, it runs on torch. Naming the
            file decides.
        provider: of ONNX Runtime, a key of `PROVIDERS`; naming one decides for the ONNX file.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ModelError: no such model, or what is there cannot be used.
        NoProvider: the provider is not available.
    """
    path = Path(model := of_run(model))
    if revision and path.exists():
        raise ModelError(f"model {model} is on this disk, and --revision is for a Hub id; leave it out")
    if path.suffix == ".onnx":
        return _open_onnx(path, provider)
    _refuse_absent(model)
    if path.name == WEIGHTS_FILE and provider is None:
        return _open_torch(str(path.parent))
    on_torch = provider is None and _has_gpu() and _has_torch()
    if not path.exists():
        if on_torch:
            return _open_torch(model, revision)
        path = download_model(model, (ONNX_FILE, CONFIG_FILE), revision)
        if not ((path / ONNX_FILE).is_file() or _has_torch()):
            raise ModelError(
                f"model {model} has no {ONNX_FILE} on the Hub, and torch is not installed to run its weights; "
                "pip install torch transformers"
            )
    elif not (path / WEIGHTS_FILE).is_file():
        on_torch = False
    if (path / ONNX_FILE).is_file() and not on_torch:
        return _open_onnx(path / ONNX_FILE, provider)
    if provider:
        raise ModelError(f"model {model} has no {ONNX_FILE}, which --provider is for; python export.py writes one")
    return _open_torch(model, revision)


def of_run(model: str) -> str:
    """The model of a run of train.py where its directory is named, or what is named."""
    path = Path(model)
    return (
        str(path / "model") if not (path / CONFIG_FILE).exists() and (path / "model" / CONFIG_FILE).is_file() else model
    )


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


def download_model(model: str, files: Sequence[str], revision: str | None = None) -> Path:
    """The directory of those of the files that a Hub id has, cached by huggingface_hub.

    Raises:
        ModelError: there is no such repository or revision, or no connection.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise ModelError(
            f"model {model}: no such directory here, and huggingface_hub is not installed to look for it on the Hub; "
            "check the path, or pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # of whichever HTTP library huggingface_hub uses
        reason = "the Hub cannot be reached" if isinstance(error, LocalEntryNotFoundError) else first_line(error)
        raise ModelError(
            f"model {model}: no such directory here, and it could not be fetched from the Hub ({reason}); check the "
            "name and the connection"
        ) from error


def _open_onnx(file: Path, provider: str | None) -> tuple[Network, LinkingSettings]:
    try:
        session = start_session(file.read_bytes(), provider or "cpu")
    except (NoProvider, ImportError):
        raise
    except Exception as error:  # onnxruntime has no base class for what it raises
        raise ModelError(f"model {file} cannot be opened ({first_line(error)}); {REMEDY}") from error
    settings = LinkingSettings.of(_config_in(file.parent))
    check_graph(session, file)
    try_graph(session, file)
    return onnx_network(session, cores() if provider in (None, "cpu") else 1), settings


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
            raise ValueError(f"it holds a {type(config).__name__}, not a mapping")
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


def _open_torch(model: str, revision: str | None = None) -> tuple[Network, LinkingSettings]:
    if not _has_torch():
        raise ModelError(
            f"model {model}: its weights need torch and transformers, which are not installed; pip install "
            f"torch transformers, or name a {ONNX_FILE} that export.py wrote"
        )
    import torch

    from modeling.pipeline_fast_diarization import torch_network

    network = load_weights(model, revision).to(
        f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    )
    return torch_network(network), LinkingSettings.of(network.config.to_dict())


def load_weights(model: str, revision: str | None = None):
    """The `FastDiarizationForAudioFrameClassification` of a directory or Hub id, to be run and not trained.

    Raises:
        ModelError: no such model, or it is another kind of network, or its weights are NaN or infinite.
    """
    from transformers.utils import logging

    from modeling import FastDiarizationForAudioFrameClassification

    _refuse_absent(model)
    place = Path(model) if Path(model).exists() else download_model(model, (WEIGHTS_FILE, CONFIG_FILE), revision)
    if place.is_dir():
        kind = _config_in(place).get("model_type")
        if kind != FastDiarizationForAudioFrameClassification.config_class.model_type:
            raise ModelError(f"model {model} is a network of type {kind!r:.60}; {REMEDY}")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of loading, which takes no time
    try:
        network, found = FastDiarizationForAudioFrameClassification.from_pretrained(place, output_loading_info=True)
    except Exception as error:  # a configuration of anything makes transformers raise anything
        raise ModelError(f"model {model} cannot be opened ({first_line(error)}); {REMEDY}") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    if found["missing_keys"]:
        raise ModelError(
            f"model {model} is not a Fast Diarization model: it has no {min(found['missing_keys'])}; {REMEDY}"
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
