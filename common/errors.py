"""Errors of libraries in one line."""


def first_line(error: Exception) -> str:
    """The first line of an error message, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
