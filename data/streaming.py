"""The endless stream of training batches, addressed so that it can start again exactly where it stopped.

    corpus units --seeded order--> blocks --seeded order--> pools of utterances --> batches of windows

A block is a few units (`corpora.py`) read together from far apart places, because neighbours in a corpus are the same
person. Blocks are numbered without end: block g belongs to pass g // blocks_per_pass over the corpus, and each pass
has its own order. Batch i of block g is a function of (seed, g, i) alone: no state of a random generator, no shuffle
buffer, nothing that depends on which worker makes it.

The blocks are dealt out to a fixed number of lanes. Batch n of the whole stream comes from lane n mod lanes, so the
sequence is the same for every number of workers that divides the lanes, and the state of the stream is one block
number and one batch number a lane.
"""

import json
import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from types import TracebackType

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from common.retry import GaveUp, persist
from data.acoustics import Augmentation, Scenery, load_noises, noise_digest
from data.conversations import GRID, Pool, Turns, cast_speakers, plan_windows, render, speaker_number
from data.corpora import CorpusError, Row, Utterances
from data.decoding import RowError, decode
from data.fingerprints import of_contents
from data.microphones import distort
from data.worker_folder import share_folder

logger = logging.getLogger(__name__)

READINGS = 3
"""How often a unit that is gone or damaged is read before it counts as lost."""


@dataclass(frozen=True)
class StreamConfig:
    """Everything the windows depend on beside the corpus.

    Args:
        seed: of everything drawn.
        batch_size: windows in a batch.
        window_seconds, num_speakers: of a window.
        long_window_seconds: of the windows of every other pool, by chance.
        shares: wanted shares of windows with none, one, and two or more speakers, or `None` for what the measured
            turn-taking gives.
        turn_taking: `"measured"`, or `"independent"` for turns that know nothing of each other.
        units_per_block: units read side by side; eight times as many where only held-out speakers are taken of them.
        pool_size: most utterances decoded together.
        windows_per_utterance: windows drawn for every utterance read.
        lanes: blocks open at a time in one process; the number of workers must divide it.
        noise: directory of background recordings, or `None`.
        retry_seconds: how long a unit is tried again, with growing pauses, before the stream gives up.
    """

    seed: int = 0
    batch_size: int = 32
    window_seconds: float = 3.0
    long_window_seconds: float | None = None
    num_speakers: int = 2
    shares: tuple[float, float, float] | None = (0.03, 0.37, 0.60)
    turn_taking: str = "measured"
    units_per_block: int = 8
    pool_size: int = 96
    windows_per_utterance: int = 20
    lanes: int = 4
    noise: str | None = None
    speeds: tuple[float, ...] = (0.8, 0.9, 1.0, 1.1, 1.2)
    augmentation: Augmentation = Augmentation()
    retry_seconds: float = 900.0


class ConversationStream(IterableDataset):
    """Batches of conversation windows, endless.

    Iterating yields dicts of `input_values` float32 (batch, samples), `labels` float32 (batch, frames, num_speakers),
    `speaker_labels` int64 (batch, num_speakers) with -1 for a silent track, and `position` int64 (3,): lane, block and
    batch in the block. [`PositionedLoader`] keeps the positions and hands the rest on.

    Args:
        utterances: the corpus.
        config: what windows are like.
        rank, world_size: of this process among those that train together.
        state: as [`PositionedLoader.state_dict`] gave it, to go on from there.
    """

    def __init__(self, utterances: Utterances, config: StreamConfig, rank=0, world_size=1, state: dict | None = None):
        if len(utterances) == 0:
            raise CorpusError(f"corpus {utterances.corpus.path!r} holds no data; check its split and its files")
        self.utterances, self.config, self.rank, self.world_size = utterances, config, rank, world_size
        self.noises = load_noises(config.noise)
        self.skipped = Counter()
        self.state = {"turn": 0, "lanes": [[rank + world_size * k, 0] for k in range(config.lanes)]}
        if state is not None:
            self._restore(state)
        self.blocks_per_pass = -(-len(utterances) // (config.units_per_block * (8 if utterances.held_out else 1)))
        readers = config.lanes * world_size
        if self.blocks_per_pass < readers:
            logger.info(
                "fewer parts of the corpus (%d) than readers (%d): some of it comes again before all of it was heard",
                self.blocks_per_pass,
                readers,
            )

    def identity(self) -> dict:
        """What must not change between a run and its continuation for the windows to be the same."""
        settings = json.loads(json.dumps(asdict(self.config)))
        del settings["retry_seconds"]
        return {name.replace("_", " "): value for name, value in settings.items()} | {
            "revision": self.utterances.revision,
            "units": len(self.utterances),
            "processes": self.world_size,
            "speaker column": getattr(self.utterances.reader, "speaker", None),
            **self._sources,
            "contents of the data": self._contents[0],
        }

    @cached_property
    def _sources(self) -> dict[str, str | None]:
        """Digests of what is read, found once a stream and not at every checkpoint."""
        return {"data": self.utterances.fingerprint(), "noise": noise_digest(self.config.noise)}

    @cached_property
    def _contents(self) -> tuple[str | None, int | None]:
        return of_contents(self.utterances.files) if self.utterances.files else (None, None)

    def _restore(self, state: dict) -> None:
        for name, value in self.identity().items():
            before = state["stream"].get(name, value)
            if before != value:
                raise CorpusError(
                    f"the checkpoint was made with {name} {before!r} and this run has {value!r}; "
                    "resume with the same, or start a new run from its weights with --start_from"
                )
        if state.get("written") not in (None, self._contents[1]):
            logger.warning(
                "files of %s have another date than at the checkpoint; what was looked into is the same",
                self.utterances.corpus.path,
            )
        self.state = {"turn": state["turn"], "lanes": state["lanes"]}

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        lanes = self.config.lanes
        if lanes % workers:
            raise ValueError(f"{workers} data workers cannot share {lanes} lanes evenly; use a divisor of {lanes}")
        mine = [(self.state["turn"] + number + k * workers) % lanes for k in range(lanes // workers)]
        batches = {lane: self._lane(lane) for lane in mine}
        try:
            while True:
                for lane in mine:
                    yield next(batches[lane])
        except CorpusError as error:
            if worker is None:
                raise
            yield {"failure": str(error)}  # raised here it would arrive with a traceback in its message

    def _lane(self, lane: int) -> Iterator[dict]:
        block, first = self.state["lanes"][lane]
        empty = 0
        while True:
            made = 0
            for i, batch in self.block_batches(block, first):
                batch["position"] = np.array([lane, block, i])
                made += 1
                yield batch
            empty = 0 if made or first else empty + 1
            if empty > self.blocks_per_pass:
                remedy = "check its files"
                if self.utterances.held_out:
                    remedy = "too few of its speakers are among the 3 % held out by name, so give it a validation split"
                reasons = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items()) or "no rows"
                raise CorpusError(
                    f"no usable window in the whole of {self.utterances.corpus.path!r} ({reasons}); {remedy}"
                )
            block, first = block + self.config.lanes * self.world_size, 0

    def units_of(self, block: int) -> list[int]:
        """The units of a block: a seeded permutation of all units, cut into blocks."""
        number, part = divmod(block, self.blocks_per_pass)
        order = np.random.default_rng([self.config.seed, 0, number]).permutation(len(self.utterances))
        return order[part :: self.blocks_per_pass].tolist()

    def block_batches(self, block: int, first: int = 0) -> Iterator[tuple[int, dict]]:
        """Batches of one block from number `first` on; only the pools they need are decoded."""
        config = self.config
        rows = [row for unit in self.units_of(block) for row in self._read(unit)]
        rng = np.random.default_rng([config.seed, 1, block])
        rows = [rows[i] for i in rng.permutation(len(rows))]
        batch = 0
        pools = -(-len(rows) // config.pool_size)
        for number in range(pools):
            part = rows[number::pools]
            batches = max(1, len(part) * config.windows_per_utterance // config.batch_size)
            if batch + batches > first:
                yield from self._pool_batches(part, [block, number], range(max(first - batch, 0), batches), batch)
            batch += batches

    def _pool_batches(self, rows: list[Row], key: list[int], wanted: range, offset: int) -> Iterator[tuple[int, dict]]:
        pool = self._decode(rows, np.random.default_rng([self.config.seed, 2, *key]))
        if len(pool.speakers) < self.config.num_speakers:
            self.skipped[f"pool with fewer than {self.config.num_speakers} speakers"] += len(rows)
            return
        rng = np.random.default_rng([self.config.seed, 6, *key])
        distort(rng, pool, self.config.augmentation)
        long = self.config.long_window_seconds if rng.random() < 0.5 else None
        samples = round((long or self.config.window_seconds) * 16_000)
        scenery = Scenery(np.random.default_rng([self.config.seed, 3, *key]), samples, pool, self.noises)
        size = self.config.batch_size
        rng = np.random.default_rng([self.config.seed, 4, *key])
        turns, begin = plan(rng, wanted.stop * size, scenery, self.config)
        for i in wanted:
            rng, windows = np.random.default_rng([self.config.seed, 5, *key, i]), slice(i * size, (i + 1) * size)
            yield offset + i, fill(rng, pool, scenery, self.config, turns[windows], begin[windows])

    def _decode(self, rows: list[Row], rng: np.random.Generator) -> Pool:
        pool = Pool()
        speeds = rng.choice(len(self.config.speeds), size=len(rows))
        for row, speed in zip(rows, speeds):
            factor = self.config.speeds[speed]
            if row.fault or not row.speaker:
                self._skip(row.fault or "no speaker", row.name)
                continue
            try:
                waveform = decode(row.audio)
            except RowError as error:
                self._skip(str(error), row.name)
                continue
            if not pool.add(*change_speed(waveform, row.speaker, factor)):
                self._skip("no speech", row.name)
        return pool

    def _skip(self, reason: str, name: str):
        self.skipped[reason] += 1
        if self.skipped[reason] in (1, 10, 100, 1000):
            logger.warning("skipped %d rows (%s), the last one %s", self.skipped[reason], reason, name)

    def _read(self, unit: int) -> list[Row]:
        """All rows of a unit. Transient faults are tried again; a unit that is gone or damaged is lost and said."""
        name = self.utterances.describe(unit)
        for _ in range(READINGS):
            try:
                return persist(lambda: list(self.utterances.read(unit)), name, self.config.retry_seconds)
            except GaveUp as error:
                raise CorpusError(f"{error}; check the connection and resume") from error
            except Exception as error:
                reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
                    raise CorpusError(f"{name} may not be read ({reason}); run hf auth login and resume") from error
        logger.warning("lost %s: %s", name, reason)
        self.skipped["lost unit"] += 1
        return []


def change_speed(waveform: np.ndarray, speaker: str, factor: float) -> tuple[np.ndarray, str]:
    """Speech at another speed and pitch counts as another person (Yamamoto et al., Interspeech 2019)."""
    if factor == 1:
        return waveform, speaker
    positions = np.arange(0, len(waveform) - 1, factor)
    return np.interp(positions, np.arange(len(waveform)), waveform).astype(np.float32), f"{speaker}@{factor}"


def make_batch(rng: np.random.Generator, pool: Pool, scenery: Scenery, config: StreamConfig) -> dict:
    """One batch of windows, a function of the generator, the pool and its scenery."""
    return fill(rng, pool, scenery, config, *plan(rng, config.batch_size, scenery, config))


def plan(rng, count: int, scenery: Scenery, config: StreamConfig) -> tuple[Turns, np.ndarray]:
    """`plan_windows` with what the configuration says; the more windows together, the less each of them costs."""
    return plan_windows(rng, count, scenery.seconds, config.num_speakers, config.shares, config.turn_taking)


def fill(rng, pool: Pool, scenery: Scenery, config: StreamConfig, turns: Turns, begin: np.ndarray) -> dict:
    """A batch of the windows planned."""
    cast = cast_speakers(rng, pool, len(begin), config.num_speakers)
    speech = render(rng, pool, turns, cast, begin, scenery.seconds)
    names = [[-1 if n is None else speaker_number(n) for n in part] for part in speech.speakers]
    active = speech.active
    frames = active.shape[-1] * GRID // 320
    labels = active[..., : 2 * frames].reshape(*active.shape[:-1], frames, 2).any(axis=-1)
    return {
        "input_values": scenery.apply(rng, speech, config.augmentation),
        "labels": labels.transpose(0, 2, 1).astype(np.float32),
        "speaker_labels": np.array(names, np.int64),
    }


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report
    torch.set_num_threads(1)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error, unless it only tells that the trainer was killed: the thread of a worker that hands over shared
    memory then loses its peer."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


class PositionedLoader:
    """Batches as tensors, from `workers` processes or none, and the state of the stream after the last one given.

    The state counts batches given to the training loop, not batches that workers made ahead.
    """

    def __init__(self, stream: ConversationStream, workers: int):
        if workers and stream.config.lanes % workers:
            raise ValueError(
                f"{workers} data workers cannot share {stream.config.lanes} lanes evenly; "
                f"use one of {[n for n in range(1, stream.config.lanes + 1) if stream.config.lanes % n == 0]}"
            )
        self.stream, self.workers = stream, workers

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        before = None
        while True:
            try:
                yield from self._batches()
            except RuntimeError as error:
                if "DataLoader worker" not in str(error) or self.stream.state == before:
                    raise
                logger.warning("a data worker was killed, perhaps for want of memory; starting them again")
                before = self.stream.state

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        if self.workers:
            share_folder()
        # Its own generator, because a loader draws a seed when it starts and would disturb the dropout of a resumed
        # run. Workers leave Ctrl-C to the training loop, which saves first.
        loader = DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
            worker_init_fn=_start_worker,
        )
        batches = iter(loader)
        if self.workers and hasattr(signal, "SIGCHLD"):
            # torch would raise the death of a worker in the middle of a training step.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for batch in batches:
            if "failure" in batch:
                raise CorpusError(batch["failure"])
            lane, block, i = (int(p) for p in batch.pop("position"))
            self.stream.state = {
                "turn": (lane + 1) % self.stream.config.lanes,
                "lanes": [[block, i + 1] if k == lane else at for k, at in enumerate(self.stream.state["lanes"])],
            }
            yield batch

    def state_dict(self) -> dict:
        """A small dict of integers; give it to [`ConversationStream`] to go on from here."""
        return {**self.stream.state, "stream": self.stream.identity(), "written": self.stream._contents[1]}
