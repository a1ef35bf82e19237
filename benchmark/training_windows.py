"""Training windows per second, by stage."""

import argparse
import cProfile
import io
import pstats
import time
from dataclasses import replace
from pathlib import Path

import soundfile

from benchmark.machine import machine
from data.corpora import Utterances, open_corpus
from data.decoding import RowError, decode
from data.streaming import ConversationStream, PositionedLoader, StreamConfig

STAGES = {
    "reading": ("data/corpora.py", "read"),
    "decoding": ("data/decoding.py", "decode"),
    "speech activity": ("data/conversations.py", "add"),
    "speed": ("data/streaming.py", "change_speed"),
    "microphones and codecs": ("data/microphones.py", "distort"),
    "turns": ("data/conversations.py", "plan_windows"),
    "laying speech": ("data/conversations.py", "render"),
    "rooms and noise, drawn": ("data/acoustics.py", "__init__"),
    "rooms and noise, applied": ("data/acoustics.py", "apply"),
}


def run(arguments: argparse.Namespace) -> dict:
    """Windows per second from the corpus as it is, from FLAC, and from FLAC without rooms; the cost of each stage."""
    corpus = open_corpus(arguments.dataset, "train")
    config = StreamConfig(noise=arguments.noise, rooms=arguments.rooms)
    dry = replace(config, augmentation=replace(config.augmentation, room=0.0))
    flac = as_flac(corpus, config)
    cases = {"as it is": (corpus, config), "FLAC": (flac, config), "FLAC, no rooms": (flac, dry)}
    speeds = {name: speed(*case, arguments.workers, arguments.batches) for name, case in cases.items()}
    profiles = {name: profile(*case, max(arguments.batches // 4, 1)) for name, case in cases.items()}
    return {
        "windows_per_second": speeds["as it is"],
        "windows_per_second_by_case": speeds,
        "stages": {name: stages(found) for name, found in profiles.items()},
        "largest_costs": {name: largest_costs(found) for name, found in profiles.items()},
        "bytes_per_window": {name: bytes_per_window(*case) for name, case in list(cases.items())[:2]},
        "dataset": arguments.dataset,
        "format": soundfile.info(io.BytesIO(next(iter(corpus.read(0))).audio)).subtype_info,
        "workers": arguments.workers,
        "batch_size": config.batch_size,
        "windows": arguments.batches * config.batch_size,
        **machine(),
    }


def speed(corpus: Utterances, config: StreamConfig, workers: int, batches: int) -> float:
    """Windows per second that a training loop receives, after the first pools are filled."""
    loader = iter(PositionedLoader(ConversationStream(corpus, config), workers))
    for _ in range(8 * max(workers, 1)):
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * config.batch_size / (time.perf_counter() - start)


def profile(corpus: Utterances, config: StreamConfig, batches: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Milliseconds of CPU time per window, own and cumulative, of each (file, function) in one process."""
    batches_made = iter(ConversationStream(corpus, config))
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    for _ in range(batches):
        next(batches_made)
    profiler.disable()
    scale = 1e3 / (batches * config.batch_size)
    found = {}
    for (file, _, function), (_, _, own, cumulative, _) in pstats.Stats(profiler).stats.items():
        place = "/".join(Path(file).parts[-2:]), function
        before = found.get(place, (0.0, 0.0))
        found[place] = before[0] + scale * own, before[1] + scale * cumulative
    return found


def stages(found: dict[tuple[str, str], tuple[float, float]]) -> dict[str, float]:
    """The times of `profile`, in total and by stage."""
    spent = {name: found.get(place, (0.0, 0.0))[1] for name, place in STAGES.items()}
    total = sum(own for own, _ in found.values())
    return {"all": total, **spent, "the rest": total - sum(spent.values())}


def largest_costs(found: dict[tuple[str, str], tuple[float, float]]) -> dict[str, float]:
    """Shares of the time of the three functions with the largest own time."""
    own = {f"{function} ({file})" if file != "~" else function: times[0] for (file, function), times in found.items()}
    return {name: own[name] / sum(own.values()) for name in sorted(own, key=own.get, reverse=True)[:3]}


def bytes_per_window(corpus: Utterances, config: StreamConfig) -> float:
    """Encoded bytes read per window: the mean over the first units of the corpus."""
    sizes = [len(row.audio) for unit in range(min(len(corpus), 4)) for row in corpus.read(unit)]
    return sum(sizes) / len(sizes) / config.windows_per_utterance


def as_flac(corpus: Utterances, config: StreamConfig) -> Utterances:
    """The first units of a corpus as FLAC in memory, without the rows that cannot be decoded."""
    encoded = {}
    for unit in range(min(len(corpus), config.units_per_block)):
        rows = []
        for row in corpus.read(unit):
            file = io.BytesIO()
            try:
                soundfile.write(file, decode(row.audio), 16_000, format="FLAC")
            except RowError:
                continue
            rows.append((file.getvalue(), row.speaker, row.name))
        encoded[corpus.describe(unit)] = rows
    return Utterances(list(encoded), encoded.__getitem__, replace(corpus.corpus, speaker_prefix=False), held_out=None)
