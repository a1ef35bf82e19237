"""The file of known voices that `--enroll` makes and adds to."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from common.errors import first_line
from common.terminal import report, say, warn
from diarization.backends import open_network
from modeling.audio_fast_diarization import audio_blocks
from modeling.enrolment_fast_diarization import KnownVoices, VoicesError, check_name, enrol, fingerprint_of


def enrol_people(values: Sequence[str], file: Path, model: str, **heard) -> int:
    """Add people to a file of known voices and return the exit code: 1 if a recording could not be used.

    Args:
        values: `NAME=FILE`, and further files of the same person.
        heard: track and channels, as `audio_blocks` takes them.

    Raises:
        ValueError: the values name nobody, or the file is none of known voices.
        OSError: the file cannot be written.
        ImportError: safetensors is not installed.
    """
    people = parse_people(values)
    network, settings = open_network(model)
    known = KnownVoices.load(file, network) if file.exists() else KnownVoices(fingerprint_of(network))
    failed, enrolled = 0, []
    for name, recording in ((name, file) for name, files in people.items() for file in files):
        try:
            speaker = enrol(network, audio_blocks(recording, **heard), settings, recording)
            known.add(name, speaker, settings.known_voice_similarity, recording)
        except (ValueError, OSError) as error:
            report(error)
            failed += 1
        else:
            enrolled.append(name)
    if not enrolled:
        return 1
    known.save(file)
    warn_of_likeness(known, enrolled, settings.known_voice_similarity)
    people = ", ".join(f"{name} ({person.solo_seconds:.0f} s)" for name, person in known.people.items())
    say(f"{file}: {len(known.people)} known: {people}")
    return 1 if failed else 0


def parse_people(values: Sequence[str]) -> dict[str, list[str]]:
    """The recordings of each person.

    Raises:
        VoicesError: a value is not `NAME=FILE`, or a name cannot be used.
    """
    people: dict[str, list[str]] = {}
    recordings = None
    for value in values:
        name, equals, recording = value.partition("=")
        if equals:
            check_name(name)
            recordings = people.setdefault(name, [])
        else:
            recording = value
        if recordings is None or not recording:
            raise VoicesError(f"--enroll takes NAME=FILE, such as Anna=anna.wav, got {first_line(value)!r}")
        recordings.append(recording)
    return people


def warn_of_likeness(known: KnownVoices, enrolled: Sequence[str], threshold: float) -> None:
    """Warn of people who sound like one just enrolled, and may be called by the other's name."""
    for one, other in combinations(known.people, 2):
        similarity = float(known.people[one].centroid @ known.people[other].centroid)
        if similarity >= threshold and {one, other} & set(enrolled):
            warn(f"{one} and {other} sound alike (similarity {similarity:.2f}) and may be taken for each other")
