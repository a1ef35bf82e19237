"""RTTM files (NIST RT-09): who speaks when in one or more recordings."""

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pyannote.core import Annotation, Segment

from common.text import read_text

RTTM_FIELDS = "SPEAKER file channel start duration <NA> <NA> speaker <NA> <NA>"
# The other line types of the NIST RT-09 evaluation plan, which carry no speaker turns.
RTTM_OTHER_TYPES = {
    "SEGMENT",
    "NOSCORE",
    "NO_RT_METADATA",
    "LEXEME",
    "NON-LEX",
    "NON-SPEECH",
    "FILLER",
    "EDIT",
    "IP",
    "SU",
    "CB",
    "A/P",
    "SPKR-INFO",
}


def read_rttm(path: str | Path) -> dict[str, Annotation]:
    """Reads the turns of each recording of an RTTM file (NIST RT-09), by recording, in the order of the file.

    Times are in seconds; the channel is ignored, as are empty lines, comments (`;;`) and line types other than
    SPEAKER.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is malformed, or the file is no text; the message begins with the path, file:line where
            there is a line.
    """
    return _parse_rttm(read_text(path, f"lines of {RTTM_FIELDS!r}"), path)


def write_rttm(path: str | Path, recordings: Iterable[Annotation]) -> None:
    """Writes the turns of recordings, named by their `uri`, to an RTTM file, in milliseconds.

    Raises:
        OSError: the file cannot be written.
        ValueError: a turn or a name cannot be expressed, such as a name with a space; nothing is written then.
    """
    text = "".join(recording.to_rttm() for recording in recordings)
    _parse_rttm(text, path)
    Path(path).write_text(text, encoding="utf-8")


def _parse_rttm(text: str, path: str | Path) -> dict[str, Annotation]:
    recordings: dict[str, list[tuple[Segment, int, str]]] = defaultdict(list)
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] in RTTM_OTHER_TYPES:
            continue
        where = f"{path}:{number}"
        if fields[0] != "SPEAKER":
            raise ValueError(f"{where}: line type {fields[0]!r} is not of RTTM; expected {RTTM_FIELDS!r}")
        if len(fields) not in (9, 10):
            raise ValueError(f"{where}: {len(fields)} fields; expected 9 or 10, {RTTM_FIELDS!r}")
        _, name, _, start, duration, _, _, speaker, *_ = fields
        if "<NA>" in (name, speaker):
            raise ValueError(f"{where}: file is {name!r} and speaker {speaker!r}; both need a name")
        begin, length = to_seconds(start, "start", where), to_seconds(duration, "duration", where)
        if not length:
            raise ValueError(f"{where}: duration is 0; expected more, or remove the line")
        turns, turn = recordings[name], Segment(begin, begin + length)
        if turn:  # of a microsecond or more
            turns.append((turn, number, speaker))
    return {name: Annotation.from_records(turns, uri=name) for name, turns in recordings.items()}


def to_seconds(field: str, name: str, where: str) -> float:
    """A field of a line as seconds.

    Args:
        name, where: of the field and the line, for the message.

    Raises:
        ValueError: no number, negative or infinite.
    """
    try:
        seconds = float(field)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: {name} is {field!r}; expected seconds, 0 or more")
    return seconds
