"""Faults that a server of files can be ordered to make, struck by requests as they come."""

import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, ClassVar

TRANSIENT = {
    "429 with Retry-After": ("status", {"code": 429, "headers": {"Retry-After": "7"}}),
    "416": ("status", {"code": 416}),
    "500": ("status", {"code": 500}),
    "503": ("status", {"code": 503}),
    "reset": ("reset", {"at": 0.6}),
    "stall": ("stall", {"at": 0.4, "seconds": 60.0}),
    "closed early": ("truncated", {"at": 0.7}),
    "closed early, no length": ("unannounced", {"at": 0.7}),
    "HTML with 200": ("html", {}),
    "whole file for a range": ("whole", {}),
    "short 206": ("short", {"at": 0.5}),
    "another range": ("elsewhere", {}),
}
"""Faults of the network that pass, by the name they have in tables: kind and options."""


@dataclass
class Fault:
    pattern: str
    kind: str
    times: int | None
    skip: int
    options: SimpleNamespace

    def damage(self, size: int) -> tuple[int, int]:
        """The corrupt bytes (first, last) of a file of this size, `last` excluded."""
        first = size // 2 if self.options.offset is None else self.options.offset
        return first, first + self.options.length

    def spend(self) -> bool:
        """Whether the fault strikes this matching request."""
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            if not self.times:
                return False
            self.times -= 1
        return True


class Faults:
    """Faults to order, each for the requests whose URL path matches a shell pattern (`*` crosses slashes).

    | kind | effect | options |
    |---|---|---|
    | status | an HTTP error, whatever the method | code, headers (such as {"Retry-After": "7"}) |
    | refuse | an HTTP error for pushes only (POST and PUT: "*/commit/*", "/lfs/*") | code |
    | vanish | 404 for good: the file is listed but no longer there | |
    | reset | the connection is reset in the middle of a body | at |
    | stall | nothing is sent for a while in the middle of a body, then the rest | at, seconds |
    | truncated | the connection is closed before Content-Length is reached | at |
    | unannounced | no Content-Length, and the connection is closed in the middle of the body | at |
    | html | a page of HTML with status 200 | |
    | whole | the whole file with status 200 where a part was asked for | |
    | short | fewer bytes than asked for, announced as such | at |
    | elsewhere | another part than the one asked for, announced as such | |
    | drip | the body in small pieces with pauses between them | seconds, pieces |
    | corrupt | bytes of the file are inverted, in every answer that holds them | offset, length |

    `at` is a fraction of the body. `offset` (else the middle of the file) and `length` are in bytes of the file, so
    that every range that holds them is corrupted alike, and only those count.
    """

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "status": {"code": 500, "headers": {}},
        "refuse": {"code": 403},
        "vanish": {},
        "reset": {"at": 0.5},
        "stall": {"at": 0.5, "seconds": 5.0},
        "truncated": {"at": 0.5},
        "unannounced": {"at": 0.5},
        "html": {},
        "whole": {},
        "short": {"at": 0.5},
        "elsewhere": {},
        "drip": {"seconds": 0.05, "pieces": 20},
        "corrupt": {"offset": None, "length": 16},
    }

    def __init__(self):
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, pattern: str, kind: str, times: int | None = 1, skip: int = 0, **options: Any) -> None:
        """Let `skip` matching requests pass, then strike `times` of them (None: all that follow)."""
        if kind not in self.OPTIONS:
            raise ValueError(f"unknown fault {kind!r}: choose one of {', '.join(self.OPTIONS)}")
        if unknown := options.keys() - self.OPTIONS[kind].keys():
            raise ValueError(f"fault {kind!r} takes {sorted(self.OPTIONS[kind])}, not {sorted(unknown)}")
        settings = SimpleNamespace(**{**self.OPTIONS[kind], **options})
        with self._lock:
            self._faults.append(Fault(pattern, kind, None if kind == "vanish" else times, skip, settings))

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def of_request(self, method: str, path: str) -> Fault | None:
        kinds = ("status", "vanish", "refuse") if method in ("POST", "PUT") else ("status", "vanish")
        return self._first(path, lambda fault: fault.kind in kinds)

    def of_body(self, path: str, start: int, stop: int, size: int) -> Fault | None:
        def strikes(fault: Fault) -> bool:
            if fault.kind == "corrupt":
                first, last = fault.damage(size)
                return start < last and first < stop
            if fault.kind in ("whole", "elsewhere"):
                return stop - start < size
            return fault.kind not in ("status", "refuse", "vanish") and start < stop

        return self._first(path, strikes)

    def _first(self, path: str, strikes) -> Fault | None:
        with self._lock:
            matching = (f for f in self._faults if fnmatchcase(path, f.pattern) and strikes(f))
            return next((fault for fault in matching if fault.spend()), None)
