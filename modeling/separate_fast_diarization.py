"""One speaker a channel, as in most recordings of calls: who speaks is known, only when is to be found."""

from collections.abc import Iterable, Iterator
from itertools import chain, tee
from operator import itemgetter

import numpy as np

from .container_fast_diarization import AudioError
from .counting_fast_diarization import CountEstimate, Diarization, Speaker
from .levels_fast_diarization import smoothed_decibels
from .linking_fast_diarization import Linker
from .mixing_fast_diarization import Pieces
from .segments_fast_diarization import Segment, speaker_name, to_segments
from .settings_fast_diarization import FRAME_SAMPLES, LinkingSettings, SpeakerCount
from .windows_fast_diarization import WINDOWS_PER_BATCH, Network, sliding_windows

SMOOTHED_FRAMES = 15
"""Over which levels are averaged: within a word they vary more than between a speaker and his crosstalk."""
LOUD_PERCENTILE = 97
CROSSTALK_MARGIN_DB = 6.0
"""By which a speaker must be louder than what is heard of the other channels' speakers."""
SPEECH_RANGE_DB = 30.0
"""Below the loudest speech on a channel there is only noise: the network hears every window at one level."""
SAME_SOUND = 0.95
"""Correlation of channels above which they are one."""


def diarize_channels(
    network: Network,
    blocks: Iterable[np.ndarray],
    settings: LinkingSettings,
    windows_per_batch: int = WINDOWS_PER_BATCH,
) -> list[Segment]:
    """Who speaks when in a recording with one speaker on each channel, as of `link_channels`."""
    return link_channels(network, blocks, settings, windows_per_batch).segments


def link_channels(
    network: Network,
    blocks: Iterable[np.ndarray],
    settings: LinkingSettings,
    windows_per_batch: int = WINDOWS_PER_BATCH,
    name: str = "the recording",
) -> Diarization:
    """
    Who speaks when in a recording with one speaker on each channel: the network's activity of each channel, but for
    frames in which its level is what crosstalk from another active channel explains. How much crosstalk there is from
    one channel to another is the median difference of their levels while the first one is the louder.

    Args:
        blocks: consecutive (channels, samples) at 16 kHz, as of `audio_blocks(..., channels="separate")`.
        name: what the recording is called in messages.

    Returns:
        segments by start, and the speakers; the one on channel 1 is SPEAKER_00, on channel 2 SPEAKER_01, ...

    Raises:
        AudioError: one channel only, or two that carry the same sound.
    """
    blocks = iter(blocks)
    first = next(blocks, np.zeros((0, 0), np.float32))
    channels = len(first)
    if channels < 2:
        count = "one channel" if channels else "no channel"
        raise AudioError(f"{name} has {count}, so its speakers cannot be kept separate by channel; mix it")
    levels, linkers = Levels(channels), [Linker(settings) for _ in range(channels)]
    copies = tee(levels.watch(chain([first], blocks)), channels)
    windows = [
        sliding_windows(map(itemgetter(channel), copy), settings, windows_per_batch)
        for channel, copy in enumerate(copies)
    ]
    for batches in zip(*windows):
        for linker, (starts, batch) in zip(linkers, batches):
            linker.add(starts, *network(batch))
    levels.check_different(name)
    activities = [np.zeros(0, np.float32)] * channels
    speakers: dict[str, Speaker] = {}
    for channel, linker in enumerate(linkers):
        speakers |= {speaker_name(channel): one for one in linker.diarization(SpeakerCount(1)).speakers.values()}
        found = [part.max(axis=1) for part in linker.activities(SpeakerCount(num_speakers=1))]
        activities[channel] = np.concatenate([activities[channel], *found])
    frames = max(map(len, activities))
    activity = np.stack([np.pad(track, (0, frames - len(track))) for track in activities], axis=1)
    activity = activity * is_own(levels.decibels()[:frames], activity >= settings.offset)
    return Diarization(_segments(activity, settings), speakers, CountEstimate(*[channels] * 3))


def _segments(activity: np.ndarray, settings: LinkingSettings) -> list[Segment]:
    """Of (frames, channels) activity, by start."""
    segments = [
        Segment(segment.start, segment.end, speaker_name(channel), segment.confidence)
        for channel in range(activity.shape[1])
        for segment in to_segments([activity[:, channel, None]], settings)
    ]
    return sorted(segments, key=lambda segment: (segment.start, segment.end))


def is_own(decibels: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Where a channel's own speaker is heard on it, and not only the crosstalk of others.

    Args:
        decibels: (frames, channels) levels.
        active: (frames, channels) whether there is speech.

    Returns:
        (frames, channels)
    """
    channels = active.shape[1]
    loud = [
        np.percentile(decibels[active[:, c], c], LOUD_PERCENTILE) if active[:, c].any() else 0 for c in range(channels)
    ]
    relative = np.where(active, decibels - np.array(loud), -np.inf)
    dominant = relative == relative.max(axis=1, keepdims=True)
    own = active & (relative > -SPEECH_RANGE_DB)
    for heard in range(channels):
        for other in set(range(channels)) - {heard}:
            speaking = active[:, other] & dominant[:, other]
            if speaking.any():
                difference = decibels[:, heard] - decibels[:, other]
                explained = difference < np.median(difference[speaking]) + CROSSTALK_MARGIN_DB
                own[:, heard] &= ~(active[:, other] & explained) | dominant[:, heard]
    return own


class Levels:
    """Levels of channels, frame by frame, and what they have in common."""

    def __init__(self, channels: int):
        self.pieces = Pieces(50 * FRAME_SAMPLES)
        self.powers: list[np.ndarray] = []
        self.together = np.zeros((channels, channels))

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks, looked at."""
        for block in blocks:
            for piece in self.pieces.push(block):
                self._add(piece)
            yield block
        for piece in self.pieces.flush():
            self._add(piece)

    def decibels(self) -> np.ndarray:
        """(frames, channels), averaged over `SMOOTHED_FRAMES`."""
        return smoothed_decibels(np.concatenate([*self.powers, np.zeros((1, len(self.together)))]), SMOOTHED_FRAMES)

    def check_different(self, name: str):
        scale = np.sqrt(self.together.diagonal()) + 1e-12
        alike = np.abs(np.triu(self.together / np.outer(scale, scale), 1)) > SAME_SOUND
        for one, other in np.argwhere(alike):
            raise AudioError(
                f"{name}: channels {one + 1} and {other + 1} carry the same sound, so speakers cannot be told apart "
                "by them; mix them"
            )

    def _add(self, piece: np.ndarray):
        change = np.diff(piece, axis=1, prepend=piece[:, :1])  # hum and rumble count for little
        self.together += (change @ change.T).astype(np.float64)
        whole = change[:, : change.shape[1] // FRAME_SAMPLES * FRAME_SAMPLES]
        self.powers.append(np.square(whole).reshape(len(piece), -1, FRAME_SAMPLES).mean(axis=2).T.astype(np.float64))
