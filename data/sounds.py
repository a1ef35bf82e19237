"""Non-speech sound: a bank of it for a pool of windows, made by rule and cut from recorded clips.

A network that has heard only speech and steady noise takes a dial tone for a person. Here a few dozen sounds are drawn
for a pool, at one level each, and every window takes its own at random: alone, under speech, or in its silence.
Labels stay as they were. People who cough, sneeze or breathe do not speak, so that counts as nobody.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.signal

from data import noisy_sounds, tonal_sounds
from modeling.audio_fast_diarization import SAMPLING_RATE

Sound = Callable[[np.random.Generator, int], np.ndarray]
KINDS: dict[str, Sound] = {
    "tone": tonal_sounds.steady_tone,
    "buzz": tonal_sounds.harmonic_tone,
    "mains hum": tonal_sounds.mains_hum,
    "bell": tonal_sounds.bell_ring,
    "electronic ring": tonal_sounds.electronic_ring,
    "call progress": tonal_sounds.call_progress,
    "DTMF": tonal_sounds.dtmf,
    "melody": tonal_sounds.melody,
    "arpeggio": tonal_sounds.arpeggio,
    "chords": tonal_sounds.chords,
    "strings": tonal_sounds.strings,
    "chirps": tonal_sounds.chirps,
    "sweep": tonal_sounds.sweep,
    "beeps": tonal_sounds.beeps,
    "alarm": tonal_sounds.alarm,
    "modem": tonal_sounds.modem,
    "clicks": noisy_sounds.clicks,
    "knocks": noisy_sounds.knocks,
    "typing": noisy_sounds.typing,
    "breath": noisy_sounds.breath,
    "rustle": noisy_sounds.rustle,
    "coughs": noisy_sounds.coughs,
    "wind": noisy_sounds.wind,
    "hiss": noisy_sounds.hiss,
    "glitches": noisy_sounds.glitches,
}
CLIP_SECONDS = 10.0
"""Recordings of sounds no longer than this are clips of one sound, longer ones backgrounds."""
CLIPS = 0.4
"""Share of recorded clips in a bank, where there are any."""
HELD_OUT = re.compile(r"(^|_)5-\d+-[A-Z]")
"""Names of clips of the fifth fold of ESC-50 (Piczak, 2015), which are kept for evaluation."""
REVERBERANT = 0.4
GRID = 160
FRAME_RANGE_DB = 30
SHORTEST_SILENCE = 30
"""That a sound may fill, in steps of 10 ms."""
EDGE = np.linspace(0, 1, 4 * GRID, dtype=np.float32)


def is_held_out(file: Path) -> bool:
    """Whether a clip is one of those that no network may be trained on."""
    return HELD_OUT.search(file.name) is not None


def is_clip(waveform: np.ndarray) -> bool:
    """Whether a recording is a clip of one sound, and not a background that goes on."""
    return len(waveform) <= CLIP_SECONDS * SAMPLING_RATE


class SoundBank:
    """Sounds of different kinds, each float32 (samples,) with level 1 where it sounds (see [`level`]).

    A sound is made when it is first asked for, and is a function of the draw and its number alone.

    Args:
        rng: for the draw.
        count: how many sounds.
        samples: length of each.
        clips: recorded sounds, for a share `CLIPS` of the bank.
        rooms: impulse responses, for a share `REVERBERANT` of the sounds made by rule.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        count: int,
        samples: int,
        clips: Sequence[np.ndarray] = (),
        rooms: Sequence[np.ndarray] = (),
    ):
        self.samples, self.clips, self.rooms = samples, clips, rooms
        self.seed = int(rng.integers(2**63))
        self.kinds = np.resize(rng.permutation(list(KINDS)), count).tolist()
        self.made: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, number: int) -> np.ndarray:
        if number not in self.made:
            self.made[number] = self._make(np.random.default_rng([self.seed, number]), self.kinds[number])
        return self.made[number]

    def _make(self, rng: np.random.Generator, kind: str) -> np.ndarray:
        if len(self.clips) and rng.random() < CLIPS:
            wave = _repeat(rng, self.clips[rng.integers(len(self.clips))], self.samples)
        else:
            wave = KINDS[kind](rng, self.samples)
            if len(self.rooms) and rng.random() < REVERBERANT:
                wave = scipy.signal.oaconvolve(wave, self.rooms[rng.integers(len(self.rooms))])[: self.samples]
        return wave / np.float32(max(level(wave), 1e-9))


def level(waveform: np.ndarray) -> float:
    """Root mean square of a sound while it sounds: over its 10 ms frames within 30 dB of the loudest."""
    frames = waveform[: len(waveform) // GRID * GRID].reshape(-1, GRID)
    power = np.einsum("ij,ij->i", frames, frames) / GRID
    loud = power[power > power.max(initial=0) * 10 ** (-FRAME_RANGE_DB / 10)]
    return float(np.sqrt(loud.mean())) if len(loud) else 0.0


def silences(active: np.ndarray) -> list[tuple[int, int]]:
    """First and past-the-end grid step of each silence of 0.3 s and more; `active`: bool (grid steps of 10 ms,)."""
    runs = np.flatnonzero(np.diff(active.astype(np.int8), prepend=1, append=1)).reshape(-1, 2)
    return [(int(first), int(last)) for first, last in runs if last - first >= SHORTEST_SILENCE]


def keep_in_silence(sound: np.ndarray, active: np.ndarray) -> np.ndarray:
    """A sound where nobody speaks, with edges of 40 ms inside the silence, and zeros elsewhere.

    Args:
        sound: float32 (samples,).
        active: bool (grid steps of 10 ms,), somebody speaks.
    """
    kept = np.zeros_like(sound)
    for first, last in silences(active):
        part = kept[first * GRID : last * GRID]
        part[:] = sound[first * GRID : last * GRID]
        if first > 0:
            part[: len(EDGE)] *= EDGE
        if last < len(active):
            part[-len(EDGE) :] *= EDGE[::-1]
    return kept


def _repeat(rng: np.random.Generator, clip: np.ndarray, samples: int) -> np.ndarray:
    """A clip again and again with pauses of up to its own length, from a random place on."""
    pause = np.zeros(rng.integers(len(clip) + 1) if rng.random() < 0.5 else 0, np.float32)
    whole = np.resize(np.concatenate([clip, pause]), samples)
    return np.roll(whole, rng.integers(samples))
