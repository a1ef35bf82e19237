"""Recordings in many containers, broken by rule, through `diarize.py`."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

import diarize

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "pretrained" / "lightweight-cnn" / "model.onnx"
SECONDS, RATE = 3, 16_000
SOUNDFILE = {
    "wav": ("WAV", ("PCM_16", "PCM_U8", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM")),
    "w64": ("W64", ("PCM_16",)),
    "rf64": ("RF64", ("PCM_16",)),
    "aiff": ("AIFF", ("PCM_16",)),
    "au": ("AU", ("PCM_16", "ALAW")),
    "caf": ("CAF", ("PCM_16", "ALAC_16")),
    "voc": ("VOC", ("PCM_16",)),
    "sph": ("NIST", ("PCM_16",)),
    "flac": ("FLAC", ("PCM_16",)),
    "ogg": ("OGG", ("VORBIS", "OPUS")),
    "mp3": ("MP3", ("MPEG_LAYER_III",)),
}
PYAV = {
    "m4a": ("ipod", "aac", 48_000),
    "mp4": ("mp4", "aac", 44_100),
    "mov": ("mov", "pcm_s16le", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "ac3", 48_000),
    "ts": ("mpegts", "aac", 48_000),
    "aac": ("adts", "aac", 48_000),
    "avi": ("avi", "pcm_s16le", 22_050),
    "mka": ("matroska", "pcm_s16le", 44_100),
    "opus": ("ogg", "libopus", 48_000),
}
EXTREMES = (0, 1, 2, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER = 256


@dataclass
class Start:
    """What cases begin with: recordings by name, and where files go."""

    recordings: list[tuple[str, bytes]]
    directory: Path


def prepare(directory: Path) -> Start:
    time = np.arange(SECONDS * RATE) / RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    waveform = (0.3 * noise * (np.sin(2 * np.pi * 3 * time) > 0)).astype(np.float32).clip(-1, 1)
    recordings = []
    for suffix, (kind, subtypes) in SOUNDFILE.items():
        for subtype in subtypes:
            file = io.BytesIO()
            with contextlib.suppress(soundfile.LibsndfileError):  # an older libsndfile knows fewer
                soundfile.write(file, np.stack([waveform] * 2, 1), RATE, subtype, format=kind)
                recordings.append((suffix, file.getvalue()))
    for suffix, (kind, codec, rate) in PYAV.items():
        recordings.append((suffix, encode(waveform, kind, codec, rate)))
    directory.mkdir(exist_ok=True)
    return Start(recordings, directory)


def encode(waveform: np.ndarray, kind: str, codec: str, rate: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(waveform[None], "fltp", "mono")
        frame.sample_rate = RATE
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def mutate(rng: np.random.Generator, data: bytearray, others: list[tuple[str, bytes]]) -> bytearray:
    """One fault: in the header as often as anywhere."""
    if not data:
        return data
    size = min(HEADER, len(data)) if rng.random() < 0.5 else len(data)
    at = int(rng.integers(size))
    end = min(len(data), at + int(2 ** rng.uniform(0, 12)))
    match rng.integers(9):
        case 0:
            data[at] ^= 1 << rng.integers(8)
        case 1:
            data[at:end] = rng.bytes(end - at)
        case 2:
            order = "little" if rng.random() < 0.5 else "big"
            data[at : at + 4] = int(rng.choice(EXTREMES)).to_bytes(4, order)
        case 3:
            del data[at:]
        case 4:
            del data[at:end]
        case 5:
            data[end:end] = data[at:end] * int(rng.integers(1, 4))
        case 6:
            data[at:at] = rng.bytes(end - at)
        case 7:
            data[at:end] = bytes(end - at)
        case 8:
            other = others[rng.integers(len(others))][1]
            data[:at] = other[:at]
    return data


def run(rng: np.random.Generator, start: Start) -> str | None:
    suffix, data = start.recordings[rng.integers(len(start.recordings))]
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        data = mutate(rng, data, start.recordings)
    if rng.random() < 0.1:
        suffix = start.recordings[rng.integers(len(start.recordings))][0]
    file = start.directory / f"case.{suffix}"
    file.write_bytes(data)
    with contextlib.redirect_stdout(io.StringIO()):
        code = diarize.main([str(file), "--model", str(MODEL), "--output", str(start.directory / "results")])
    return None if code in (0, 1) else f"exit code {code}"
