"""Annotated recordings: real conversations and who speaks when in them, from audio, RTTM and UEM files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from data.names import recording_name
from data.rttm import read_rttm
from data.uem import read_uem
from modeling.audio_fast_diarization import Source, declared_seconds

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".m4a", ".mp3"}
SLACK_SECONDS = 1.0
"""How far a reference may reach beyond the end of its recording: times are rounded, and some codecs cut the end."""
LONGEST_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Conversation:
    """One recording and its reference.

    Args:
        name: of the recording, for messages.
        audio: a path, or the bytes of an encoded file.
        turns: (start, end, speaker) in seconds; a speaker's name holds within this recording.
        regions: (start, end) of the annotated parts in seconds, or `None` if all of it is annotated.
    """

    name: str
    audio: Source
    turns: tuple[tuple[float, float, str], ...]
    regions: tuple[tuple[float, float], ...] | None = None

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        digest = hashlib.sha256(repr((self.turns, self.regions)).encode()).hexdigest()[:12]
        return f"{self.name}, {Path(self.audio).stat().st_size} bytes, turns {digest}"

    def last_turn_ends(self) -> float:
        return max((end for _, end, _ in self.turns), default=0.0)

    def check_turns(self) -> None:
        """
        Raises:
            ValueError: a turn has no speaker, or its times are not seconds of less than a day.
        """
        for start, end, speaker in self.turns:
            seconds = all(isinstance(at, float | int) and abs(at) <= LONGEST_SECONDS for at in (start, end))
            if not (seconds and isinstance(speaker, str)):
                raise ValueError(
                    f"the reference of {self.name!r} has a turn from {start} to {end} by {speaker!r}; every turn needs "
                    f"a speaker, and times in seconds, {LONGEST_SECONDS:.0f} at most"
                )

    def annotated_regions(self) -> tuple[tuple[float, float], ...]:
        """`regions`, or the whole recording, as long as it says it is.

        Raises:
            ValueError: the reference goes on after the end of the recording, which lasts no longer than a day.
        """
        self.check_turns()
        seconds = declared_seconds(self.audio)
        if seconds is not None and seconds > LONGEST_SECONDS:
            raise ValueError(f"{self.name!r} lasts {seconds / 3600:.0f} hours; cut it into parts of a day or less")
        last = self.last_turn_ends()
        if seconds is not None and last > seconds + SLACK_SECONDS:
            raise ValueError(
                f"the reference of {self.name!r} goes on to {last:.1f} s, its audio ends at {seconds:.1f} s; "
                "correct one of them"
            )
        return self.regions if self.regions is not None else ((0.0, last if seconds is None else seconds),)


def audio_files(directory: Path) -> list[Path]:
    return sorted(f for f in directory.rglob("*") if f.suffix.lower() in AUDIO_SUFFIXES)


def annotated_conversations(directory: Path) -> list[Conversation]:
    """Every recording below a directory with the turns of its name in any RTTM file there, and its UEM if there is one.

    An RTTM file that speaks of one recording may name it, or be named like it.

    Raises:
        ValueError: a malformed file, two recordings of one name, a recording without reference or with two of them, a
            reference without recording or longer than it. The message is one line with the remedy.
    """
    files: dict[str, Path] = {}
    for file in audio_files(directory):
        name = recording_name(file.stem)
        if name in files:
            raise ValueError(f"{files[name]} and {file} are both recording {name!r}; give each its own name")
        files[name] = file
    references = [reference for rttm in sorted(directory.rglob("*.rttm")) for reference in _references(rttm)]
    regions = _regions(directory)
    conversations = []
    for name, file in files.items():
        found = [reference for reference in references if name in reference.names]
        if not found:
            others = sorted(min(r.names) for r in references if r.names.isdisjoint(files))
            spoken_of = f"they speak of {', '.join(others[:3])}" if others else "there is none left"
            raise ValueError(
                f"{file} has no reference: no RTTM file below {directory} speaks of {name!r} ({spoken_of}); add one, "
                "correct its name, or remove the recording"
            )
        if len(found) > 1:
            said = ", ".join(str(reference.file.relative_to(directory)) for reference in found)
            raise ValueError(f"{file} has more than one reference, in {said}; keep one of them")
        conversations.append(Conversation(name, file, found[0].turns, regions.get(name)))
    for reference in references:
        if reference.names.isdisjoint(files):
            raise ValueError(
                f"{reference.file} speaks of {min(reference.names)!r}, and no audio file below {directory} has that "
                f"name ({', '.join(sorted(AUDIO_SUFFIXES))}); add the recording or remove its lines"
            )
    for conversation in conversations:
        conversation.annotated_regions()
    return conversations


@dataclass(frozen=True)
class _Reference:
    """The turns of one recording in an RTTM file, and the names that the recording may have."""

    file: Path
    names: frozenset[str]
    turns: tuple[tuple[float, float, str], ...]


def _references(rttm: Path) -> list[_Reference]:
    found = {recording_name(name): lines for name, lines in (read_rttm(rttm) or {rttm.stem: None}).items()}
    references = []
    for name, lines in found.items():
        names = {name, recording_name(rttm.stem)} if len(found) == 1 else {name}
        spoken = lines.itertracks(yield_label=True) if lines else ()
        turns = tuple((turn.start, turn.end, speaker) for turn, _, speaker in spoken)
        references.append(_Reference(rttm, frozenset(names), turns))
    return references


def _regions(directory: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    regions: dict[str, tuple[tuple[float, float], ...]] = {}
    for file in sorted(directory.rglob("*.uem")):
        found = {recording_name(name): parts for name, parts in read_uem(file).items()}
        if len(found) == 1:
            found |= {recording_name(file.stem): next(iter(found.values()))}
        regions |= {name: tuple((part.start, part.end) for part in parts) for name, parts in found.items()}
    return regions
