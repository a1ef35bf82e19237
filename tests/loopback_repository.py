"""Repositories of the stand-in for the Hub: files, commits, listings."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LFS_SUFFIXES = (".arrow", ".bin", ".onnx", ".parquet", ".pt", ".pth", ".safetensors", ".tar", ".zip")
LFS_SIZE = 10_000_000  # larger files go to LFS whatever their name, as on the Hub
CHUNK = 1 << 16


@dataclass(frozen=True)
class Blob:
    """The content of one file, in memory or on disk (then read in chunks, never whole)."""

    content: bytes | Path

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def oid(self) -> str:
        """Sha256 of the bytes; of a file on disk only of its name, size and date: listings must stay cheap."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        status = self.content.stat()
        return hashlib.sha256(f"{self.content} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            for position in range(start, stop, CHUNK):
                yield self.content[position : min(position + CHUNK, stop)]
            return
        with self.content.open("rb") as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
                yield chunk
                start += len(chunk)


@dataclass
class Commit:
    oid: str
    files: dict[str, Blob]
    message: str


class Repository:
    """One linear history, the branch `main`."""

    def __init__(self, kind: str, name: str, files: dict[str, Blob]):
        self.kind, self.name, self.commits = kind, name, []
        self.commit(files, "initial commit")

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def commit(self, files: dict[str, Blob], message: str) -> Commit:
        parent = self.commits[-1].oid if self.commits else ""
        identity = (self.kind, self.name, parent, sorted((path, blob.oid) for path, blob in files.items()))
        self.commits.append(Commit(hashlib.sha1(repr(identity).encode()).hexdigest(), files, message))
        return self.head

    def at(self, revision: str) -> Commit | None:
        if revision in ("main", "HEAD"):
            return self.head
        return next((commit for commit in self.commits if commit.oid == revision), None)


def listing(files: Mapping[str, Blob]) -> dict[str, dict]:
    rows = {}
    for path, blob in files.items():
        parts = path.split("/")
        for folder in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
            oid = hashlib.sha1(folder.encode()).hexdigest()
            rows[folder] = {"type": "directory", "path": folder, "size": 0, "oid": oid}
        rows[path] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid[:40]}
        if is_lfs(path, blob.size):
            rows[path]["lfs"] = {"oid": blob.oid, "size": blob.size, "pointerSize": 130}
    return rows


def is_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
