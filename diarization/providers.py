"""ONNX Runtime on the processor that was asked for, or one line that says what to install: never silently another."""

import contextlib
import importlib.util
import io
import shutil
from pathlib import Path

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
BUILDS = {12: "onnxruntime-gpu<1.27", 13: "onnxruntime-gpu>=1.28"}
"""What pip installs for each major version of CUDA: 1.26 is the last build for 12."""
FATAL = 4
"""Of ONNX Runtime's log, which would say on standard error what the exception says."""


class NoProvider(ValueError):
    """The provider that was asked for is not available; the message is one line."""


def start_session(model: bytes | Path, provider: str = "cpu", options=None, **settings: str):
    """
    Args:
        provider: a key of `PROVIDERS`.
        options: of the session; one thread and no log by default.
        settings: of the provider.

    Returns:
        an `onnxruntime.InferenceSession`.

    Raises:
        NoProvider: the provider is not in this ONNX Runtime, or could not be loaded.
        Exception: of ONNX Runtime, which has no base class for its own: the model cannot be opened.
    """
    import onnxruntime

    name = PROVIDERS[provider]
    if name not in onnxruntime.get_available_providers():
        raise NoProvider(f"provider {provider} is not in this ONNX Runtime; {_remedy()}")
    if options is None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
    options.log_severity_level = FATAL
    if provider != "cpu":
        onnxruntime.set_default_logger_severity(FATAL)
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()  # CUDA's libraries as pip installs them beside torch
    session = onnxruntime.InferenceSession(model, options, providers=[(name, settings)])
    if session.get_providers()[0] != name:
        raise NoProvider(f"provider {provider} could not start here: {_obstacle()}")
    return session


def _obstacle() -> str:
    """Why a build with CUDA cannot use it."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA GPU or no driver; use --provider cpu"
    built, present = _built_for(), _cuda_of_torch()
    if built and present and built != present:
        return f"this ONNX Runtime is built for CUDA {built}, and torch has CUDA {present}; {_remedy()}"
    return f"the libraries of CUDA {built or ''} and cuDNN do not load; {_remedy()}"


def _remedy() -> str:
    uninstall = "pip uninstall -y onnxruntime && " if _package() == "onnxruntime" else ""  # both own one directory
    if (cuda := _cuda_of_torch()) in BUILDS:
        return f'{uninstall}pip install "{BUILDS[cuda]}", for CUDA {cuda}'
    return f"{uninstall}pip install " + ", or ".join(f'"{build}" for CUDA {cuda}' for cuda, build in BUILDS.items())


def _package() -> str | None:
    return getattr(_build_information(), "package_name", None)


def _built_for() -> int | None:
    """The major version of CUDA that ONNX Runtime was built for."""
    return _major(getattr(_build_information(), "cuda_version", None))


def _build_information():
    try:
        from onnxruntime.capi import build_and_package_info
    except ImportError:  # builds other than Microsoft's
        return None
    return build_and_package_info


def _cuda_of_torch() -> int | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return _major(torch.version.cuda)


def _major(version: str | None) -> int | None:
    number = (version or "").partition(".")[0]
    return int(number) if number.isdecimal() else None
