"""Clients of the stand-in for the Hub: a process of its own, or this one."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parent.parent


def run_client(
    code: str | Path,
    hub: LoopbackHub,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    check: bool = True,
) -> subprocess.CompletedProcess:
    """Run Python code, or a script with arguments, as a client of the Hub in a process of its own.

    The process is needed because huggingface_hub reads `HF_ENDPOINT` once, at import. It starts in an empty folder
    that is also `HF_HOME`, with this project importable.

    Raises:
        AssertionError: the client failed (unless `check` is False); the message holds its stderr.
        subprocess.TimeoutExpired: the client hung.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    with tempfile.TemporaryDirectory() as home:
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": home,
            "HF_TOKEN": "hf_loopback",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        command = [sys.executable, *(("-c", code) if isinstance(code, str) else (str(code),)), *arguments]
        finished = subprocess.run(
            command,
            env={**inherited, **settings, **(env or {})},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if check and finished.returncode:
        raise AssertionError(f"the client ended with exit code {finished.returncode}:\n{finished.stderr}")
    return finished


def redirect(url: str, cache: Path, assign: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let the clients in this process, imported already, talk to a Hub at `url` and cache in a folder.

    `assign` sets the attributes: give `monkeypatch.setattr` to have that undone.
    """
    import datasets
    import fsspec
    from huggingface_hub import HfFileSystem, constants, file_download

    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    assign(constants, "ENDPOINT", url)
    assign(constants, "HF_HUB_DISABLE_XET", True)
    holder = file_download if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE") else constants  # 0.x and 1.x
    assign(holder, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assign(constants, "HF_HUB_CACHE", str(cache))
    assign(datasets.config, "HF_ENDPOINT", url)
    HfFileSystem.clear_instance_cache()
    fsspec.get_filesystem_class("hf").clear_instance_cache()
