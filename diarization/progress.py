"""A recording block by block, with a bar on the terminal."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modeling.audio_fast_diarization import SAMPLING_RATE, audio_blocks, declared_seconds

STDIN = "-"


def with_progress(file: str, title: str, line: int, lengths: list[int], **heard) -> Iterator[np.ndarray]:
    """The blocks of `audio_blocks`, with a bar in minutes on a terminal, `line` lines down.

    Args:
        file: path, or `-` for standard input.
        lengths: receives the samples of each block.
        heard: track and channels, as `audio_blocks` takes them.

    Raises:
        ValueError: a directory.
        AudioError: as `audio_blocks`.
    """
    if os.path.isdir(file):
        raise ValueError(f"{file}: a directory without recordings; give files, or a directory that holds some")
    for block in _shown(audio_blocks(sys.stdin.buffer if file == STDIN else file, **heard), file, title, line):
        lengths.append(block.shape[-1])
        yield block


def _shown(blocks: Iterator[np.ndarray], file: str, title: str, line: int) -> Iterator[np.ndarray]:
    try:
        from tqdm import tqdm
    except ImportError:
        yield from blocks
        return
    seconds = declared_seconds(file) if Path(file).is_file() else None  # a pipe can be read but once
    total = seconds and round(seconds / 60, 1)
    with tqdm(desc=title, total=total, unit="min", disable=None, leave=False, position=line) as bar:
        for block in blocks:
            yield block
            bar.update(round(block.shape[-1] / SAMPLING_RATE / 60, 3))
