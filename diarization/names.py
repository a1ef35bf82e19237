"""What a recording is called as a file, and which files of a directory are recordings."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.names import recording_name

MEDIA = """
    3g2 3gp 3gpp aa aac aax ac3 adts aif aifc aiff amr ape asf au avi awb bwf caf dff divx dsf dts dv eac3 f4a f4v flac
    flv gsm m1v m2t m2ts m2v m4a m4b m4r m4v mk3d mka mkv mov mp1 mp2 mp3 mp4 mpa mpc mpeg mpg mpga mts mxf nut oga ogg
    ogm ogv ogx opus qt ra rf64 rm rmvb shn snd sph spx tak ts tta vob voc vox w64 wav wave weba webm wma wmv wtv wv
"""
MEDIA_SUFFIXES = frozenset(f".{suffix}" for suffix in MEDIA.split())
"""Of audio and video files; whatever else follows a dot belongs to the name, as in `meeting.2024.05`."""
APART = "rename one, or diarize them in two runs with another --output"
SHOWN = 5


def recording_stem(file: str | os.PathLike) -> str:
    """A file's name without its suffix, if that is one of `MEDIA_SUFFIXES`; `stdin` of `-`."""
    path = Path(file)
    if path.suffix.lower() in MEDIA_SUFFIXES:
        return path.stem
    return "stdin" if str(file) == "-" else path.name


def find_recordings(files: Iterable[str]) -> dict[str, str]:
    """The file of each recording by its stem, in order; a directory stands for the media files below it.

    Raises:
        OSError: a directory cannot be read.
        ValueError: two recordings of one name, or one twice.
    """
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for file in _expanded(files):
        stem, name = recording_stem(file), recording_name(recording_stem(file))
        if name in taken:
            other = taken[name]
            if other == file:
                raise ValueError(f"{file} is given twice; leave one out")
            if _is_same(other, file):
                raise ValueError(f"{other} and {file} are the same file; leave one out")
            if stem in found:
                raise ValueError(f"{other} and {file} would both be written as {stem!r}; {APART}")
            raise ValueError(f"{other} and {file} would both be recording {name!r} in RTTM; {APART}")
        taken[name] = found[stem] = file
    return found


def listed(names: Iterable[str]) -> str:
    """The first few of many names, for messages."""
    names = list(names)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "") if names else "none"


def lacking(kind: str, name: str, known: Iterable[str]) -> str:
    """`has no speaker X, only: A, B`, for messages; `has no speakers` where nothing is known."""
    known = list(known)
    return f"has no {kind} {name}, only: {listed(known)}" if known else f"has no {kind}s"


def _expanded(files: Iterable[str]) -> Iterator[str]:
    for file in files:
        inside = sorted(map(str, _media_files(file))) if os.path.isdir(file) else []
        yield from inside or [file]


def _media_files(directory: str) -> Iterator[Path]:
    """At any depth, but for what is hidden and what a link to a directory leads to."""
    for place, below, files in os.walk(directory, onerror=_raise):
        below[:] = [name for name in below if not name.startswith(".")]
        for path in (Path(place, name) for name in files):
            if path.suffix.lower() in MEDIA_SUFFIXES and not path.name.startswith(".") and path.is_file():
                yield path


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _raise(error: OSError) -> None:
    raise error
