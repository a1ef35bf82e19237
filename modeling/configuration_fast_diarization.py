"""Configuration of the Fast Diarization network."""

from copy import deepcopy
from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from .encoders_fast_diarization import encoder_of
from .settings_fast_diarization import LinkingSettings, check_number
from .task_fast_diarization import Task

if TYPE_CHECKING:
    # transformers keeps beside the weights, and loads with them, only the files that a configuration imports itself.
    from .audio_fast_diarization import audio_blocks  # noqa: F401
    from .clustering_fast_diarization import cluster  # noqa: F401
    from .container_fast_diarization import AudioError  # noqa: F401
    from .counting_fast_diarization import CountEstimate  # noqa: F401
    from .download_fast_diarization import download  # noqa: F401
    from .enrolment_fast_diarization import KnownVoices  # noqa: F401
    from .events_fast_diarization import LiveEvents  # noqa: F401
    from .headers_fast_diarization import read_header  # noqa: F401
    from .inputs_fast_diarization import to_recording  # noqa: F401
    from .levels_fast_diarization import frame_levels  # noqa: F401
    from .linking_fast_diarization import Linker  # noqa: F401
    from .mixing_fast_diarization import Mixer  # noqa: F401
    from .path_fast_diarization import best_path  # noqa: F401
    from .pipeline_fast_diarization import FastDiarizationPipeline  # noqa: F401
    from .segments_fast_diarization import Segment  # noqa: F401
    from .separate_fast_diarization import diarize_channels  # noqa: F401
    from .streaming_fast_diarization import StreamingDiarizer  # noqa: F401
    from .timeline_fast_diarization import Timeline  # noqa: F401
    from .tracklets_fast_diarization import Tracklets  # noqa: F401
    from .tracks_fast_diarization import Track  # noqa: F401
    from .transcripts_fast_diarization import read_transcript  # noqa: F401
    from .windows_fast_diarization import Network  # noqa: F401
    from .words_fast_diarization import assign_words  # noqa: F401

CUSTOM_PIPELINES = {
    "speaker-diarization": {
        "impl": "pipeline_fast_diarization.FastDiarizationPipeline",
        "pt": ["AutoModelForAudioFrameClassification"],
        "tf": [],
    }
}
# A saved model names its own class only; its backbone can be loaded by AutoModel too.
AUTO_MAP = {"AutoModel": "modeling_fast_diarization.FastDiarizationModel"}
WIDEST = 1024
"""Of all layers: a configuration from elsewhere must not ask for gigabytes."""


class FastDiarizationConfig(PretrainedConfig):
    r"""Shape of a [`FastDiarizationModel`] and of what is put on top of it.

    Args:
        num_speakers (`int`, defaults to 2): speaker tracks the network tells apart in one window.
        hidden_size (`int`, defaults to 256): channels of the encoder; a multiple of 8.
        encoder_type (`str`, defaults to `"lightweight-cnn"`): context of the encoder, dilated convolutions
            (`"lightweight-cnn"`, 2.3 M parameters) or a bidirectional GRU with self-attention
            (`"attention-gru"`, 4.8 M parameters).
        dropout (`float`, defaults to 0.3): dropout before the context layers and before the head.
        num_mel_bins (`int`, defaults to 64): mel bands of the log-mel computed inside the graph.
        embedding_size (`int`, defaults to 192): dimension of a speaker embedding.
        max_simultaneous (`int`, defaults to 2): most speakers active in one frame, as in the powerset
            encoding of Plaquet and Bredin (Interspeech 2023).
        window_seconds (`float`, defaults to 3.0): length of the windows the network is trained on.
        affinity_loss_weight (`float`, defaults to 1.0): weight of the within-window affinity loss.
        speaker_loss_weight (`float`, defaults to 0.3): weight of the contrastive loss on embeddings.
        distillation_loss_weight (`float`, defaults to 2.0): weight of the distance to a teacher's embeddings, where
            training is given a teacher's voices.
        teacher_loss_weight (`float`, defaults to 0.3): weight of the softmax over a teacher's voices; in a
            configuration saved when one weight stood for both, that of the contrastive loss.
        kwargs: the fields of [`LinkingSettings`], which say how windows are linked to whole recordings, and those of
            every configuration of transformers.

    Example:

    ```python
    >>> from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
    >>> model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig())
    >>> round(model.num_parameters() / 1e6, 1)
    2.3
    ```
    """

    model_type = "fast-diarization"
    keys_to_ignore_at_inference = ["losses"]

    def __init__(
        self,
        num_speakers=Task.num_speakers,
        hidden_size=256,
        encoder_type="lightweight-cnn",
        dropout=0.3,
        num_mel_bins=64,
        embedding_size=192,
        max_simultaneous=Task.max_simultaneous,
        window_seconds=Task.window_seconds,
        affinity_loss_weight=1.0,
        speaker_loss_weight=0.3,
        distillation_loss_weight=2.0,
        teacher_loss_weight=0.3,
        **kwargs,
    ):
        check_number("hidden_size", hidden_size, 8, WIDEST, whole=True)
        if hidden_size % 8:
            raise ValueError(f"hidden_size must be a multiple of 8, got {hidden_size}")
        encoder_of(encoder_type)
        check_number("dropout", dropout, 0, 0.99)
        check_number("num_mel_bins", num_mel_bins, 1, 200, whole=True)
        check_number("embedding_size", embedding_size, 1, WIDEST, whole=True)
        task = Task(num_speakers, max_simultaneous, window_seconds)
        losses = {"affinity": affinity_loss_weight, "speaker": speaker_loss_weight}
        losses |= {"distillation": distillation_loss_weight, "teacher": teacher_loss_weight}
        for name, weight in losses.items():
            check_number(f"{name}_loss_weight", weight, 0, 1e6)
        self.num_speakers = task.num_speakers
        self.hidden_size = hidden_size
        self.encoder_type = encoder_type
        self.dropout = dropout
        self.num_mel_bins = num_mel_bins
        self.embedding_size = embedding_size
        self.max_simultaneous = task.max_simultaneous
        self.window_seconds = task.window_seconds
        self.affinity_loss_weight = affinity_loss_weight
        self.speaker_loss_weight = speaker_loss_weight
        self.distillation_loss_weight = distillation_loss_weight
        self.teacher_loss_weight = teacher_loss_weight
        linking = LinkingSettings.of(kwargs)
        for name, value in vars(linking).items():
            setattr(self, name, value)
            kwargs.pop(name, None)
        kwargs["num_labels"] = num_speakers
        # Always anew: a model trained from one on the Hub would point at that one's code. A copy, for `pipeline` puts
        # classes into it, which no file can hold.
        kwargs["custom_pipelines"] = deepcopy(CUSTOM_PIPELINES)
        kwargs["auto_map"] = kwargs.get("auto_map", {}) | AUTO_MAP
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        if "speaker_loss_weight" in config_dict:
            config_dict = {"teacher_loss_weight": config_dict["speaker_loss_weight"]} | config_dict
        return super().from_dict(config_dict, **kwargs)

    @property
    def task(self) -> Task:
        return Task(self.num_speakers, self.max_simultaneous, self.window_seconds)
