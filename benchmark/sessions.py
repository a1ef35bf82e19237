"""ONNX Runtime sessions on exactly the provider asked for."""

from pathlib import Path

import numpy as np
import onnxruntime

from common.errors import first_line
from diarization.backends import check_graph

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class NoProvider(RuntimeError):
    """The provider asked for is not to be had here."""


def open_session(file: Path, provider: str, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """
    Args:
        profile: beginning of the name of the file that `end_profiling` writes.

    Raises:
        ValueError: no such file, or it is no ONNX model.
        NoProvider: the provider is not there; ONNX Runtime would silently run on the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    name = PROVIDERS[provider]
    if name not in onnxruntime.get_available_providers():
        raise NoProvider(f"provider {provider} is not in this ONNX Runtime; install onnxruntime-gpu, or use cpu")
    # CUDA graphs replay one static shape, which a window is.
    settings = [(name, {"enable_cuda_graph": "1"})] if provider == "cuda" else [name]
    try:
        session = onnxruntime.InferenceSession(file, options, providers=settings)
    except Exception as error:  # onnxruntime has no base class for what it raises
        raise ValueError(
            f"model {file} cannot be opened ({first_line(error)}); write it anew with python export.py, or download it "
            "again"
        ) from error
    if session.get_providers()[0] != name:
        raise NoProvider(f"provider {provider} could not start here (no GPU or no driver); use --provider cpu")
    return session


def open_model(file: Path, provider: str, threads: int) -> onnxruntime.InferenceSession:
    """As [`open_session`], for a file of export.py.

    Raises:
        ModelError: it is a model of another kind.
    """
    if not file.is_file():
        raise FileNotFoundError(f"model {file} does not exist; run python export.py --model {file.parent} first")
    session = open_session(file, provider, threads)
    check_graph(session, file)
    return session


def runner(session: onnxruntime.InferenceSession, provider: str, windows: np.ndarray):
    """A call from waveforms to logits, copies to and from the device included."""
    if provider == "cpu":
        return lambda: session.run(["logits"], {"input_values": windows})
    binding = session.io_binding()
    on_device = onnxruntime.OrtValue.ortvalue_from_numpy(windows, "cuda", 0)
    tracks = session.get_outputs()[0].shape[2]
    shape = (len(windows), windows.shape[1] // 320, tracks)
    logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
    binding.bind_ortvalue_input("input_values", on_device)
    binding.bind_ortvalue_output("logits", logits)

    def run():
        on_device.update_inplace(windows)
        session.run_with_iobinding(binding)
        return logits.numpy()

    return run
