"""Utterances of single speakers, cut out of recorded conversations by their annotated turns."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile

from data.decoding import open_with_libsndfile
from modeling.audio_fast_diarization import SAMPLING_RATE, AudioError, load_audio
from modeling.mixing_fast_diarization import mix

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 15.0
MOST_PER_CONVERSATION = 64


def solo_stretches(
    starts: Sequence[float], ends: Sequence[float], speakers: Sequence[str]
) -> list[tuple[float, float, str]]:
    """(start, end, speaker) in seconds of each stretch of non-overlapped speech of at least `SHORTEST_SECONDS`.

    Longer stretches are cut to `LONGEST_SECONDS`; at most `MOST_PER_CONVERSATION` are kept, evenly spread.
    """
    people, who = np.unique(np.array(speakers, str), return_inverse=True)
    edges = np.unique(np.r_[starts, ends])
    if len(edges) == 0:
        return []
    changes = np.zeros((len(people), len(edges)), int)
    np.add.at(changes, (who, np.searchsorted(edges, starts)), 1)
    np.add.at(changes, (who, np.searchsorted(edges, ends)), -1)
    talking = changes.cumsum(axis=1) > 0
    alone = np.where(talking.sum(axis=0) == 1, talking.argmax(axis=0), -1)
    first = np.flatnonzero(np.diff(alone, prepend=-2))
    bounds = edges[np.r_[first, len(edges) - 1]]
    found = [
        (float(start), float(min(end, start + LONGEST_SECONDS)), str(people[person]))
        for start, end, person in zip(bounds, bounds[1:], alone[first])
        if person >= 0 and end - start >= SHORTEST_SECONDS
    ]
    kept = np.linspace(0, len(found) - 1, min(len(found), MOST_PER_CONVERSATION)).round().astype(int)
    return [found[i] for i in kept]


def cut(audio: bytes, stretches: Sequence[tuple[float, float, str]]) -> Iterator[tuple[bytes, str]]:
    """FLAC and speaker of each stretch of an encoded recording; stretches beyond its end are dropped.

    If that can be done exactly (FLAC and WAV) only the stretches are decoded, otherwise all of it.

    Raises:
        AudioError: the recording cannot be read.
    """
    file = open_with_libsndfile(audio)
    if file is not None and file.format in ("FLAC", "WAV"):
        yield from _cut_by_libsndfile(file, stretches)
        return
    waveform = load_audio(audio)
    for start, end, speaker in stretches:
        samples = waveform[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)]
        if samples.size:
            yield _flac(samples, SAMPLING_RATE), speaker


def _cut_by_libsndfile(
    file: soundfile.SoundFile, stretches: Sequence[tuple[float, float, str]]
) -> Iterator[tuple[bytes, str]]:
    with file:
        for start, end, speaker in stretches:
            first, last = (min(round(at * file.samplerate), file.frames) for at in (start, end))
            if last > first:
                try:
                    file.seek(first)
                    samples = file.read(last - first, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise AudioError("damaged") from error
                yield _flac(mix(samples.T, file.samplerate), file.samplerate), speaker


def _flac(samples: np.ndarray, sampling_rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sampling_rate, format="FLAC")
    return file.getvalue()
