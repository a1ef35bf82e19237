"""Score systems on one source: a directory, a Hub data set, a frozen set, or pairs of voices.

A result is a JSON dictionary: `kind` (`windows`, `recordings`, `sounds` or `voices`), `source`, `title`, `settings` in
words, and `parts`, the scores by part of the source and by system (for voices by system only). For recordings, `each`
says whether each one is of interest by itself, and `failed` names those that could not be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.output import OwnFiles
from data.corpora import open_corpus
from evaluation.scoring import score_recordings, score_windows, task_of
from evaluation.sets import FrozenSet, SetError, read_definition
from evaluation.sounds import SoundSet, score_sounds
from evaluation.sources import Reference, SourceError, from_directory, from_hub, of_simulated, with_regions
from evaluation.systems import Ours, System
from evaluation.voices import SECONDS, score_voices
from modeling.task_fast_diarization import Task


@dataclass(frozen=True)
class Options:
    """Options of scoring; see `python -m evaluation --help`."""

    dataset: str = "demo"
    noise: str | None = None
    split: str = "validation"
    config: str | None = None
    limit: int | None = None
    part: str | None = None
    counts: Sequence[str | int] = ("unknown",)
    collar: float = 0.0
    skip_overlap: bool = False
    hop_seconds: float = 1.0
    uem: str | None = None
    shifts: int = 4
    output: OwnFiles | None = None


WHOLE = {"counts", "collar", "skip_overlap", "hop_seconds", "uem", "shifts", "output"}
TAKEN = {
    "voices": {"dataset", "split", "output"},
    "a frozen set": {"dataset", "noise", "split", "part", "output"},
    "a directory": WHOLE,
    "a Hub data set": WHOLE | {"split", "config", "limit"},
}
"""The options that apply to each kind of source."""


def kind_of(source: str) -> str:
    """
    Raises:
        SourceError: `source` is none of `TAKEN`.
    """
    if source == "voices":
        return "voices"
    if source.endswith(".json"):
        return "a frozen set"
    if Path(source).is_dir():
        return "a directory"
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return "a Hub data set"
    raise SourceError(f"{source!r} is not a directory, a frozen set (.json), a Hub id (user/name) or the word voices")


def evaluate(source: str, systems: Sequence[System], options: Options) -> dict:
    """
    Args:
        source: directory of audio and RTTM files, Hub id, file of a frozen set, or `"voices"`.

    Raises:
        SourceError, SetError, CorpusError, ModelError, ValueError: the cause, in one line.
    """
    kind = kind_of(source)
    if kind == "voices":
        return _voices(systems, options)
    if kind == "a frozen set":
        return _frozen(source, systems, options)
    if kind == "a directory":
        return _recordings(source, systems, from_directory(Path(source)), Path(source).resolve().name, options)
    rows = from_hub(source, options.config, options.split, options.limit)
    return _recordings(source, systems, rows, f"{source}, {options.split}", options)


def _recordings(source: str, systems: Sequence[System], references, title: str, options: Options) -> dict:
    parts, failed = score_recordings(
        systems,
        with_regions(references, options.uem) if options.uem else references,
        tuple(dict.fromkeys(options.counts)),
        options.collar,
        options.skip_overlap,
        options.hop_seconds,
        options.output,
        options.shifts,
    )
    settings = _of_recordings(task_of(systems), options.hop_seconds)
    settings += f" Only the regions of {Path(options.uem).name}." if options.uem else ""
    result = _result("recordings", source, title, settings, {"all recordings": parts}) | {"each": True}
    return result | ({"failed": failed} if failed else {})


def _frozen(source: str, systems: Sequence[System], options: Options) -> dict:
    if "sounds" in read_definition(source):
        return _sounds(source, systems, options)
    frozen = FrozenSet(source, options.dataset, options.split, options.noise)
    title = f"{frozen.definition['title']}, {options.split} speakers"
    known = [*frozen.conditions, *frozen.groups]
    if options.part not in (None, *known):
        raise SetError(f"set {frozen.name!r} has no part {options.part!r}, only: {', '.join(known)}")
    wanted = known if options.part is None else [options.part]
    if frozen.conditions:
        parts = {
            condition: score_windows(systems, ((*batch, condition) for batch in frozen.windows(condition)), frozen.task)
            for condition in wanted
        }
        return _result("windows", source, title, f"Collar 0, overlap scored.{_cropped(frozen.task)}", parts)
    hop = frozen.definition["hop_seconds"]
    parts = {}
    for group in wanted:
        made: map[Reference] = map(of_simulated, frozen.recordings(group))
        parts[group], _ = score_recordings(systems, made, ("unknown", "known"), hop_seconds=hop, output=options.output)
    settings = _of_recordings(task_of(systems), hop)
    return _result("recordings", source, title, settings, parts) | {"each": False}


def _sounds(source: str, systems: Sequence[System], options: Options) -> dict:
    sounds = SoundSet(source, options.dataset, options.split, options.noise)
    settings = "Speech said where nobody speaks, number of speakers unknown."
    return _result("sounds", source, sounds.definition["title"], settings, score_sounds(systems, sounds, options.part))


def _voices(systems: Sequence[System], options: Options) -> dict:
    ours = [system for system in systems if isinstance(system, Ours)]
    title = f"Voices of {options.split} speakers of {Path(options.dataset).name}"
    settings = f"Pieces of {SECONDS:g} s of speech, every pair of them, cosine similarity of the embeddings."
    return _result("voices", "voices", title, settings, score_voices(ours, open_corpus(options.dataset, options.split)))


def _of_recordings(task: Task, hop_seconds: float) -> str:
    windows = f"{task.window_seconds:g} s windows every {hop_seconds:g} s"
    return f"{windows}, in them collar 0 and overlap scored.{_cropped(task)}"


def _cropped(task: Task) -> str:
    tracks = task.num_speakers
    return f" Of a system with more than {tracks} tracks, the {tracks} that suit each window best are scored."


def _result(kind: str, source: str, title: str, settings: str, parts: dict) -> dict:
    return {"kind": kind, "source": source, "title": title, "settings": settings, "parts": parts}
