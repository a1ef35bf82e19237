"""Errors of libraries in one line."""

LONGEST = 300
"""Characters; some libraries quote whole files."""


def first_line(error: Exception) -> str:
    """The first line of an error message, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:LONGEST]


def flag_of(argument: str) -> str:
    """What may be shown of an argument that is not understood: the name of a flag, for its value may be a token."""
    return argument.partition("=")[0] if argument.startswith("-") else "without a flag"
