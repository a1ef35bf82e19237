"""The process of one recording: messages as lines of JSON on standard output, see `space.jobs`."""

import base64
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import astuple
from pathlib import Path
from threading import Thread

import numpy as np

from diarization.backends import open_network
from modeling.audio_fast_diarization import SAMPLING_RATE, AudioError, AudioWarning, audio_blocks, declared_seconds
from modeling.enrolment_fast_diarization import KnownVoices, name_speakers
from modeling.linking_fast_diarization import link
from modeling.settings_fast_diarization import SpeakerCount
from space.sound import SoundCopy

BLOCK_SECONDS = 10.0
MOST_MEMORY = 3 * 2**30


def main(model: str, recording: str, num_speakers: str, most_seconds: str, copy: str, voices: str) -> None:
    """
    Args:
        copy: file to write the sound to that the page plays.
        voices: file of known voices, or nothing.
    """
    file = Path(recording)

    def say(**message) -> None:
        print(json.dumps(message), flush=True)

    def named(text: object) -> str:
        text = str(text).replace(recording, file.name)  # a visitor knows no path of this machine
        return text.replace(voices, Path(voices).name) if voices else text

    leave_with_the_page()
    limit_memory()
    if hasattr(os, "nice"):
        os.nice(5)  # the page and its live visitors go first
    warnings.simplefilter("always", AudioWarning)
    warnings.showwarning = lambda message, *_: say(warning=named(message))
    heard, total = 0.0, declared_seconds(file)

    def listened(sound: SoundCopy) -> Iterator[np.ndarray]:
        nonlocal heard
        for block in bounded(file, float(most_seconds)):
            sound.hear(block)
            yield block
            heard += len(block) / SAMPLING_RATE
            say(heard=heard, total=total)

    try:
        network, settings = open_network(model)
        with closing(SoundCopy(Path(copy))) as sound:
            known = KnownVoices.load(voices, network) if voices else None
            count = SpeakerCount(int(num_speakers) if num_speakers else None)
            diarization = link(network, listened(sound), settings).diarization(count)
            diarization = name_speakers(diarization, known, settings) if known else diarization
        peaks = base64.b64encode(sound.peaks()).decode()
    except (AudioError, ValueError, OSError) as error:
        say(error=named(error))
    else:
        segments = [astuple(segment) for segment in diarization.segments]
        say(segments=segments, count=astuple(diarization.count), heard=heard, peaks=peaks)


def leave_with_the_page() -> None:
    """End this process as soon as standard input does, whose other end is the page's, however that ended."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def limit_memory() -> None:
    """A recording that a decoder expands without end ends this process, and leaves the machine its memory."""
    with suppress(ImportError, ValueError, OSError):  # where the system has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


def bounded(file: Path, most_seconds: float) -> Iterator[np.ndarray]:
    """The recording in blocks.

    Raises:
        AudioError: it is longer than `most_seconds`, or says so.
    """
    too_long = AudioError(f"{file.name} is longer than {most_seconds / 3600:g} hours; cut it into parts")
    if (declared_seconds(file) or 0.0) > most_seconds:
        raise too_long
    seconds = 0.0
    for block in audio_blocks(file, BLOCK_SECONDS):
        seconds += len(block) / SAMPLING_RATE
        if seconds > most_seconds:
            raise too_long
        yield block


if __name__ == "__main__":
    main(*sys.argv[1:])
