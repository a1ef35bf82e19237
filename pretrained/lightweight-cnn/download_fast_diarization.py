"""Recordings at web addresses, which are fetched whole before they are read."""

import http.client
import tempfile
import time
import urllib.error
import urllib.request
from typing import BinaryIO

from .container_fast_diarization import AudioError

SILENCE_SECONDS = 60.0
MOST_SECONDS, MOST_BYTES = 3600.0, 2**32
"""Of one recording: a radio station never ends."""
PIECE = 1 << 20


def is_address(given: object) -> bool:
    """Whether this is the `http` or `https` address of a recording."""
    return isinstance(given, str) and given.lower().startswith(("http://", "https://"))


def download(address: str) -> BinaryIO:
    """
    Returns:
        a temporary file, which is gone once it is closed; its `name` is the address without a query, which may be
        secret.

    Raises:
        AudioError: there is no answer, it is an error or less than announced, or it does not end.
    """
    name = " ".join(address.partition("?")[0].split())
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 (closed with what reads it)
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "fast-diarization"})
        with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as response:
            received, expected = _receive(response, file), response.headers.get("Content-Length")
        if expected is not None and expected != str(received):
            raise OSError(f"{received} of {expected} bytes came")
    except (OSError, ValueError, http.client.HTTPException) as error:
        file.close()
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise AudioError(f"{name}: cannot be fetched ({' '.join(str(reason).split()):.200})") from error
    file.seek(0)
    file.name = name
    return file


def _receive(response: http.client.HTTPResponse, file: BinaryIO) -> int:
    received, end = 0, time.monotonic() + MOST_SECONDS
    while piece := response.read1(PIECE):
        file.write(piece)
        received += len(piece)
        if received > MOST_BYTES or time.monotonic() > end:
            raise OSError(f"no end after {received / 1e6:.0f} MB")
    return received
