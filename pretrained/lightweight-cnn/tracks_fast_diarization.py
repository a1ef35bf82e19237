"""From FFmpeg's frames to 16 kHz: each track on its timeline, its channels mixed or kept, the tracks side by side."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from .container_fast_diarization import AudioError, Recording, check_rate, pyav
from .mixing_fast_diarization import Mixer, Pieces
from .timeline_fast_diarization import Frame, Timeline

SAMPLING_RATE = 16_000
LARGEST = 2.0**31  # of a float sample; files with the scale of integers exist
HELD_SECONDS = 1200.0
"""Of all tracks together, in memory while another track lies behind them in the file."""
OTHER_VERSIONS = ("dub", "comment", "karaoke", "hearing_impaired", "visual_impaired", "clean_effects", "descriptions")
"""FFmpeg's dispositions of a track that repeats another one's speech or talks about it."""
MIX, SEPARATE = "mix", "separate"
Channels = str | int
"""`"mix"`, `"separate"` or the number of a channel from 1 on."""


def choose_tracks(recording: Recording, track: int | None, channels: Channels) -> list:
    """The audio streams that are read.

    Without a number, all that people may speak on at the same time: the languages of a film and its commentary are
    versions of one another, of which the one is read that a player would choose. So it is for the number of a channel.

    Raises:
        AudioError: no such track, or none that can be decoded.
    """
    streams = recording.container.streams.audio
    if track is not None:
        if not 1 <= track <= len(streams):
            there = "only one audio track" if len(streams) == 1 else f"audio tracks 1 to {len(streams)}"
            raise AudioError(f"{recording.name}: there is no track {track}; it has {there}")
        chosen = [streams[track - 1]]
    else:
        best = recording.container.streams.best("audio") or streams[0]
        chosen = [best]
        if not isinstance(channels, int):
            chosen = [stream for stream in streams if stream.codec_context and _belongs(stream, best)] or [best]
    for stream in chosen:
        if stream.codec_context is None:
            raise AudioError(f"{recording.name}: FFmpeg has no decoder for its audio")
        if stream.codec_context.sample_rate:
            check_rate(recording.name, stream.codec_context.sample_rate)
    return chosen


def _belongs(stream, best) -> bool:
    """Whether a track is no other version of the best one."""
    versions = type(stream.disposition)
    is_other = any(stream.disposition & versions[name] for name in OTHER_VERSIONS if name in versions.__members__)
    return stream is best or (stream.language in (None, "und", best.language) and not is_other)


def through(stage, items: Iterable) -> Iterator[np.ndarray]:
    """All that comes out of a stage that the items are pushed into (as arguments, if they are tuples)."""
    for item in items:
        yield from stage.push(*item) if isinstance(item, tuple) else stage.push(item)
    yield from stage.flush()


class Resampler:
    """(rows, samples) at any rate to 16 kHz; where they are cut changes no sample."""

    def __init__(self, rows: int, rate: int):
        self.rate = rate
        self.pieces = Pieces(rate)  # the cost is per call, so a second at a time
        self.rows = [] if rate == SAMPLING_RATE else [_swresample() for _ in range(rows)]

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        if not self.rows:
            yield samples
            return
        for piece in self.pieces.push(samples):
            yield from self._resample(piece)

    def flush(self) -> Iterator[np.ndarray]:
        if self.rows:
            for piece in self.pieces.flush():
                yield from self._resample(piece)
            yield from self._resample(None)

    def _resample(self, piece: np.ndarray | None) -> Iterator[np.ndarray]:
        frames = [None] * len(self.rows)
        if piece is not None:
            frames = [pyav().AudioFrame.from_ndarray(row[None], "fltp", "mono") for row in np.ascontiguousarray(piece)]
            for frame in frames:
                frame.sample_rate = self.rate
        for resampled in zip(*(row.resample(frame) for row, frame in zip(self.rows, frames))):
            yield np.concatenate([frame.to_ndarray() for frame in resampled])


def _swresample():
    return pyav().AudioResampler("fltp", "mono", SAMPLING_RATE)


class ChannelStage:
    """(channels, samples) of one shape and rate to (rows, samples) at 16 kHz.

    Raises:
        AudioError: no such channel.
    """

    def __init__(self, name: str, channels: Channels, count: int, rate: int):
        check_rate(name, rate)
        if isinstance(channels, int) and not 1 <= channels <= count:
            there = "only one channel" if count == 1 else f"channels 1 to {count}"
            raise AudioError(f"{name}: there is no channel {channels}; it has {there}")
        self.row = channels - 1 if isinstance(channels, int) else None
        self.mixer = Mixer(count, rate) if channels == MIX and count > 1 else None
        self.resampler = Resampler(count if channels == SEPARATE else 1, rate)

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        if self.row is not None:
            samples = samples[self.row, None]
        for piece in [samples] if self.mixer is None else self.mixer.push(samples):
            yield from self.resampler.push(piece)

    def flush(self) -> Iterator[np.ndarray]:
        for piece in () if self.mixer is None else self.mixer.flush():
            yield from self.resampler.push(piece)
        yield from self.resampler.flush()


class Track:
    """Frames of one audio track in, (rows, samples) at 16 kHz out, from second 0 of the recording on."""

    def __init__(self, recording: Recording, stream, channels: Channels):
        self.name, self.channels = recording.name, channels
        self.start, self.tick = recording.start, float(stream.time_base)
        self.timeline = Timeline(restarts=recording.restarts)
        self.declared_end = recording.declared_end(stream)
        self.removed, self.damaged = 0, False
        self.stages: list[ChannelStage] = []
        self.shape: tuple[int, int] | None = None

    def push(self, frame) -> Iterator[np.ndarray]:
        try:
            samples = frame.to_ndarray()
        except ValueError as error:
            raise AudioError(f"{self.name}: samples of the format {frame.format.name} cannot be read") from error
        if not frame.format.is_planar:
            samples = samples.reshape(frame.samples, -1).T
        samples, removed = to_float(samples)
        self.removed += removed
        stamp = None if frame.pts is None else frame.pts * self.tick - self.start
        for rate, placed in self.timeline.push(Frame(samples, frame.sample_rate, stamp)):
            yield from self._stage(rate, placed)

    def flush(self) -> Iterator[np.ndarray]:
        for rate, placed in self.timeline.flush():
            yield from self._stage(rate, placed)
        if self.stages:
            yield from self.stages[-1].flush()

    @property
    def mixers(self) -> list[Mixer]:
        return [stage.mixer for stage in self.stages if stage.mixer]

    def _stage(self, rate: int, samples: np.ndarray) -> Iterator[np.ndarray]:
        if self.shape != (rate, len(samples)):
            if self.stages:
                yield from self.stages[-1].flush()
            if self.channels == SEPARATE and self.shape and self.shape[1] != len(samples):
                raise AudioError(
                    f"{self.name}: the number of channels changes from {self.shape[1]} to {len(samples)}, so they "
                    "cannot be kept separate; mix them"
                )
            self.shape = rate, len(samples)
            self.stages.append(ChannelStage(self.name, self.channels, len(samples), rate))
        yield from self.stages[-1].push(samples)


class SideBySide:
    """Rows of several tracks, each pushed as it comes in the file, to rows of all of them of one length.

    What comes later in the file than the same second of another track, by more than `HELD_SECONDS` over the number of
    tracks, is lost.
    """

    def __init__(self, tracks: int):
        self.longest_lag = round(HELD_SECONDS * SAMPLING_RATE / tracks)
        self.queues: list[deque[np.ndarray]] = [deque() for _ in range(tracks)]
        self.lengths = [0] * tracks
        self.rows = [1] * tracks
        self.missed = [0] * tracks
        self.lost = 0.0

    def push(self, track: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        late = min(self.missed[track], rows.shape[1])
        self.missed[track] -= late
        self.lost += late / SAMPLING_RATE
        self._append(track, rows[:, late:])
        ready = max(min(self.lengths), max(self.lengths) - self.longest_lag)
        if ready >= SAMPLING_RATE:
            yield from self._take(ready)

    def flush(self) -> Iterator[np.ndarray]:
        """What is left, tracks that end early followed by silence."""
        yield from self._take(max(self.lengths))

    def _append(self, track: int, rows: np.ndarray):
        self.queues[track].append(rows)
        self.lengths[track] += rows.shape[1]
        self.rows[track] = len(rows)

    def _take(self, size: int) -> Iterator[np.ndarray]:
        """The next rows of all tracks, a second at a time: tracks that lie behind are filled up with silence."""
        for at in range(0, size, SAMPLING_RATE):
            second = min(SAMPLING_RATE, size - at)
            yield np.concatenate([self._take_of(track, second) for track in range(len(self.queues))])

    def _take_of(self, track: int, size: int) -> np.ndarray:
        missing = max(size - self.lengths[track], 0)
        self.missed[track] += missing
        self._append(track, np.zeros((self.rows[track], missing), np.float32))
        self.lengths[track] -= size
        queue, pieces = self.queues[track], []
        while size:
            piece = queue.popleft()
            pieces.append(piece[:, :size])
            if piece.shape[1] > size:
                queue.appendleft(piece[:, size:])
            size -= pieces[-1].shape[1]
        return np.concatenate(pieces, axis=1)


def to_float(channels: np.ndarray) -> tuple[np.ndarray, int]:
    """(channels, samples) of any type as float32 with full scale [-1, 1], and how many samples were made 0."""
    if channels.dtype.kind == "f":
        good = np.abs(channels) <= LARGEST
        removed = good.size - np.count_nonzero(good)
        if removed:
            channels = np.where(good, channels, 0)
        return channels.astype(np.float32, copy=False), removed
    full_scale = np.float32(2.0 ** (8 * channels.dtype.itemsize - 1))
    if channels.dtype.kind == "u":
        return channels.astype(np.float32) / full_scale - 1, 0
    return channels.astype(np.float32) / full_scale, 0
