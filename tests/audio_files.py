"""Recordings in any container and codec, with stamps moved, packets lost and headers wrong as real tools make them."""

import io
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from modeling.audio_fast_diarization import load_audio

RATE = 16_000
SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample" / "call.ogg"
FFMPEG = shutil.which("ffmpeg")

PAIRS = [
    ("wav", "pcm_s16le", 16_000),
    ("wav", "pcm_mulaw", 8_000),
    ("wav", "pcm_f32le", 44_100),
    ("wav", "adpcm_ms", 22_050),
    ("w64", "pcm_s16le", 16_000),
    ("au", "pcm_mulaw", 8_000),
    ("aiff", "pcm_s16be", 22_050),
    ("caf", "pcm_s16le", 32_000),
    ("flac", "flac", 16_000),
    ("wv", "wavpack", 16_000),
    ("tta", "tta", 16_000),
    ("ogg", "libopus", 48_000),
    ("ogg", "flac", 16_000),
    ("webm", "libopus", 48_000),
    ("matroska", "libopus", 48_000),
    ("matroska", "flac", 16_000),
    ("matroska", "pcm_s16le", 16_000),
    ("matroska", "aac", 44_100),
    ("mp4", "aac", 44_100),
    ("mp4", "libopus", 48_000),
    ("ipod", "alac", 44_100),
    ("mov", "pcm_s16le", 48_000),
    ("3gp", "aac", 16_000),
    ("3gp", "libopencore_amrnb", 8_000),
    ("amr", "libopencore_amrnb", 8_000),
    ("mp3", "libmp3lame", 44_100),
    ("mp3", "libmp3lame", 22_050),
    ("mp2", "mp2", 48_000),
    ("adts", "aac", 48_000),
    ("ac3", "ac3", 48_000),
    ("avi", "pcm_s16le", 16_000),
    ("avi", "libmp3lame", 44_100),
    ("mpegts", "aac", 48_000),
    ("mpegts", "mp2", 48_000),
    ("flv", "aac", 44_100),
]
"""Container, codec and sampling rate of files that are read."""


def speech_like(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Sums of low tones whose loudness goes up and down a few times a second; the same sound at any rate."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tones = [np.sin(2 * np.pi * f * time + p) for f, p in zip(rng.uniform(200, 1500, 10), rng.uniform(0, 6, 10))]
    loudness = np.interp(time, np.arange(0, seconds + 0.2, 0.1), np.abs(rng.standard_normal(int(seconds * 10) + 2)))
    return (0.08 * sum(tones) * np.clip(loudness, 0, 1.2)).astype(np.float32)


def encode(
    container: str,
    codec: str,
    *tracks: np.ndarray,
    rate: int = RATE,
    move: Callable[[float], float | None] = lambda seconds: seconds,
    video_seconds: float = 0.0,
    metadata: tuple[dict, ...] = ({},),
    interleave: bool = True,
) -> bytes:
    """
    Args:
        tracks: waveforms (samples,) or (channels, samples).
        move: where a packet stamped so is put, or `None` for one that is lost.
        video_seconds: length of a picture track from 0 on.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        picture = output.add_stream("mpeg4", rate=5) if video_seconds else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        layout = "stereo" if tracks[0].ndim == 2 else "mono"
        streams = [output.add_stream(codec, rate=rate, layout=layout) for _ in tracks]
        for stream, tags in zip(streams, metadata):
            stream.metadata.update(tags)
        packets = []
        for _ in range(round(video_seconds * 5)):
            packets += picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24"))
        packets += picture.encode(None) if picture else []
        for stream, waveform in zip(streams, tracks):
            packets += [packet for packet in _packets(stream, waveform, layout, rate) if _moved(packet, move)]
        if interleave:
            packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            output.mux(packet)
    return file.getvalue()


def _packets(stream, waveform: np.ndarray, layout: str, rate: int) -> list:
    context = stream.codec_context
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.atleast_2d(waveform)), "fltp", layout)
    frame.sample_rate = rate
    resampler = av.AudioResampler(context.format.name, layout, rate, frame_size=context.frame_size or 320)
    packets, at = [], 0
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        piece.pts, piece.time_base = at, Fraction(1, rate)
        at += piece.samples
        packets += stream.encode(piece)
    return packets + stream.encode(None)


def _moved(packet, move) -> bool:
    seconds = float(packet.pts * packet.time_base)
    moved = move(seconds)
    if moved is None:
        return False
    packet.pts += round((moved - seconds) / packet.time_base)
    packet.dts = packet.pts
    return True


def by_filter_graph(recording: bytes) -> np.ndarray:
    """What FFmpeg's own filter makes of the first audio track of one channel, on the clock of the container."""
    with av.open(io.BytesIO(recording)) as container:
        stream = container.streams.audio[0]
        start = round((container.start_time or 0) / 1e6 / stream.time_base)
        graph = av.filter.Graph()
        source = None
        found = []
        for frame in container.decode(stream):
            if source is None:
                source = graph.add_abuffer(
                    sample_rate=frame.sample_rate,
                    format=frame.format.name,
                    layout=frame.layout.name,
                    time_base=stream.time_base,
                )
                stages = [
                    source,
                    graph.add("aresample", f"{RATE}:async=1:first_pts=0"),
                    graph.add("aformat", "sample_fmts=flt:channel_layouts=mono"),
                    graph.add("abuffersink"),
                ]
                for one, other in zip(stages, stages[1:]):
                    one.link_to(other)
                graph.configure()
            frame.pts -= start
            source.push(frame)
            found += _pulled(stages[-1])
        source.push(None)
        found += _pulled(stages[-1])
    return np.concatenate(found)


def _pulled(sink) -> list[np.ndarray]:
    found = []
    while True:
        try:
            found.append(sink.pull().to_ndarray()[0])
        except (BlockingIOError, EOFError, av.EOFError):
            return found


def by_ffmpeg(recording: bytes, directory) -> np.ndarray:
    """What the program `ffmpeg` makes of it."""
    file = directory / "recording"
    file.write_bytes(recording)
    command = [FFMPEG, "-v", "error", "-i", file, "-map", "0:a:0", "-af", f"aresample={RATE}:async=1:first_pts=0"]
    done = subprocess.run([*command, "-ac", "1", "-f", "f32le", "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32)


def shift(one: np.ndarray, other: np.ndarray, most: int = 2_000) -> int:
    """Samples by which `one` comes later than `other`."""
    size = 1 << (len(one) + len(other)).bit_length()
    product = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    correlation = np.fft.irfft(product, size)
    return int(np.argmax(np.concatenate([correlation[-most:], correlation[: most + 1]]))) - most


def wav(waveform: np.ndarray, size: int | None = None, rate: int = RATE) -> bytes:
    """16 bit PCM with 44 bytes of header, which may claim another size of the data or another rate."""
    samples = (np.atleast_2d(waveform).T * 32767).astype("<i2")
    data, channels = samples.tobytes(), samples.shape[1]
    size = len(data) if size is None else size
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate, min(2 * channels * rate, 2**32 - 1), 2 * channels, 16)
    return (
        b"RIFF"
        + struct.pack("<I", min(size + 36, 2**32 - 1))
        + b"WAVEfmt "
        + head
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def without_xing(mp3: bytes) -> bytes:
    """An MP3 without its first frame, which says how many there are."""
    tag = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    return mp3[mp3.index(b"\xff\xfb", tag) :]


@contextmanager
def pipe(content: bytes):
    """A file that can be read only once, as standard input is."""
    reading, writing = os.pipe()

    def feed():
        try:
            with os.fdopen(writing, "wb") as file:
                file.write(content)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as file:
        yield file
    thread.join()


def write_sample_call(file: Path) -> Path:
    """The sample call of two synthetic voices as a WAV file: tones are no speech to a published model."""
    soundfile.write(file, load_audio(str(SAMPLE)), RATE)
    return file
