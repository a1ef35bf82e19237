"""Confidences that mean what they say, and a number of speakers that is right where it is called sure.

    python -m evaluation.calibration --model MODEL --dataset SPEECH MORE_SPEECH --noise DIR --write
    python -m evaluation.calibration --model MODEL --dataset SPEECH --noise DIR --picture docs/pictures/confidence.png

On simulated recordings of validation speakers, with the number of speakers unknown. The first command chooses the
settings and stores them in the model; without --write those of the model are scored as they are, on recordings of
other seeds if --seed says so. A segment is right for the share of its time in which its speaker speaks, by the best
assignment of speakers. Anyone who speaks for less than two seconds does not count as a speaker.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, product
from pathlib import Path

from common.program import end_quietly
from evaluation.flags import of_calibration

if __name__ == "__main__":
    end_quietly()
    of_calibration(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np
from pyannote.core import Segment as Interval
from pyannote.core import Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from tqdm import tqdm

from common.markdown import table
from data.acoustics import load_noises
from data.corpora import CorpusError, open_corpus
from data.simulated_recordings import Recording, SimulatedRecordings
from diarization.backends import ModelError, open_network
from diarization.formats import to_annotation
from evaluation.sources import of_simulated
from evaluation.tuning import real_recordings
from modeling.counting_fast_diarization import CountEstimate, alike, estimate_count
from modeling.linking_fast_diarization import link
from modeling.segments_fast_diarization import to_confidence
from modeling.settings_fast_diarization import LinkingSettings
from modeling.windows_fast_diarization import Network

RECORDINGS = ((2, 30), (1, 60), (3, 180), (2, 60), (4, 180), (2, 180), (1, 30), (3, 60), (2, 60), (4, 300), (2, 360))
"""Speakers and seconds of the recordings, repeated."""
LEAST_SPOKEN = 2.0
RIGHT = 0.9
"""Of the recordings that settings are chosen on."""
MARGINS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
SIMILARITIES = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 1.0)
CONFIDENCES = (0.0, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
BINS = 10


@dataclass(frozen=True)
class Found:
    """What is found in one recording.

    Args:
        group: corpus and seed.
        true: its number of speakers.
        speakers: found.
        more: further speakers found at each margin.
        likeness: of the two speakers most alike.
        segments: (segments, 4) mean activity, seconds, share that is right, and number of the speaker.
    """

    group: str
    true: int
    speakers: int
    more: dict[float, int]
    likeness: float
    segments: np.ndarray

    def count(self, settings: LinkingSettings) -> CountEstimate:
        confident, seconds = to_confidence(self.segments[:, 0], settings), self.segments[:, 1]
        speakers = self.segments[:, 3].astype(int)
        means = np.bincount(speakers, confident * seconds) / np.maximum(np.bincount(speakers, seconds), 1e-9)
        more = self.more[settings.sure_margin]
        return estimate_count(self.speakers, more, self.likeness, means.min(initial=1.0), settings)


def find(
    network: Network, settings: LinkingSettings, recording: Recording, group: str, regions: Timeline | None = None
) -> Found:
    """Diarize one recording and compare it with its reference, in `regions` alone if there are any."""
    raw = replace(settings, confidence_scale=1.0, confidence_offset=0.0)
    linker = link(network, [recording.waveform], raw)
    diarization, more = linker.diarization(), {}
    for margin in {*MARGINS, settings.sure_margin}:
        linker.tracklets.settings = replace(raw, sure_margin=margin)
        more[margin] = linker.tracklets.more_speakers()
    reference = of_simulated(recording).turns
    hypothesis = to_annotation(recording.name, diarization.segments)
    if regions is not None:
        reference, hypothesis = reference.crop(regions), hypothesis.crop(regions)
    person = DiarizationErrorRate().optimal_mapping(reference, hypothesis)
    names = list(diarization.speakers)
    rows = []
    for segment in diarization.segments:
        turns = reference.label_timeline(person.get(segment.speaker, "")).support()
        scored = Timeline([Interval(segment.start, segment.end)])
        scored = scored if regions is None else scored.crop(regions)
        if seconds := scored.duration():
            right = turns.crop(scored).duration()
            rows.append((segment.confidence, seconds, right / seconds, names.index(segment.speaker)))
    true = sum(reference.label_duration(name) >= LEAST_SPOKEN for name in reference.labels())
    segments = np.array(rows).reshape(-1, 4)
    return Found(group, true, len(hypothesis.labels()), more, alike(diarization.speakers), segments)


def calibrate(found: Sequence[Found], settings: LinkingSettings) -> LinkingSettings:
    """Fit the map of confidences by logistic regression (Platt, 1999), each segment counting the same."""
    activity, right = np.concatenate([one.segments[:, [0, 2]] for one in found]).T
    activity = activity.clip(1e-4, 1 - 1e-4)
    inputs = np.stack([np.log(activity / (1 - activity)), np.ones(len(activity))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):  # of Newton's method
        share = 1 / (1 + np.exp(-inputs @ weights))
        curvature = (inputs.T * (share * (1 - share))) @ inputs + 1e-6 * np.eye(2)
        weights = weights - np.linalg.solve(curvature, inputs.T @ (share - right))
    scale, offset = weights.round(4).tolist()
    return replace(settings, confidence_scale=max(scale, 0.01), confidence_offset=offset)


def choose(found: Sequence[Found], settings: LinkingSettings) -> LinkingSettings:
    """The settings with which the number is sure most often, and then right in `RIGHT` of the recordings.

    Raises:
        ValueError: with none is it right so often.
    """
    best, chosen = 0, None
    for margin, similarity, confidence in product(MARGINS, SIMILARITIES, CONFIDENCES):
        changes = {"sure_margin": margin, "sure_similarity": similarity, "sure_confidence": confidence}
        tried = replace(settings, **changes)
        sure = [one for one in found if one.count(tried).sure]
        if len(sure) > best and sum(one.speakers == one.true for one in sure) >= RIGHT * len(sure):
            best, chosen = len(sure), tried
    if chosen is None:
        raise ValueError(f"with no settings is a sure number right in {RIGHT:.0%} of the recordings")
    return chosen


def left_out(found: Sequence[Found], settings: LinkingSettings) -> list[bool]:
    """Whether the sure numbers are right if those of each group are called sure by settings chosen on the others."""
    right = []
    for group in sorted({one.group for one in found}):
        others = [one for one in found if one.group != group]
        try:
            chosen = choose(others, calibrate(others, settings))
        except ValueError:
            continue  # nothing would be called sure
        right += [one.speakers == one.true for one in found if one.group == group and one.count(chosen).sure]
    return right


def count_table(found: Sequence[Found], settings: LinkingSettings) -> str:
    """How many numbers are sure, how often each kind is right, and how often the right one is in the range."""
    counts = [one.count(settings) for one in found]
    rows = []
    for name, kinds in (("sure", (True,)), ("unsure", (False,)), ("all", (True, False))):
        some = [(one, count) for one, count in zip(found, counts) if count.sure in kinds]
        right = sum(one.speakers == one.true for one, _ in some)
        inside = sum(count.fewest <= one.true <= count.most for one, count in some)
        rows.append([name, len(some), *(f"{100 * n / max(len(some), 1):.0f}" for n in (right, inside))])
    return table(["number of speakers", "recordings", "right in %", "in the range in %"], rows)


def reliability(found: Sequence[Found], settings: LinkingSettings) -> np.ndarray:
    """(bins, 3) mean confidence, share right, and segments, in bins with as many segments each."""
    activity, right = np.concatenate([one.segments[:, [0, 2]] for one in found]).T
    confident = to_confidence(activity, settings)
    order = np.argsort(confident, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    return np.array([(confident[part].mean(), right[part].mean(), len(part)) for part in bins])


def calibration_error(curve: np.ndarray) -> float:
    """Expected calibration error: mean distance of confidence and share right over segments."""
    return float(np.average(np.abs(curve[:, 0] - curve[:, 1]), weights=curve[:, 2]))


def draw(file: Path, found: Sequence[Found], settings: LinkingSettings) -> None:
    """A picture of `reliability`, of the mean activity and of the confidence."""
    from matplotlib.figure import Figure

    raw = replace(settings, confidence_scale=1.0, confidence_offset=0.0)
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", lw=1)
    for name, chosen, colour in (("mean activity", raw, "#e0662f"), ("confidence", settings, "#2f6fdb")):
        curve = reliability(found, chosen)
        label = f"{name}: off by {100 * calibration_error(curve):.1f} %"
        axes.plot(curve[:, 0], curve[:, 1], "o-", color=colour, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence of a segment", ylabel="share of its time that is right")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    segments = sum(len(one.segments) for one in found)
    axes.set_title(f"{segments} segments of {len(found)} recordings", loc="left", fontsize=10)
    figure.savefig(file, dpi=110, format="png", metadata={"Software": None})


def main() -> None:
    arguments = of_calibration(__doc__)
    file = Path(arguments.model) / "config.json"
    if arguments.recordings < 1 or arguments.seeds < 1:
        raise SystemExit("error: --recordings and --seeds must be at least 1")
    if arguments.write and not file.is_file():
        raise SystemExit(f"error: --write needs a model directory with a config.json, which {arguments.model} is not")
    try:
        network, settings = open_network(arguments.model)
        found = find_all(network, settings, arguments)
        if arguments.write:
            settings = choose(found, calibrate(found, settings))
            right = left_out(found, settings)
    except (CorpusError, ModelError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(count_table(found, settings))
    if arguments.write:
        names = ("confidence_scale", "confidence_offset", "sure_margin", "sure_similarity", "sure_confidence")
        chosen = {name: getattr(settings, name) for name in names}
        share = f"{100 * sum(right) / max(len(right), 1):.0f} % of {len(right)}"
        print(
            f"\nCalled sure by settings chosen on the other corpora and seeds: {share} are right.\n{json.dumps(chosen)}"
        )
        file.write_text(json.dumps(json.loads(file.read_text()) | chosen, indent=2) + "\n")
    curve = reliability(found, settings)
    rows = [[f"{confident:.2f}", f"{right:.2f}", f"{count:.0f}"] for confident, right, count in curve]
    print("\n" + table(["confidence", "share right", "segments"], rows))
    print(f"\nExpected calibration error {100 * calibration_error(curve):.1f} %.")
    if arguments.picture:
        draw(arguments.picture, found, settings)


def find_all(network: Network, settings: LinkingSettings, arguments: argparse.Namespace) -> list[Found]:
    """What is found in the simulated recordings of each corpus and seed, and in the conversations."""
    noises, found = load_noises(arguments.noise), []
    corpora = {dataset: open_corpus(dataset, "validation") for dataset in arguments.dataset}
    for seed, (name, corpus) in product(range(arguments.seed, arguments.seed + arguments.seeds), corpora.items()):
        simulated, group = SimulatedRecordings(corpus, seed, noises), f"{name}, seed {seed}"
        most = len(simulated.pool.speakers)
        for number, (speakers, seconds) in tqdm(
            list(zip(range(arguments.recordings), cycle(RECORDINGS))), group, leave=False
        ):
            recording = simulated.make(number, seconds, min(speakers, most))
            found.append(find(network, settings, recording, group))
    if arguments.conversations:
        for recording, regions in zip(*real_recordings(arguments.conversations)):
            found.append(find(network, settings, recording, "conversations", regions))
    return found


if __name__ == "__main__":
    main()
