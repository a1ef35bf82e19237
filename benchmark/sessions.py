"""ONNX Runtime sessions on the requested provider, without a silent fallback."""

from pathlib import Path

import numpy as np
import onnxruntime

from common.errors import first_line
from diarization.onnx_graph import check_graph
from diarization.providers import NoProvider, start_session


def open_session(
    file: Path, provider: str, threads: int, profile: Path | None = None, cuda_graph: bool = True
) -> onnxruntime.InferenceSession:
    """
    Args:
        profile: prefix of the file that `end_profiling` writes.
        cuda_graph: of the provider cuda: record the first run and replay it.

    Raises:
        ValueError: there is no such file, or it is not an ONNX model.
        NoProvider: the provider is not available; ONNX Runtime alone would silently use the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    # CUDA graphs replay one static shape, which a window is.
    settings = {"enable_cuda_graph": "1"} if provider == "cuda" and cuda_graph else {}
    try:
        return start_session(file, provider, options, **settings)
    except NoProvider:
        raise
    except Exception as error:  # onnxruntime has no base class for what it raises
        raise ValueError(
            f"model {file} cannot be opened ({first_line(error)}); export it again with python export.py, or download "
            "it again"
        ) from error


def open_model(file: Path, provider: str, threads: int, cuda_graph: bool = True) -> onnxruntime.InferenceSession:
    """Like [`open_session`], for a file written by export.py.

    Raises:
        ModelError: the file is another kind of model.
    """
    if not file.parent.is_dir():
        raise FileNotFoundError(f"model {file.parent}: no such directory; give one that export.py wrote a model to")
    if not file.is_file():
        raise FileNotFoundError(f"model {file} does not exist; run python export.py --model {file.parent} first")
    session = open_session(file, provider, threads, cuda_graph=cuda_graph)
    check_graph(session, file)
    return session


def runner(session: onnxruntime.InferenceSession, provider: str, windows: np.ndarray):
    """A function that computes logits from waveforms, including the copies to and from the device.

    It takes other waveforms of the same shape; without any, those given here.
    """
    if provider == "cpu":
        return lambda windows=windows: session.run(["logits"], {"input_values": windows})[0]
    binding = session.io_binding()
    on_device = onnxruntime.OrtValue.ortvalue_from_numpy(windows, "cuda", 0)
    tracks = session.get_outputs()[0].shape[2]
    shape = (len(windows), windows.shape[1] // 320, tracks)
    logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
    binding.bind_ortvalue_input("input_values", on_device)
    binding.bind_ortvalue_output("logits", logits)

    def run(windows=windows):
        on_device.update_inplace(windows)
        session.run_with_iobinding(binding)
        return logits.numpy()

    return run
