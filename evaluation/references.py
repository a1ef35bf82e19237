"""References of recordings given by name: from RTTM files, and from UEM files which of their regions are scored."""

from dataclasses import dataclass
from pathlib import Path

from pyannote.core import Annotation, Timeline

from common.terminal import warn
from data.names import recording_name
from data.rttm import read_rttm
from data.uem import read_uem
from diarization.names import lacking


@dataclass(frozen=True)
class Truth:
    """Who really speaks when in a recording, and the regions to score where not all of it is."""

    turns: Annotation
    regions: Timeline | None = None


def reference_files(path: str) -> list[Path]:
    """An RTTM file, or all those of a directory."""
    return sorted(Path(path).glob("*.rttm")) if Path(path).is_dir() else [Path(path)]


def read_references(path: str, stems: list[str], uem: str | None = None, any_name: bool = False) -> dict[str, Truth]:
    """The reference of each recording by its stem.

    Names are compared as `recording_name` writes them. An RTTM file without turns is that of a recording without
    speech: the one of its name, or the only one. So is a recording that has no turn but stands in the UEM file.

    Args:
        any_name: take the only reference for the only recording, whatever it is called.

    Raises:
        ValueError: a file that cannot be read, or no reference for a recording, or more than one.
    """
    alone = any_name and len(stems) == 1
    names = {stem: recording_name(stem) for stem in stems}
    maps = _regions(uem, list(names.values()), alone) if uem else {}
    turns = _turns(path)
    for name in names.values():
        if name not in turns and len(names) == len(turns) == 1 and (alone or not any(turns.values())):
            turns = {name: next(iter(turns.values()))}
        if name not in turns and name in maps:
            turns[name] = Annotation()
        if name not in turns:
            raise ValueError(
                f"--reference {path} {lacking('recording', repr(name), turns)}; a recording is known there by its file "
                "name" + ("; --ignore_reference_name takes it all the same" if len(names) == len(turns) == 1 else "")
            )
        if not turns[name]:
            warn(f"the reference of {name!r} has no speech")
    return {stem: Truth(_renamed(turns[name], stem), maps.get(name)) for stem, name in names.items()}


def _turns(path: str) -> dict[str, Annotation]:
    found: dict[str, Annotation] = {}
    try:
        for file in reference_files(path):
            turns = read_rttm(file) or {file.stem: Annotation()}
            for name, annotation in turns.items():
                if (name := recording_name(name)) in found:
                    raise ValueError(f"--reference {path} has more than one reference of {name!r}; keep the true one")
                found[name] = annotation
    except OSError as error:
        raise ValueError(
            f"--reference {path}: {error.strerror}; give an RTTM file or a directory of RTTM files"
        ) from error
    return found


def _regions(path: str, names: list[str], alone: bool) -> dict[str, Timeline]:
    try:
        maps = {recording_name(name): regions for name, regions in read_uem(path).items()}
    except OSError as error:
        raise ValueError(f"--uem {path}: {error.strerror}; give a UEM file") from error
    if alone and len(maps) == 1:
        return dict.fromkeys(names, next(iter(maps.values())))
    if missing := [name for name in names if name not in maps]:
        raise ValueError(f"--uem {path} {lacking('recording', repr(missing[0]), maps)}; add its regions")
    return maps


def _renamed(turns: Annotation, name: str) -> Annotation:
    turns.uri = name
    return turns
