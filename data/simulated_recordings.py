"""Simulated long recordings with their reference: for choosing thresholds, for scoring and for tests.

Turns come from measured statistics, speech from a corpus of single speakers, rooms, microphones and backgrounds from
a `Scenery`, as for training windows. A recording is a function of (seed, index) alone.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from data.acoustics import SEATS, Augmentation, Scenery
from data.conversations import GRID, LEVEL, SAMPLING_RATE, Pool, Turns, plan_turns, render
from data.corpora import CorpusError, Utterances
from data.decoding import RowError, decode
from data.microphones import distort

PIECE_SECONDS = 8.0
MARGIN = 5 * GRID
"""Silence around each piece, for equalisers and telephones ring to both sides of an impulse."""


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
        scenery = Scenery(rng, int(PIECE_SECONDS * SAMPLING_RATE), self.pool, self.noises)
        pool, chance = self.pool.of(cast), np.random.default_rng([self.seed, index, 1])
        distort(chance, pool, self.augmentation)
        waveform, active = self._record(rng, turns, pool, cast, seconds, scenery)
        return Recording(f"simulated-{self.seed}-{index}", waveform, _turns(active, cast))

    def _record(self, rng, turns: Turns, pool: Pool, cast: list[str], seconds: float, scenery: Scenery):
        """What one microphone hears, piece by piece: the same room, equaliser and telephone throughout."""
        augmentation, speakers = self.augmentation, len(cast)
        response = np.ones((speakers, scenery.size // 2 + 1), np.complex64)
        if rng.random() < augmentation.room:
            seats = rng.permutation(max(SEATS, speakers))[:speakers] % SEATS
            response *= scenery.rooms[rng.integers(len(scenery.rooms)), seats]
        if rng.random() < augmentation.equaliser:
            response *= scenery.equalisers[rng.integers(len(scenery.equalisers))]
        if rng.random() < augmentation.telephone or pool.narrow:
            response *= scenery.telephones[rng.integers(len(scenery.telephones))]
        level = 10 ** (rng.normal(0, augmentation.speaker_level_db, speakers) / 20)
        response *= level.astype(np.float32)[:, None]

        samples = round(seconds * SAMPLING_RATE) // GRID * GRID
        mixture = np.zeros(MARGIN + samples + scenery.size, np.float32)
        active = []
        for at in range(0, samples, scenery.samples - 2 * MARGIN):
            length = min(scenery.samples - 2 * MARGIN, samples - at)
            speech = render(rng, pool, turns, [cast], [at / SAMPLING_RATE], length / SAMPLING_RATE)
            padded = np.zeros((speakers, scenery.size), np.float32)
            padded[:, MARGIN : MARGIN + length] = speech.tracks[0]
            heard = scipy.fft.irfft((scipy.fft.rfft(padded) * response).sum(axis=0), scenery.size)
            mixture[at : at + scenery.size] += heard
            active.append(speech.active[0])
        mixture, active = mixture[MARGIN : MARGIN + samples], np.concatenate(active, axis=1)

        loud = rng.random() < augmentation.noise
        snr = rng.uniform(*(augmentation.noise_snr if loud else augmentation.quiet_snr))
        fraction = active.any(axis=0).mean()
        power = np.square(mixture).mean(dtype=np.float64) / fraction if fraction else LEVEL**2
        background = scenery.backgrounds[rng.integers(len(scenery.backgrounds))]
        background = np.resize(np.roll(background, -rng.integers(len(background))), samples)
        mixture += np.float32(np.sqrt(power) * 10 ** (-snr / 20)) * background
        gain = 10 ** (rng.uniform(*augmentation.gain_db) / 20)
        mixture *= np.float32(gain / max(np.abs(mixture).max(), 1e-9))
        return mixture, active


def _turns(active: np.ndarray, cast: list[str]) -> list[tuple[float, float, str]]:
    """(speakers, grid steps) speech activity -> turns."""
    step = GRID / SAMPLING_RATE
    turns = []
    for name, track in zip(cast, active):
        runs = np.flatnonzero(np.diff(track.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        for first, end in runs:
            turns.append((round(first * step, 2), round(end * step, 2), name))
    return sorted(turns)
