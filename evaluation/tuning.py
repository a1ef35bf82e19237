"""Choose the settings that link windows to recordings, on simulated or real recordings of validation speakers only.

    python -m evaluation.tuning --model runs/mine/model --dataset path/to/speech --noise path/to/noise
    python -m evaluation.tuning --model runs/mine/model --recordings path/to/calls    # held-out annotated recordings

The network runs once for each length and step of windows. The other settings are then tried on its outputs, one after
the other, and kept if they lower a cost: the DER with the number of speakers unknown, and with a small weight the share
of recordings whose number of speakers is wrong. Recordings last from half a minute to six minutes, because settings
that suit long conversations may find only one speaker in a short one. `--write` stores the result in the model.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path

from common.program import end_quietly
from evaluation.flags import of_tuning

if __name__ == "__main__":
    end_quietly()
    of_tuning(__doc__)  # --help and wrong usage, before imports that take seconds

from pyannote.core import Annotation, Timeline
from pyannote.core import Segment as Interval
from tqdm import tqdm

from common.markdown import table
from data.acoustics import load_noises
from data.annotated import AnnotatedConversations, open_source
from data.corpora import CorpusError, open_corpus
from data.simulated_recordings import Recording, SimulatedRecordings
from diarization.backends import ModelError, open_network
from diarization.formats import to_annotation
from evaluation.recording_scores import RecordingScores
from modeling.audio_fast_diarization import load_audio
from modeling.levels_fast_diarization import frame_levels
from modeling.linking_fast_diarization import Linker
from modeling.settings_fast_diarization import CANDIDATES, SAMPLING_RATE, LinkingSettings, SpeakerCount
from modeling.windows_fast_diarization import Network, sliding_windows

RECORDINGS = ((2, 30), (2, 180), (2, 60), (3, 180), (2, 30), (4, 180), (2, 360))
"""Speakers and seconds of the recordings, repeated."""
COUNT_WEIGHT = 0.04
"""Weight, beside a DER from 0 to 1, of the share of recordings whose number of speakers is wrong."""
ROUNDS = 2
MOST_SECONDS = 7200.0
"""Of real recordings in memory."""
FEW_SECONDS = 600.0
"""Of real recordings, on which settings found are good by chance and are not written."""


class Trial:
    """Recordings and the network's outputs for their windows, to be linked with many settings.

    Args:
        regions: of each recording those that are scored, or `None` for all of it.
    """

    def __init__(
        self,
        network: Network,
        recordings: list[Recording],
        settings: LinkingSettings,
        regions: list[Timeline | None] | None = None,
    ):
        self.references = [_annotation(r) for r in recordings]
        self.regions = regions or [None] * len(recordings)
        self.outputs = []
        for recording in tqdm(recordings, f"{settings.sliding_window_seconds:g} s windows", leave=False):
            batches = sliding_windows([recording.waveform], settings)
            self.outputs.append([(starts, *network(windows), frame_levels(windows)) for starts, windows in batches])

    def score(self, settings: LinkingSettings, known: bool) -> dict:
        """The total scores of all recordings, with their number of speakers given or not."""
        scores = RecordingScores()
        for reference, batches, scored in zip(self.references, self.outputs, self.regions):
            linker = Linker(settings)
            for batch in batches:
                linker.add(*batch)
            speakers = len(reference.labels())
            segments = linker.segments(SpeakerCount(num_speakers=speakers if known else None))
            scores.add(reference, to_annotation(reference.uri, segments), scored)
        return scores.result()["total"]


def tune(trial: Trial, settings: LinkingSettings) -> LinkingSettings:
    """Coordinate descent over `CANDIDATES`."""
    best = cost(trial.score(settings, known=False))
    for _, name in tqdm(list(product(range(ROUNDS), CANDIDATES)), "settings", leave=False):
        for tried in _changed(settings, name):
            tried_cost = cost(trial.score(tried, known=False))
            if tried_cost < best - 1e-4:
                best, settings = tried_cost, tried
    return settings


def cost(total: dict) -> float:
    """The cost that tuning minimises."""
    return total["diarization_error_rate"] + COUNT_WEIGHT * (1 - total["count_exact"])


def _changed(settings: LinkingSettings, name: str) -> Iterator[LinkingSettings]:
    for value in CANDIDATES[name]:
        changes = {name: value}
        if name == "onset":
            changes["offset"] = min(settings.offset, value)
        if value != getattr(settings, name) and not (name == "offset" and value > settings.onset):
            yield replace(settings, **changes)


def _annotation(recording: Recording) -> Annotation:
    reference = Annotation(uri=recording.name)
    for number, (start, end, speaker) in enumerate(recording.turns):
        reference[Interval(start, end), number] = speaker
    return reference


def real_recordings(names: list[str]) -> tuple[list[Recording], list[Timeline | None]]:
    """The held-out recordings of annotated corpora, `MOST_SECONDS` of them, and which regions of each are annotated.

    Raises:
        CorpusError: a corpus is not annotated, or none of its recordings can be read.
    """
    recordings, regions, seconds = [], [], 0.0
    for name in names:
        corpus = open_source(name, "validation")
        if not isinstance(corpus, AnnotatedConversations):
            raise CorpusError(f"corpus {name!r} has no annotated recordings; give a directory of audio and RTTM files")
        for conversation in (c for unit in range(len(corpus)) for c in corpus.conversations(unit)):
            if seconds >= MOST_SECONDS:
                break
            try:
                conversation.check_turns()
                waveform = load_audio(conversation.audio)
            except ValueError as error:
                print(f"warning: left out: {error}", file=sys.stderr)
                continue
            seconds += len(waveform) / SAMPLING_RATE
            recordings.append(Recording(conversation.name, waveform, list(conversation.turns)))
            annotated = conversation.regions
            regions.append(annotated and Timeline([Interval(*region) for region in annotated]))
    if not recordings:
        raise CorpusError(f"none of the held-out recordings of {', '.join(names)} can be read")
    print(f"{len(recordings)} held-out recordings, {seconds / 60:.1f} minutes")
    return recordings, regions


def simulated_recordings(count: int, dataset: str, noise: str | None) -> list[Recording]:
    simulated = SimulatedRecordings(open_corpus(dataset, "validation"), seed=1, noises=load_noises(noise))
    numbered = zip(range(count), cycle(RECORDINGS))
    return [simulated.make(index, seconds, speakers) for index, (speakers, seconds) in numbered]


def parse() -> tuple[argparse.Namespace, int | None]:
    """The flags, and how many recordings are to be simulated: `None` for real ones."""
    arguments = of_tuning(__doc__)
    first = arguments.recordings[0]
    count = int(first) if first.isdecimal() and len(arguments.recordings) == 1 else None
    if count is not None and count < 1:
        raise SystemExit(f"error: --recordings must be at least 1, got {count}")
    if arguments.write and not (Path(arguments.model) / "config.json").is_file():
        raise SystemExit(f"error: --write needs a model directory with a config.json, which {arguments.model} is not")
    return arguments, count


def main() -> None:
    arguments, count = parse()
    try:
        network, settings = open_network(arguments.model)
        pairs = product(arguments.windows, arguments.hops)
        starts = [replace(settings, sliding_window_seconds=window, hop_seconds=hop) for window, hop in pairs]
        if count is None:
            recordings, regions = real_recordings(arguments.recordings)
        else:
            recordings, regions = simulated_recordings(count, arguments.dataset, arguments.noise), None
    except (CorpusError, ModelError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    seconds = sum(len(recording.waveform) for recording in recordings) / SAMPLING_RATE
    if arguments.write and count is None and seconds < FEW_SECONDS:
        print(
            f"warning: {seconds / 60:.1f} minutes of held-out recordings are too few to choose settings by, "
            f"{FEW_SECONDS / 60:g} are needed; those of the weights are kept",
            file=sys.stderr,
        )
        return
    rows, found = [], []
    for start in starts:
        trial = Trial(network, recordings, start, regions)
        settings = tune(trial, start)
        unknown, known = (trial.score(settings, known=given) for given in (False, True))
        found.append((cost(unknown), settings))
        rates = [scores["diarization_error_rate"] for scores in (unknown, known)]
        rates += [unknown["count_exact"], known["confusion"]]
        window, hop = start.sliding_window_seconds, start.hop_seconds
        rows.append([f"{window:g}", f"{hop:g}", *(f"{100 * rate:.1f}" for rate in rates)])
        print(f"{window:g} s windows every {hop:g} s: {rows[-1][2:]} {settings}", flush=True)
    header = ["window (s)", "hop (s)", "DER", "DER, count known", "count right", "confusion, count known"]
    print(table(header, rows))
    best = min(found, key=lambda pair: pair[0])[1]
    print(json.dumps(vars(best), indent=1))
    if arguments.write:
        file = Path(arguments.model) / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | vars(best), indent=2) + "\n")


if __name__ == "__main__":
    main()
