"""What rooms, microphones, backgrounds and telephones do to a conversation, drawn from a generator given by the caller.

A `Scenery` holds a few dozen room responses, equalisers, background tracks and non-speech sounds, and serves a
pool of utterances. What a window or a recording takes of them is drawn first, as [`Conditions`], and applied then,
always in one order:

    loudness -> room and distance -> microphone -> background and sounds -> telephone -> codec -> gain

`Scenery.apply` does this for many windows at once, `Scenery.record` for one recording, piece by piece and without
seams: a recording of one window's length sounds like that window under the same conditions. An effect more is a field
of [`Augmentation`], a draw at the end of `Scenery.draw`, so that what was drawn before stays, and its place in the
order.

Room and microphone are one product of spectra: together they cost one Fourier transform a speaker and one back.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile

from data.codecs import NARROW, transmit
from data.conversations import GRID, LEVEL, SAMPLING_RATE, Conversations, Pool
from data.corpora import CorpusError
from data.rooms import draw_rooms
from data.sounds import SoundBank, is_clip, is_held_out, keep_in_silence
from modeling.audio_fast_diarization import AudioError, to_mono_16k

ROOM_SECONDS = 0.375
ROOMS, SEATS, EQUALISERS, TELEPHONES, BACKGROUNDS = 8, 3, 24, 4, 6
SOUNDS = 24
BACKGROUND_SECONDS = 12
SOUND_SECONDS = 3
"""That backgrounds and sounds are longer than a window, which takes them from anywhere."""
FAR_SHARE = 0.15
"""Of conversations in which people sit at different distances."""
NOT = -1
"""In [`Conditions`]: no room, no equaliser, no telephone, no sound."""
MARGIN = 10 * GRID
"""Silence before each piece of a recording, for equalisers and telephones ring to both sides of an impulse."""
LOOP_FADE = SAMPLING_RATE // 4
CODEC_PEAK = 0.5
TOGETHER = 4
"""Fourier transforms in a call: scipy computes four in single precision in the time of one."""


@dataclass(frozen=True)
class Augmentation:
    """Shares of windows that get a room, an equaliser, a telephone band, a loud background, a non-speech sound.

    In shares of pools, and of recordings, everybody speaks into one microphone or through one codec. In some windows
    speakers differ by distance, by up to `far_level_db`, and not by `speaker_level_db` (deviation). Every window has
    some background, at `noise_snr` dB where it is loud and at `quiet_snr` dB elsewhere, because the silence of digital
    zero would give away where speech was pasted. Sounds are `sound_snr` dB below the speech where both are heard; of
    their windows a share `sound_in_silence` has them only while nobody speaks.
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
    sound: float = 0.4
    sound_in_silence: float = 0.5
    sound_snr: tuple[float, float] = (-5.0, 30.0)
    speaker_level_db: float = 4.0
    far_level_db: float = 15.0
    gain_db: tuple[float, float] = (-40.0, -6.0)


CLEAN = Augmentation(
    one_microphone=0,
    codec=0,
    room=0,
    equaliser=0,
    telephone=0,
    noise=0,
    quiet_snr=(60, 60),
    sound=0,
    speaker_level_db=0,
)


def noise_files(directories: str | Sequence[str], held_out: bool = False) -> list[Path]:
    """The recordings of backgrounds and sounds in one directory or several, sorted by name.

    Args:
        held_out: those kept for evaluation (`data.sounds.is_held_out`), which are left out otherwise.

    Raises:
        CorpusError: no such directory, or no such recording in it.
    """
    found = []
    for directory in [directories] if isinstance(directories, str) else directories:
        if not Path(directory).is_dir():
            raise CorpusError(f"noise directory {directory!r} does not exist; leave it out for synthetic noise")
        files = [f for f in Path(directory).iterdir() if f.suffix.lower() in {".flac", ".wav", ".ogg"}]
        files = sorted(f for f in files if is_held_out(f) == held_out)
        if not files:
            kind = "held-out clip" if held_out else ".flac, .wav or .ogg file"
            raise CorpusError(f"noise directory {directory!r} has no {kind}; put some in or leave it out")
        found += files
    return found


def noise_digest(directories: str | Sequence[str] | None, held_out: bool = False) -> str | None:
    """Of the files of directories of recordings, by name; see [`noise_files`]."""
    if not directories:
        return None
    digest = hashlib.sha256()
    for file in noise_files(directories, held_out):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def load_noises(directories: str | Sequence[str] | None) -> list[np.ndarray]:
    """Read recordings of backgrounds and of sounds (files libsndfile knows), as mono at 16 kHz.

    Raises:
        CorpusError: no such directory, no recording in it, or one that cannot be read or is empty.
    """
    return [read_noise(file) for file in (noise_files(directories) if directories else ())]


def read_noise(file: Path) -> np.ndarray:
    """
    Raises:
        CorpusError: it cannot be read or is empty.
    """
    try:
        return _normalise(to_mono_16k(*soundfile.read(file, dtype="float32")))
    except (soundfile.LibsndfileError, AudioError) as error:
        reason = getattr(error, "error_string", error)
        raise CorpusError(f"noise {file} cannot be read ({reason}); remove or replace it") from None


@dataclass(frozen=True)
class Conditions:
    """What was drawn for `count` windows of `parts` speakers, or for one recording.

    Args:
        level: (count, parts) amplitude of each speaker, by loudness or distance.
        room: (count,) which one, or `NOT`.
        seat: (count, parts) where in the room.
        equaliser, telephone: (count,) which one, or `NOT`.
        background, start: (count,) which one, and its first sample.
        snr: (count,) of speech to background, in dB.
        sound, sound_start: (count,) which one, or `NOT`, and its first sample.
        sound_snr: (count,) of speech to the sound, in dB.
        in_silence: (count,) whether the sound is heard only while nobody speaks.
        codec: of all of them, or `None`.
        gain_db: (count,) level of the highest sample.
    """

    level: np.ndarray
    room: np.ndarray
    seat: np.ndarray
    equaliser: np.ndarray
    telephone: np.ndarray
    background: np.ndarray
    start: np.ndarray
    snr: np.ndarray
    sound: np.ndarray
    sound_start: np.ndarray
    sound_snr: np.ndarray
    in_silence: np.ndarray
    codec: str | None
    gain_db: np.ndarray


class Scenery:
    """Rooms, equalisers, telephones and backgrounds for the windows or recordings made from one pool.

    Args:
        rng: everything in the scenery is drawn from it.
        samples: length of the windows, or of the pieces in which a recording is filtered.
        pool: its utterances become babble backgrounds.
        noises: recordings from [`load_noises`]: long ones, or all if none is long, are backgrounds beside coloured
            noise and babble; clips are sounds beside those made by rule.
        rooms: measured responses from `data.rooms.load_rooms`, beside simulated ones.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        samples: int,
        pool: Pool,
        noises: list[np.ndarray],
        rooms: list[np.ndarray] = (),
    ):
        self.samples, self.narrow = samples, pool.narrow
        self.size = scipy.fft.next_fast_len(samples + int(ROOM_SECONDS * SAMPLING_RATE), real=True)
        frequency = np.fft.rfftfreq(self.size, 1 / SAMPLING_RATE)
        responses = draw_rooms(rng, ROOMS, SEATS, int(ROOM_SECONDS * SAMPLING_RATE), rooms)
        self.rooms = scipy.fft.rfft(responses, self.size)
        points = np.log2(1 + np.array([0, 125, 250, 500, 1000, 2000, 4000, 8000]))
        decibels = rng.normal(0, 4, (EQUALISERS, len(points)))
        grid = np.log2(1 + frequency)
        curves = np.stack([np.interp(grid, points, d) for d in decibels])
        self.equalisers = (10 ** (curves / 20)).astype(np.complex64)
        low, high = rng.uniform(150, 350, (TELEPHONES, 1)), rng.uniform(3200, 3700, (TELEPHONES, 1))
        slope = 1 / (1 + (low / np.maximum(frequency, 1)) ** 8) / (1 + (frequency / high) ** 24)
        self.telephones = slope.astype(np.complex64)
        long = [noise for noise in noises if not is_clip(noise)] or noises
        self.backgrounds = [self._background(rng, pool, long, kind) for kind in range(BACKGROUNDS)]
        clips = [noise for noise in noises if is_clip(noise)]
        length = SOUND_SECONDS * SAMPLING_RATE + samples
        self.sounds = SoundBank(rng, SOUNDS, length, clips, responses.reshape(-1, responses.shape[2]))

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

    def draw(
        self, rng: np.random.Generator, count: int, parts: int, augmentation: Augmentation, codec: str | None = None
    ) -> Conditions:
        """Draw how `count` windows of `parts` speakers sound. A codec of telephones comes with a telephone's band."""
        level = rng.normal(0, augmentation.speaker_level_db, (count, parts))
        far = rng.random((count, 1)) < (FAR_SHARE if augmentation.speaker_level_db else 0)
        level = np.where(far, rng.uniform(-1, 1, (count, parts)) * augmentation.far_level_db / 2, level)
        in_room = rng.random(count) < augmentation.room
        equalised = rng.random(count) < augmentation.equaliser
        by_telephone = (rng.random(count) < augmentation.telephone) | self.narrow | (codec in NARROW)
        room = rng.integers(ROOMS, size=count)
        seat = rng.random((count, max(parts, SEATS))).argsort(axis=1)[:, :parts] % SEATS
        equaliser, telephone = rng.integers(EQUALISERS, size=count), rng.integers(TELEPHONES, size=count)
        loud = rng.random(count) < augmentation.noise
        snr = np.where(loud, rng.uniform(*augmentation.noise_snr, count), rng.uniform(*augmentation.quiet_snr, count))
        background = rng.integers(BACKGROUNDS, size=count)
        start = rng.integers(BACKGROUND_SECONDS * SAMPLING_RATE, size=count)
        gain_db = rng.uniform(*augmentation.gain_db, count)
        sounding, in_silence = rng.random((2, count)) < [[augmentation.sound], [augmentation.sound_in_silence]]
        return Conditions(
            level=(10 ** (level / 20)).astype(np.float32),
            room=np.where(in_room, room, NOT),
            seat=seat,
            equaliser=np.where(equalised, equaliser, NOT),
            telephone=np.where(by_telephone, telephone, NOT),
            background=background,
            start=start,
            snr=snr,
            sound=np.where(sounding, rng.integers(SOUNDS, size=count), NOT),
            sound_start=rng.integers(SOUND_SECONDS * SAMPLING_RATE, size=count),
            sound_snr=rng.uniform(*augmentation.sound_snr, count),
            in_silence=in_silence,
            codec=codec,
            gain_db=gain_db,
        )

    def apply(self, speech: Conversations, conditions: Conditions) -> np.ndarray:
        """Mix the tracks of each conversation into what a microphone hears.

        Returns:
            float32 (count, samples) in [-1, 1].
        """
        mixture = np.empty((len(speech.tracks), speech.tracks.shape[2]), np.float32)
        self._place(speech, conditions, mixture)
        self._hear(mixture, speech.active.any(axis=1), conditions)
        return mixture

    def record(self, pieces: Iterable[Conversations], samples: int, conditions: Conditions) -> np.ndarray:
        """What a microphone hears of one conversation, given as consecutive pieces of up to `longest_piece` samples.

        Returns:
            float32 (samples,) in [-1, 1].
        """
        talking = []

        def placed() -> Iterator[tuple[np.ndarray, int]]:
            for piece in pieces:
                talking.append(piece.active[0].any(axis=0))
                mixture = np.zeros((1, self.size), np.float32)
                tracks = np.pad(piece.tracks, ((0, 0), (0, 0), (MARGIN, 0)))
                self._place(replace(piece, tracks=tracks), conditions, mixture)
                yield mixture[0], piece.tracks.shape[2]

        mixture = _overlap_add(placed(), samples)[None]
        self._hear(mixture, np.concatenate(talking)[None], conditions)
        return mixture[0]

    @property
    def longest_piece(self) -> int:
        return self.samples - MARGIN

    def _place(self, speech: Conversations, conditions: Conditions, mixture: np.ndarray) -> None:
        """Levels, rooms and microphones: make each row of the mixture the sum of its speakers."""
        samples = speech.tracks.shape[2]
        for c in np.flatnonzero(conditions.room == NOT):
            np.matmul(conditions.level[c], speech.tracks[c], out=mixture[c, :samples])

        def sources(c: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
            equaliser, room = conditions.equaliser[c], conditions.room[c]
            microphone = [] if equaliser == NOT else [self.equalisers[equaliser]]
            if room == NOT:
                yield mixture[c, :samples], microphone
                return
            for part, speaker in enumerate(speech.speakers[c]):
                if speaker is not None:
                    response = self.rooms[room, conditions.seat[c, part]]
                    yield conditions.level[c, part] * speech.tracks[c, part], [response, *microphone]

        self._filter(mixture, np.flatnonzero((conditions.room != NOT) | (conditions.equaliser != NOT)), sources)

    def _hear(self, mixture: np.ndarray, talking: np.ndarray, conditions: Conditions) -> None:
        """Background, sound, telephone, codec, gain, in place; `talking`: bool (count, steps), somebody every 10 ms."""
        samples, fraction = mixture.shape[1], talking.mean(axis=1)
        for c, heard in enumerate(mixture):
            energy = np.sum([np.dot(part, part) for part in _cut(heard, self.samples)])
            power = energy / samples / max(fraction[c], 1e-3) if fraction[c] else LEVEL**2
            amplitude = np.float32(np.sqrt(power) * 10 ** (-conditions.snr[c] / 20))
            heard += amplitude * _looped(self.backgrounds[conditions.background[c]], conditions.start[c], samples)
            if conditions.sound[c] != NOT:
                amplitude = np.float32(np.sqrt(power) * 10 ** (-conditions.sound_snr[c] / 20))
                sound = amplitude * _looped(self.sounds[conditions.sound[c]], conditions.sound_start[c], samples)
                if conditions.in_silence[c]:
                    sound = keep_in_silence(sound, talking[c])
                heard += sound
        # the telephone carries the background too
        telephones = np.flatnonzero(conditions.telephone != NOT)
        if samples <= self.samples:
            self._filter(mixture, telephones, lambda c: [(mixture[c], [self.telephones[conditions.telephone[c]]])])
        else:
            for c in telephones:
                mixture[c] = self._filter_long(mixture[c], self.telephones[conditions.telephone[c]])
        if conditions.codec is not None:
            for heard in mixture:
                heard[:] = transmit(heard * np.float32(CODEC_PEAK / _peak(heard)), conditions.codec)
        for heard, loudest in zip(mixture, 10 ** (conditions.gain_db / 20)):
            heard *= np.float32(loudest / _peak(heard))

    def _filter(self, mixture: np.ndarray, rows: np.ndarray, sources: Callable) -> None:
        """Make rows of the mixture sums of `sources(row)`, waveforms and the spectra that filter them."""
        parts = ((number, *source) for number, row in enumerate(rows) for source in sources(row))
        spectra = np.zeros((len(rows) + -len(rows) % TOGETHER, self.size // 2 + 1), np.complex64)
        padded = np.zeros((TOGETHER, self.size), np.float32)
        while some := list(islice(parts, TOGETHER)):
            for waveform, (_, source, _) in zip(padded, some):
                waveform[: len(source)] = source
            for spectrum, (number, _, responses) in zip(scipy.fft.rfft(padded), some):
                for response in responses:
                    spectrum *= response
                spectra[number] += spectrum
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            heard = scipy.fft.irfft(spectra[first : first + TOGETHER], self.size, overwrite_x=True)
            mixture[some] = heard[: len(some), : mixture.shape[1]]

    def _filter_long(self, waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
        """A waveform of any length filtered by one spectrum, piece by piece."""

        def filtered() -> Iterator[tuple[np.ndarray, int]]:
            for piece in _cut(waveform, self.longest_piece):
                heard = np.zeros((1, self.size), np.float32)
                self._filter(heard, np.arange(1), lambda _, piece=piece: [(np.pad(piece, (MARGIN, 0)), [response])])
                yield heard[0], len(piece)

        return _overlap_add(filtered(), len(waveform))


def _overlap_add(pieces: Iterable[tuple[np.ndarray, int]], samples: int) -> np.ndarray:
    """Consecutive pieces as one waveform (samples,).

    Args:
        pieces: each after `MARGIN` samples of silence and with the rest of what a filter made of it, and its length.
    """
    whole, at = np.zeros(MARGIN + samples, np.float32), 0
    for piece, length in pieces:
        target = whole[at : at + len(piece)]
        target += piece[: len(target)]
        at += length
    return whole[MARGIN:]


def _cut(waveform: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    return (waveform[at : at + longest] for at in range(0, len(waveform), longest))


def _looped(background: np.ndarray, start: int, samples: int) -> np.ndarray:
    """`samples` of a background from `start` on; where it ends it fades over into its beginning, as loud as ever."""
    if start + samples <= len(background):
        return background[start : start + samples]
    fade = np.sqrt(np.linspace(0, 1, LOOP_FADE, dtype=np.float32))
    loop = background[: len(background) - LOOP_FADE].copy()
    loop[:LOOP_FADE] = loop[:LOOP_FADE] * fade + background[-LOOP_FADE:] * fade[::-1]
    return np.resize(np.roll(loop, -start), samples)


def _peak(waveform: np.ndarray) -> np.floating:
    return max(waveform.max(), -waveform.min(), 1e-9)


def _normalise(waveform: np.ndarray) -> np.ndarray:
    return (waveform / max(np.sqrt(np.square(waveform).mean()), 1e-9)).astype(np.float32)
