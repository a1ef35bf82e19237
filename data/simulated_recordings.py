"""Simulated long recordings with their reference: for choosing thresholds, for scoring and for tests.

Turns come from measured statistics, speech from a corpus of single speakers, rooms, microphones and backgrounds from
a `Scenery`, as for training windows. A recording is a function of (seed, index) alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.acoustics import Augmentation, Scenery
from data.conversations import GRID, SAMPLING_RATE, Conversations, Pool, plan_turns, render
from data.corpora import CorpusError, Utterances
from data.decoding import RowError, decode
from data.microphones import draw_channel, use_one_microphone

PIECE_SECONDS = 8.0


@dataclass(frozen=True)
class Recording:
    """A waveform (samples,), float32 mono 16 kHz, and its turns (start, end, speaker) in seconds by start."""

    name: str
    waveform: np.ndarray
    turns: list[tuple[float, float, str]]


class SimulatedRecordings:
    """Recordings of the speakers of one split.

    Args:
        utterances: the corpus; all of it is decoded and kept, so a small one.
        seed: of everything drawn.
        noises: background recordings from `data.acoustics.load_noises`.
        augmentation: how recordings sound.

    Raises:
        CorpusError: no usable utterance.
    """

    def __init__(
        self,
        utterances: Utterances,
        seed: int = 0,
        noises: list[np.ndarray] = (),
        augmentation: Augmentation = Augmentation(gain_db=(-20.0, -3.0)),
    ):
        self.seed, self.noises, self.augmentation = seed, list(noises), augmentation
        self.pool = Pool()
        for unit in range(len(utterances)):
            for row in utterances.read(unit):
                try:
                    self.pool.add(decode(row.audio), row.speaker)
                except RowError:
                    continue
        if not self.pool.speakers:
            raise CorpusError(f"no usable utterance in {utterances.corpus.path!r}; it cannot make recordings")

    def make(self, index: int, seconds: float, num_speakers: int) -> Recording:
        """
        Raises:
            ValueError: `num_speakers` is more than the corpus has.
        """
        names = sorted(self.pool.speakers)
        if not 1 <= num_speakers <= len(names):
            raise ValueError(f"num_speakers must be from 1 to the {len(names)} speakers at hand, got {num_speakers}")
        rng = np.random.default_rng([self.seed, index])
        cast = [names[i] for i in rng.permutation(len(names))[:num_speakers]]
        turns = plan_turns(rng, 1, seconds, num_speakers)
        pool, chance = self.pool.of(cast), np.random.default_rng([self.seed, index, 1])
        scenery = Scenery(chance.spawn(1)[0], int(PIECE_SECONDS * SAMPLING_RATE), self.pool, self.noises)
        channel = draw_channel(chance, self.augmentation)
        if channel.microphone is not None:
            use_one_microphone(pool, channel.microphone)
        conditions = scenery.draw(chance, 1, num_speakers, self.augmentation, channel.codec)

        samples = round(seconds * SAMPLING_RATE) // GRID * GRID
        active = []

        def pieces() -> Iterator[Conversations]:
            for at in range(0, samples, scenery.longest_piece):
                length = min(scenery.longest_piece, samples - at)
                piece = render(rng, pool, turns, [cast], [at / SAMPLING_RATE], length / SAMPLING_RATE)
                active.append(piece.active[0])
                yield piece

        waveform = scenery.record(pieces(), samples, conditions)
        return Recording(f"simulated-{self.seed}-{index}", waveform, _turns(np.concatenate(active, axis=1), cast))


def _turns(active: np.ndarray, cast: list[str]) -> list[tuple[float, float, str]]:
    """(speakers, grid steps) speech activity -> turns."""
    step = GRID / SAMPLING_RATE
    turns = []
    for name, track in zip(cast, active):
        runs = np.flatnonzero(np.diff(track.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        for first, end in runs:
            turns.append((round(first * step, 2), round(end * step, 2), name))
    return sorted(turns)
