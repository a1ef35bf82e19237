"""Recordings nobody has annotated, labelled window by window by a larger network, beside what has true labels.

    accelerate launch train.py --dataset path/to/speech path/to/audio --shares 0.8 0.2 --teacher segmentation-3.0.onnx

The teacher is pyannote segmentation-3.0 (Plaquet and Bredin, Interspeech 2023; MIT licence) as an ONNX file. It hears
10 s around each window and says who of three local people is active when. Who they are it does not know: such windows
train activity alone, no embedding.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data.annotated_stream import TIMES_HEARD, AnnotatedStream
from data.conversations import speaker_number
from data.corpora import CorpusError
from data.excerpts import cut_excerpts
from diarization.backends import ModelError
from evaluation.systems import Segmentation3
from modeling.audio_fast_diarization import AudioError, AudioWarning, declared_seconds
from modeling.settings_fast_diarization import FRAME_SAMPLES, SAMPLING_RATE

LICENCE = "labels of unannotated recordings by pyannote segmentation-3.0, MIT licence"
HEARD_SECONDS = 10.0


class TaughtStream(AnnotatedStream):
    """Batches of windows of unannotated recordings, with a teacher's labels.

    Args:
        teacher: its ONNX file; the others are those of [`AnnotatedStream`].

    Raises:
        CorpusError: the file is not segmentation-3.0.
    """

    def __init__(self, *args, teacher: str, **kwargs):
        self.file = teacher
        try:
            self.digest = hashlib.sha256(Path(teacher).read_bytes()).hexdigest()[:12]
            Segmentation3(teacher)
        except OSError as error:
            raise CorpusError(f"--teacher {teacher}: {error.strerror}; give segmentation-3.0 as ONNX") from None
        except ModelError as error:
            raise CorpusError(f"--teacher: {error}") from None
        super().__init__(*args, **kwargs)

    @cached_property
    def teacher(self) -> Segmentation3:
        """Opened where it is first asked: in each data worker."""
        return Segmentation3(self.file)

    def afresh(self, **changes) -> "TaughtStream":
        return type(self)(self.utterances, replace(self.config, **changes), teacher=self.file)

    def identity(self) -> dict:
        return super().identity() | {"teacher": self.digest}

    def _windows_of(self, block: int, unit: int, frames: int) -> Iterator[tuple]:
        tracks, heard = self.config.num_speakers, max(frames, round(HEARD_SECONDS * SAMPLING_RATE) // FRAME_SAMPLES)
        margin = (heard - frames) // 2
        middle = slice(margin, margin + frames)
        for number, conversation in enumerate(self._conversations(unit)):
            rng = np.random.default_rng([self.config.seed, 4, block, unit, number])
            try:
                length = int((declared_seconds(conversation.audio) or 0) * SAMPLING_RATE) // FRAME_SAMPLES
                if length < heard:
                    self._skip(f"shorter than {heard * FRAME_SAMPLES / SAMPLING_RATE:g} s", conversation.name)
                    continue
                starts = np.sort(rng.integers(0, length - heard + 1, size=max(1, round(TIMES_HEARD * length / frames))))
                recording = np.int64(speaker_number(conversation.name))
                for waveform in cut_excerpts(conversation.audio, starts * FRAME_SAMPLES, heard * FRAME_SAMPLES):
                    labels = self.teacher.activity(waveform[None], heard)[0, middle]
                    labels = labels[:, np.argsort(-labels.sum(axis=0), kind="stable")[:tracks]].astype(np.float32)
                    window = waveform[middle.start * FRAME_SAMPLES : middle.stop * FRAME_SAMPLES]
                    yield window, labels, np.full(tracks, -1), recording
            except (AudioError, AudioWarning) as error:
                self._skip(str(error).removeprefix("audio: "), conversation.name)
