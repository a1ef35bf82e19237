"""Fast Diarization in transformers: configuration, feature extractor and network, known to the Auto classes."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioFrameClassification

from .configuration_fast_diarization import FastDiarizationConfig
from .feature_extraction_fast_diarization import FastDiarizationFeatureExtractor
from .modeling_fast_diarization import FastDiarizationForAudioFrameClassification, FastDiarizationModel

AutoConfig.register(FastDiarizationConfig.model_type, FastDiarizationConfig, exist_ok=True)
AutoFeatureExtractor.register(FastDiarizationConfig, FastDiarizationFeatureExtractor, exist_ok=True)
AutoModel.register(FastDiarizationConfig, FastDiarizationModel, exist_ok=True)
AutoModelForAudioFrameClassification.register(
    FastDiarizationConfig, FastDiarizationForAudioFrameClassification, exist_ok=True
)
# A saved directory carries these files, so that it loads where this repository is absent.
FastDiarizationConfig.register_for_auto_class()
FastDiarizationFeatureExtractor.register_for_auto_class()
FastDiarizationModel.register_for_auto_class("AutoModel")
FastDiarizationForAudioFrameClassification.register_for_auto_class("AutoModelForAudioFrameClassification")

__all__ = [
    "FastDiarizationConfig",
    "FastDiarizationFeatureExtractor",
    "FastDiarizationForAudioFrameClassification",
    "FastDiarizationModel",
]
