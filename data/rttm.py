"""RTTM files (NIST RT-09): who speaks when in one or more recordings."""

import math
from collections.abc import Iterable
from pathlib import Path

from pyannote.core import Annotation, Segment

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
        ValueError: a line is malformed; the message begins with file:line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text; expected lines of {RTTM_FIELDS!r}") from None
    return _parse_rttm(text, path)


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
    recordings: dict[str, Annotation] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] in RTTM_OTHER_TYPES:
            continue
        where = f"{path}:{number}"
        if fields[0] != "SPEAKER":
            raise ValueError(f"{where}: line type {fields[0]!r} is not an RTTM line type; expected {RTTM_FIELDS!r}")
        if len(fields) not in (9, 10):
            raise ValueError(f"{where}: {len(fields)} fields; expected 9 or 10, {RTTM_FIELDS!r}")
        _, name, _, start, duration, _, _, speaker, *_ = fields
        if "<NA>" in (name, speaker):
            raise ValueError(f"{where}: file is {name!r} and speaker {speaker!r}; both need a name")
        begin, length = _seconds(start, "start", where), _seconds(duration, "duration", where)
        if not length:
            raise ValueError(f"{where}: duration is 0; expected more, or remove the line")
        turns = recordings.setdefault(name, Annotation(uri=name))
        turns[Segment(begin, begin + length), number] = speaker
    return recordings


def _seconds(field: str, name: str, where: str) -> float:
    try:
        seconds = float(field)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: {name} is {field!r}; expected seconds, 0 or more")
    return seconds
