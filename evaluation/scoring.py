"""Scores of systems on windows and on whole recordings, as plain dictionaries that become JSON and tables."""

import io
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations

import numpy as np
from pyannote.core import Annotation, Timeline

from common.output import OwnFiles
from data.conversations import GRID, SAMPLING_RATE
from diarization.formats import to_annotation, to_rttm
from diarization.timeline import plot_timeline
from evaluation.diarization_error_rate import count_errors
from evaluation.recording_scores import RecordingScores
from evaluation.shifts import over_shifts, shift_samples, shifted, shifted_back
from evaluation.sources import Reference, SourceError
from evaluation.systems import Ours, System
from evaluation.window_scores import WindowScores
from modeling.audio_fast_diarization import AudioError
from modeling.linking_fast_diarization import link
from modeling.segments_fast_diarization import Segment
from modeling.settings_fast_diarization import SpeakerCount
from modeling.task_fast_diarization import Task

OVERLAP_BANDS = {
    "no overlap": (0.0, 0.0),
    "overlap up to 10 % of speech": (0.0, 0.1),
    "overlap 10 to 30 %": (0.1, 0.3),
    "overlap above 30 %": (0.3, 1.0),
}
BATCH = 32


def score_windows(
    systems: Sequence[System], batches: Iterable[tuple[np.ndarray, np.ndarray, str]], task: Task = Task()
) -> dict[str, dict[str, dict]]:
    """
    Args:
        task: of a system with more tracks than its speakers, those that suit each window best are scored.
        batches: waveforms float32 (windows, samples), references bool (windows, frames, speakers), and where they are
            from.

    Returns:
        by system: `groups`, which is `WindowScores.result`; `by_overlap`, the scores of the windows in each of
        `OVERLAP_BANDS` (share of the frames with speech in which two or more people speak); `by_origin`, those of
        the windows from each place. Nothing of no windows.
    """
    counted = partial(WindowScores, task.num_speakers)
    scores = defaultdict(counted)
    bands, origins = (defaultdict(lambda: defaultdict(counted)) for _ in range(2))
    for waveforms, references, origin in batches:
        talking = references.sum(axis=2)
        share = (talking > 1).sum(axis=1) / np.maximum((talking > 0).sum(axis=1), 1)
        for system in systems:
            hypotheses = best_tracks(system.activity(waveforms, references.shape[1]), references, task.num_speakers)
            scores[system.name].add(hypotheses, references)
            origins[system.name][origin].add(hypotheses, references)
            for band, (low, high) in OVERLAP_BANDS.items():
                inside = (share == 0) if high == 0 else (low < share) & (share <= high)
                if inside.any():
                    bands[system.name][band].add(hypotheses[inside], references[inside])
    return {
        name: {
            "groups": scores[name].result(),
            "by_overlap": {b: bands[name][b].result()["all_windows"] for b in OVERLAP_BANDS if b in bands[name]},
            "by_origin": {o: part.result()["all_windows"] for o, part in origins[name].items()},
        }
        for name in scores
    }


def best_tracks(predictions: np.ndarray, references: np.ndarray, most: int) -> np.ndarray:
    """(windows, frames, tracks) -> (windows, frames, `most`): the tracks with the fewest errors in each window."""
    if predictions.shape[2] <= most:
        return predictions
    choices = [predictions[..., list(tracks)] for tracks in combinations(range(predictions.shape[2]), most)]
    counts = [count_errors(choice, references) for choice in choices]
    errors = [count["missed_speech"] + count["false_alarm"] + count["confusion"] for count in counts]
    return np.stack(choices)[np.argmin(errors, axis=0), np.arange(len(predictions))]


def windows_of(
    waveform: np.ndarray,
    turns: Annotation,
    hop_seconds: float,
    task: Task = Task(),
    regions: Timeline | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of windows of a recording, whole ones only, with their reference every 10 ms.

    With `regions` to score, only the windows within one of them.
    """
    samples, step = round(task.window_seconds * SAMPLING_RATE), round(hop_seconds * SAMPLING_RATE)
    starts = np.arange(0, len(waveform) - samples + 1, step)
    if regions is not None:
        first = starts / SAMPLING_RATE
        inside = [(r.start <= first) & (first + task.window_seconds <= r.end + 1e-6) for r in regions.support()]
        starts = starts[np.any(inside, axis=0)]
    active = _frames(turns, len(waveform) // GRID, task.num_speakers)
    for first in range(0, len(starts), BATCH):
        part = starts[first : first + BATCH]
        references = np.stack([active[start // GRID :][: samples // GRID] for start in part])
        most_first = np.argsort(-references.sum(axis=1), axis=1, kind="stable")
        most = max(task.num_speakers, int(references.any(axis=1).sum(axis=1).max()))
        references = np.take_along_axis(references, most_first[:, None, :most], axis=2)
        yield np.stack([waveform[start : start + samples] for start in part]), references


def _frames(turns: Annotation, frames: int, fewest: int) -> np.ndarray:
    """Bool (frames, speakers), a frame being what is true at its centre; `fewest` speakers or more."""
    centres = (np.arange(frames) + 0.5) * GRID / SAMPLING_RATE
    active = np.zeros((frames, max(fewest, len(turns.labels()))), bool)
    for column, speaker in enumerate(turns.labels()):
        for turn in turns.label_timeline(speaker):
            active[slice(*np.searchsorted(centres, (turn.start, turn.end))), column] = True
    return active


def task_of(systems: Sequence[System]) -> Task:
    """What recordings are scored for: as many speakers in a window as that of our models with most tells apart."""
    return Task(
        num_speakers=max(
            (system.num_speakers for system in systems if isinstance(system, Ours)), default=Task.num_speakers
        )
    )


def score_recordings(
    systems: Sequence[System],
    references: Iterable[Reference],
    counts: Sequence[str | int] = ("unknown",),
    collar: float = 0.0,
    skip_overlap: bool = False,
    hop_seconds: float = 1.0,
    output: OwnFiles | None = None,
    shifts: int = 1,
) -> tuple[dict[str, dict], list[str]]:
    """Diarize recordings whole with each of our models, and score all systems on their windows.

    Args:
        counts: what is told of the number of speakers: `"unknown"`, `"known"` (that of the reference), or a number.
        hop_seconds: between the windows, which are those of `task_of(systems)`.
        output: where hypotheses go, `system/count/NAME.rttm` in its directory and a picture beside each.
        shifts: how many times each recording is diarized, with as many lengths of silence before it (`over_shifts`).

    Returns:
        by system: `whole`, for each of `counts` the `RecordingScores.result` and `count_right`, the share of
        recordings whose number of speakers was found, all without silence before, and `shifts`, what `over_shifts`
        gives of several; `windows`, what `score_windows` gives. And the names of the recordings that could not be
        read.

    Raises:
        SourceError: none could be.
    """
    ours = [system for system in systems if isinstance(system, Ours)]
    whole = WholeScores(ours, counts, partial(RecordingScores, collar, skip_overlap), shifts, output)
    task, failed = task_of(systems), []

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
        for reference in references:
            try:
                waveform = reference.waveform()
            except AudioError as error:
                print(f"error: {error}", file=sys.stderr)
                failed.append(reference.name)
                continue
            whole.add(reference, waveform)
            for windows, active in windows_of(waveform, reference.turns, hop_seconds, task, reference.regions):
                yield windows, active, reference.name

    windows = score_windows(systems, batches(), task)
    try:
        results = {system.name: {"whole": whole.result(system), "windows": windows.get(system.name)} for system in ours}
    except ValueError:
        raise SourceError(f"none of the recordings could be read: {', '.join(failed) or 'there is none'}") from None
    others = [system.name for system in systems if system not in ours]
    return results | {name: {"whole": {}, "windows": windows.get(name)} for name in others}, failed


class WholeScores:
    """Recordings diarized whole with each system, scored for each of `counts` and each length of silence before it.

    Args are those of [`score_recordings`], beside `scores`, which makes the accumulator of each.
    """

    def __init__(
        self,
        systems: Sequence[Ours],
        counts: Sequence[str | int],
        scores: Callable[[], RecordingScores],
        shifts: int = 1,
        output: OwnFiles | None = None,
    ):
        self.systems, self.counts, self.shifts, self.output = systems, counts, shifts, output
        self.scores = {
            (system.name, count): [scores() for _ in range(shifts)] for system in systems for count in counts
        }

    def add(self, reference: Reference, waveform: np.ndarray) -> None:
        for system in self.systems:
            for number, samples in enumerate(shift_samples(system.settings, self.shifts)):
                for count, segments in _segments(system, waveform, samples, reference.turns, self.counts):
                    _add(self.scores[system.name, count][number], reference, segments, len(waveform))
                    if self.output and not samples:
                        _write(self.output, f"{system.name.replace('/', '_')}/{count}", reference, segments)

    def result(self, system: Ours) -> dict[str, dict]:
        """`whole` of [`score_recordings`]. Raises `ValueError` if there was no recording."""
        results, seconds = {}, [samples / SAMPLING_RATE for samples in shift_samples(system.settings, self.shifts)]
        for count in self.counts:
            found = [scores.result() for scores in self.scores[system.name, count]]
            result = found[0] | {"count_right": found[0]["total"]["count_exact"]}
            results[str(count)] = result | ({"shifts": over_shifts(seconds, found)} if self.shifts > 1 else {})
        return results


def _segments(
    system: Ours, waveform: np.ndarray, shift: int, turns: Annotation, counts: Sequence[str | int]
) -> Iterator[tuple[str | int, list[Segment]]]:
    """The network runs once; its outputs are linked for each of `counts`.

    Args:
        shift: samples of silence before the recording.
    """
    linker = link(system.network, [shifted(waveform, shift)], system.settings)
    for count in counts:
        told = {"unknown": None, "known": len(turns.labels()) or None}.get(count, count)
        yield count, shifted_back(linker.segments(SpeakerCount(num_speakers=told)), shift)


def _add(scores: RecordingScores, reference: Reference, segments: list[Segment], samples: int) -> None:
    hypothesis = to_annotation(reference.name, segments)
    scores.add(reference.turns, hypothesis, reference.regions, samples / SAMPLING_RATE)


def _write(output: OwnFiles, place: str, reference: Reference, segments: list[Segment]) -> None:
    directory, picture = output.directory / place, io.BytesIO()
    directory.mkdir(parents=True, exist_ok=True)
    truth = [Segment(turn.start, turn.end, name, 1.0) for turn, _, name in reference.turns.itertracks(yield_label=True)]
    plot_timeline(picture, reference.name, segments, truth)
    files = {"rttm": to_rttm(reference.name, segments).encode(), "png": picture.getvalue()}
    targets = {suffix: directory / f"{reference.name}.{suffix}" for suffix in files}
    output.check_files(targets.values())
    for suffix, content in files.items():
        output.write_file(targets[suffix], content)
