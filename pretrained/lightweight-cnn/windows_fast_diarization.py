"""Sliding windows over a recording, and the network's outputs for them."""

from collections.abc import Callable, Iterable, Iterator
from os import SEEK_END
from tempfile import SpooledTemporaryFile

import numpy as np

from .settings_fast_diarization import FRAME_SAMPLES, FRAME_SECONDS, MIN_SAMPLES, LinkingSettings

WINDOWS_PER_BATCH = 16
MIN_ACTIVE_FRAMES = 8
"""A local speaker active for less is taken as absent from its window."""
KEPT_BYTES, READ_TOGETHER = 16 * 2**20, 256
"""Bytes of outputs kept in memory, and windows read back at a time."""

Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(windows, samples) -> logits (windows, frames, speakers) and speaker embeddings (windows, speakers, dim)."""


def sliding_windows(
    blocks: Iterable[np.ndarray], settings: LinkingSettings, windows_per_batch: int = WINDOWS_PER_BATCH
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Cut a stream of waveforms (samples,) into overlapping windows; the last one is moved back to end with it.

    Yields:
        the first frame of each window, and float32 windows of shape (windows, samples). A recording shorter than
        a window gives one of its own length, or none below 0.1 s, the least the network takes.
    """
    size, hop = settings.window_frames * FRAME_SAMPLES, settings.hop_frames * FRAME_SAMPLES
    held, offset, at = np.zeros(0, np.float32), 0, 0
    starts: list[int] = []
    windows: list[np.ndarray] = []
    for block in blocks:
        held = np.concatenate([held, np.asarray(block, np.float32)])
        while at + size <= offset + len(held):
            starts.append(at // FRAME_SAMPLES)
            windows.append(held[at - offset :][:size])
            at += hop
            if len(windows) == windows_per_batch:
                yield starts, np.stack(windows)
                starts, windows = [], []
        passed = max(at - size - offset, 0)
        held, offset = held[passed:], offset + passed
    end = (offset + len(held)) // FRAME_SAMPLES * FRAME_SAMPLES
    if at == 0:
        if end >= MIN_SAMPLES:
            yield [0], held[None, :end]
    elif end > at - hop + size:
        starts.append((end - size) // FRAME_SAMPLES)
        windows.append(held[end - size - offset :][:size])
    if windows:
        yield starts, np.stack(windows)


class WindowOutputs:
    """The network's outputs for one window after another: in memory while they are few, then in a temporary file.

    Iterating gives records of `start` (first frame), `activity` (frames, local speakers), `vectors` (local speakers,
    dim) and `levels` (frames,). Nobody is active in frames quieter than `least_level`.
    """

    def __init__(self):
        self.file = SpooledTemporaryFile(max_size=KEPT_BYTES)  # noqa: SIM115 (it lives as long as these outputs)
        self.record: np.ndarray | None = None
        self.least_level = -np.inf

    def append(self, start: int, activity: np.ndarray, vectors: np.ndarray, levels: np.ndarray):
        values = {"start": np.int64(start), "activity": activity, "vectors": vectors, "levels": levels}
        if self.record is None:
            kept = {"start": np.int64, "activity": np.float16, "vectors": np.float16, "levels": np.float16}
            self.record = np.zeros((), [(name, kept[name], value.shape) for name, value in values.items()])
        for name, value in values.items():
            self.record[name] = value
        self.file.seek(0, SEEK_END)
        self.file.write(self.record.tobytes())

    def __iter__(self) -> Iterator[np.ndarray]:
        self.file.seek(0)
        if self.record is None:
            return
        while part := self.file.read(READ_TOGETHER * self.record.itemsize):
            records = np.frombuffer(bytearray(part), self.record.dtype)
            records["activity"] *= (records["levels"] >= self.least_level)[:, :, None]
            yield from records


def finite(logits: np.ndarray, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of a network as they are.

    Raises:
        ValueError: they hold NaN or infinity, of which thresholds would make silence.
    """
    if not (np.isfinite(logits).all() and np.isfinite(embeddings).all()):
        raise ValueError(
            "the network's outputs are NaN or infinite: its weights are damaged or its training diverged; use another "
            "model, or an earlier checkpoint"
        )
    return logits, embeddings


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Log-odds to activities in float32; far from overflow."""
    return 1 / (1 + np.exp(-np.clip(np.asarray(logits, np.float32), -30, 30)))


def is_present(activity: np.ndarray) -> np.ndarray:
    """(frames, speakers) activities -> (speakers,) whether each is in the window at all."""
    return (activity > 0.5).sum(axis=0) >= MIN_ACTIVE_FRAMES


def solo_seconds(activity: np.ndarray) -> np.ndarray:
    """(frames, speakers) activities -> (speakers,) seconds of non-overlapped speech of each."""
    activity = activity.astype(np.float32)
    others = activity.sum(axis=1, keepdims=True) - activity
    return (activity * (1 - np.minimum(others, 1))).sum(axis=0) * FRAME_SECONDS


def agreement(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames in which both, and in which either, of two speakers of two windows is active, over shared frames.

    Args:
        before, after: (frames, speakers) activities of the same frames.

    Returns:
        two arrays of shape (speakers before, speakers after).
    """
    before, after = before.astype(np.float32), after.astype(np.float32)
    both = np.minimum(before[:, :, None], after[:, None]).sum(axis=0)
    return both, before.sum(axis=0)[:, None] + after.sum(axis=0)[None] - both
