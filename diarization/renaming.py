"""Other names for speakers in files that were written before, without diarizing again."""

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.errors import plain
from common.terminal import say
from common.text import read_text
from diarization.formats import csv_field, rttm_field
from diarization.names import lacking
from diarization.subtitles import vtt_field
from modeling.enrolment_fast_diarization import LONGEST_NAME

LINES = {
    ".rttm": r"^(SPEAKER(?:[ \t]+\S+){6}[ \t]+)(\S+)()",
    ".csv": r'^([\d.]+,[\d.]+,)("(?:[^"\n]|"")+"|[^",\n]+)()(?=,)',
    ".srt": r"(-->[^\n]*\n)([^\n]+?)()(?=: |$)",
    ".vtt": r"(-->[^\n]*\n<v )([^>\n]+)(>(?:\2$)?)",
    ".txt": r"^([\d.]+\t[\d.]+\t|\[[\d:]+\] )([^\n]+?)()(?=: |$)",
}
"""What is before a speaker's name in a file of each suffix, the name, and what is behind it."""
WRITTEN: dict[str, Callable[[str], str]] = {".rttm": rttm_field, ".csv": csv_field, ".vtt": vtt_field}
"""How a name is written, where not as it is."""


def rename_files(values: Sequence[str]) -> int:
    """Rename the speakers of files, all files or none, and return the exit code.

    Args:
        values: `OLD=NEW` and files, in any order: what has an `=` and is no file is the former.

    Raises:
        ValueError: no such speaker in a file, a name that is another speaker's, or another kind of file.
        OSError: a file cannot be read or written.
    """
    files = [value for value in values if "=" not in value or os.path.isfile(value)]
    names = parse_names([value for value in values if value not in files])
    if not files:
        raise ValueError("--rename needs the files to change: --rename SPEAKER_00=Anna results/call.rttm")
    try:
        changed = [(Path(file), renamed_text(Path(file), names)) for file in files]
    except OSError as error:
        raise OSError(f"--rename {plain(error)}") from error
    for file, text in changed:
        part = file.with_name(f".{secrets.token_hex(8)}.part")
        try:
            part.write_text(text, encoding="utf-8", newline="")
            os.replace(part, file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        say(f"{file}: {', '.join(f'{old} is {new}' for old, new in names.items())}")
    return 0


def parse_names(values: Sequence[str]) -> dict[str, str]:
    """
    Raises:
        ValueError: one is not `OLD=NEW`, or a speaker gets two names, or two speakers one.
    """
    names: dict[str, str] = {}
    for value in values:
        old, _, new = (part.strip() for part in value.partition("="))
        if not (old and new) or len(new) > LONGEST_NAME or not new.isprintable() or set(new) & set("<>"):
            raise ValueError(f"--rename takes OLD=NEW, such as SPEAKER_00=Anna, got {value!r:.120}")
        if names.setdefault(old, new) != new:
            raise ValueError(f"--rename: {old} cannot be both {names[old]} and {new}")
    if not names or len(set(names.values())) < len(names):
        raise ValueError("--rename needs a name of its own for each speaker, such as SPEAKER_00=Anna SPEAKER_01=Ben")
    return names


def renamed_text(file: Path, names: Mapping[str, str]) -> str:
    """The text of a file with other names for its speakers; as `rename_files`."""
    suffix = file.suffix.lower()
    if suffix not in {*LINES, ".json"}:
        raise ValueError(f"{file}: speakers are renamed in {', '.join(LINES)} and .json files")
    text = read_text(file, "a result of diarize.py")
    if suffix == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"{file}: not JSON") from None
        found: set[str] = set()
        changed = json.dumps(_replaced(content, names, found), indent=1) + "\n"
    else:
        written = WRITTEN.get(suffix, str)
        to = {written(old): written(new) for old, new in names.items()}
        lines = re.compile(LINES[suffix], re.MULTILINE)
        found = {match[2] for match in lines.finditer(text)}
        names = to

        def changed_name(match: re.Match) -> str:
            new = to.get(match[2], match[2])
            return match[1] + new + match[3].replace(match[2], new)

        changed = lines.sub(changed_name, text)
    if absent := names.keys() - found:
        raise ValueError(f"{file} {lacking('speaker', min(absent), sorted(found))}")
    if taken := set(names.values()) & (found - names.keys()):
        raise ValueError(f"{file} has a speaker {min(taken)} already; choose another name")
    return changed


def _replaced(content: object, names: Mapping[str, str], found: set[str]) -> object:
    """JSON with every `speaker` renamed; those that are there are added to `found`."""
    if isinstance(content, list):
        return [_replaced(item, names, found) for item in content]
    if not isinstance(content, dict):
        return content
    changed = {}
    for key, value in content.items():
        if key == "speaker" and isinstance(value, str):
            found.add(value)
            changed[key] = names.get(value, value)
        else:
            changed[key] = _replaced(value, names, found)
    return changed
