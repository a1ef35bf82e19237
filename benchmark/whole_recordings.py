"""CPU time over audio time of whole recordings, from file to segments, by length and threads."""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from benchmark.machine import machine
from benchmark.sessions import open_model
from data.corpora import open_corpus
from data.simulated_recordings import SimulatedRecordings
from diarization.backends import of_run, onnx_network
from modeling.audio_fast_diarization import SAMPLING_RATE, audio_blocks
from modeling.linking_fast_diarization import diarize
from modeling.settings_fast_diarization import LinkingSettings
from modeling.windows_fast_diarization import Network

SOURCE_SECONDS = 600.0


def run(arguments: argparse.Namespace) -> dict:
    """CPU seconds per second of audio: in total, and for decoding, network and linking."""
    model = Path(of_run(arguments.model))
    session = open_model(model / arguments.file_name, "cpu", threads=1)
    settings = LinkingSettings.of(json.loads((model / "config.json").read_text()))
    if arguments.hop_seconds:
        settings = replace(settings, hop_seconds=arguments.hop_seconds)
    source = SimulatedRecordings(open_corpus(arguments.dataset, "validation")).make(0, SOURCE_SECONDS, 2).waveform
    found = []
    for minutes in arguments.minutes:
        with tempfile.NamedTemporaryFile(suffix=".flac") as file:
            write(file.name, source, round(60 * minutes * SAMPLING_RATE))
            for threads in arguments.threads:
                network = onnx_network(session, threads)
                found.append({"minutes": minutes, "threads": threads} | measure(file.name, network, settings))
    return {
        "recordings": found,
        "source": f"simulated conversation of two speakers ({arguments.dataset}), {SOURCE_SECONDS:g} s, repeated",
        "window_seconds": settings.sliding_window_seconds,
        "hop_seconds": settings.hop_seconds,
        "file": arguments.file_name,
        **machine(),
    }


def write(file: str, source: np.ndarray, samples: int) -> None:
    """Write a FLAC of `samples` samples that repeats the source."""
    with soundfile.SoundFile(file, "w", SAMPLING_RATE, 1, format="FLAC") as flac:
        for at in range(0, samples, len(source)):
            flac.write(source[: samples - at])


def measure(file: str, network: Network, settings: LinkingSettings) -> dict[str, float]:
    """Real-time factors: in CPU time of all threads, and in elapsed time."""
    spent = {"decoding": 0.0, "network": 0.0}
    seconds = 0.0

    def blocks():
        nonlocal seconds
        source = audio_blocks(file)
        while True:
            start = time.process_time()
            block = next(source, None)
            spent["decoding"] += time.process_time() - start
            if block is None:
                return
            seconds += len(block) / SAMPLING_RATE
            yield block

    def timed(windows: np.ndarray):
        start = time.process_time()
        outputs = network(windows)
        spent["network"] += time.process_time() - start
        return outputs

    start, clock = time.process_time(), time.perf_counter()
    diarize(timed, blocks(), settings)
    total, clock = time.process_time() - start, time.perf_counter() - clock
    spent["linking"] = total - sum(spent.values())
    return {
        "cpu_time_per_audio_time": total / seconds,
        **{name: value / seconds for name, value in spent.items()},
        "clock_per_audio_time": clock / seconds,
    }
