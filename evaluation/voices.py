"""Speaker verification by the network's embeddings: equal error rate over pairs of 3 s pieces of held-out speakers."""

import numpy as np

from data.conversations import SAMPLING_RATE, Pool
from data.corpora import CorpusError, Utterances
from data.decoding import RowError, decode
from evaluation.systems import Ours
from modeling.windows_fast_diarization import probabilities, solo_seconds

SECONDS = 3.0
MOST_PIECES = 6


def pieces(utterances: Utterances, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The speech of each speaker, in seeded order, cut into at most `MOST_PIECES` pieces of 3 s.

    Returns:
        float32 (pieces, samples), and the speaker number of each piece (pieces,).

    Raises:
        CorpusError: fewer than two speakers have 3 s of speech, or no speaker has 6 s.
    """
    pool, length = Pool(), round(SECONDS * SAMPLING_RATE)
    for unit in range(len(utterances)):
        for row in utterances.read(unit):
            try:
                pool.add(decode(row.audio), row.speaker)
            except RowError:
                continue
    rng = np.random.default_rng(seed)
    waveforms, speakers = [], []
    for number, (_, said) in enumerate(sorted(pool.speakers.items())):
        speech = np.concatenate([pool.audio[i] for i in rng.permutation(said)])
        count = min(len(speech) // length, MOST_PIECES)
        waveforms += np.split(speech[: count * length], count) if count else []
        speakers += [number] * count
    if not 2 <= len(set(speakers)) < len(speakers):
        raise CorpusError(
            f"corpus {utterances.corpus.path!r} has {len(set(speakers))} speakers with {SECONDS:g} s of speech and "
            f"{len(speakers) - len(set(speakers))} more such pieces of them; two speakers and one more piece are needed"
        )
    return np.stack(waveforms), np.array(speakers)


def embed(system: Ours, waveforms: np.ndarray) -> np.ndarray:
    """(pieces, samples) -> (pieces, dim): the embedding of the track with the most non-overlapped speech."""
    found = []
    for first in range(0, len(waveforms), 32):
        logits, embeddings = system.network(waveforms[first : first + 32])
        longest = [int(solo_seconds(activity).argmax()) for activity in probabilities(logits)]
        found.append(embeddings[np.arange(len(longest)), longest])
    return np.concatenate(found)


def equal_error_rate(same: np.ndarray, other: np.ndarray) -> float:
    """The error rate at the threshold where misses and false acceptances are equally frequent.

    Args:
        same, other: similarities of pairs of one speaker, and of pairs of two speakers.
    """
    thresholds = np.unique(np.concatenate([same, other]))
    missed = np.searchsorted(np.sort(same), thresholds) / len(same)
    accepted = 1 - np.searchsorted(np.sort(other), thresholds) / len(other)
    at = np.argmin(np.abs(missed - accepted))
    return float((missed[at] + accepted[at]) / 2)


def score_voices(systems: list[Ours], utterances: Utterances, seed: int = 0) -> dict[str, dict]:
    """By system: `equal_error_rate` over all pairs of pieces, and the numbers of `speakers`, `pieces` and pairs."""
    waveforms, speakers = pieces(utterances, seed)
    first, second = np.triu_indices(len(speakers), 1)
    same = speakers[first] == speakers[second]
    results = {}
    for system in systems:
        vectors = embed(system, waveforms)
        similarity = (vectors @ vectors.T)[first, second]
        results[system.name] = {
            "equal_error_rate": equal_error_rate(similarity[same], similarity[~same]),
            "speakers": len(set(speakers.tolist())),
            "pieces": len(speakers),
            "same_pairs": int(same.sum()),
            "other_pairs": int((~same).sum()),
        }
    return results
