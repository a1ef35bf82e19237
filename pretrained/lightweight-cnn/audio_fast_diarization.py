"""Reading of recordings, the one way for all: any container and codec FFmpeg knows, as 16 kHz blocks in bounded memory.

A recording lasts as long as a player shows, and every sound is where a player has it (`timeline_fast_diarization`).
Channels and tracks are mixed so that nothing cancels (`mixing_fast_diarization`).
"""

import warnings
from collections.abc import Iterator

import numpy as np

from .container_fast_diarization import (
    AudioError,
    AudioNotice,
    AudioWarning,
    Recording,
    Source,
    check_rate,
    open_recording,
    pyav,
)
from .mixing_fast_diarization import Mixer, Pieces
from .timeline_fast_diarization import JITTER_SECONDS
from .tracks_fast_diarization import (
    LARGEST,
    MIX,
    SAMPLING_RATE,
    SEPARATE,
    Channels,
    ChannelStage,
    SideBySide,
    Track,
    choose_tracks,
    through,
    to_float,
)

SHORTEST_MISSING = 1.0
"""Seconds by which a recording must be shorter than it says to be called truncated."""


def audio_blocks(
    source: Source, block_seconds: float = 30.0, track: int | None = None, channels: Channels = MIX
) -> Iterator[np.ndarray]:
    """
    Streams a recording of any length, rate, channel count and codec, video files included. Second 0 is where a player
    begins, holes are silence. Rates are converted by FFmpeg's resampler. Where blocks are cut changes no sample.

    Args:
        source: path, encoded bytes, or binary file object (which is left open).
        block_seconds: length of every block but the last.
        track: number of an audio track from 1 on. By default all tracks but dubs and comments are mixed.
        channels: `"mix"`, channels that cancel each other turned over and those without speech left out while there
            is speech on others; the number of a channel from 1 on; or `"separate"`.

    Yields:
        float32 waveforms of shape (samples,), mono 16 kHz, full scale [-1, 1]; (channels, samples) if `"separate"`,
        the channels of all tracks.

    Raises:
        AudioError: no such file, track or channel, not a recording, no audio track, no samples.

    Warns:
        AudioWarning: truncated or damaged recording (what is readable is yielded); NaN or infinite samples
            (made 0); stamps that cannot be true.
        AudioNotice: there are other tracks or channels than were heard; holes; a header that is wrong.
    """
    block = round(block_seconds * SAMPLING_RATE)
    if block < 1:
        raise ValueError(f"block_seconds must be positive, got {block_seconds}")
    check_choice(track, channels)
    with open_recording(source) as recording:
        for rows in through(Pieces(block), _rows(recording, track, channels)):
            yield rows if channels == SEPARATE else rows[0]


def load_audio(source: Source, track: int | None = None, channels: Channels = MIX) -> np.ndarray:
    """The whole recording as one waveform: [`audio_blocks`] joined, with the same errors and warnings."""
    return np.concatenate(list(audio_blocks(source, track=track, channels=channels)), axis=-1)


def declared_seconds(source: Source) -> float | None:
    """The length written in a file, if it can be read and says so; the samples may be fewer."""
    try:
        with open_recording(source) as recording:
            lengths = [recording.declared_end(stream) for stream in recording.container.streams.audio]
            length = max((length for length in lengths if length), default=0.0)
            return length or (recording.container.duration or 0) / 1e6 or None
    except AudioError:
        return None


def to_mono_16k(array: np.ndarray, sampling_rate: int) -> np.ndarray:
    """[`array_to_16k`] of all channels mixed."""
    return array_to_16k(array, sampling_rate)


def array_to_16k(array: np.ndarray, sampling_rate: int, channels: Channels = MIX) -> np.ndarray:
    """
    Args:
        array: (samples,), (channels, samples) or (samples, channels), the shorter axis being the channels;
            floats with full scale [-1, 1], or integers of 8, 16 or 32 bit (unsigned ones have zero at half scale).
        sampling_rate: of `array`, in Hertz.
        channels: as of [`audio_blocks`].

    Returns:
        float32 waveform of shape (samples,), mono 16 kHz, NaN and infinity made 0; (channels, samples) if
        `"separate"`.

    Raises:
        AudioError: shape, type or rate are not those of audio, or there are no samples.

    Warns:
        AudioWarning: NaN or infinite samples.
    """
    check_choice(None, channels)
    array = np.asarray(array)
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"array: expected the shape (samples,) or (channels, samples), got {array.shape}")
    if array.dtype.kind != "f" and not (array.dtype.kind in "iu" and array.dtype.itemsize <= 4):
        raise AudioError(f"array: expected float or 8, 16 or 32 bit integer samples, got {array.dtype}")
    check_rate("array", sampling_rate)
    rows = np.atleast_2d(array)
    rows, removed = to_float(rows if rows.shape[0] <= rows.shape[1] else rows.T)
    stage = ChannelStage("array", channels, len(rows), int(sampling_rate))
    resampled = [*stage.push(rows), *stage.flush()]
    if not sum(piece.shape[1] for piece in resampled):
        raise AudioError(f"array: {rows.shape[1]} samples at {sampling_rate} Hz are too few to resample")
    _warn_removed("array", removed)
    _say_mix("array", [stage.mixer] if stage.mixer else [])
    waveform = np.concatenate(resampled, axis=1)
    return waveform if channels == SEPARATE else waveform[0]


def check_choice(track: int | None, channels: Channels) -> None:
    """
    Raises:
        ValueError: not the number of a track, or not `"mix"`, `"separate"` or the number of a channel.
    """
    if track is not None and not _is_number(track):
        raise ValueError(f"track must be the number of an audio track, 1 or more, got {track!r}")
    if channels not in (MIX, SEPARATE) and not _is_number(channels):
        raise ValueError(f"channels must be {MIX}, {SEPARATE} or the number of a channel, 1 or more, got {channels!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _rows(recording: Recording, track: int | None, channels: Channels) -> Iterator[np.ndarray]:
    """(rows, samples) at 16 kHz of the tracks chosen; what is to be said of them is said at the end."""
    streams = choose_tracks(recording, track, channels)
    tracks = [Track(recording, stream, channels) for stream in streams]
    if track is None:
        _say_tracks(recording, streams, channels)
    rows = _decoded(recording, streams, tracks)
    side_by_side = SideBySide(len(tracks))
    mixer = Mixer(len(tracks), SAMPLING_RATE) if channels == MIX and len(tracks) > 1 else None
    if len(tracks) == 1:
        rows = (rows for _, rows in rows)
    else:
        rows = through(side_by_side, rows)
    yield from through(mixer, rows) if mixer else rows
    if not any(one.timeline.position for one in tracks):
        raise AudioError(f"{recording.name}: {recording.reason_for_silence}")
    for one in tracks:
        _say_track(recording, one)
    _say_mix(recording.name, [mixer] if mixer else [], "track")
    if side_by_side.lost:
        _warn(
            f"{recording.name}: {side_by_side.lost:.1f} s of a track come too late in the file to be heard beside the "
            "others; read each alone with track (--track)"
        )
    if recording.header.shorter_than_data:
        _notice(f"{recording.name}: the header declares less sound than there is; all of it is read")


def _decoded(recording: Recording, streams: list, tracks: list[Track]) -> Iterator[tuple[int, np.ndarray]]:
    """(place among the tracks, rows) as they come in the file, without what cannot be decoded."""
    av = pyav()
    places = {stream.index: place for place, stream in enumerate(streams)}
    try:
        for packet in recording.container.demux(*streams):
            place = places[packet.stream.index]
            track = tracks[place]
            track.damaged |= packet.is_corrupt and not recording.has_short_packets
            try:
                for frame in packet.decode():
                    yield from ((place, rows) for rows in track.push(frame))
            except av.FFmpegError:
                track.damaged = True
    except av.FFmpegError:
        tracks[0].damaged = True
    for place, track in enumerate(tracks):
        yield from ((place, rows) for rows in track.flush())


def _say_tracks(recording: Recording, heard: list, channels: Channels):
    count = len(recording.container.streams.audio)
    if 1 < count == len(heard):
        used = "kept separate" if channels == SEPARATE else "mixed"
        _notice(f"{recording.name}: {count} audio tracks, {used}; track (--track) selects one")
    elif count > 1:
        numbers = ", ".join(str(recording.container.streams.audio.index(stream) + 1) for stream in heard)
        _notice(f"{recording.name}: audio track {numbers} of {count} is heard; track (--track) picks another")


def _say_track(recording: Recording, track: Track):
    name, timeline = recording.name, track.timeline
    _warn_removed(name, track.removed)
    _say_mix(name, track.mixers)
    if timeline.holes:
        holes = "1 hole" if timeline.holes == 1 else f"{timeline.holes} holes"
        _notice(f"{name}: {timeline.silence:.1f} s in {holes} (lost packets, or nothing recorded) are taken as silence")
    if timeline.cut > JITTER_SECONDS:
        _warn(f"{name}: {timeline.cut:.1f} s lie before sound that was already heard and are left out")
    if timeline.broken:
        _warn(f"{name}: time stamps that cannot be true; what follows them is put right after what was before")
    position, declared = timeline.position, track.declared_end
    if track.damaged or (declared and not timeline.broken and position < declared - SHORTEST_MISSING):
        whole = f" of {declared:.1f} s" if declared and position < declared - 0.1 else ""
        _warn(f"{name}: seems truncated or damaged, {position:.1f} s{whole} could be read")


def _say_mix(name: str, mixers: list[Mixer], what: str = "channel"):
    """Which channels, or tracks, of the mix were heard otherwise than they are."""
    flag = "channels (--channels)" if what == "channel" else "track (--track)"
    for mixer in mixers:
        for number, (turned, left_out) in enumerate(zip(mixer.turned, mixer.left_out), 1):
            if turned > mixer.segments / 2:
                _notice(f"{name}: {what} {number} is inverted; it was flipped back")
            if left_out > 0.9 * mixer.segments:
                _notice(f"{name}: {what} {number} carries no speech and is left out; {flag} picks it")
        if what == "channel" and mixer.unlike:
            _notice(
                f"{name}: two channels with little in common, perhaps one speaker each, are mixed; channels "
                f"{SEPARATE} (--channels) tells the speakers apart by them"
            )


def _warn_removed(name: str, count: int):
    if count:
        _warn(f"{name}: {count} samples were NaN, infinite or beyond {LARGEST:g} and were made 0")


def _warn(message: str):
    warnings.warn(message, AudioWarning, stacklevel=2)


def _notice(message: str):
    warnings.warn(message, AudioNotice, stacklevel=2)
