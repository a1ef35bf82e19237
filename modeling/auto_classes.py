"""Fast Diarization made known to the Auto classes and to `pipeline` of transformers."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioFrameClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_fast_diarization import FastDiarizationConfig
from .feature_extraction_fast_diarization import FastDiarizationFeatureExtractor
from .modeling_fast_diarization import FastDiarizationForAudioFrameClassification, FastDiarizationModel
from .pipeline_fast_diarization import FastDiarizationPipeline

AutoConfig.register(FastDiarizationConfig.model_type, FastDiarizationConfig, exist_ok=True)
AutoFeatureExtractor.register(FastDiarizationConfig, FastDiarizationFeatureExtractor, exist_ok=True)
AutoModel.register(FastDiarizationConfig, FastDiarizationModel, exist_ok=True)
AutoModelForAudioFrameClassification.register(
    FastDiarizationConfig, FastDiarizationForAudioFrameClassification, exist_ok=True
)
PIPELINE_REGISTRY.register_pipeline(
    "speaker-diarization", pipeline_class=FastDiarizationPipeline, pt_model=AutoModelForAudioFrameClassification
)
# A saved directory carries these files, so that it loads where this repository is absent.
FastDiarizationConfig.register_for_auto_class()
FastDiarizationFeatureExtractor.register_for_auto_class()
FastDiarizationModel.register_for_auto_class("AutoModel")
FastDiarizationForAudioFrameClassification.register_for_auto_class("AutoModelForAudioFrameClassification")
