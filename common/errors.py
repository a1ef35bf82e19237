"""Errors of libraries in one line."""


def first_line(error: Exception) -> str:
    """What an error of a library says, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
