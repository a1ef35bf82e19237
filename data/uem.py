"""UEM files (NIST un-partitioned evaluation maps): which regions of one or more recordings are scored."""

from pathlib import Path

from pyannote.core import Segment, Timeline

from common.text import read_text
from data.rttm import to_seconds

UEM_FIELDS = "file channel start end"


def read_uem(path: str | Path) -> dict[str, Timeline]:
    """The regions of each recording of a UEM file, in seconds, joined where they touch, in the order of the file.

    The channel is not looked at. Empty lines and comments (`;;`) are passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is malformed, or the file is no text or has no region; the message begins with the path,
            file:line where there is a line.
    """
    regions: dict[str, list[Segment]] = {}
    for number, line in enumerate(read_text(path, f"lines of {UEM_FIELDS!r}").split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        where = f"{path}:{number}"
        if len(fields) != 4:
            raise ValueError(f"{where}: {len(fields)} fields; expected 4, {UEM_FIELDS!r}")
        name, _, start, end = fields
        region = Segment(to_seconds(start, "start", where), to_seconds(end, "end", where))
        if not region:
            raise ValueError(f"{where}: start is {start} and end is {end}; expected an end after the start")
        regions.setdefault(name, []).append(region)
    if not regions:
        raise ValueError(f"{path}: no region; expected lines of {UEM_FIELDS!r}")
    return {name: Timeline(found, uri=name).support() for name, found in regions.items()}
