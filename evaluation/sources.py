"""Recordings with their references, from a directory of audio and RTTM files or streamed from a Hub data set."""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Audio
from pyannote.core import Annotation, Segment, Timeline

from data.corpora import TURN_COLUMNS
from data.names import recording_name
from data.own_files import UnreadableFile, open_own_file, root_of
from data.rttm import read_rttm
from data.simulated_recordings import Recording
from data.uem import read_uem
from diarization.hub_dataset import NO_AUDIO, open_split
from diarization.names import MEDIA_SUFFIXES, listed, recording_stem
from modeling.audio_fast_diarization import Source, load_audio


class SourceError(ValueError):
    """Recordings or references that are missing or ambiguous; the message is one line with the remedy."""


@dataclass(frozen=True)
class Reference:
    """One recording (file, encoded bytes, binary file object or waveform) and its reference turns.

    Args:
        regions: to score; the whole recording by default.
    """

    name: str
    audio: Source | np.ndarray
    turns: Annotation
    regions: Timeline | None = None

    def waveform(self) -> np.ndarray:
        """float32 (samples,), mono 16 kHz.

        Raises:
            AudioError: the audio cannot be read.
        """
        return self.audio if isinstance(self.audio, np.ndarray) else load_audio(self.audio)


def from_directory(directory: Path) -> list[Reference]:
    """Every audio file below a directory, with the turns of the same name from any RTTM file there.

    Names are compared as `recording_name` writes them. An RTTM file of one recording also belongs to the audio of its
    file name, with a warning if it names another recording; one without turns is that of a recording without speech.
    A reference without audio gives a warning.

    Raises:
        SourceError: there is no audio, two files share a name, or a file has no reference or several.
        ValueError: an RTTM file is malformed.
    """
    files = sorted(f for f in directory.rglob("*") if f.suffix.lower() in MEDIA_SUFFIXES)
    if not files:
        raise SourceError(f"{directory} holds no audio or video file; put recordings and their RTTM there")
    turns, names, renamed = _turns_below(directory)
    references = {}
    for file in files:
        name = recording_name(recording_stem(file))
        if name in references:
            raise SourceError(
                f"{references[name].audio} and {file} are both recording {name!r}; give each its own name"
            )
        if name not in turns:
            raise SourceError(
                f"{file} has no reference: no RTTM file below {directory} has turns of {name!r}; add one or remove it"
            )
        if len(turns[name]) > 1:
            raise SourceError(
                f"{file} has more than one reference: {', '.join(map(str, turns[name]))} have turns of {name!r}; keep "
                "one of them there and move hypotheses to another directory"
            )
        references[name] = Reference(name, file, next(iter(turns[name].values())).copy())
        references[name].turns.uri = name
        if name in renamed:
            warnings.warn(renamed[name], stacklevel=2)
    for unheard in (known for known in names if known.isdisjoint(references)):
        warnings.warn(
            f"{directory} has a reference of {min(unheard)!r} and no audio or video file of it; it is not scored",
            stacklevel=2,
        )
    return list(references.values())


def _turns_below(directory: Path) -> tuple[dict[str, dict[Path, Annotation]], list[set[str]], dict[str, str]]:
    """The references in the RTTM files below a directory: by recording and file, the names each reference goes by,
    and by recording a warning where only the name of its file tells whose it is."""
    turns: dict[str, dict[Path, Annotation]] = defaultdict(dict)
    names: list[set[str]] = []
    renamed: dict[str, str] = {}
    for rttm in sorted(directory.rglob("*.rttm")):
        found = {recording_name(name): annotation for name, annotation in read_rttm(rttm).items()}
        of_file = recording_name(rttm.stem)
        found = found or {of_file: Annotation()}
        names += [{recording} for recording in found]
        if len(found) == 1:
            inside, annotation = next(iter(found.items()))
            if of_file != inside:
                renamed[of_file] = f"{rttm} names {inside!r} and is taken as that of {of_file!r} by its file name"
            names[-1].add(of_file)
            found = dict.fromkeys(names[-1], annotation)
        for recording, annotation in found.items():
            turns[recording][rttm] = annotation
    return turns, names, renamed


def from_hub(name: str, config: str | None, split: str, limit: int | None = None) -> Iterator[Reference]:
    """Stream the rows of a Hub data set with the columns of diarizers-community, one in memory at a time.

    Raises:
        ValueError: there is no such data set, configuration or split, or columns are missing.
        OSError: the data set cannot be read.
    """
    stream = open_split(name, config, split)
    columns = stream.column_names or list(next(iter(stream), {}))
    missing = [column for column in ("audio", *TURN_COLUMNS) if column not in columns]
    if missing:
        raise SourceError(f"data set {name!r} has no column {', '.join(missing)} among: {', '.join(columns)}")
    for number, row in enumerate(islice(stream.cast_column("audio", Audio(decode=False)), limit)):
        audio = row["audio"] or NO_AUDIO
        turns = Annotation(uri=f"{number:04d}_{recording_name(recording_stem(audio['path'] or 'audio'))}")
        for track, (start, end, speaker) in enumerate(zip(*(row[column] for column in TURN_COLUMNS))):
            turns[Segment(start, end), track] = speaker
        try:
            source = audio["bytes"]
            source = open_own_file(root_of(name, audio["path"]), audio["path"]) if source is None else source
        except UnreadableFile as error:
            raise SourceError(f"data set {name!r} names {audio['path']!r} in row {number}, {error}") from None
        yield Reference(turns.uri, source, turns)


def with_regions(references: Iterable[Reference], uem: str) -> Iterable[Reference]:
    """The same recordings with the regions of a UEM file to score; of a list all are looked up at once.

    Raises:
        SourceError: the file cannot be read, or has no regions of a recording.
        ValueError: a malformed UEM file.
    """
    try:
        regions = {recording_name(name): timeline for name, timeline in read_uem(uem).items()}
    except OSError as error:
        raise SourceError(f"--uem {uem}: {error.strerror}; give a UEM file") from error

    def limited(reference: Reference) -> Reference:
        if reference.name not in regions:
            raise SourceError(f"--uem {uem} has no recording {reference.name!r}, only: {listed(regions)}; add it")
        return replace(reference, regions=regions[reference.name])

    return list(map(limited, references)) if isinstance(references, list) else map(limited, references)


def of_simulated(recording: Recording) -> Reference:
    """A simulated recording with its turns as reference."""
    turns = Annotation(uri=recording.name)
    for number, (start, end, speaker) in enumerate(recording.turns):
        turns[Segment(start, end), number] = speaker
    return Reference(recording.name, recording.waveform, turns)
