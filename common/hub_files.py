"""Files of Hub repositories, read with every answer checked: what is not the bytes asked for is a fault of the network.

A proxy, a sign-in page of a hotel or a server in trouble answers with HTML, with the whole file for a part of it, or
with less than was asked for. huggingface_hub hands all of that on as the file, which then looks damaged.
"""

import logging
import re
import time
from collections.abc import Generator

import fsspec
from huggingface_hub import HfFileSystem, hf_hub_url
from huggingface_hub.hf_file_system import HfFileSystemFile, HfFileSystemStreamFile
from huggingface_hub.utils import hf_raise_for_status

from common.hub_http import HTTP_FAULTS, Response, stream
from common.retry import NetworkFault

logger = logging.getLogger(__name__)

REPORT_SECONDS = 30.0
"""How often an answer that takes its time is reported."""
SLOW_SECONDS, SLOWEST_RATE = 300.0, 16_000
"""An answer that brings fewer bytes a second than `SLOWEST_RATE`, for `SLOW_SECONDS`, counts as failed."""


class TooSlow(NetworkFault):
    """An answer that would take hours."""


class HubFiles(HfFileSystem):
    """`hf://` of fsspec, and so of `datasets`, as a file system whose answers are checked."""

    def _open(self, path, mode="rb", revision=None, block_size=None, **kwargs):
        if mode != "rb":
            return super()._open(path, mode, revision, block_size, **kwargs)
        if block_size == 0:
            return _Stream(self, path, mode, revision, **kwargs)
        return _Parts(self, path, mode=mode, revision=revision, block_size=block_size or self.block_size, **kwargs)


class _Parts(HfFileSystemFile):
    """A file read by byte ranges."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return b"".join(_answer(self, start, end, self.size))


class _Stream(HfFileSystemStreamFile):
    """A file read from its start to its end; where an answer breaks off, the next one begins there."""

    body: Generator[bytes] | None = None
    rest = b""

    def close(self) -> None:
        if self.body:
            self.body.close()
        super().close()

    def read(self, length: int = -1) -> bytes:
        pieces, missing = [], length
        while missing != 0 and (piece := self.rest or self._next()):
            piece, self.rest = (piece, b"") if missing < 0 else (piece[:missing], piece[missing:])
            pieces.append(piece)
            missing -= len(piece) if missing > 0 else 0
        out = b"".join(pieces)
        self.loc += len(out)
        return out

    def _next(self) -> bytes:
        if self.body is None:
            self.size = self.fs.info(self.path)["size"]
            self.received = self.begun = 0
            self.body = _answer(self, 0, self.size, self.size)
        try:
            piece = next(self.body, b"")
        except HTTP_FAULTS as error:
            if isinstance(error, TooSlow) or self.received == self.begun:
                raise
            self.begun = self.received
            self.body = _answer(self, self.received, self.size, self.size)
            return self._next()
        self.received += len(piece)
        return piece


fsspec.register_implementation(HubFiles.protocol, HubFiles, clobber=True)


def open_file(url: str, **remote):
    """A file for reading, of the Hub (`hf://`) or of this machine; what is in `remote` holds for the former only.

    It has no cache unless told, or 5 MB would be read ahead of every range.
    """
    filesystem, path = fsspec.url_to_fs(url)
    return filesystem.open(path, "rb", **({"cache_type": "none", **remote} if "://" in url else {}))


def _answer(file: HfFileSystemFile | HfFileSystemStreamFile, start: int, stop: int, size: int) -> Generator[bytes]:
    """The bytes from `start` to `stop` of a file of `size` bytes, as they come.

    Raises:
        NetworkFault: the answer is not those bytes.
        HTTP_FAULTS: there is no answer.
    """
    place, name = file.resolved_path, file.path.rsplit("/", 1)[-1]
    url = hf_hub_url(
        place.repo_id,
        place.path_in_repo,
        repo_type=place.repo_type,
        revision=place.revision,
        endpoint=file.fs.endpoint,
    )
    headers = {**file.fs._api._build_hf_headers(), "Accept-Encoding": "identity"}
    if stop - start < size:
        headers["Range"] = f"bytes={start}-{stop - 1}"
    with stream(url, headers) as (response, pieces):
        _check(response, name, start, stop, size)
        received, progress = 0, _Progress(name, stop - start)
        for piece in pieces:
            received += len(piece)
            progress.tell(received)
            yield piece
    if received != stop - start:
        raise NetworkFault(f"{name}: {received} bytes came, not {stop - start}")


def _check(response: Response, name: str, start: int, stop: int, size: int) -> None:
    if response.status_code == 416:
        raise NetworkFault(f"{name}: no bytes from {start} on, of {size}")
    hf_raise_for_status(response)
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not name.endswith((".html", ".htm")):
        raise NetworkFault(f"{name}: got an HTML page, perhaps from a proxy")
    part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == 206:
        if not part or (int(part[1]), int(part[2]) + 1) != (start, stop) or part[3] not in ("*", str(size)):
            raise NetworkFault(f"{name}: {part[0] if part else 'an unnamed part'} came, not bytes {start}-{stop - 1}")
    elif response.status_code != 200 or stop - start < size:
        raise NetworkFault(f"{name}: status {response.status_code} for bytes {start}-{stop - 1}")
    length = response.headers.get("Content-Length", str(stop - start))
    if length != str(stop - start):
        raise NetworkFault(f"{name}: {length} bytes were announced, not {stop - start}")


class _Progress:
    """Reports an answer that takes long, and ends one that would take for ever."""

    def __init__(self, name: str, expected: int):
        self.name, self.expected = name, expected
        self.began = self.told = self.measured = time.monotonic()
        self.before = 0

    def tell(self, received: int) -> None:
        now = time.monotonic()
        said = f"{received / 1e6:.2f} of {self.expected / 1e6:.2f} MB in {now - self.began:.0f} s"
        if now - self.measured >= SLOW_SECONDS:
            if received - self.before < SLOWEST_RATE * (now - self.measured):
                raise TooSlow(f"{self.name}: only {said}")
            self.measured, self.before = now, received
        if now - self.told >= REPORT_SECONDS:
            rate = received / (now - self.began) / 1e3
            logger.warning("reading %s takes long: %s, %.1f kB/s", self.name, said, rate)
            self.told = now
