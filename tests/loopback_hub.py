"""A stand-in for the Hugging Face Hub on 127.0.0.1, with faults to order.

It answers what huggingface_hub (0.36, 1 and 2), datasets and transformers ask when `HF_ENDPOINT` points at it:
create_repo, upload_folder, push_to_hub, snapshot_download, from_pretrained, streaming with Range requests, Trainer
pushes. Every request is recorded, so a test can tell which bytes were read, and read again.

    with LoopbackHub() as hub:
        hub.add_repository("user/speech", directory)
        hub.faults.add("*.parquet", "reset", times=2)
        run_client("import datasets; ...", hub)
        assert hub.bytes_served("*.parquet") < 100_000

By hand, with dataset repositories in DIR/user/name:

    python tests/loopback_hub.py --serve DIR
"""

import argparse
import base64
import contextlib
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_faults import Fault, Faults
from loopback_repository import Blob, Commit, Repository, git_oid, is_lfs, listing

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
PAGE = b"<!doctype html><title>Sign in</title><p>Welcome to the network of this house."
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Request:
    """One request as the Hub saw it. `sent` counts body bytes handed to the socket, which a client that hung up
    may not all have read; `range` is (start, stop) in bytes of the file, None when the whole was asked for."""

    method: str
    path: str
    range: tuple[int, int] | None = None
    status: int = 0
    sent: int = 0


class _Refusal(Exception):
    def __init__(self, status: int, code: str, headers: Mapping[str, str] | None = None):
        super().__init__(code)
        self.status, self.code, self.headers = status, code, headers or {}


_ROUTES: list[tuple[str, re.Pattern, Any]] = []
_API = r"/api/(?P<kinds>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
_PAGE = r"/(?:(?P<kinds>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"


def _route(methods: str, pattern: str):
    def register(answer):
        _ROUTES.append((methods, re.compile(pattern), answer))
        return answer

    return register


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *args) -> None:
        pass

    def answer(self) -> None:
        self.hub = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.request_record = Request(self.command, unquote(url.path))
        self.hub.record(self.request_record)
        try:
            self.strike()
            for methods, pattern, answer in _ROUTES:
                if self.command in methods.split() and (match := pattern.fullmatch(url.path)):
                    groups = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
                    return answer(self, **groups)
            raise _Refusal(404, "NotFound")
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.code, **refusal.headers}
            self.reply({"error": refusal.code}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def strike(self) -> None:
        fault = self.hub.faults.of_request(self.command, self.request_record.path)
        if fault is None:
            return
        if fault.kind == "vanish":
            raise _Refusal(404, "EntryNotFound")
        raise _Refusal(fault.options.code, "FaultToOrder", getattr(fault.options, "headers", None))

    def start_reply(self, status: int, length: int | None, headers: Mapping[str, str]) -> None:
        """`length` is that of the body; without one its end is that of the connection."""
        self.request_record.status = status
        self.send_response(status)
        end = {"Connection": "close"} if length is None else {"Content-Length": str(length)}
        for name, value in {**headers, **end}.items():
            self.send_header(name, value)
        self.end_headers()

    def reply(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.start_reply(status, len(body), {"Content-Type": "application/json", **(headers or {})})
        if self.command != "HEAD":
            self.write(body)

    def write(self, data: bytes) -> None:
        self.request_record.sent += len(data)
        self.wfile.write(data)

    def repository(self, kinds: str, name: str) -> Repository:
        repository = self.hub.repositories.get((KINDS[kinds], name))
        if repository is None:
            raise _Refusal(404, "RepoNotFound")
        return repository

    def commit_at(self, kinds: str, name: str, revision: str) -> Commit:
        commit = self.repository(kinds, name).at(revision)
        if commit is None:
            raise _Refusal(404, "RevisionNotFound")
        return commit

    # Accounts and repositories

    @_route("GET", r"/api/whoami-v2")
    def whoami(self) -> None:
        self.reply({"type": "user", "name": self.hub.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    @_route("POST", r"/api/validate-yaml")
    def validate_yaml(self) -> None:
        self.reply({"errors": [], "warnings": []})

    @_route("POST", r"/api/repos/create")
    def create(self) -> None:
        asked = json.loads(self.body)
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        with self.hub.lock:
            if (kind, name) in self.hub.repositories:
                return self.reply({"error": "You already created this repo", "url": url}, 409)
            self.hub.repositories[kind, name] = Repository(kind, name, {})
        self.reply({"url": url, "name": name, "id": name})

    @_route("GET", _API + r"(?:/revision/(?P<revision>[^/]+))?")
    def info(self, kinds: str, name: str, revision: str = "main") -> None:
        commit = self.commit_at(kinds, name, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        state = {"private": False, "disabled": False, "gated": False, "downloads": 0, "likes": 0, "tags": []}
        identity = {"_id": commit.oid[:24], "id": name, "modelId": name, "sha": commit.oid}
        self.reply({**identity, **state, "lastModified": DATE, "createdAt": DATE, "siblings": siblings})

    @_route("GET", _API + r"/refs")
    def refs(self, kinds: str, name: str) -> None:
        target = self.repository(kinds, name).head.oid
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": target}
        self.reply({"branches": [main], "converts": [], "tags": []})

    # Reading

    @_route("GET", _API + r"/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def tree(self, kinds: str, name: str, revision: str, folder: str = "") -> None:
        files = self.commit_at(kinds, name, revision).files
        prefix = f"{folder}/" if folder else ""
        entries = {path: row for path, row in listing(files).items() if path.startswith(prefix)}
        if folder and not entries:
            raise _Refusal(404, "EntryNotFound")
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            entries = {path: row for path, row in entries.items() if "/" not in path[len(prefix) :]}
        self.reply([entries[path] for path in sorted(entries)])

    @_route("POST", _API + r"/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, kinds: str, name: str, revision: str) -> None:
        entries = listing(self.commit_at(kinds, name, revision).files)
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        asked = json.loads(self.body)["paths"] if is_json else parse_qs(self.body.decode())["paths"]
        self.reply([entries[path] for path in asked if path in entries])

    @_route("GET HEAD", _PAGE + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, name: str, revision: str, path: str, kinds: str = "models") -> None:
        commit = self.commit_at(kinds, name, revision)
        if path not in commit.files:
            raise _Refusal(404, "EntryNotFound", {"X-Repo-Commit": commit.oid})
        blob = commit.files[path]
        headers = {"ETag": f'"{blob.oid}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        start, stop, status = 0, blob.size, 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and any(asked.groups()):
            first, last = asked.groups()
            start = int(first) if first else max(0, blob.size - int(last))
            stop = min(int(last) + 1, blob.size) if first and last else blob.size
            if start >= blob.size:
                raise _Refusal(416, "RangeNotSatisfiable", {"Content-Range": f"bytes */{blob.size}"})
            self.request_record.range, status = (start, stop), 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
        headers["Content-Type"] = "application/octet-stream"
        fault = None
        if self.command == "GET":
            fault = self.hub.faults.of_body(self.request_record.path, start, stop, blob.size)
        if fault and fault.kind in ("html", "whole", "short", "elsewhere", "unannounced"):
            return self.send_wrong(fault, blob, start, stop, status, headers)
        self.start_reply(status, stop - start, headers)
        if self.command == "GET":
            self.send_blob(blob, start, stop, fault)

    def send_wrong(self, fault: Fault, blob: Blob, start: int, stop: int, status: int, headers: dict) -> None:
        """An answer that is well-formed and not what was asked for."""
        if fault.kind == "html":
            self.start_reply(200, len(PAGE), {"Content-Type": "text/html; charset=utf-8"})
            return self.write(PAGE)
        if fault.kind == "whole":
            del headers["Content-Range"]
            start, stop, status = 0, blob.size, 200
        elif fault.kind == "elsewhere":
            start, stop = (start - 1, stop - 1) if start else (start + 1, stop + 1)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
        else:
            stop = start + int((stop - start) * fault.options.at)
        self.start_reply(status, None if fault.kind == "unannounced" else stop - start, headers)
        self.send_blob(blob, start, stop, None)

    def send_blob(self, blob: Blob, start: int, stop: int, fault: Fault | None) -> None:
        if fault is None:
            for chunk in blob.chunks(start, stop):
                self.write(chunk)
        elif fault.kind == "corrupt":
            first, last = fault.damage(blob.size)
            for chunk in blob.chunks(start, stop):
                self.write(bytes(b ^ 0xFF if first <= start + i < last else b for i, b in enumerate(chunk)))
                start += len(chunk)
        elif fault.kind == "drip":
            bounds = [start + (stop - start) * n // fault.options.pieces for n in range(fault.options.pieces + 1)]
            for first, last in zip(bounds, bounds[1:]):
                self.send_blob(blob, first, last, None)
                self.wfile.flush()
                self.hub.closing.wait(fault.options.seconds)
        else:
            cut = start + int((stop - start) * fault.options.at)
            self.send_blob(blob, start, cut, None)
            if fault.kind == "stall":
                self.hub.closing.wait(fault.options.seconds)
                self.send_blob(blob, cut, stop, None)
            else:
                self.hang_up(reset=fault.kind == "reset")

    def hang_up(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # holds the socket open otherwise
            self.connection.close()

    # Pushing

    @_route("POST", _API + r"/preupload/(?P<revision>[^/]+)")
    def preupload(self, kinds: str, name: str, revision: str) -> None:
        files = self.commit_at(kinds, name, revision).files

        def advice(path: str, size: int) -> dict:
            lfs, present = is_lfs(path, size), files.get(path)
            oid = (present.oid if lfs else git_oid(present.read())) if present else None  # equal: nothing to commit
            return {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid}

        self.reply({"files": [advice(file["path"], file["size"]) for file in json.loads(self.body)["files"]]})

    @_route("POST", _PAGE + r"\.git/info/lfs/objects/batch")
    def lfs_batch(self, name: str, kinds: str = "models") -> None:
        self.repository(kinds, name)
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(self.body)["objects"]]
        for wanted in objects:
            if wanted["oid"] not in self.hub.uploads:
                wanted["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{name}/{wanted['oid']}"}}
        self.reply({"transfer": "basic", "objects": objects})

    @_route("PUT", r"/lfs/(?P<name>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})")
    def lfs_upload(self, name: str, oid: str) -> None:
        blob = Blob(self.body)
        if blob.oid != oid:
            raise _Refusal(400, "ChecksumMismatch")
        self.hub.uploads[oid] = blob
        self.reply({})

    @_route("POST", _API + r"/commit/(?P<revision>[^/]+)")
    def commit(self, kinds: str, name: str, revision: str) -> None:
        operations = [json.loads(line) for line in self.body.splitlines()]
        with self.hub.lock:
            repository = self.repository(kinds, name)
            files, message = dict(self.commit_at(kinds, name, revision).files), ""
            for operation in operations:
                key, value = operation["key"], operation["value"]
                if key == "header":
                    message = value["summary"]
                    if value.get("parentCommit", repository.head.oid) != repository.head.oid:
                        raise _Refusal(412, "PreconditionFailed")
                elif key == "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]))
                elif key == "lfsFile":
                    files[value["path"]] = self.hub.uploads[value["oid"]]
                elif key == "deletedFile":
                    files.pop(value["path"], None)
                elif key == "deletedFolder":
                    folder = value["path"].rstrip("/") + "/"
                    files = {path: blob for path, blob in files.items() if not path.startswith(folder)}
                else:
                    raise _Refusal(400, f"unknown operation {key}")
            oid = repository.commit(files, message).oid
        url = f"{self.hub.url}/{name}/commit/{oid}"
        self.reply({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: "LoopbackHub"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.connections = hub, set()

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that hung up is no error
            super().handle_error(request, client_address)


class LoopbackHub:
    """The Hub, with one account, `tester`. It listens from construction until `close`; pushes stay in memory."""

    user = "tester"

    def __init__(self):
        self.faults = Faults()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: dict[str, Blob] = {}
        self.lock, self.closing = threading.Lock(), threading.Event()
        self._requests: list[Request] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, in the middle of an answer too."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):  # closed by its client meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def add_repository(self, name: str, files: Path | Mapping[str, bytes | Path], kind: str = "dataset") -> None:
        """Serve `files`, either path -> content or the folder that holds them, as the repository `user/name`."""
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()}
        blobs = {path: Blob(content) for path, content in files.items()}
        with self.lock:
            self.repositories[kind, name] = Repository(kind, name, blobs)

    def files(self, name: str, kind: str = "model") -> dict[str, bytes]:
        """What the newest commit of a repository holds."""
        return {path: blob.read() for path, blob in self.repositories[kind, name].head.files.items()}

    def record(self, request: Request) -> None:
        self._requests.append(request)

    def requests(self, pattern: str = "*", method: str | None = None) -> list[Request]:
        """The requests so far whose URL path matches a shell pattern, in order of arrival."""
        wanted = [request for request in list(self._requests) if fnmatchcase(request.path, pattern)]
        return [request for request in wanted if method in (None, request.method)]

    def bytes_served(self, pattern: str = "*") -> int:
        return sum(request.sent for request in self.requests(pattern))

    def forget_requests(self) -> None:
        self._requests.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve dataset repositories as the Hugging Face Hub would.")
    parser.add_argument("--serve", type=Path, required=True, metavar="DIR", help="folder with user/name/FILES")
    directory = parser.parse_args().serve
    repositories = sorted(path for path in directory.glob("*/*") if path.is_dir())
    if not repositories:
        parser.error(f"no repositories in {directory}: lay it out as {directory}/user/name/FILES")
    with LoopbackHub() as hub:
        for path in repositories:
            hub.add_repository(f"{path.parent.name}/{path.name}", path)
        print(hub.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
