"""Errors of libraries in one line."""

LONGEST = 300
"""Characters; some libraries quote whole files."""


def first_line(error: Exception) -> str:
    """The first line of an error message, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:LONGEST]


def plain(error: object) -> str:
    """The message of an error; of one of the operating system the file and the reason, without their number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


def unknown_argument(argument: str) -> str:
    """What is said of an argument nobody asked for: of a flag its name only, for its value may be a token."""
    return f"unknown flag {argument.partition('=')[0]:.60}" if argument.startswith("-") else "a value without a flag"
