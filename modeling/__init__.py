"""Fast Diarization in transformers: configuration, feature extractor, network and pipeline.

The names below are known to the Auto classes once one of them is imported from here. Files that need neither torch
nor transformers can be imported alone: `from modeling.linking_fast_diarization import ...` loads numpy only.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .auto_classes import (
        FastDiarizationConfig,
        FastDiarizationFeatureExtractor,
        FastDiarizationForAudioFrameClassification,
        FastDiarizationModel,
        FastDiarizationPipeline,
    )

__all__ = [
    "FastDiarizationConfig",
    "FastDiarizationFeatureExtractor",
    "FastDiarizationForAudioFrameClassification",
    "FastDiarizationModel",
    "FastDiarizationPipeline",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import auto_classes

    return getattr(auto_classes, name)
