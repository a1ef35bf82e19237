"""Patience with a network that fails: growing pauses between attempts."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from huggingface_hub.errors import LocalEntryNotFoundError, LocalTokenNotFoundError

from common.hub_http import HTTP_FAULTS

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, LocalTokenNotFoundError)
T = TypeVar("T")


class GaveUp(ConnectionError):
    """Something that could not be read within the time allowed."""


class NetworkFault(ConnectionError):
    """An answer that is not what was asked for: the network is at fault, and not the file."""


def is_transient(error: Exception) -> bool:
    """Whether to try again: faults of connections and servers, not what is gone or damaged."""
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in _causes(error)):
        return True  # it says "not found in the cache" and means that the Hub did not answer
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 425, 429)
    if isinstance(error, LASTING):
        return False
    if type(error) is OSError and error.errno is None:  # Arrow's word for damaged data
        return False
    return isinstance(error, HTTP_FAULTS)


def is_forbidden(error: Exception) -> bool:
    """Whether a server refused to show something to this account, or to nobody in particular."""
    return any(_status(cause) in (401, 403) for cause in _causes(error))


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def persist(action: Callable[[], T], what: str, seconds: float) -> T:
    """Call `action` until it succeeds, with growing pauses, or those the server asks for, for at most `seconds`.

    Args:
        what: is read, for messages.

    Raises:
        GaveUp: `action` did not succeed in time.
        Exception: of `action`, where trying again is of no use.
    """
    started, attempt = time.monotonic(), 0
    while True:
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            waited = time.monotonic() - started
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            pause = _asked_for(error) or min(0.5 * 2.0**attempt, LONGEST_PAUSE)
            if waited + pause > seconds:
                raise GaveUp(f"{what} could not be read for {waited:.0f} s ({reason})") from error
            logger.warning("reading %s failed (%s), trying again in %.1f s", what, reason, pause)
            time.sleep(pause)
            attempt += 1


def _asked_for(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
