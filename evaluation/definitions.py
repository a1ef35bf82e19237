"""Definitions of frozen sets, and what tells that a corpus is the one they were frozen with."""

import hashlib
import json
from pathlib import Path


class SetError(ValueError):
    """A frozen set that cannot be made as it was; the message is one line with the remedy."""


def read_definition(file: str | Path) -> dict:
    """
    Raises:
        SetError: the file is no definition of a set.
    """
    try:
        definition = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetError(f"set {str(file)!r} cannot be read ({reason}); there are some in evaluation/sets/") from None
    if not isinstance(definition, dict) or not {"conditions", "groups", "sounds"} & set(definition):
        raise SetError(f"set {str(file)!r} has no conditions, groups or sounds; see evaluation/sets/windows.json")
    return definition


def corpus_digest(utterances) -> str:
    """Of every unit, speaker and encoded utterance of a corpus, in order."""
    digest = hashlib.sha256()
    for unit in range(len(utterances)):
        digest.update(f"unit {unit}\n".encode())
        for row in utterances.read(unit):
            digest.update(row.speaker.encode() + b"\0" + hashlib.sha256(row.audio).digest())
    return digest.hexdigest()
