"""`pipeline("speaker-diarization")`: who speaks when in a recording of any length, container and rate."""

from collections.abc import Iterator

import numpy as np
import torch
from transformers import Pipeline, PreTrainedModel

from .audio_fast_diarization import SAMPLING_RATE, audio_blocks, to_mono_16k
from .linking_fast_diarization import Linker
from .settings_fast_diarization import LinkingSettings, SpeakerCount
from .streaming_fast_diarization import StreamingDiarizer
from .windows_fast_diarization import WINDOWS_PER_BATCH, Network, finite, sliding_windows


class FastDiarizationPipeline(Pipeline):
    """Speaker diarization of whole recordings with a [`FastDiarizationForAudioFrameClassification`].

    How windows are cut and linked is in the model's configuration (see [`LinkingSettings`]).

    Example:

    ```python
    >>> from transformers import pipeline
    >>> diarizer = pipeline("speaker-diarization", model="runs/demo/model", trust_remote_code=True)
    >>> diarizer("meeting.mp4", num_speakers=3)
    [{'start': 0.48, 'end': 3.2, 'speaker': 'SPEAKER_00', 'confidence': 0.9731}, ...]
    ```
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.eval()

    def __call__(self, inputs, batch_size: int | None = None, **kwargs) -> list[dict] | list[list[dict]]:
        """
        Args:
            inputs: a recording, or a list of them: path or encoded bytes of any file FFmpeg reads, video included;
                waveform (samples,) at 16 kHz; dict of `array` and `sampling_rate`, or of `bytes` or `path`.
            batch_size (`int`, *optional*): windows in one forward pass.
            num_speakers, min_speakers, max_speakers (`int`, *optional*): what is known of the number of speakers.

        Returns:
            segments by start, dicts of `start` and `end` (seconds), `speaker` (`"SPEAKER_00"` speaks first) and
            `confidence` (0 to 1); a list of such lists for a list of recordings.

        Raises:
            AudioError: a recording that cannot be read.
            ValueError: an impossible number of speakers.
        """
        batch_size = batch_size or self._batch_size or WINDOWS_PER_BATCH
        return super().__call__(inputs, batch_size=1, windows_per_batch=batch_size, **kwargs)

    def _sanitize_parameters(self, windows_per_batch=None, **numbers):
        forward = {} if windows_per_batch is None else {"windows_per_batch": windows_per_batch}
        return {}, forward, {"count": SpeakerCount(**numbers)} if numbers else {}

    def preprocess(self, recording) -> dict:
        return {"blocks": _blocks(recording)}

    def _forward(self, inputs: dict, windows_per_batch: int = WINDOWS_PER_BATCH) -> dict:
        settings = LinkingSettings.of(self.model.config.to_dict())
        linker, network = Linker(settings), torch_network(self.model)
        for starts, windows in sliding_windows(inputs["blocks"], settings, windows_per_batch):
            linker.add(starts, *network(windows))
        return {"linker": linker}

    def postprocess(self, outputs: dict, count: SpeakerCount = SpeakerCount()) -> list[dict]:
        return [dict(vars(segment)) for segment in outputs["linker"].segments(count)]

    def stream(self, **options) -> StreamingDiarizer:
        """A [`StreamingDiarizer`] on this model, for one live stream; `options` are its own."""
        settings = LinkingSettings.of(self.model.config.to_dict())
        return StreamingDiarizer(torch_network(self.model), settings, **options)


def torch_network(model: PreTrainedModel) -> Network:
    """The network as a function of numpy arrays: waveforms -> log-odds and embeddings."""

    @torch.no_grad()
    def network(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output = model(input_values=torch.from_numpy(windows).to(model.device))
        return finite(output.logits.float().cpu().numpy(), output.speaker_embeddings.float().cpu().numpy())

    return network


def _blocks(recording) -> Iterator[np.ndarray]:
    if isinstance(recording, dict) and "array" in recording:
        if "sampling_rate" not in recording:
            raise ValueError("a dict with an array needs its sampling_rate beside it")
        return iter([to_mono_16k(np.asarray(recording["array"]), recording["sampling_rate"])])
    if isinstance(recording, dict):
        return audio_blocks(recording.get("bytes") or recording["path"])
    if isinstance(recording, np.ndarray | torch.Tensor):
        return iter([to_mono_16k(np.asarray(recording), SAMPLING_RATE)])
    return audio_blocks(recording)
