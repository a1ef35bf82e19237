"""What rooms, microphones, telephones and backgrounds do to a conversation, drawn from a generator given by the caller.

A `Scenery` holds a few dozen room responses, equalisers and background tracks and serves a pool of utterances; each
window takes its own at random. Room and microphone are one product of spectra: together they cost one Fourier
transform a speaker and one back.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile

from data.conversations import LEVEL, SAMPLING_RATE, Conversations, Pool
from data.corpora import CorpusError
from modeling.audio_fast_diarization import AudioError, to_mono_16k

ROOM_SECONDS = 0.375
ROOMS, SEATS, EQUALISERS, TELEPHONES, BACKGROUNDS = 8, 3, 24, 4, 6
BACKGROUND_SECONDS = 12
TOGETHER = 4
"""Fourier transforms in a call: scipy computes four in single precision in the time of one."""


@dataclass(frozen=True)
class Augmentation:
    """Shares of windows that get a room, an equaliser, a telephone band, a loud background.

    In shares of pools, and of recordings, everybody speaks into one microphone or through one codec. Every window has
    some background, at `noise_snr` dB where it is loud and at `quiet_snr` dB elsewhere, because the silence of digital
    zero would give away where speech was pasted.
    """

    one_microphone: float = 0.5
    microphone_strength: tuple[float, float] = (0.5, 1.0)
    codec: float = 0.15
    room: float = 0.4
    equaliser: float = 0.4
    telephone: float = 0.2
    noise: float = 0.6
    noise_snr: tuple[float, float] = (0.0, 30.0)
    quiet_snr: tuple[float, float] = (30.0, 50.0)
    speaker_level_db: float = 4.0
    far_level_db: float = 15.0
    gain_db: tuple[float, float] = (-40.0, -6.0)


CLEAN = Augmentation(
    one_microphone=0, codec=0, room=0, equaliser=0, telephone=0, noise=0, quiet_snr=(60, 60), speaker_level_db=0
)


def noise_files(directory: str) -> list[Path]:
    """The background recordings in a directory, sorted by name.

    Raises:
        CorpusError: no such directory, or no recording in it.
    """
    if not Path(directory).is_dir():
        raise CorpusError(f"noise directory {directory!r} does not exist; leave it out for synthetic noise")
    files = sorted(f for f in Path(directory).iterdir() if f.suffix.lower() in {".flac", ".wav", ".ogg"})
    if not files:
        raise CorpusError(f"noise directory {directory!r} has no .flac, .wav or .ogg file; put some in or leave it out")
    return files


def noise_digest(directory: str | None) -> str | None:
    """Of the files of a directory of background recordings, by name."""
    if directory is None:
        return None
    digest = hashlib.sha256()
    for file in noise_files(directory):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def load_noises(directory: str | None) -> list[np.ndarray]:
    """Read background recordings (files libsndfile knows) from a directory, as mono at 16 kHz.

    Raises:
        CorpusError: no such directory, no recording in it, or one that cannot be read or is empty.
    """
    noises = []
    for file in noise_files(directory) if directory is not None else ():
        try:
            noises.append(_normalise(to_mono_16k(*soundfile.read(file, dtype="float32"))))
        except (soundfile.LibsndfileError, AudioError) as error:
            reason = getattr(error, "error_string", error)
            raise CorpusError(f"noise {file} cannot be read ({reason}); remove or replace it") from None
    return noises


class Scenery:
    """Rooms, equalisers, telephones and backgrounds for the windows made from one pool.

    Args:
        rng: everything is drawn from it.
        samples: length of the windows to be filtered.
        pool: its utterances become babble backgrounds.
        noises: background recordings from [`load_noises`]; without any, all noise is coloured noise and babble.
    """

    def __init__(self, rng: np.random.Generator, samples: int, pool: Pool, noises: list[np.ndarray]):
        self.samples, self.narrow = samples, pool.narrow
        self.size = scipy.fft.next_fast_len(samples + int(ROOM_SECONDS * SAMPLING_RATE), real=True)
        frequency = np.fft.rfftfreq(self.size, 1 / SAMPLING_RATE)
        self.rooms = scipy.fft.rfft(_room_responses(rng), self.size)
        points = np.log2(1 + np.array([0, 125, 250, 500, 1000, 2000, 4000, 8000]))
        decibels = rng.normal(0, 4, (EQUALISERS, len(points)))
        grid = np.log2(1 + frequency)
        curves = np.stack([np.interp(grid, points, d) for d in decibels])
        self.equalisers = (10 ** (curves / 20)).astype(np.complex64)
        low, high = rng.uniform(150, 350, (TELEPHONES, 1)), rng.uniform(3200, 3700, (TELEPHONES, 1))
        slope = 1 / (1 + (low / np.maximum(frequency, 1)) ** 8) / (1 + (frequency / high) ** 24)
        self.telephones = slope.astype(np.complex64)
        self.backgrounds = [self._background(rng, pool, noises, kind) for kind in range(BACKGROUNDS)]

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLING_RATE

    def _background(self, rng: np.random.Generator, pool: Pool, noises: list[np.ndarray], kind: int) -> np.ndarray:
        samples = BACKGROUND_SECONDS * SAMPLING_RATE + self.samples
        if kind == 0:
            babble = np.zeros(samples, np.float32)
            for utterance in rng.integers(len(pool.audio), size=8):
                at = rng.integers(samples)
                babble += np.roll(np.resize(pool.audio[utterance], samples), at)
            return _normalise(babble)
        if kind <= 3 and noises:
            noise = noises[rng.integers(len(noises))]
            return _normalise(np.roll(np.resize(noise, samples), rng.integers(len(noise))))
        spectrum = scipy.fft.rfft(rng.standard_normal(samples, dtype=np.float32))
        slope = np.maximum(np.arange(len(spectrum)), 30) ** np.float32(-rng.uniform(0, 1))
        return _normalise(scipy.fft.irfft(spectrum * slope.astype(np.float32), samples))

    def apply(self, rng: np.random.Generator, speech: Conversations, augmentation: Augmentation) -> np.ndarray:
        """Mix the tracks of each conversation into what a microphone hears.

        Returns:
            float32 (count, samples) in [-1, 1].
        """
        tracks = speech.tracks
        count, parts, samples = tracks.shape
        level = rng.normal(0, augmentation.speaker_level_db, (count, parts))
        far = rng.random((count, 1)) < (0.15 if augmentation.speaker_level_db else 0)
        level = np.where(far, rng.uniform(-1, 1, (count, parts)) * augmentation.far_level_db / 2, level)
        level = (10 ** (level / 20)).astype(np.float32)

        in_room = rng.random(count) < augmentation.room
        equalised = rng.random(count) < augmentation.equaliser
        by_telephone = (rng.random(count) < augmentation.telephone) | self.narrow
        room, seat = rng.integers(ROOMS, size=count), rng.integers(SEATS, size=(count, parts))
        equaliser, telephone = rng.integers(EQUALISERS, size=count), rng.integers(TELEPHONES, size=count)
        mixture = np.empty((count, samples), np.float32)
        for c in np.flatnonzero(~in_room):
            np.matmul(level[c], tracks[c], out=mixture[c])

        def sources(c: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
            microphone = [self.equalisers[equaliser[c]]] if equalised[c] else []
            if in_room[c]:
                for p in range(parts):
                    if speech.speakers[c][p] is not None:
                        yield level[c, p] * tracks[c, p], [self.rooms[room[c], seat[c, p]], *microphone]
            else:
                yield mixture[c], microphone

        self._filter(mixture, np.flatnonzero(in_room | equalised), sources)

        loud = rng.random(count) < augmentation.noise
        snr = np.where(loud, rng.uniform(*augmentation.noise_snr, count), rng.uniform(*augmentation.quiet_snr, count))
        which = rng.integers(BACKGROUNDS, size=count)
        at = rng.integers(BACKGROUND_SECONDS * SAMPLING_RATE, size=count)
        fraction = speech.active.any(axis=1).mean(axis=1)
        gain = 10 ** (rng.uniform(*augmentation.gain_db, count) / 20)
        for c, heard in enumerate(mixture):
            power = np.dot(heard, heard) / samples / max(fraction[c], 1e-3) if fraction[c] else LEVEL**2
            amplitude = np.float32(np.sqrt(power) * 10 ** (-snr[c] / 20))
            heard += amplitude * self.backgrounds[which[c]][at[c] : at[c] + samples]
        # the telephone carries the background too
        self._filter(mixture, np.flatnonzero(by_telephone), lambda c: [(mixture[c], [self.telephones[telephone[c]]])])
        for heard, loudest in zip(mixture, gain):
            heard *= np.float32(loudest / max(heard.max(), -heard.min(), 1e-9))
        return mixture

    def _filter(self, mixture: np.ndarray, windows: np.ndarray, sources: Callable) -> None:
        """Make rows `windows` of the mixture sums of `sources(row)`, waveforms and the spectra that filter them."""
        parts = ((row, *source) for row, c in enumerate(windows) for source in sources(c))
        spectra = np.zeros((len(windows) + -len(windows) % TOGETHER, self.size // 2 + 1), np.complex64)
        padded = np.zeros((TOGETHER, self.size), np.float32)
        while some := list(islice(parts, TOGETHER)):
            for waveform, (_, source, _) in zip(padded, some):
                waveform[: self.samples] = source
            for spectrum, (row, _, responses) in zip(scipy.fft.rfft(padded), some):
                for response in responses:
                    spectrum *= response
                spectra[row] += spectrum
        for first in range(0, len(windows), TOGETHER):
            rows = windows[first : first + TOGETHER]
            heard = scipy.fft.irfft(spectra[first : first + TOGETHER], self.size, overwrite_x=True)
            mixture[rows] = heard[: len(rows), : self.samples]


def _room_responses(rng: np.random.Generator) -> np.ndarray:
    """(ROOMS, SEATS, samples): direct sound, a few early reflections, an exponentially decaying tail (Polack, 1988).

    Reverberation time 0.15 to 0.7 s, direct to reverberant ratio -6 to 15 dB, the direct sound at sample 0 with
    amplitude 1, so that labels stay where they were.
    """
    samples = int(ROOM_SECONDS * SAMPLING_RATE)
    time = np.arange(samples) / SAMPLING_RATE
    decay_time = rng.uniform(0.15, 0.7, (ROOMS, 1, 1))
    tail = rng.standard_normal((ROOMS, SEATS, samples), dtype=np.float32) * np.exp(-6.9 * time / decay_time)
    tail[..., : int(0.004 * SAMPLING_RATE)] = 0
    early = rng.integers(int(0.002 * SAMPLING_RATE), int(0.04 * SAMPLING_RATE), (ROOMS, SEATS, 6))
    strength = rng.uniform(-1, 1, early.shape) * tail.std(axis=-1, keepdims=True) * 8
    np.put_along_axis(tail, early, np.take_along_axis(tail, early, -1) + strength, -1)
    ratio = rng.uniform(-6, 15, (ROOMS, SEATS, 1))
    tail *= 10 ** (-ratio / 20) / np.sqrt(np.square(tail).sum(axis=-1, keepdims=True))
    tail[..., 0] = 1
    return tail.astype(np.float32)


def _normalise(waveform: np.ndarray) -> np.ndarray:
    return (waveform / max(np.sqrt(np.square(waveform).mean()), 1e-9)).astype(np.float32)
