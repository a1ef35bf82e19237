"""Measure the conversations that the simulator makes, beside the recordings it imitates.

python -m data.turn_statistics --dataset demo --windows 1024
"""

from dataclasses import replace
from itertools import islice

from common.program import end_quietly
from data.flags import of_turn_statistics

if __name__ == "__main__":
    end_quietly()
    of_turn_statistics(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np

from common.markdown import table
from common.words import number_word
from data.acoustics import CLEAN, Scenery
from data.conversations import GRID, SAMPLING_RATE, STYLES, TURN_TAKING, Pool, Turns, cast_speakers, plan_turns, render
from data.corpora import CorpusError, Utterances, open_corpus
from data.decoding import RowError, decode
from data.streaming import StreamConfig, make_batch
from modeling.task_fast_diarization import Task

QUANTITIES = {
    "turn_seconds": "turn",
    "same_speaker_pause_seconds": "pause, same speaker",
    "speaker_change_gap_seconds": "gap at a change",
    "speaker_change_overlap_seconds": "overlap at a change",
}
SHARES = {
    "speech_fraction": "speech",
    "overlap_fraction_of_speech": "overlap, of speech",
    "probability_next_turn_is_other_speaker": "next turn is the other speaker's",
    "probability_change_overlaps": "changes that overlap",
}
SHOWN = (5, 25, 50, 75, 90, 95)
CONVERSATIONS, SECONDS = 200, 300.0
PEOPLE = 2
"""In the recordings measured, and so in the conversations held against them."""
STEP = GRID / SAMPLING_RATE


def measure(turns: Turns, seconds: float) -> dict:
    """Statistics of conversations as in `turn_taking.json`: between turns that follow each other by start.

    Args:
        turns: only turns that start within `seconds` count; turns of negative length are padding.
        seconds: length of the conversations.

    Returns:
        the keys of `QUANTITIES`, each with an array of lengths in seconds, and the keys of `SHARES`.
    """
    lengths = {quantity: [] for quantity in QUANTITIES}
    speech = overlap = 0
    for speaker, start, end in zip(turns.speaker, turns.start, turns.end):
        order = np.argsort(start, kind="stable")
        order = order[(start[order] < seconds) & (end[order] > start[order])]
        speaker, start, end = speaker[order], start[order], end[order]
        change, after = speaker[1:] != speaker[:-1], start[1:] - end[:-1]
        lengths["turn_seconds"].append(end - start)
        lengths["same_speaker_pause_seconds"].append(after[~change])
        lengths["speaker_change_gap_seconds"].append(after[change & (after >= 0)])
        lengths["speaker_change_overlap_seconds"].append(-after[change & (after < 0)])
        talking = np.zeros(round(seconds / STEP), np.int64)
        for first, last in zip(np.round(start / STEP).astype(int), np.round(end / STEP).astype(int)):
            talking[first:last] += 1
        speech += np.count_nonzero(talking)
        overlap += np.count_nonzero(talking > 1)
    result = {quantity: np.concatenate(found) for quantity, found in lengths.items()}
    pauses, gaps, overlaps = (len(result[quantity]) for quantity in list(QUANTITIES)[1:])
    return result | {
        "speech_fraction": speech / (len(turns.start) * round(seconds / STEP)),
        "overlap_fraction_of_speech": overlap / max(speech, 1),
        "probability_next_turn_is_other_speaker": (gaps + overlaps) / max(gaps + overlaps + pauses, 1),
        "probability_change_overlaps": overlaps / max(gaps + overlaps, 1),
    }


def turns_of(active: np.ndarray) -> Turns:
    """Turns of speech activity: bool (count, num_speakers, steps) of 10 ms each."""
    conversations = []
    for tracks in active:
        runs = [np.flatnonzero(np.diff(t.astype(np.int8), prepend=0, append=0)).reshape(-1, 2) for t in tracks]
        speaker = np.repeat(np.arange(len(runs)), [len(r) for r in runs])
        conversations.append(np.column_stack([speaker, np.concatenate(runs) * STEP]))
    longest = max(len(turns) for turns in conversations)
    padded = np.stack([np.pad(turns, ((0, longest - len(turns)), (0, 0))) for turns in conversations])
    return Turns(padded[..., 0].astype(int), padded[..., 1], padded[..., 2])


def window_shares(labels: np.ndarray) -> dict[str, float]:
    """Shares of windows with none, one, ... `num_speakers` speakers, and of speech and overlap.

    Args:
        labels: (windows, frames, num_speakers), 0 or 1.
    """
    heard = (labels > 0.5).any(axis=1).sum(axis=1)
    talking = (labels > 0.5).sum(axis=2)
    counted = np.bincount(heard, minlength=labels.shape[2] + 1) / len(labels)
    overlap = np.count_nonzero(talking > 1) / max(np.count_nonzero(talking), 1)
    shares = {number_word(number): share for number, share in enumerate(counted)}
    return shares | {"speech": (talking > 0).mean(), "overlap": overlap}


def fill_pool(utterances: Utterances, size: int, speakers: int) -> Pool:
    """Decode up to `size` utterances from units spread over the corpus.

    Raises:
        CorpusError: they have fewer speakers than are needed.
    """
    pool = Pool()
    for unit in np.random.default_rng(0).permutation(len(utterances))[:16]:
        for row in islice(utterances.read(unit), size // 4):
            try:
                pool.add(decode(row.audio), row.speaker)
            except RowError:
                continue
        if len(pool.audio) >= size:
            break
    if len(pool.speakers) < speakers:
        found = f"{len(pool.speakers)} speakers in its first units; {speakers} are needed"
        raise CorpusError(f"corpus {utterances.corpus.path!r} has {found}")
    return pool


def report(pool: Pool, windows: int, task: Task = Task()) -> str:
    """Markdown tables of the measured and the simulated statistics, with windows of the task; deterministic."""
    columns = {}
    for number, style in enumerate(STYLES[:2]):
        planned = plan_turns(np.random.default_rng(number), CONVERSATIONS, SECONDS, PEOPLE, np.eye(len(STYLES))[number])
        columns[f"{style}, measured"] = TURN_TAKING[style]
        columns[f"{style}, planned"] = measure(planned, SECONDS)
    rng = np.random.default_rng(2)
    seconds, count = 60.0, 50
    mixed = plan_turns(rng, count, seconds + 30, PEOPLE)
    speech = render(rng, pool, mixed, cast_speakers(rng, pool, count, PEOPLE), np.full(count, 30.0), seconds)
    columns["all styles, rendered"] = measure(turns_of(speech.active), seconds)

    quantiles = np.array(SHOWN) / 100
    rows = []
    for quantity, name in QUANTITIES.items():
        for column, values in columns.items():
            at = [TURN_TAKING["quantiles_percent"].index(percent) for percent in SHOWN]
            values = np.array(values[quantity])
            values = values[at] if column.endswith("measured") else np.quantile(values, quantiles)
            rows.append([f"{name}: {column}", *(f"{value:.2f}" for value in values)])
    lengths = table(["seconds", *(f"{percent} %" for percent in SHOWN)], rows)
    shares = table(
        ["%", *columns],
        [[name, *(f"{100 * values[share]:.1f}" for values in columns.values())] for share, name in SHARES.items()],
    )
    return f"{lengths}\n\n{shares}\n\n{_window_table(pool, windows, task)}"


def _window_table(pool: Pool, windows: int, task: Task) -> str:
    numbers = [number_word(number) for number in range(task.num_speakers + 1)]
    rows = {"training, requested": dict(zip(numbers, task.shares))}
    for name, shares in (("training, made", task.shares), ("natural proportions", None)):
        config = StreamConfig(**vars(replace(task, shares=shares)), batch_size=windows, augmentation=CLEAN)
        rng = np.random.default_rng(3)
        scenery = Scenery(rng, round(config.window_seconds * SAMPLING_RATE), pool, [])
        rows[name] = window_shares(make_batch(rng, pool, scenery, config)["labels"])
    quantities = [*numbers, "speech", "overlap"]
    return table(
        ["% of windows by speakers", *numbers, "speech, of time", "overlap, of speech"],
        [[name, *(f"{100 * v[k]:.1f}" if k in v else "" for k in quantities)] for name, v in rows.items()],
    )


def main() -> None:
    arguments = of_turn_statistics(__doc__)
    if arguments.windows < 1:
        raise SystemExit(f"error: --windows must be at least 1, got {arguments.windows}")
    try:
        task = Task(arguments.num_speakers)
        pool = fill_pool(open_corpus(arguments.dataset, "train"), 200, max(PEOPLE, task.num_speakers))
    except (CorpusError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    print(report(pool, arguments.windows, task))


if __name__ == "__main__":
    main()
