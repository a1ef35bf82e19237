"""Recordings with their reference: from a directory of audio and RTTM files, or streamed from a Hub data set."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
from datasets import Audio
from pyannote.core import Annotation, Segment

from data.corpora import TURN_COLUMNS
from data.decoding import AUDIO_FILES
from data.rttm import read_rttm
from data.simulated_recordings import Recording
from diarization.formats import recording_name
from diarization.hub_dataset import NO_AUDIO, open_split
from modeling.audio_fast_diarization import Source, load_audio


class SourceError(ValueError):
    """Recordings that cannot be found or lack their reference; the message is one line with the remedy."""


@dataclass(frozen=True)
class Reference:
    """One recording, as a file, encoded bytes, binary file object or waveform, and who really speaks when."""

    name: str
    audio: Source | np.ndarray
    turns: Annotation

    def waveform(self) -> np.ndarray:
        """float32 (samples,), mono 16 kHz.

        Raises:
            AudioError: the audio cannot be read.
        """
        return self.audio if isinstance(self.audio, np.ndarray) else load_audio(self.audio)


def from_directory(directory: Path) -> list[Reference]:
    """Every audio file below a directory with its turns: those of its name in any RTTM file there.

    A recording of an RTTM file without audio is warned of.

    Raises:
        SourceError: no audio, two files of one name, or a file without reference or with more than one.
        ValueError: a malformed RTTM file.
    """
    files = sorted(f for f in directory.rglob("*") if f.suffix.lower() in AUDIO_FILES)
    if not files:
        raise SourceError(
            f"{directory} holds no audio file ({', '.join(sorted(AUDIO_FILES))}); put recordings and their RTTM there"
        )
    turns: dict[str, dict[Path, Annotation]] = defaultdict(dict)
    names: list[set[str]] = []
    for rttm in sorted(directory.rglob("*.rttm")):
        found = read_rttm(rttm)
        names += [{recording} for recording in found]
        if len(found) == 1:
            names[-1].add(recording_name(rttm.stem))
            found = dict.fromkeys(names[-1], next(iter(found.values())))
        for recording, annotation in found.items():
            turns[recording][rttm] = annotation
    references = {}
    for file in files:
        name = recording_name(file.stem)
        if name in references:
            raise SourceError(
                f"{references[name].audio} and {file} are both recording {name!r}; give each its own name"
            )
        if name not in turns:
            raise SourceError(
                f"{file} has no reference: no RTTM file below {directory} speaks of {name!r}; add one or remove it"
            )
        if len(turns[name]) > 1:
            raise SourceError(
                f"{file} has more than one reference: {', '.join(map(str, turns[name]))} speak of {name!r}; keep the "
                "true one there, and answers elsewhere"
            )
        references[name] = Reference(name, file, next(iter(turns[name].values())).copy())
        references[name].turns.uri = name
    for unheard in (known for known in names if known.isdisjoint(references)):
        warnings.warn(
            f"{directory} has a reference of {min(unheard)!r} and no audio file of that name "
            f"({', '.join(sorted(AUDIO_FILES))}); it is not scored",
            stacklevel=2,
        )
    return list(references.values())


def from_hub(name: str, config: str | None, split: str, limit: int | None = None) -> Iterator[Reference]:
    """The rows of a Hub data set with the columns of diarizers-community's, one in memory at a time.

    Raises:
        ValueError: no such data set, configuration or split, or other columns.
        OSError: the data set cannot be read on.
    """
    stream = open_split(name, config, split)
    columns = stream.column_names or list(next(iter(stream), {}))
    missing = [column for column in ("audio", *TURN_COLUMNS) if column not in columns]
    if missing:
        raise SourceError(f"data set {name!r} has no column {', '.join(missing)} among: {', '.join(columns)}")
    for number, row in enumerate(islice(stream.cast_column("audio", Audio(decode=False)), limit)):
        audio = row["audio"] or NO_AUDIO
        turns = Annotation(uri=f"{number:04d}_{recording_name(Path(audio['path'] or 'audio').stem)}")
        for track, (start, end, speaker) in enumerate(zip(*(row[column] for column in TURN_COLUMNS))):
            turns[Segment(start, end), track] = speaker
        encoded = audio["bytes"] is not None
        yield Reference(turns.uri, audio["bytes"] if encoded else fsspec.open(audio["path"], "rb").open(), turns)


def of_simulated(recording: Recording) -> Reference:
    """A simulated recording; its audio is the waveform."""
    turns = Annotation(uri=recording.name)
    for number, (start, end, speaker) in enumerate(recording.turns):
        turns[Segment(start, end), number] = speaker
    return Reference(recording.name, recording.waveform, turns)
