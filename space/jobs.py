"""What one visitor may ask of the page: limits, and a process of its own for every recording.

A process can be ended whatever its recording makes of the decoder: when its time is up, when the visitor presses Stop
or leaves, and when it fails it takes nothing else with it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 512 * 2**20
MOST_VOICES_BYTES, MOST_WORDS_BYTES, MOST_WORDS = 16 * 2**20, 8 * 2**20, 60_000
MOST_SECONDS = 4 * 3600
JOB_SECONDS = 600.0
PLACES, WAITING = 4, 40
"""Recordings diarized side by side, and visitors who may wait for one of these places."""
KEPT_SECONDS, CLEANED_SECONDS = 3000, 600
"""Uploads and results are deleted once they are so old, which is looked at every so many seconds."""
LIMITS = f"Up to {MOST_BYTES // 2**20} MB and {MOST_SECONDS // 3600} hours"
STILL_SECONDS = 0.5
"""The longest time between two messages, and so until a job that is stopped ends."""


class JobError(ValueError):
    """Why a recording is not diarized; the message is one line for the visitor."""


def diarize_apart(
    model: Path, recording: Path, num_speakers: int | None, copy: Path, voices: str | None = None
) -> Iterator[dict]:
    """Diarize a recording in a process of its own, which ends with this iterator.

    Args:
        copy: file to write its sound to, as browsers play it.
        voices: file of known voices.

    Yields:
        messages: `{"heard": seconds, "total": seconds or None}` again and again, `{"warning": text}` for each damage,
        and at last `{"segments": [[start, end, speaker, confidence], ...], "count": [found, fewest, most], "heard":
        seconds, "peaks": base64}`, the count as of `CountEstimate`.

    Raises:
        JobError: the recording is too large or too long, cannot be read, or took too much time.
    """
    if recording.stat().st_size > MOST_BYTES:
        raise JobError(f"{recording.name} is larger than {MOST_BYTES // 2**20} MB; cut it, or upload its sound alone")
    arguments = (model, recording, num_speakers or "", MOST_SECONDS, copy, voices or "")
    command = [sys.executable, "-m", "space.worker", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        try:
            yield from _messages(process, recording.name, time.monotonic() + JOB_SECONDS)
        finally:
            process.kill()


def _messages(process: subprocess.Popen, name: str, end: float) -> Iterator[dict]:
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    Thread(target=read, daemon=True).start()
    message = progress = {"heard": 0.0}
    while "segments" not in message:
        try:
            line = lines.get(timeout=STILL_SECONDS)
        except Empty:
            line = json.dumps(progress)
        if time.monotonic() > end:
            raise JobError(f"{name} took more than {JOB_SECONDS / 60:g} minutes; cut it into parts")
        if not line:
            raise JobError(f"{name} could not be read to its end: it is damaged, or its format is not known here")
        message = json.loads(line)
        if "error" in message:
            raise JobError(message["error"])
        progress = message if "heard" in message else progress
        yield message
