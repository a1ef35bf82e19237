"""The endless stream of training batches, addressed so that it can start again exactly where it stopped.

    corpus units --seeded order--> blocks --seeded order--> pools of utterances --> batches of windows

A block is a few units (`corpora.py`) read together from far apart places, because neighbours in a corpus are the same
person. Blocks are numbered without end: block g belongs to pass g // blocks_per_pass over the corpus, and each pass
has its own order. Batch i of block g is a function of (seed, g, i) alone: no state of a random generator, no shuffle
buffer, nothing that depends on which worker makes it.

The blocks are dealt out to a fixed number of lanes. Batch n of the whole stream comes from lane n mod lanes and is made
by worker n mod workers, so the sequence is the same for every number of workers, and the state of the stream is one
block number and one batch number a lane. As many workers as divide the lanes do nothing twice. Workers beyond the lanes
share them: each reads and decodes all of a lane's block and makes its part of the batches, which pays less.
"""

import json
import logging
import math
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from types import TracebackType
from typing import TypeVar

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
from data.rooms import load_rooms, rooms_digest
from data.worker_folder import share_folder
from modeling.task_fast_diarization import Task

logger = logging.getLogger(__name__)
T = TypeVar("T")

READINGS = 3
"""How often a unit that is gone or damaged is read before it counts as lost."""


@dataclass(frozen=True)
class StreamConfig(Task):
    """Everything the windows depend on beside the corpus: the [`Task`], and how windows of it are made.

    Args:
        seed: of everything drawn.
        batch_size: windows in a batch.
        long_window_seconds: of the windows of every other lane.
        turn_taking: `"measured"`, or `"independent"` for turns that know nothing of each other.
        units_per_block: units read side by side; eight times as many where only held-out speakers are taken of them.
        pool_size: most utterances decoded together.
        windows_per_utterance: windows drawn for every utterance read.
        lanes: blocks open at a time in one process.
        noise: directory or directories of recorded backgrounds and sounds, or `None`.
        rooms: directory of measured room responses, or `None`.
        retry_seconds: how long a unit is tried again, with growing pauses, before the stream gives up.
    """

    seed: int = 0
    batch_size: int = 32
    long_window_seconds: float | None = None
    turn_taking: str = "measured"
    units_per_block: int = 8
    pool_size: int = 96
    windows_per_utterance: int = 20
    lanes: int = 4
    noise: str | tuple[str, ...] | None = None
    rooms: str | None = None
    speeds: tuple[float, ...] = (0.8, 0.9, 1.0, 1.1, 1.2)
    augmentation: Augmentation = Augmentation()
    retry_seconds: float = 900.0


def useful_workers(workers: int, lanes: int) -> int:
    """The most of so many workers that can share the lanes evenly: others would do more work twice than they save."""
    return next((n for n in range(workers, 0, -1) if n % lanes == 0 or lanes % n == 0), 0)


class LanedStream(IterableDataset):
    """An endless sequence of batches, dealt out to lanes: the same for every number of workers.

    What inherits from it has `lanes` and a `state` with the lane whose `turn` it is, and makes the batches of a lane.
    """

    def lane(self, lane: int, first: int, step: int) -> Iterator[dict]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        common = math.gcd(self.lanes, workers)
        # Batch n from here on is the (n // lanes)-th of its lane from here on.
        mine = range(number, workers * (self.lanes // common), workers)
        batches = [self.lane((self.state["turn"] + n) % self.lanes, n // self.lanes, workers // common) for n in mine]
        try:
            while True:
                for of_lane in batches:
                    yield next(of_lane)
        except CorpusError as error:
            if worker is None:
                raise
            yield {"failure": str(error)}  # raised here it would arrive with a traceback in its message


class ConversationStream(LanedStream):
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
        self.lanes = config.lanes
        self.noises, self.rooms = load_noises(config.noise), load_rooms(config.rooms)
        self.skipped = Counter()
        self.state = {"turn": 0, "lanes": [[rank + world_size * k, 0] for k in range(config.lanes)]}
        if state is not None:
            self._restore(state)
        self.blocks_per_pass = -(-len(utterances) // (config.units_per_block * (8 if utterances.held_out else 1)))
        readers = config.lanes * world_size
        if world_size > 1 and self.blocks_per_pass < readers:
            logger.info(
                "fewer parts of the corpus (%d) than readers (%d): some of it comes again before all of it was read",
                self.blocks_per_pass,
                readers,
            )

    @property
    def num_speakers(self) -> int:
        return self.config.num_speakers

    def afresh(self, **changes) -> "ConversationStream":
        """The same stream from its start, in one process, with other settings."""
        return type(self)(self.utterances, replace(self.config, **changes))

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
        }

    @cached_property
    def _sources(self) -> dict[str, str | None]:
        """Digests of what is read, found once a stream and not at every checkpoint."""
        return {
            "data": self.utterances.fingerprint(),
            "contents of the data": self._contents[0],
            "noise": noise_digest(self.config.noise),
            "rooms": rooms_digest(self.config.rooms),
        }

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
                "files of %s have other dates than at the checkpoint; the samples that are compared are the same",
                self.utterances.corpus.path,
            )
        self.state = {"turn": state["turn"], "lanes": state["lanes"]}

    def lane(self, lane: int, first: int, step: int) -> Iterator[dict]:
        """Every `step`-th batch of a lane, from the `first` one after its place on."""
        block, begin = self.state["lanes"][lane]
        empty = 0
        while True:
            made = 0
            for i, make in self.planned(block, begin):
                made += 1
                if first == 0:
                    first = step
                    yield make() | {"position": np.array([lane, block, i])}
                first -= 1
            empty = 0 if made or begin else empty + 1
            if empty > self.blocks_per_pass:
                remedy = "check its files"
                if self.utterances.held_out:
                    remedy = "too few of its speakers are among the 3 % held out by name, so give it a validation split"
                reasons = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items()) or "no rows"
                raise CorpusError(
                    f"no usable window in the whole of {self.utterances.corpus.path!r} ({reasons}); {remedy}"
                )
            block, begin = block + self.lanes * self.world_size, 0

    def advance(self, position: np.ndarray) -> None:
        """Move to behind the batch of this position."""
        lane, block, i = (int(p) for p in position)
        self.state = {
            "turn": (lane + 1) % self.lanes,
            "lanes": [[block, i + 1] if k == lane else at for k, at in enumerate(self.state["lanes"])],
        }

    def state_dict(self) -> dict:
        return {**self.state, "stream": self.identity(), "written": self._contents[1]}

    def seconds_of(self, block: int) -> float:
        """Length of the windows of a block, the same for all blocks and processes that a lane reads."""
        long_lane = block // self.world_size % self.lanes % 2
        return (long_lane and self.config.long_window_seconds) or self.config.window_seconds

    def units_of(self, block: int) -> list[int]:
        """The units of a block: a seeded permutation of all units, cut into blocks."""
        number, part = divmod(block, self.blocks_per_pass)
        order = np.random.default_rng([self.config.seed, 0, number]).permutation(len(self.utterances))
        return order[part :: self.blocks_per_pass].tolist()

    def block_batches(self, block: int, first: int = 0) -> Iterator[tuple[int, dict]]:
        """Batches of one block from number `first` on, with their numbers."""
        return ((i, make()) for i, make in self.planned(block, first))

    def planned(self, block: int, first: int) -> Iterator[tuple[int, Callable[[], dict]]]:
        """Batches of one block from number `first` on, still to be made; only the pools they need are decoded."""
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
                yield from self._planned_of_pool(part, [block, number], range(max(first - batch, 0), batches), batch)
            batch += batches

    def _planned_of_pool(self, rows: list[Row], key: list[int], wanted: range, offset: int):
        pool = self._decode(rows, np.random.default_rng([self.config.seed, 2, *key]))
        if len(pool.speakers) < self.config.num_speakers:
            self.skipped[f"pool with fewer than {self.config.num_speakers} speakers"] += len(rows)
            return
        distort(np.random.default_rng([self.config.seed, 6, *key]), pool, self.config.augmentation)
        samples = round(self.seconds_of(key[0]) * 16_000)
        scenery = Scenery(np.random.default_rng([self.config.seed, 3, *key]), samples, pool, self.noises, self.rooms)
        size = self.config.batch_size
        rng = np.random.default_rng([self.config.seed, 4, *key])
        turns, begin = plan(rng, wanted.stop * size, scenery, self.config)
        for i in wanted:
            rng, windows = np.random.default_rng([self.config.seed, 5, *key, i]), slice(i * size, (i + 1) * size)
            yield offset + i, partial(fill, rng, pool, scenery, self.config, turns[windows], begin[windows])

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
        return self._patiently(lambda: list(self.utterances.read(unit)), unit) or []

    def _patiently(self, action: Callable[[], T], unit: int) -> T | None:
        """What an action on a unit gives. Transient faults are tried again; a unit that is gone or damaged is lost,
        which is said."""
        name = self.utterances.describe(unit)
        for _ in range(READINGS):
            try:
                return persist(action, name, self.config.retry_seconds)
            except GaveUp as error:
                raise CorpusError(f"{error}; check the connection and resume") from error
            except Exception as error:
                reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
                    raise CorpusError(f"{name} may not be read ({reason}); run hf auth login and resume") from error
        logger.warning("lost %s: %s", name, reason)
        self.skipped["lost unit"] += 1
        return None


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
    conditions = scenery.draw(rng, len(begin), config.num_speakers, config.augmentation)
    names = [[-1 if n is None else speaker_number(n) for n in part] for part in speech.speakers]
    active = speech.active
    frames = active.shape[-1] * GRID // 320
    labels = active[..., : 2 * frames].reshape(*active.shape[:-1], frames, 2).any(axis=-1)
    return {
        "input_values": scenery.apply(speech, conditions),
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

    def __init__(self, stream: LanedStream, workers: int):
        self.stream, self.workers = stream, useful_workers(workers, stream.lanes)
        if self.workers < workers:
            logger.info("%d data workers cannot share %d lanes evenly; %d start", workers, stream.lanes, self.workers)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        before = None
        while True:
            try:
                yield from self._batches()
            except (RuntimeError, OSError, EOFError) as error:
                # Killed while it hands a batch over, it leaves a connection that breaks off or is refused.
                killed = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
                if not (self.workers and killed) or self.stream.state == before:
                    raise
                logger.warning("a data worker was killed, probably out of memory; starting them again")
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
            self.stream.advance(batch.pop("position").numpy())
            yield batch

    def state_dict(self) -> dict:
        """A small dict of integers; give it to the stream's constructor to go on from here."""
        return self.stream.state_dict()
