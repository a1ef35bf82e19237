"""`pipeline("speaker-diarization")`: who speaks when in a recording of any length, container and rate."""

import os
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info
from transformers import Pipeline, PreTrainedModel

from .audio_fast_diarization import (
    MIX,
    SEPARATE,
    AudioError,
    AudioWarning,
    Channels,
    audio_blocks,
    check_choice,
)
from .download_fast_diarization import download, is_address
from .enrolment_fast_diarization import KnownVoices, name_speakers
from .inputs_fast_diarization import is_one, to_recording
from .linking_fast_diarization import link
from .segments_fast_diarization import Segment, exclusive_segments
from .separate_fast_diarization import link_channels
from .settings_fast_diarization import LinkingSettings, SpeakerCount
from .streaming_fast_diarization import StreamingDiarizer
from .transcripts_fast_diarization import Passage, WordsError, read_transcript
from .windows_fast_diarization import WINDOWS_PER_BATCH, Network, finite
from .words_fast_diarization import assign_words, spoken_turns

NUMBERS = tuple(SpeakerCount.__dataclass_fields__)
OPTIONS = (
    "words",
    "exclusive",
    "voices",
    "sampling_rate",
    "track",
    "channels",
    "on_error",
    "batch_size",
    "num_workers",
)
KEYWORDS = (*NUMBERS, *OPTIONS)


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

    def __call__(
        self, inputs, batch_size: int | None = None, words: object = None, **kwargs
    ) -> list[dict] | list[list[dict]]:
        """
        Args:
            inputs: a recording, or a list of them: path, http(s) address or encoded bytes of any file FFmpeg reads,
                video included; a waveform of NumPy or torch; `(sampling_rate, waveform)`; a decoded audio of datasets;
                a dict of `array`, `raw` or `waveform` with `sampling_rate` or `sample_rate`, of `bytes`, `path` or
                `audio`. Of a generator, a `KeyDataset` or other iterables the results come one by one.
            batch_size (`int`, *optional*): windows in one forward pass.
            words (*optional*): what a speech recogniser returned for the recording, or a file of it, as of
                `read_transcript`; of a list of recordings a list of them.
            num_speakers, min_speakers, max_speakers (`int`, *optional*): what is known of the number of speakers.
            sampling_rate (`int`, *optional*): of waveforms that come without, 16 000 Hz by default.
            track, channels (*optional*): what is heard of a recording, as of `audio_blocks`; with `"separate"` the
                speaker on channel 1 is `"SPEAKER_00"`, on channel 2 `"SPEAKER_01"`.
            exclusive (`bool`, *optional*): no overlaps, as of `exclusive_segments`.
            voices (path, *optional*): file of known voices, as `python diarize.py --enroll` makes it; speakers who are
                known have their names, the others stay `"SPEAKER_00"`, ...
            on_error (`str`, *optional*): `"raise"` (default), or `"skip"`: `None` and an `AudioWarning` in place of
                the segments of a recording that cannot be read.

        Returns:
            segments by start, dicts of `start` and `end` (seconds), `speaker` (`"SPEAKER_00"` speaks first) and
            `confidence` (0 to 1); with `words` what each speaker said, dicts of `start`, `end`, `speaker`, `text` and
            `words` (dicts of `word`, `start` and `end`). A list of such lists for a list of recordings.

        Raises:
            AudioError: a recording that cannot be read.
            WordsError: words that cannot be read.
            VoicesError: a file of known voices that cannot be used.
            ValueError: an impossible number of speakers, or a keyword that is not known.
        """
        if words is not None:
            return self._with_words(inputs, words, kwargs | {"batch_size": batch_size})
        batch_size = batch_size or self._batch_size or WINDOWS_PER_BATCH
        if batch_size != int(batch_size) or batch_size < 1:
            raise ValueError(f"batch_size must be a number of windows, 1 or more, got {batch_size}")
        kwargs |= {"batch_size": 1, "windows_per_batch": batch_size}
        if isinstance(inputs, Dataset) or is_one(inputs):
            return super().__call__(inputs, **kwargs)
        if hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__"):
            return self._all_of(inputs, kwargs)
        if hasattr(inputs, "__iter__"):
            inputs = (recording for recording in inputs)
        return super().__call__(inputs, **kwargs)

    def _with_words(self, inputs, words: object, kwargs: dict) -> list[dict] | list[list[dict]]:
        if is_one(inputs):
            return _said(read_transcript(words), self(inputs, **kwargs))
        if not isinstance(inputs, list | tuple) or not isinstance(words, list | tuple) or len(words) != len(inputs):
            raise WordsError("words belong to one recording, or are a list as long as the list of recordings")
        transcripts = list(map(read_transcript, words))
        return [_said(*both) for both in zip(transcripts, self(inputs, **kwargs))]

    def _all_of(self, recordings: Sequence, kwargs: dict) -> list[list[dict]]:
        results = []
        try:
            results.extend(super().__call__(Recordings(recordings), **kwargs))
        except AudioError as error:
            raise AudioError(
                f"{error} (number {len(results) + 1} of {len(recordings)} recordings; on_error='skip' goes on)"
            ) from error
        return results

    def _sanitize_parameters(
        self,
        windows_per_batch: int | None = None,
        sampling_rate: int | None = None,
        track: int | None = None,
        channels: Channels | None = None,
        on_error: str | None = None,
        exclusive: bool | None = None,
        voices: str | os.PathLike | None = None,
        **numbers,
    ):
        if unknown := numbers.keys() - set(NUMBERS):
            raise ValueError(f"unknown keyword {', '.join(sorted(unknown))}; known are {', '.join(KEYWORDS)}")
        if on_error not in (None, "raise", "skip"):
            raise ValueError(f"on_error must be raise or skip, got {on_error!r}")
        check_choice(track, MIX if channels is None else channels)
        if channels == SEPARATE and any(value is not None for value in numbers.values()):
            raise ValueError("with channels='separate' there is one speaker a channel; give no number of speakers")
        known = None if voices is None else KnownVoices.load(voices, torch_network(self.model))
        heard = _given(track=track, channels=channels)
        count = SpeakerCount(**numbers) if numbers else None
        postprocess = _given(on_error=on_error, exclusive=exclusive, voices=known, count=count)
        return (
            heard | _given(sampling_rate=sampling_rate),
            heard | _given(windows_per_batch=windows_per_batch),
            postprocess,
        )

    def preprocess(
        self, recording, sampling_rate: int | None = None, track: int | None = None, channels: Channels = MIX
    ) -> dict:
        try:
            # An address within a row of a data set is not called: who wrote it would choose what this machine calls.
            recording = download(recording) if is_address(recording) else recording
            recording = to_recording(recording, sampling_rate, channels)
            if hasattr(recording, "read") and get_worker_info():  # which gives back what it can pickle
                recording = recording.read()
        except AudioError as error:
            return {"error": error}
        return {"recording": recording}

    def _forward(
        self,
        inputs: dict,
        windows_per_batch: int = WINDOWS_PER_BATCH,
        track: int | None = None,
        channels: Channels = MIX,
    ) -> dict:
        if "error" in inputs:
            return inputs
        recording = inputs["recording"]
        settings, network = self._settings, torch_network(self.model)
        is_waveform = isinstance(recording, np.ndarray)
        blocks = [recording] if is_waveform else audio_blocks(recording, track=track, channels=channels)
        try:
            if channels == SEPARATE:
                return {"diarization": link_channels(network, blocks, settings, windows_per_batch)}
            return {"linker": link(network, blocks, settings, windows_per_batch)}
        except AudioError as error:
            return {"error": error}

    def postprocess(
        self,
        outputs: dict,
        count: SpeakerCount = SpeakerCount(),
        on_error: str = "raise",
        exclusive: bool = False,
        voices: KnownVoices | None = None,
    ) -> list[dict] | None:
        if "error" in outputs:
            if on_error == "raise":
                raise outputs["error"]
            warnings.warn(f"{outputs['error']}; skipped, its result is None", AudioWarning, stacklevel=2)
            return None
        diarization = outputs["diarization"] if "diarization" in outputs else outputs["linker"].diarization(count)
        if voices is not None:
            diarization = name_speakers(diarization, voices, self._settings)
        segments = diarization.segments
        segments = exclusive_segments(segments) if exclusive else segments
        return [dict(vars(segment)) for segment in segments]

    def stream(self, voices: str | os.PathLike | None = None, **options) -> StreamingDiarizer:
        """A [`StreamingDiarizer`] on this model, for one live stream.

        Args:
            voices (path, *optional*): file of known voices, as of `__call__`.
            options: those of `StreamingDiarizer`.
        """
        network = torch_network(self.model)
        known = None if voices is None else KnownVoices.load(voices, network)
        return StreamingDiarizer(network, self._settings, voices=known, **options)

    @property
    def _settings(self) -> LinkingSettings:
        return LinkingSettings.of(self.model.config.to_dict())


def torch_network(model: PreTrainedModel) -> Network:
    """The network as a function of numpy arrays: waveforms -> log-odds and embeddings."""

    @torch.no_grad()
    def network(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output = model(input_values=torch.from_numpy(windows).to(model.device))
        return finite(output.logits.float().cpu().numpy(), output.speaker_embeddings.float().cpu().numpy())

    return network


class Recordings(Dataset):
    """A list or a column of a data set; transformers reads both one by one, in worker processes if so asked."""

    def __init__(self, recordings: Sequence):
        self.recordings = recordings

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int):
        return self.recordings[index]


def _said(transcript: list[Passage], segments: list[dict] | None) -> list[dict] | None:
    """The turns of a transcript, nothing of a recording that was skipped."""
    if segments is None:
        return None
    words = assign_words(transcript, [Segment(**segment) for segment in segments])
    return [turn.as_dict() for turn in spoken_turns(words)]


def _given(**values) -> dict:
    return {name: value for name, value in values.items() if value is not None}
