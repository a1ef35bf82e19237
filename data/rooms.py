"""Rooms with distance: how each of a few people around a table is heard, as impulse responses at 16 kHz.

A shoebox room is rendered by the image method (Allen and Berkley, JASA 1979) for its first reflections and by an
exponentially decaying tail (Polack, 1988) after them, whose level follows from the same theory: images of a point
source are as dense as rooms are small, so the diffuse field is as loud everywhere and the direct sound falls by 6 dB
for every doubling of the distance. Measured responses can stand beside them.

Every response has its direct sound at sample 0, so labels stay where they were, and amplitude 1 at a metre.
"""

import hashlib
from pathlib import Path

import numpy as np
import soundfile

from data.corpora import CorpusError
from modeling.audio_fast_diarization import SAMPLING_RATE, AudioError, to_mono_16k

SOUND_SPEED = 343.0
EARLY_SECONDS = 0.03
"""From here on images crowd the samples and noise stands for them; sums of many would be too loud below 100 Hz."""
DIRECT_SECONDS = 0.0025
HEADSET_DISTANCE = 0.05
"""From the mouth, in metres."""
SMALLEST, LARGEST = (3.0, 2.5, 2.3), (9.0, 7.0, 3.6)
"""Rooms, in metres."""
DECAY_SECONDS = (0.15, 0.7)
DISTANCES = (0.3, 3.0)
HEADSETS, MEASURED = 0.2, 0.4
"""Shares of rooms heard by a headset on everybody, and of rooms taken from measurements where there are any."""


def room_files(directory: str) -> list[Path]:
    """The impulse responses in a directory, sorted by name.

    Raises:
        CorpusError: no such directory, or no response in it.
    """
    if not Path(directory).is_dir():
        raise CorpusError(f"room directory {directory!r} does not exist; leave it out for simulated rooms")
    files = sorted(f for f in Path(directory).iterdir() if f.suffix.lower() in {".flac", ".wav", ".ogg"})
    if not files:
        raise CorpusError(f"room directory {directory!r} has no .flac, .wav or .ogg file; put some in or leave it out")
    return files


def rooms_digest(directory: str | None) -> str | None:
    """Of the files of a directory of impulse responses, by name."""
    if directory is None:
        return None
    digest = hashlib.sha256()
    for file in room_files(directory):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def load_rooms(directory: str | None) -> list[np.ndarray]:
    """Read measured impulse responses (files libsndfile knows) from a directory, as mono at 16 kHz.

    Raises:
        CorpusError: no such directory, no response in it, or one that cannot be read or is silent.
    """
    responses = []
    for file in room_files(directory) if directory is not None else ():
        try:
            response = to_mono_16k(*_first_channel(file))
        except (soundfile.LibsndfileError, AudioError) as error:
            reason = getattr(error, "error_string", error)
            raise CorpusError(f"room {file} cannot be read ({reason}); remove or replace it") from None
        if not np.abs(response).max(initial=0) > 0:
            raise CorpusError(f"room {file} is silent; remove or replace it")
        responses.append(response)
    return responses


def _first_channel(file: Path) -> tuple[np.ndarray, int]:
    """Of several channels (a pair of microphones, B-format) the first: their sum would be a comb filter."""
    channels, sampling_rate = soundfile.read(file, dtype="float32", always_2d=True)
    return channels[:, 0], sampling_rate


def draw_rooms(
    rng: np.random.Generator, rooms: int, seats: int, samples: int, measured: list[np.ndarray] = ()
) -> np.ndarray:
    """Responses of `seats` people in each of `rooms`, float32 (rooms, seats, samples).

    A microphone lies on the table 0.3 to 3 m from each of them, or everybody wears a headset and the recording is the
    sum of all headsets. Reverberation times are 0.15 to 0.7 s.

    Args:
        measured: responses from [`load_rooms`], from which a share of the rooms is taken.
    """
    responses = np.empty((rooms, seats, samples), np.float32)
    for room in responses:
        decay = rng.uniform(*DECAY_SECONDS)
        if measured and rng.random() < MEASURED:
            room[:] = measured_room(rng, measured[rng.integers(len(measured))], decay, seats, samples)
            continue
        size = rng.uniform(SMALLEST, LARGEST)
        if rng.random() < HEADSETS:
            room[:] = headset_room(rng, size, decay, _places(rng, size, seats), samples)
        else:
            microphone = size * (*rng.uniform(0.3, 0.7, 2), 0) + (0, 0, rng.uniform(0.7, 1.1))
            distance = np.exp(rng.uniform(*np.log(DISTANCES), seats))
            around = np.stack([*_circle(rng, distance), rng.uniform(0.2, 0.6, seats)], axis=1)
            places = np.clip(microphone + around, 0.3, size - 0.3)
            room[:] = shoebox(rng, size, decay, places, microphone, samples)
    return responses


def _circle(rng: np.random.Generator, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = rng.uniform(0, 2 * np.pi, len(distance))
    return distance * np.cos(angle), distance * np.sin(angle)


def _places(rng: np.random.Generator, size: np.ndarray, seats: int) -> np.ndarray:
    """(seats, 3): mouths of people around the middle of a room."""
    around = np.stack([*_circle(rng, rng.uniform(0.6, 1.5, seats)), rng.uniform(-0.1, 0.1, seats)], axis=1)
    return np.clip(size * (0.5, 0.5, 0) + (0, 0, 1.25) + around, 0.3, size - 0.3)


def shoebox(
    rng: np.random.Generator,
    size: np.ndarray,
    decay: float,
    sources: np.ndarray,
    microphone: np.ndarray,
    samples: int,
    onsets: np.ndarray | None = None,
) -> np.ndarray:
    """Responses of a rectangular room from several places to one microphone, float64 (sources, samples).

    Args:
        size: in metres, (3,).
        decay: reverberation time, seconds in which the sound falls by 60 dB.
        sources, microphone: places in metres, (sources, 3) and (3,).
        onsets: distances in metres whose travel time is sample 0; by default the direct ones.
    """
    reflection = wall_reflection(size, decay)
    direct = np.linalg.norm(sources - microphone, axis=1)
    onsets = direct if onsets is None else onsets
    reach = onsets + EARLY_SECONDS * SOUND_SPEED
    distance, reflections = images(size, sources, microphone, float(reach.max()))
    at = np.round((distance - onsets[:, None]) / SOUND_SPEED * SAMPLING_RATE).astype(np.int64)
    early = min(round(EARLY_SECONDS * SAMPLING_RATE), samples)
    amplitude = np.where(at < early, reflection**reflections / distance, 0)
    place = np.clip(at, 0, samples - 1) + samples * np.arange(len(sources))[:, None]
    response = np.bincount(place.ravel(), amplitude.ravel(), len(sources) * samples).reshape(-1, samples)
    time = np.arange(early, samples) / SAMPLING_RATE + onsets[:, None] / SOUND_SPEED
    diffuse = np.sqrt(4 * np.pi * SOUND_SPEED / np.prod(size) / SAMPLING_RATE)
    fall = np.exp(-np.log(1e3) * time / decay)
    response[:, early:] = diffuse * fall * rng.standard_normal((len(sources), samples - early), dtype=np.float32)
    return response


def wall_reflection(size: np.ndarray, decay: float) -> float:
    """The amplitude that walls reflect in a room of that reverberation time (Eyring, 1930)."""
    volume = np.prod(size)
    surface = 2 * (volume / size).sum()
    return float(np.exp(-12 * np.log(10) * volume / (SOUND_SPEED * surface * decay)))


def images(
    size: np.ndarray, sources: np.ndarray, microphone: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror images of the sources in the walls, all that may be within `reach` metres.

    Returns:
        distances to the microphone, (sources, images), and the number of walls in the way, (images,).
    """
    squares, walls = [], []
    for axis in range(3):
        number = np.arange(-int(reach / size[axis]) - 1, int(reach / size[axis]) + 2)
        mirrored = np.where(number % 2, (number + 1) * size[axis] - sources[:, axis, None], 0)
        place = np.where(number % 2, mirrored, number * size[axis] + sources[:, axis, None])
        squares.append(np.square(place - microphone[axis]))
        walls.append(np.abs(number))
    x, y, z = squares
    distance = np.sqrt(x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :])
    reflections = walls[0][:, None, None] + walls[1][:, None] + walls[2]
    return np.maximum(distance.reshape(len(sources), -1), 0.01), reflections.ravel()


def headset_room(
    rng: np.random.Generator, size: np.ndarray, decay: float, places: np.ndarray, samples: int
) -> np.ndarray:
    """The sum of a headset on everybody: each near in his own, far and later in those of the others.

    Args:
        places: of the mouths, (people, 3); otherwise as for [`shoebox`].
    """
    onsets = np.full(len(places), HEADSET_DISTANCE)
    heard = (shoebox(rng, size, decay, places, mouth + (0, 0, -HEADSET_DISTANCE), samples, onsets) for mouth in places)
    return sum(heard) * HEADSET_DISTANCE


def measured_room(rng: np.random.Generator, response: np.ndarray, decay: float, seats: int, samples: int) -> np.ndarray:
    """People at several distances in a measured room, (seats, samples).

    The direct sound begins at sample 0 and falls with the distance; what follows is the measurement, made to decay
    in `decay` seconds where it would take longer, at the level it has at the drawn critical distance.
    """
    loudness = np.abs(response)
    response = response[np.argmax(loudness >= 0.5 * loudness.max()) :].astype(np.float64)
    direct = round(DIRECT_SECONDS * SAMPLING_RATE)
    faster = max(0.0, 1 / decay - 1 / reverberation_time(response[direct:]))
    response *= np.exp(-np.log(1e3) * faster * np.arange(len(response)) / SAMPLING_RATE)
    response = np.pad(response, (0, max(samples - len(response), 0)))[:samples]
    near, rest = response[:direct], response[direct:]
    rest = rest / max(np.linalg.norm(rest), 1e-9) / rng.uniform(0.5, 1.5)
    # Not the same tail for everybody: what reaches two seats along other ways differs in sign and time.
    distance = np.exp(rng.uniform(*np.log(DISTANCES), seats))
    later = rng.integers(0, 32, seats)
    heard = np.zeros((seats, samples))
    heard[:, :direct] = near / np.linalg.norm(near) / distance[:, None]
    for seat, delay in enumerate(later):
        heard[seat, direct + delay :] += rest[: len(rest) - delay]
    return heard


def reverberation_time(response: np.ndarray) -> float:
    """Seconds in which a response falls by 60 dB: from -5 to -25 dB of its energy decay curve (Schroeder, 1965)."""
    if not response.any():
        return 3 / SAMPLING_RATE
    energy = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-12)
    begin, end = np.argmax(level < -5), np.argmax(level < -25)
    return 3 * max(int(end) - int(begin), 1) / SAMPLING_RATE
