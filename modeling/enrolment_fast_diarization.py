"""Known voices: speaker embeddings under names, in a small file, by which speakers are named across recordings.

The file is one of safetensors: a unit vector a person under the person's name, and in the metadata the seconds of
speech behind each and the fingerprint of the network, because the embeddings of two networks cannot be compared.
"""

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .clustering_fast_diarization import normalise
from .counting_fast_diarization import Diarization, Speaker
from .linking_fast_diarization import link
from .segments_fast_diarization import renamed, speaker_name
from .settings_fast_diarization import SAMPLING_RATE, LinkingSettings
from .windows_fast_diarization import Network

LEAST_SECONDS = 2.0
"""Non-overlapped speech needed to enrol somebody."""
OTHERS_SHARE = 0.1
"""Of the speech in a recording that somebody is enrolled from: with more by others it is not one person's."""
SAME_NETWORK = 0.99
"""Cosine of the fingerprints of one network on torch, on ONNX Runtime and in int8; other trainings have less."""
LONGEST_NAME, MOST_PEOPLE = 100, 10_000
FORMAT = "fast-diarization voices 1"


class VoicesError(ValueError):
    """A file of known voices, a name or a recording that cannot be used; the message is one line."""


@dataclass
class KnownVoices:
    """People by name.

    Args:
        fingerprint: of the network that the embeddings are from.
        people: the speaker embedding of each, with its seconds.
    """

    fingerprint: np.ndarray
    people: dict[str, Speaker] = field(default_factory=dict)

    @classmethod
    def load(cls, file: str | os.PathLike, network: Network) -> "KnownVoices":
        """
        Raises:
            VoicesError: the file cannot be read, is damaged or another kind of file, or the embeddings in it are
                another network's.
            ImportError: safetensors is not installed.
        """
        metadata, vectors = _read(file)
        try:
            of_file = np.array(json.loads(metadata["fingerprint"]), np.float32)
            seconds = {name: float(value) for name, value in json.loads(metadata["seconds"]).items()}
            if metadata["format"] != FORMAT or seconds.keys() != vectors.keys() or len(seconds) > MOST_PEOPLE:
                raise ValueError
            people = {name: Speaker(vectors[name], seconds[name]) for name in seconds}
            if any(p.centroid.ndim != 1 or not np.isfinite(p.centroid).all() for p in people.values()):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise VoicesError(f"{file}: not a file of known voices; --enroll makes one") from None
        fingerprint = fingerprint_of(network)
        sizes = {person.centroid.size for person in people.values()}
        if (
            sizes - {len(fingerprint)}
            or of_file.shape != fingerprint.shape
            or not of_file @ fingerprint >= SAME_NETWORK
        ):
            raise VoicesError(f"{file}: its embeddings are another network's; enrol everybody anew with this one")
        return cls(fingerprint, people)

    def save(self, file: str | os.PathLike) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: it cannot be written.
            ImportError: safetensors is not installed.
        """
        tensors = {name: person.centroid.astype(np.float32) for name, person in self.people.items()}
        seconds = {name: round(person.solo_seconds, 2) for name, person in self.people.items()}
        fingerprint = np.round(self.fingerprint.astype(float), 5).tolist()
        metadata = {"format": FORMAT, "seconds": json.dumps(seconds), "fingerprint": json.dumps(fingerprint)}
        content = _safetensors().numpy.save(tensors, metadata)
        part = Path(file).with_name(f".{secrets.token_hex(8)}.part")
        try:
            part.write_bytes(content)
            os.replace(part, file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def add(self, name: str, speaker: Speaker, threshold: float, source: str = "the recording") -> None:
        """Enrol somebody, or add to what is known of them.

        Args:
            threshold: cosine that somebody known already must have.
            source: what the recording is called in messages.

        Raises:
            VoicesError: a name that cannot be used, or somebody of that name sounds different.
        """
        check_name(name)
        before = self.people.get(name)
        if before is None:
            if len(self.people) == MOST_PEOPLE:
                raise VoicesError(f"no more than {MOST_PEOPLE} people can be known; leave {name} out")
            self.people[name] = speaker
            return
        similarity = float(before.centroid @ speaker.centroid)
        if similarity < threshold:
            raise VoicesError(
                f"{source}: {name} sounds different from before (similarity {similarity:.2f}, needed "
                f"{threshold:.2f}); choose another recording or name"
            )
        centroid = before.solo_seconds * before.centroid + speaker.solo_seconds * speaker.centroid
        self.people[name] = Speaker(normalise(centroid), before.solo_seconds + speaker.solo_seconds)

    def names(self, speakers: Mapping[str, Speaker], threshold: float) -> dict[str, str]:
        """The person that each speaker is, for those who are somebody: nobody is two speakers, and the similarities
        above the threshold have the largest sum."""
        if not (speakers and self.people):
            return {}
        people = np.stack([person.centroid for person in self.people.values()])
        similarity = np.stack([speaker.centroid for speaker in speakers.values()]) @ people.T
        names = list(self.people)
        assigned = zip(speakers, similarity, assign(np.maximum(similarity - threshold, 0)))
        return {speaker: names[at] for speaker, row, at in assigned if at >= 0 and row[at] >= threshold}


def name_speakers(diarization: Diarization, known: KnownVoices, settings: LinkingSettings) -> Diarization:
    """The same with names for the speakers who are known; the others stay SPEAKER_00, SPEAKER_01, ..."""
    names = known.names(diarization.speakers, settings.known_voice_similarity)
    return Diarization(
        renamed(diarization.segments, names),
        {names.get(name, name): speaker for name, speaker in diarization.speakers.items()},
        diarization.count,
    )


def enrol(network: Network, blocks: Iterable[np.ndarray], settings: LinkingSettings, source: str) -> Speaker:
    """The only speaker of a recording given as consecutive mono 16 kHz waveforms.

    Args:
        source: what the recording is called in messages.

    Raises:
        VoicesError: nobody speaks, too little, or somebody else too.
    """
    return only_speaker(link(network, blocks, settings).diarization(), source)


def only_speaker(diarization: Diarization, source: str) -> Speaker:
    """The speaker of a recording of one person, as of `enrol`."""
    speakers = sorted(diarization.speakers.values(), key=lambda speaker: -speaker.solo_seconds)
    if not speakers:
        raise VoicesError(f"{source}: no speech found; enrol from a recording in which one person speaks")
    seconds = [speaker.solo_seconds for speaker in speakers]
    if sum(seconds[1:]) > OTHERS_SHARE * sum(seconds):
        heard = ", ".join(f"{value:.0f} s" for value in seconds)
        raise VoicesError(f"{source}: {len(speakers)} speakers found ({heard}); enrol from a recording of one person")
    if seconds[0] < LEAST_SECONDS:
        raise VoicesError(
            f"{source}: {seconds[0]:.1f} s of speech is too little to enrol from; give {LEAST_SECONDS:g} s or more, "
            "better 10"
        )
    return speakers[0]


def check_name(name: str) -> None:
    """
    Raises:
        VoicesError: an empty name, a long one, one with control characters, or one that unknown speakers have.
    """
    if not name.strip() or name != name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise VoicesError(f"{name!r:.120} is not a valid name: give 1 to {LONGEST_NAME} printable characters")
    if name == "__metadata__" or any(name == speaker_name(number) for number in range(100)):
        raise VoicesError(f"{name!r} is not a valid name for a person; choose another")


def assign(similarity: np.ndarray) -> list[int]:
    """The column of each row with the largest sum, no column twice while there are enough of them.

    The method of Kuhn (1955) with potentials (Jonker and Volgenant, 1987), for some dozens of rows and columns.

    Args:
        similarity: (rows, columns), finite.
    """
    rows, columns = similarity.shape
    if rows > columns:
        similarity = np.pad(similarity, ((0, 0), (0, rows - columns)), constant_values=similarity.min())
        return [column if column < columns else -1 for column in assign(similarity)]
    cost = similarity.max() - similarity
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1)
    for row in range(rows):
        shortest, before = np.full(columns, np.inf), np.full(columns, -1)
        done = np.zeros(columns, bool)
        column, here, reached = -1, row, 0.0
        while True:
            through = reached + cost[here] - row_price[here] - column_price
            better = ~done & (through < shortest)
            shortest[better], before[better] = through[better], column
            column = int(np.where(done, np.inf, shortest).argmin())
            reached = shortest[column]
            done[column] = True
            if row_of[column] < 0:
                break
            here = row_of[column]
        row_price[row] += reached
        for other in np.flatnonzero(done):
            if row_of[other] >= 0:
                row_price[row_of[other]] += reached - shortest[other]
            column_price[other] -= reached - shortest[other]
        while column >= 0:
            row_of[column] = row_of[before[column]] if before[column] >= 0 else row
            column = before[column]
    of_row = np.full(rows, -1)
    of_row[row_of[row_of >= 0]] = np.flatnonzero(row_of >= 0)
    return of_row.tolist()


def fingerprint_of(network: Network) -> np.ndarray:
    """(dim,) the unit embedding a network gives to a hum that rises and falls: its own, on whatever it runs."""
    time = np.arange(3 * SAMPLING_RATE) / SAMPLING_RATE
    phase = 2 * np.pi * np.cumsum(120 * 2 ** (0.3 * np.sin(2 * np.pi * 0.7 * time))) / SAMPLING_RATE
    hum = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 25))
    noise = np.random.default_rng(0).standard_normal(len(time))
    sound = 0.1 * hum * np.sin(2 * np.pi * 3 * time).clip(0) + 1e-3 * noise
    return normalise(network(sound[None].astype(np.float32))[1][0].mean(axis=0)).astype(np.float32)


def _read(file: str | os.PathLike) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    library = _safetensors()
    try:
        with open(file, "rb"):
            pass
        with library.safe_open(file, framework="numpy") as content:
            return content.metadata() or {}, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except OSError as error:
        raise VoicesError(f"{file}: {error.strerror}; --enroll makes a file of known voices") from None
    except (library.SafetensorError, TypeError, AttributeError):  # the latter two of types that numpy lacks
        raise VoicesError(f"{file}: not a file of known voices; --enroll makes one") from None


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("known voices need safetensors, which is not installed; pip install safetensors") from None
    return safetensors
