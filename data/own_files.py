"""The files of a data set: what its rows and its card may name, and nothing else.

A row is written by whoever made the data set. A path in it could name any file of this machine or an address in its
network, and fsspec would open it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import fsspec
import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import common.hub_files  # noqa: F401  checks what is read from hf://

CARDS = ("README.md", ".huggingface.yaml")
"""Where a data set says which files it consists of."""


class UnreadableFile(ValueError):
    """A file that a data set names and that is not read for it; the message is the reason in a few words."""


def own_file(root: str, path: str) -> str:
    """The address of a file that a data set names.

    Args:
        root: of the data set: an absolute directory, or `hf://datasets/user/name@commit`.
        path: relative to `root`, or below it; or a member of a ZIP file there, as `datasets` writes it
            (`zip://member::path`).

    Raises:
        UnreadableFile: it lies elsewhere.
    """
    member, hop, archive = path.partition("::")
    if hop and member.startswith("zip://"):
        return f"{member}::{own_file(root, archive)}"
    inside = path.removeprefix(f"{root}/")
    if not inside or _leads_out(inside):
        raise UnreadableFile("a path out of the data set")
    return f"{root}/{inside}"


def root_of(name: str, path: str) -> str:
    """The root of a data set by the name it was opened with, of a Hub repository at the commit that the path names."""
    root = os.path.realpath(name) if os.path.isdir(name) else f"hf://datasets/{name}"
    commit = re.match(rf"{re.escape(root)}@[0-9a-f]{{40}}/", path.rpartition("::")[2])
    return commit[0].rstrip("/") if commit else root


def open_own_file(root: str, path: str, folders: Sequence[str] = ()) -> BinaryIO:
    """An audio file that a row names, for reading.

    Args:
        root, path: as for [`own_file`].
        folders: below `root`, where the data files lie that the row may be of; a relative path may start there too.

    Raises:
        UnreadableFile: it is not one of the data set's own files, or not there.
    """
    address = own_file(root, path)
    filesystem, _ = fsspec.url_to_fs(address)
    if not path.startswith(f"{root}/") and "::" not in path:
        candidates = [own_file(folder, path) for folder in (*folders, root)]
        address = next((a for a in candidates if filesystem.exists(a)), address)
    if "://" not in address:
        file, top = Path(address).resolve(), Path(root).resolve()
        # The cache of the Hub keeps the files of a data set beside it, and links to them.
        homes = (top, top.parents[1] / "blobs") if top.parent.name == "snapshots" else (top,)
        if file.exists() and not (file.is_file() and any(file.is_relative_to(home) for home in homes)):
            raise UnreadableFile("a path out of the data set")
    try:
        return fsspec.open(address, "rb").open()
    except FileNotFoundError:
        raise UnreadableFile("a file that is not there") from None


def check_card(path: str, revision: str | None) -> None:
    """Look where the card of a directory or Hub repository says that the data lie, before any of it is looked for.

    Raises:
        UnreadableFile: elsewhere.
    """
    for name in CARDS:
        file = Path(path, name)
        if not Path(path).is_dir():
            try:
                file = Path(hf_hub_download(path, name, repo_type="dataset", revision=revision))
            except LocalEntryNotFoundError:  # the Hub did not answer
                raise
            except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
                continue  # said by datasets, where it matters
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            header = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
            _check_text(text if name.endswith(".yaml") else header[1] if header else "", name)


def _check_text(text: str, name: str) -> None:
    try:
        card = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return  # said by datasets
    for configuration in _dicts(card.get("configs") if isinstance(card, dict) else None):
        for place in _strings([configuration.get("data_files"), configuration.get("data_dir")]):
            if _leads_out(place):
                raise UnreadableFile(f"its {name} names {place!r}, a path out of the data set")


def _dicts(configurations: object) -> list[dict]:
    return [c for c in configurations if isinstance(c, dict)] if isinstance(configurations, list) else []


def _strings(node: object) -> Iterator[str]:
    """All strings of nested lists and dicts, each list and dict once: YAML may repeat one without end."""
    seen, left = set(), [node]
    while left:
        node = left.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, (list, dict)) and id(node) not in seen:
            seen.add(id(node))
            left += node.values() if isinstance(node, dict) else node


def _leads_out(path: str) -> bool:
    return "::" in path or "://" in path or path.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", path)
