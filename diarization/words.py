"""The files of words that belong to recordings, and their words with speakers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import plain
from common.terminal import warn
from diarization.names import listed
from diarization.timeline import clock
from modeling.segments_fast_diarization import Segment
from modeling.transcripts_fast_diarization import Passage, read_transcript
from modeling.words_fast_diarization import Word, assign_words

SUFFIXES = (".json", ".words.json", ".vtt", ".srt")
"""In order of preference: JSON may have the times of words."""
MUCH_LATER = 10.0
"""Seconds after the end of a recording at which its words are probably those of another."""


def find_words(path: str | None, recordings: Mapping[str, str]) -> dict[str, Path]:
    """The file of words of each recording by its stem; none without a path.

    Args:
        path: the file of the only recording, or a directory with a file for each: `call.json`, `call.wav.json`,
            `call.words.json`, `call.vtt` or `call.srt` of `call.wav`.
        recordings: files by stem, as of `find_recordings`.

    Raises:
        ValueError: one file for several recordings, or a recording without one.
    """
    if path is None:
        return {}
    if not Path(path).is_dir():
        if len(recordings) > 1:
            raise ValueError(f"--words {path} is one file for {len(recordings)} recordings; give a directory of files")
        return {stem: Path(path) for stem in recordings}
    found, missing = {}, []
    for stem, file in recordings.items():
        names = [f"{name}{suffix}" for suffix in SUFFIXES for name in (stem, Path(file).name)]
        there = [Path(path, name) for name in names if Path(path, name).is_file()]
        if there:
            found[stem] = there[0]
        else:
            missing.append(stem)
    if missing:
        raise ValueError(f"--words {path} has no file for {listed(missing)}; expected {missing[0]}.json, .vtt or .srt")
    return found


def read_words(path: str | None, recordings: Mapping[str, str]) -> dict[str, tuple[Path, list[Passage]]]:
    """The file of words of each recording and what it says, as of `find_words`.

    Raises:
        OSError: a file cannot be read.
        ValueError: as `find_words`, or a file of another kind.
    """
    try:
        return {stem: (file, read_transcript(file)) for stem, file in find_words(path, recordings).items()}
    except OSError as error:
        raise OSError(f"--words {plain(error)}") from error


def with_speakers(file: Path, transcript: Sequence[Passage], segments: Sequence[Segment], seconds: float) -> list[Word]:
    """`assign_words`, with a warning where the words cannot be those of the recording.

    Args:
        file: of the words, for the warning.
        seconds: length of the recording.
    """
    words = assign_words(transcript, segments)
    if words and not segments:
        warn(f"{file}: the recording has no speech, so its {len(words)} words have no speaker")
    elif words and words[-1].start > seconds + MUCH_LATER:
        warn(f"{file}: words up to {clock(words[-1].start)}, but the recording ends at {clock(seconds)}")
    return words
