"""The machine a measurement was made on."""

import os
import platform
from pathlib import Path

import numpy as np
import onnxruntime

from data.corpora import open_corpus
from data.decoding import decode


def machine() -> dict:
    """Processor, cores and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def speech(samples: int) -> np.ndarray:
    """Utterances of the demo corpus, concatenated and repeated: float32 (samples,)."""
    return np.resize(np.concatenate([decode(row.audio) for row in open_corpus("demo", "validation").read(0)]), samples)
