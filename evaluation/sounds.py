"""False speech and extra speakers on non-speech sound: by itself, and in the silence of calls.

The sounds are those of `evaluation/renderings.py`, and clips of the fifth fold of ESC-50, on which nobody trains, where
a directory of them is given. Each sounds for a minute, loud, quieter and faint; whatever is called speech is false.
The same sounds are let into simulated calls, before the first turn and in the longest silences, and the speakers found
with them are compared with those found without.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pyannote.core import Segment as Interval
from pyannote.core import Timeline

from common.markdown import table
from data.acoustics import CLEAN, noise_digest, noise_files, read_noise
from data.conversations import GRID, SAMPLING_RATE
from data.corpora import open_corpus
from data.simulated_recordings import Recording, SimulatedRecordings
from data.sounds import level
from diarization.formats import to_annotation
from evaluation.definitions import SetError, corpus_digest, read_definition
from evaluation.fingerprint import TOLERANCE_DB, difference_db, fingerprint, levels
from evaluation.recording_scores import RecordingScores
from evaluation.renderings import RENDERINGS
from evaluation.sources import of_simulated
from evaluation.systems import Ours, System
from modeling.linking_fast_diarization import diarize

FLOOR_DB = -50
"""Of the noise beside a sound, below the loudest piece's level."""
CALLS = replace(CLEAN, quiet_snr=(40.0, 50.0), speaker_level_db=4.0, gain_db=(-20.0, -12.0))


class SoundSet:
    """
    Args:
        file: the definition: `sounds`, names of `RENDERINGS`; `clips`, first parts of the names of recorded clips;
            `seconds` and `peaks_db` of each alone; `calls`, which sounds come in which group, and how loud.
        dataset, split: any corpus that train.py accepts, for the calls.
        noise: directory with recorded clips, or `None` for rendered sounds alone.
        check: refuse what differs from when the set was frozen.

    Raises:
        SetError: no such set, or it was frozen with other clips.
    """

    def __init__(self, file: str | Path, dataset: str, split: str, noise: str | None, check: bool = True):
        self.name = Path(file).stem
        self.definition = read_definition(file)
        self.dataset, self.split, self.noise = dataset, split, noise
        self.frozen = self.definition["digests"].get(split) if check else None
        if check and self.frozen is None:
            raise SetError(
                f"set {self.name!r} is not frozen on split {split!r}, only: {', '.join(self.definition['digests'])}; "
                "python -m evaluation.sets freezes it on others"
            )
        self.digests = {"noise": noise_digest(noise, held_out=True), "sound": {}}
        if noise:
            self._compare("noise", "--noise")

    @property
    def alone(self) -> list[str]:
        """Sounds that can be scored by themselves."""
        return self.definition["sounds"] + (self.definition["clips"] if self.noise else [])

    @property
    def calls(self) -> dict[str, list[str]]:
        """The sounds of each group of calls."""
        return self.definition["calls"]["sounds"]

    def sound(self, name: str, seconds: float) -> np.ndarray:
        """float64 (samples,), the same every time.

        Raises:
            SetError: no clip of that name.
        """
        samples = round(seconds * SAMPLING_RATE)
        if name in RENDERINGS:
            return RENDERINGS[name](samples)
        clips = [clip for file, clip in self._clips if file.name.startswith(f"{name}_")]
        if not clips:
            raise SetError(f"{self.noise!r} has no clip {name}_5-*; give the clips of set {self.name!r} by --noise")
        return np.resize(np.concatenate(clips), samples).astype(np.float64)

    @cached_property
    def _clips(self) -> list[tuple[Path, np.ndarray]]:
        return [(file, read_noise(file)) for file in noise_files(self.noise, held_out=True)]

    def minute(self, name: str) -> np.ndarray:
        """A sound by itself, loud, quieter and faint in turn, over a faint noise; float32 (samples,)."""
        wave, parts = self.sound(name, self.definition["seconds"]), []
        pieces = np.array_split(wave, len(self.definition["peaks_db"]))
        for number, (piece, peak) in enumerate(zip(pieces, self.definition["peaks_db"])):
            piece = piece * 10 ** (peak / 20) / max(np.abs(piece).max(), 1e-9)
            parts.append(piece + 10 ** (FLOOR_DB / 20) * level(piece) * _noise(len(piece), number))
        self._check(name, parts)
        return np.concatenate(parts).astype(np.float32)

    def conversations(self, group: str) -> list[tuple[Recording, Recording, list[tuple[float, float]]]]:
        """Calls without and with the sounds of a group, and where these were let in, in seconds.

        Raises:
            SetError: the corpus or the sound is not what the set was frozen with.
        """
        made = list(self._conversations(group))
        self._check(group, [full.waveform for _, full, _ in made])
        return made

    def make(self) -> None:
        """Everything once, for its `digests`."""
        for name in self.alone:
            self.minute(name)
        for group in self.calls:
            self.conversations(group)

    def _conversations(self, group: str) -> Iterator[tuple[Recording, Recording, list[tuple[float, float]]]]:
        calls, names = self.definition["calls"], self.calls[group]
        first = calls["recordings"] * list(self.calls).index(group)
        for number in range(calls["recordings"]):
            call = self._simulated.make(first + number, calls["seconds"], calls["num_speakers"])
            sounds = [self.sound(names[(3 * number + k) % len(names)], calls["sound_seconds"]) for k in range(3)]
            decibels = calls["levels_db"][number % len(calls["levels_db"])]
            yield call, *let_in(call, sounds, decibels)

    @cached_property
    def _simulated(self) -> SimulatedRecordings:
        utterances = open_corpus(self.dataset, self.split)
        self.digests["corpus"] = corpus_digest(utterances)
        self._compare("corpus", "--dataset")
        return SimulatedRecordings(utterances, self.definition["calls"]["seed"], augmentation=CALLS)

    def _compare(self, what: str, flag: str) -> None:
        if self.frozen and self.digests[what] != self.frozen[what]:
            raise SetError(
                f"set {self.name!r}, {self.split}: {what} has the digest {str(self.digests[what])[:12]} and the set "
                f"was frozen with {str(self.frozen[what])[:12]}; name the one it was frozen with by {flag}"
            )

    def _check(self, part: str, waveforms: Sequence[np.ndarray]) -> None:
        self.digests["sound"][part] = sound = fingerprint([levels(waveform) for waveform in waveforms], 1)
        difference = difference_db(self.frozen["sound"].get(part, []), sound) if self.frozen else 0.0
        if difference > TOLERANCE_DB:
            raise SetError(
                f"set {self.name!r}, {self.split}, {part!r} sounds different from what was frozen, by {difference:.1f} "
                "dB; score with the version that froze the set, or freeze it anew (python -m evaluation.sets)"
            )


def let_in(
    call: Recording, sounds: Sequence[np.ndarray], decibels: float
) -> tuple[Recording, list[tuple[float, float]]]:
    """Open a call at its start and in the middle of its longest silences, and let a sound into each gap.

    Args:
        decibels: level of the sounds against that of the speech.

    Returns:
        the longer call, its turns moved, and where the sounds are, in seconds.
    """
    active = np.zeros(len(call.waveform) // GRID, bool)
    for start, end, _ in call.turns:
        active[round(start * SAMPLING_RATE) // GRID : round(end * SAMPLING_RATE) // GRID] = True
    frames = np.square(call.waveform[: len(active) * GRID].reshape(-1, GRID)).mean(axis=1)
    speech, floor = np.sqrt(frames[active].mean()), np.sqrt(np.quantile(frames, 0.1))
    runs = np.flatnonzero(np.diff(active.astype(np.int8))).reshape(-1)
    runs = [(a, b) for a, b in zip(runs, runs[1:]) if not active[a + 1]]
    longest = sorted(sorted(runs, key=lambda run: run[0] - run[1])[: len(sounds) - 1])
    cuts = [0, *((a + b) // 2 + 1 for a, b in longest)]
    pieces, turns, at = [], [], []
    bounds = [*cuts, len(call.waveform) // GRID]
    for number, sound in enumerate(sounds[: len(cuts)]):
        loud = sound * (speech * 10 ** (decibels / 20) / max(level(sound), 1e-9))
        begin = sum(map(len, pieces)) / SAMPLING_RATE
        pieces.append(loud + floor * _noise(len(sound), number))
        at.append((begin, begin + len(sound) / SAMPLING_RATE))
        pieces.append(call.waveform[bounds[number] * GRID : bounds[number + 1] * GRID])
    for start, end, speaker in call.turns:
        later = sum(until - since for (since, until), cut in zip(at, cuts) if cut * GRID / SAMPLING_RATE <= start)
        turns.append((start + later, end + later, speaker))
    waveform = np.concatenate(pieces)
    waveform = (waveform / max(1.0, np.abs(waveform).max())).astype(np.float32)
    return replace(call, waveform=waveform, turns=turns), at


def score_sounds(systems: Sequence[System], sounds: SoundSet, part: str | None = None) -> dict[str, dict[str, dict]]:
    """
    Args:
        part: one sound or group of calls; all of them by default.

    Returns:
        by sound and by group of calls, by system. Of a sound: `false_speech`, seconds a minute, and `speakers` found.
        Of calls: `false_speech` in the gaps, `speakers`, `extra_speakers` and `extra_speakers_without` the sounds,
        means over the calls, and `diarization_error_rate`s of both.
    """
    known = [*sounds.alone, *sounds.calls]
    if part not in (None, *known):
        raise SetError(f"set {sounds.name!r} has no part {part!r}, only: {', '.join(known)}")
    ours = [system for system in systems if isinstance(system, Ours)]
    parts: dict[str, dict[str, dict]] = {}
    for name in sounds.alone:
        if part in (None, name):
            wave = sounds.minute(name)
            parts[name] = {system.name: _alone(system, wave) for system in ours}
    for group in sounds.calls:
        if part in (None, group):
            calls = sounds.conversations(group)
            parts[group] = {system.name: _calls(system, calls) for system in ours}
    return parts


def _alone(system: Ours, wave: np.ndarray) -> dict:
    segments = diarize(system.network, [wave], system.settings)
    spoken = Timeline([Interval(s.start, s.end) for s in segments]).support().duration()
    minutes = len(wave) / SAMPLING_RATE / 60
    return {"false_speech": spoken / minutes, "speakers": len({s.speaker for s in segments})}


def _calls(system: Ours, calls: Sequence[tuple[Recording, Recording, list[tuple[float, float]]]]) -> dict:
    without, with_sounds = RecordingScores(), RecordingScores()
    spoken, gap_seconds, speakers, extra, extra_before = 0.0, 0.0, 0, 0, 0
    for plain, full, gaps in calls:
        for call, scores in ((plain, without), (full, with_sounds)):
            reference = of_simulated(call).turns
            hypothesis = to_annotation(call.name, diarize(system.network, [call.waveform], system.settings))
            scored = scores.add(reference, hypothesis)
            more = max(0, scored["hypothesis_speakers"] - scored["reference_speakers"])
            if call is plain:
                extra_before += more
                continue
            extra, speakers = extra + more, speakers + scored["hypothesis_speakers"]
            heard = hypothesis.get_timeline().crop(Timeline([Interval(*gap) for gap in gaps])).support()
            spoken += heard.duration()
            gap_seconds += sum(end - start for start, end in gaps)
    return {
        "calls": len(calls),
        "false_speech": 60 * spoken / gap_seconds,
        "speakers": speakers / len(calls),
        "extra_speakers": extra / len(calls),
        "extra_speakers_without": extra_before / len(calls),
        "diarization_error_rate": float(with_sounds.result()["total"]["diarization_error_rate"]),
        "diarization_error_rate_without": float(without.result()["total"]["diarization_error_rate"]),
    }


def sound_tables(parts: Mapping[str, dict[str, dict]], heard_only: bool = False) -> list[str]:
    """Tables of `score_sounds`: each sound alone, then the groups of calls; columns are systems.

    Args:
        heard_only: leave out the rows of what no system takes for a second of speech a minute, nor for a speaker in
            calls; the means are still those of all.
    """
    alone = {name: systems for name, systems in parts.items() if not _are_calls(systems)}
    calls = {name: systems for name, systems in parts.items() if _are_calls(systems)}
    tables = []
    for corner, chosen, cell in (
        ("false speech in s a minute (speakers found), alone", alone, _alone_cell),
        ("extra speakers a call (without the sounds); false speech in s a minute of them", calls, _calls_cell),
    ):
        if chosen:
            rows = [
                [name, *(cell(scores) for scores in systems.values())]
                for name, systems in chosen.items()
                if not heard_only or any(_is_heard(scores) for scores in systems.values())
            ]
            if len(chosen) > 1:
                means = zip(*(systems.values() for systems in chosen.values()))
                rows.append(["mean", *(cell(_mean(scores)) for scores in means)])
            tables.append(table([corner, *next(iter(chosen.values()))], rows))
    return tables


def _are_calls(systems: Mapping[str, dict]) -> bool:
    return any("calls" in scores for scores in systems.values())


def _is_heard(scores: dict) -> bool:
    return scores["false_speech"] >= 1 or scores.get("extra_speakers", 0) > 0


def _alone_cell(scores: dict) -> str:
    return f"{scores['false_speech']:.1f} ({scores['speakers']:.3g})"


def _calls_cell(scores: dict) -> str:
    more, before = scores["extra_speakers"], scores["extra_speakers_without"]
    return f"{more:.1f} ({before:.1f}); {scores['false_speech']:.1f}"


def _mean(scores: Sequence[dict]) -> dict:
    return {name: sum(each[name] for each in scores) / len(scores) for name in scores[0]}


def _noise(samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng([2026, seed]).standard_normal(samples)
