"""The forms in which recordings are given to the pipeline, each made a file or a waveform that can be pickled."""

import os

import numpy as np
import torch

from .audio_fast_diarization import MIX, SAMPLING_RATE, AudioError, Channels, Source, array_to_16k

ARRAYS, RATES = ("array", "raw", "waveform"), ("sampling_rate", "sample_rate")
FORMS = (
    "expected a path, an http(s) address, bytes, a binary file, a waveform (NumPy or torch), (sampling rate, "
    f"waveform), a decoded audio of datasets, or a dict of {', '.join(ARRAYS)} with {' or '.join(RATES)}, of bytes, "
    "of path, or of audio"
)


def is_one(given: object) -> bool:
    """Whether this is one recording in whatever form, and not many."""
    single = str | bytes | bytearray | memoryview | os.PathLike | dict | tuple | np.ndarray | torch.Tensor
    return isinstance(given, single) or any(hasattr(given, name) for name in ("read", "get_all_samples", "sample_rate"))


def to_recording(given: object, sampling_rate: int | None = None, channels: Channels = MIX) -> Source | np.ndarray:
    """
    Args:
        given: one recording in any of the forms of `FORMS`.
        sampling_rate: of a waveform that comes without, 16 000 Hz if there is none.
        channels: as of `audio_blocks`.

    Returns:
        what `audio_blocks` reads, or a waveform at 16 kHz as `array_to_16k` gives it.

    Raises:
        AudioError: another form, or no audio.
    """
    if isinstance(given, str | bytes | bytearray | os.PathLike) or hasattr(given, "read"):
        return given
    if isinstance(given, memoryview):
        return bytes(given)
    if hasattr(given, "get_all_samples"):  # torchcodec's AudioDecoder, as datasets gives it
        given = given.get_all_samples()
    if isinstance(given, dict):
        return _from_dict(given, sampling_rate, channels)
    if isinstance(given, tuple) and len(given) == 2:
        rate, array = given if np.ndim(given[0]) == 0 else reversed(given)
        return _from_array(array, rate, channels)
    if isinstance(given, np.ndarray | torch.Tensor):
        return _from_array(given, sampling_rate or SAMPLING_RATE, channels)
    if hasattr(given, "data") and hasattr(given, "sample_rate"):  # torchcodec's AudioSamples
        return _from_array(given.data, given.sample_rate, channels)
    raise AudioError(f"{FORMS}; got {type(given).__name__}")


def _from_dict(given: dict, sampling_rate: int | None, channels: Channels) -> Source | np.ndarray:
    if "audio" in given:
        return to_recording(given["audio"], sampling_rate, channels)
    for name in ARRAYS:
        if given.get(name) is not None:
            rate = next((given[rate] for rate in RATES if given.get(rate)), sampling_rate)
            if rate is None:
                raise AudioError(f"a dict with {name} needs its sampling_rate beside it")
            return _from_array(given[name], rate, channels)
    for name in ("bytes", "path"):
        if given.get(name) is not None:
            return to_recording(given[name])
    raise AudioError(f"{FORMS}; got a dict of {', '.join(map(str, given)) or 'nothing'}")


def _from_array(array: object, sampling_rate: object, channels: Channels) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    try:
        return array_to_16k(np.asarray(array), float(sampling_rate), channels)
    except (TypeError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(
            f"expected a waveform and its sampling rate in Hertz, got {type(array).__name__} and {sampling_rate!r}"
        ) from error
