"""Known voices: how often somebody enrolled is not named, and somebody else is, in simulated recordings.

    python -m evaluation.identification --model MODEL --dataset SPEECH MORE_SPEECH --noise DIR --write
    python -m evaluation.identification --model MODEL --dataset SPEECH --noise DIR --split test

Everybody is enrolled from some ten seconds of their utterances, and speaks in recordings made of the others. Ten people
are known in each recording: about half of those who speak in it, and others. A false reject is somebody known who
speaks for five seconds or more and is not named, for whatever reason; a false accept a speaker found who is nobody
known and gets a name. The first command stores the lowest threshold at which no more than 5 % of validation speakers
are falsely accepted; the second applies it to speakers it was not chosen on.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.program import end_quietly
from evaluation.flags import of_identification

if __name__ == "__main__":
    end_quietly()
    of_identification(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np
from tqdm import tqdm

from common.markdown import table
from data.acoustics import load_noises
from data.conversations import SAMPLING_RATE
from data.corpora import CorpusError, open_corpus
from data.simulated_recordings import Recording, SimulatedRecordings
from diarization.backends import ModelError, open_network
from modeling.counting_fast_diarization import Diarization, Speaker
from modeling.enrolment_fast_diarization import KnownVoices, VoicesError, enrol
from modeling.linking_fast_diarization import link
from modeling.settings_fast_diarization import LinkingSettings
from modeling.windows_fast_diarization import Network

ENROLMENT_SECONDS, LEAST_SPEECH = 10.0, 5.0
"""Of speech to enrol from, and of somebody in a recording to be expected there."""
KNOWN, SPEAKERS, SECONDS = 10, (2, 3), 90.0
"""People known in a recording; speakers of the recordings in turn; their length."""
MOST_ACCEPTED = 0.05
THRESHOLDS = np.arange(0.2, 0.96, 0.01).round(2)


@dataclass(frozen=True)
class Trial:
    """One recording: its speakers as they were found, who each of them is, who is known and who must be named."""

    found: dict[str, Speaker]
    truth: dict[str, str]
    known: KnownVoices
    expected: frozenset[str]


def make_trials(
    network: Network, settings: LinkingSettings, simulated: SimulatedRecordings, recordings: int
) -> tuple[list[Trial], int, int]:
    """
    Args:
        simulated: of which the utterances to enrol from are taken away.

    Returns:
        the trials, and of how many people an enrolment was tried and refused.
    """
    rng = np.random.default_rng([simulated.seed, 2])
    enrolled, refused = {}, 0
    for name, waveform in take_enrolments(simulated, rng).items():
        try:
            enrolled[name] = enrol(network, [waveform], settings, name)
        except VoicesError:
            refused += 1
    trials = []
    for number in tqdm(range(recordings), f"recordings, seed {simulated.seed}", leave=False):
        recording = simulated.make(number, SECONDS, SPEAKERS[number % len(SPEAKERS)])
        diarization = link(network, [recording.waveform], settings).diarization()
        spoken = spoken_seconds(recording)
        here = [name for name in sorted(spoken) if name in enrolled]
        chosen = {name for name in here if rng.random() < 0.5}
        others = [name for name in sorted(enrolled) if name not in spoken]
        fill = rng.permutation(len(others))[: KNOWN - len(chosen)]
        people = {name: enrolled[name] for name in sorted(chosen | {others[i] for i in fill})}
        expected = frozenset(name for name in chosen if spoken[name] >= LEAST_SPEECH)
        known = KnownVoices(np.zeros(0), people)
        trials.append(Trial(diarization.speakers, who_is_who(diarization, recording), known, expected))
    return trials, len(enrolled) + refused, refused


def take_enrolments(simulated: SimulatedRecordings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Utterances of each speaker who has twice `ENROLMENT_SECONDS`; of the rest of theirs recordings are made."""
    pool, taken = simulated.pool, {}
    for name in sorted(pool.speakers):
        said = [pool.speakers[name][i] for i in rng.permutation(len(pool.speakers[name]))]
        seconds = np.cumsum([len(pool.audio[i]) for i in said]) / SAMPLING_RATE
        enough = int(np.searchsorted(seconds, ENROLMENT_SECONDS)) + 1
        if enough < len(said) and seconds[-1] >= 2 * ENROLMENT_SECONDS:
            taken[name] = np.concatenate([pool.audio[i] for i in said[:enough]])
            pool.speakers[name] = said[enough:]
        else:
            del pool.speakers[name]
    return taken


def spoken_seconds(recording: Recording) -> dict[str, float]:
    spoken: dict[str, float] = {}
    for start, end, name in recording.turns:
        spoken[name] = spoken.get(name, 0.0) + end - start
    return spoken


def who_is_who(diarization: Diarization, recording: Recording) -> dict[str, str]:
    """The person who speaks most in the segments of each speaker found, if anybody does."""
    together: dict[str, dict[str, float]] = {}
    for segment in diarization.segments:
        of_speaker = together.setdefault(segment.speaker, {})
        for start, end, name in recording.turns:
            shared = max(min(end, segment.end) - max(start, segment.start), 0.0)
            of_speaker[name] = of_speaker.get(name, 0.0) + shared
    return {speaker: max(shares, key=shares.get) for speaker, shares in together.items() if any(shares.values())}


def rates(trials: Sequence[Trial], threshold: float) -> dict[str, float]:
    """`false_reject`, `false_accept` and `misnamed` (somebody known under another name), with the numbers they are
    shares of: `expected`, `strangers` and `known`."""
    rejected = accepted = misnamed = expected = strangers = known = 0
    for trial in trials:
        named = trial.known.names(trial.found, threshold)
        right = {name for speaker, name in named.items() if trial.truth.get(speaker) == name}
        expected, rejected = expected + len(trial.expected), rejected + len(trial.expected - right)
        for speaker, name in trial.truth.items():
            if name in trial.known.people:
                known, misnamed = known + 1, misnamed + (named.get(speaker, name) != name)
            else:
                strangers, accepted = strangers + 1, accepted + (speaker in named)
    return {
        "false_reject": rejected / max(expected, 1),
        "false_accept": accepted / max(strangers, 1),
        "misnamed": misnamed / max(known, 1),
        "expected": expected,
        "strangers": strangers,
        "known": known,
    }


def equal_error(trials: Sequence[Trial]) -> float:
    """The mean of false rejects and accepts at the threshold where they differ least."""
    both = [(r["false_reject"], r["false_accept"]) for r in (rates(trials, t) for t in THRESHOLDS)]
    return float(np.mean(min(both, key=lambda pair: abs(pair[0] - pair[1]))))


def choose_threshold(trials: Sequence[Trial]) -> float:
    """The lowest threshold at which no more than `MOST_ACCEPTED` are falsely accepted."""
    fitting = (t for t in THRESHOLDS if rates(trials, t)["false_accept"] <= MOST_ACCEPTED)
    return float(next(fitting, THRESHOLDS[-1]))


def result_table(by_seed: Sequence[Sequence[Trial]], threshold: float) -> str:
    """Means over all trials and in brackets the range over seeds."""
    whole = [trial for trials in by_seed for trial in trials]
    seeds = [rates(trials, threshold) for trials in by_seed]
    total = rates(whole, threshold)
    rows = []
    for name, of in (("false_reject", "expected"), ("false_accept", "strangers"), ("misnamed", "known")):
        each = [100 * seed[name] for seed in seeds]
        rows.append([name.replace("_", " "), f"{100 * total[name]:.1f}", f"{min(each):.1f} to {max(each):.1f}"])
        rows[-1].append(f"{total[of]:.0f}")
    each = [100 * equal_error(trials) for trials in by_seed]
    rows.append(["equal error", f"{100 * equal_error(whole):.1f}", f"{min(each):.1f} to {max(each):.1f}", ""])
    return table([f"% at {threshold:.2f}", "all", "range over seeds", "of"], rows)


def main() -> None:
    arguments = of_identification(__doc__)
    if arguments.recordings < 1 or arguments.seeds < 1:
        raise SystemExit("error: --recordings and --seeds must be at least 1")
    file = Path(arguments.model) / "config.json"
    if arguments.write and (arguments.split != "validation" or not file.is_file()):
        raise SystemExit("error: --write needs a model directory, and --split validation")
    try:
        network, settings = open_network(arguments.model)
        noises, by_seed, tried, refused = load_noises(arguments.noise), [], 0, 0
        corpora = [open_corpus(dataset, arguments.split) for dataset in arguments.dataset]
        for seed in range(arguments.seeds):
            by_seed.append([])
            for corpus in corpora:
                simulated = SimulatedRecordings(corpus, 100 + seed, noises)
                trials, people, without = make_trials(network, settings, simulated, arguments.recordings)
                by_seed[-1] += trials
                tried, refused = tried + people, refused + without
    except (CorpusError, ModelError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    whole = [trial for trials in by_seed for trial in trials]
    threshold = settings.known_voice_similarity if arguments.split != "validation" else choose_threshold(whole)
    print(f"{len(whole)} recordings of {SECONDS:g} s, {tried} enrolments of about {ENROLMENT_SECONDS:g} s, of which")
    print(f"{refused} refused; {KNOWN} people known in each recording\n")
    print(result_table(by_seed, threshold))
    if arguments.write:
        file.write_text(
            json.dumps(json.loads(file.read_text()) | {"known_voice_similarity": threshold}, indent=2) + "\n"
        )
        print(f"\nknown_voice_similarity {threshold:.2f} written to {file}", file=sys.stderr)


if __name__ == "__main__":
    main()
