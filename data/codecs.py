"""Codecs of telephones and of music, those that libsndfile has."""

import io

import numpy as np
import scipy.signal
import soundfile

from data.conversations import SAMPLING_RATE

CODECS = {
    "GSM": {"format": "WAV", "subtype": "GSM610"},
    "G.711": {"format": "WAV", "subtype": "ULAW"},
    "MP3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.99},
}
"""Mobile and fixed telephones at 8 kHz, and MP3 at its lowest rate (8 to 24 kbit/s) at 16 kHz."""
NARROW = ("GSM", "G.711")
"""Those of telephones."""


def transmit(waveform: np.ndarray, name: str) -> np.ndarray:
    """Encode a waveform (samples,) in [-1, 1] at 16 kHz with one of `CODECS` and decode it to the same length."""
    narrow = name in NARROW
    sent = scipy.signal.resample_poly(waveform, 1, 2) if narrow else waveform
    file = io.BytesIO()
    soundfile.write(file, sent, SAMPLING_RATE // 2 if narrow else SAMPLING_RATE, **CODECS[name])
    file.seek(0)
    heard, _ = soundfile.read(file, dtype="float32")
    heard = scipy.signal.resample_poly(heard, 2, 1) if narrow else heard
    return np.resize(heard, len(waveform)).astype(np.float32)
