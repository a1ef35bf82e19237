"""Measure what streaming costs beside the windows: bytes on disk, memory, waiting, and the time to resume.

    python tests/zero_storage.py                        # 2 000 batches of 32 from a Hub on loopback, two workers
    python tests/zero_storage.py --batches 0 --steps 60 # only the share of time training waits for data

The corpus is shaped like LibriSpeech (Parquet, row groups of 8) and served over HTTP by `loopback_hub.py`, so speed
of a real network is not in these figures.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from corpora_fixtures import speech_utterances, write_librispeech
from loopback_clients import run_client
from loopback_hub import LoopbackHub

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=2000, help="drawn for disk and memory (default %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="trained for the share of waiting (default %(default)s)")
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        return print(json.dumps(measure(arguments.batches, arguments.steps), indent=2))
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as temporary, LoopbackHub() as hub:
        write_librispeech(Path(directory), speech_utterances(speakers=30, utterances=5, seconds=6.0))
        hub.add_repository("user/librispeech", Path(directory))
        flags = ["--client", "--batches", str(arguments.batches), "--steps", str(arguments.steps)]
        finished = run_client(Path(__file__), hub, *flags, env={"TMPDIR": temporary}, timeout=7200)
        print(finished.stdout, end="")
        print(f"bytes read over HTTP: {hub.bytes_served('*.parquet') / 1e6:.0f} MB", file=sys.stderr)


def measure(batches: int, steps: int) -> dict:
    from data import corpora
    from data.corpora import Corpus, open_corpus
    from data.streaming import ConversationStream, PositionedLoader, StreamConfig

    corpora.CORPORA["librispeech"] = Corpus(**{**vars(corpora.CORPORA["librispeech"]), "path": "user/librispeech"})
    utterances = open_corpus("librispeech", "train")
    config = StreamConfig(batch_size=BATCH)
    result = {}
    for step in (100, 10_000):
        stream = ConversationStream(utterances, config)
        per_block = (
            sum(len(list(utterances.read(u))) for u in stream.units_of(0)) * config.windows_per_utterance // BATCH
        )
        block, i = divmod(step // config.lanes, per_block)
        lanes = [[k + config.lanes * block, i] for k in range(config.lanes)]
        state = {"turn": step % config.lanes, "lanes": lanes, "stream": stream.identity()}
        started = time.perf_counter()
        next(iter(PositionedLoader(ConversationStream(utterances, config, state=state), 0)))
        result[f"seconds to the first batch after step {step}"] = round(time.perf_counter() - started, 2)
    if batches:
        result |= stream_batches(PositionedLoader(ConversationStream(utterances, config), 2), batches)
    if steps:
        result["share of time training waits for data"] = waiting(ConversationStream(utterances, config), steps)
    return result


def stream_batches(loader, batches: int) -> dict:
    """Draw batches; memory of this process and its workers is sampled every 1 000 windows of the first 20 000."""
    places = [Path.cwd(), Path(tempfile.gettempdir())]
    before, memory = sum(map(size_of, places)), []
    for number, _ in enumerate(loader, 1):
        if number % (1000 // BATCH) == 0 and number <= 20_000 // BATCH + 1:
            memory.append(sum(proportional_memory(pid) for pid in family()))
        if number == batches:
            written = sum(written_bytes(pid) for pid in family())
            break
    half = len(memory) // 2
    early, late = (sum(part) / len(part) for part in (memory[half // 2 : half + half // 2], memory[half + half // 2 :]))
    return {
        "batches": batches,
        "windows": batches * BATCH,
        "MB written to disk by all processes": round(written / 1e6, 1),
        "MB more in HF_HOME and the temporary directory": round((sum(map(size_of, places)) - before) / 1e6, 1),
        "MB of memory, all processes, in the middle and at the end of 20 000 windows": [round(early), round(late)],
        "drift of memory in percent": round(100 * (late / early - 1), 1),
    }


def waiting(stream, steps: int) -> float:
    """Share of the time of AdamW steps of the default network, on one thread, spent waiting for two workers."""
    import torch

    from data.streaming import PositionedLoader
    from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification

    torch.set_num_threads(1)
    model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig()).train()
    optimizer = torch.optim.AdamW(model.parameters())
    waited, started = 0.0, None
    batches = iter(PositionedLoader(stream, 2))
    next(batches)  # what a start costs is told apart
    started = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return round(waited / (time.perf_counter() - started), 4)


def family() -> list[int]:
    """This process and its children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [os.getpid(), *map(int, children)]


def proportional_memory(pid: int) -> float:
    """MB of resident memory, shared pages divided among those that share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def written_bytes(pid: int) -> int:
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["write_bytes"])


def size_of(directory: Path) -> int:
    return sum(f.stat().st_size for f in directory.rglob("*") if f.is_file() and not f.is_symlink())


if __name__ == "__main__":
    main()
