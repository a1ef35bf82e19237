"""Feature extractor of the Fast Diarization network: checks, pads and batches waveforms; the network does the rest."""

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor


class FastDiarizationFeatureExtractor(SequenceFeatureExtractor):
    r"""Batches raw 16 kHz waveforms.

    Gain and offset need no care: the network computes its own log-mel, invariant to both.

    Args:
        feature_size (`int`, defaults to 1): always 1, a waveform.
        sampling_rate (`int`, defaults to 16000): Hertz.
        padding_value (`float`, defaults to 0.0)
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(self, feature_size=1, sampling_rate=16_000, padding_value=0.0, **kwargs):
        kwargs.setdefault("return_attention_mask", True)
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def __call__(self, raw_speech, sampling_rate=None, padding=True, return_tensors=None, **kwargs) -> BatchFeature:
        """
        Args:
            raw_speech: one waveform of shape (samples,), or a list or array of several.
            sampling_rate (`int`, *optional*): Hertz of `raw_speech`, checked against the extractor's own.
            padding, return_tensors: see [`SequenceFeatureExtractor.pad`].

        Returns:
            [`BatchFeature`] with `input_values` and `attention_mask`, both of shape (batch, samples).

        Raises:
            ValueError: another sampling rate, or a waveform that is not one-dimensional.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"the model needs audio at {self.sampling_rate} Hz, got {sampling_rate} Hz; resample it first"
            )
        batched = isinstance(raw_speech, (list, tuple)) and not np.isscalar(raw_speech[0])
        batched = batched or (isinstance(raw_speech, np.ndarray) and raw_speech.ndim == 2)
        waveforms = [np.asarray(w, dtype=np.float32) for w in (raw_speech if batched else [raw_speech])]
        for waveform in waveforms:
            if waveform.ndim != 1:
                raise ValueError(f"a waveform must have shape (samples,), got {waveform.shape}; mix channels first")
        batch = BatchFeature({"input_values": waveforms})
        return self.pad(batch, padding=padding, return_tensors=return_tensors, **kwargs)
