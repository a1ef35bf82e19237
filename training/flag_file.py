"""A YAML file of flags, which may come from anywhere: nothing in it costs more than its own size."""

import yaml

from common.errors import first_line

LARGEST = 2**16
"""Bytes; the files in configs/ have less than a thousand."""


def read_flag_file(file: str) -> dict[str, str | list[str] | None]:
    """The values of a mapping as they would be written in a command.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no mapping of plain values and lists of them; the message goes on after the file's name.
    """
    with open(file, "rb") as stream:
        text = stream.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"has more than {LARGEST} bytes, no file of flags has")
    try:
        _refuse_nesting(text)
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"is not valid YAML{f', see line {mark.line + 1}' if mark else ''}") from None
    except (ValueError, OverflowError) as error:  # numbers too long to read, dates that are none
        raise ValueError(f"holds a value that cannot be read: {first_line(error)}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"must hold lines of `flag: value`, got {type(settings).__name__}")
    return {key: _as_written(key, value) for key, value in settings.items()}


def _refuse_nesting(text: bytes) -> None:
    """Before anything is built of it: aliases of aliases are exponentially many, and nesting exhausts the stack."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"*{event.anchor:.40} is an alias; write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > 2:
            raise ValueError(f"line {event.start_mark.line + 1} nests deeper than a list of values")


def _as_written(key, value) -> str | list[str] | None:
    if isinstance(value, list):
        return [_as_written(key, part) or "" for part in value]
    if isinstance(value, dict | set):
        raise ValueError(f"gives {key!r:.60} a mapping; write a value, or JSON in quotes")
    try:
        return None if value is None else str(value)
    except ValueError as error:  # an integer in base 16 may be of any length
        raise ValueError(f"holds a value that cannot be read: {first_line(error)}") from None
