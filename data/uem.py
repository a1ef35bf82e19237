"""UEM files (NIST RT-09): which parts of a recording are annotated, and therefore scored or trained on."""

from pathlib import Path

UEM_FIELDS = "file channel start end"


def read_uem(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Reads the annotated regions of each recording, (start, end) in seconds. The channel is not looked at.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is malformed; the message begins with file:line.
    """
    regions: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig", errors="replace").split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        try:
            name, _, start, end = fields
            begin, stop = float(start), float(end)
        except ValueError:
            raise ValueError(f"{path}:{number}: {line.strip()!r} is not {UEM_FIELDS!r}") from None
        if not 0 <= begin < stop < float("inf"):
            raise ValueError(f"{path}:{number}: from {start} to {end} s; expected a region of more than 0 s")
        regions.setdefault(name, []).append((begin, stop))
    return regions
