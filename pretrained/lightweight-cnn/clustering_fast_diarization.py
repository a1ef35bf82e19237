"""Agglomerative clustering of tracklets into speakers."""

import numpy as np

from .settings_fast_diarization import LinkingSettings, SpeakerCount


def cluster(
    sums: np.ndarray, seconds: np.ndarray, conflicts: np.ndarray, settings: LinkingSettings, count: SpeakerCount
) -> np.ndarray:
    """Agglomerative clustering of tracklets, the nearest two first.

    Args:
        sums: (tracklets, dim) embeddings times seconds.
        seconds: (tracklets,) of each heard alone.
        conflicts: (pairs, 2) tracklets that must stay apart, each pair in both orders.

    Returns:
        (tracklets,) cluster from 0 on, or -1 for a tracklet of no speaker of its own.
    """
    apart = np.zeros((len(sums), len(sums)), bool)
    apart[tuple(conflicts.T)] = True
    labels = merge(sums, seconds, apart, settings, count)

    lengths = np.bincount(labels, seconds)
    order = np.argsort(-lengths, kind="stable")[: count.most]
    least = max(settings.min_speaker_seconds, settings.min_speaker_share * lengths.sum())
    keep = order[lengths[order] >= (0 if count.num_speakers else least)]
    if len(keep) < count.fewest:
        keep = order[: count.fewest]
    renamed = np.full(len(lengths), -1)
    renamed[keep] = np.arange(len(keep))
    return renamed[labels]


def merge(
    sums: np.ndarray, seconds: np.ndarray, apart: np.ndarray, settings: LinkingSettings, count: SpeakerCount
) -> np.ndarray:
    """Merge the nearest two clusters until none are near enough, or the most wanted are left; never below the fewest.

    Their distance is one minus cosine, times the square root of the evidence for it: half the harmonic mean of the
    times they are heard, as a share of `full_evidence_seconds` and at most 1.
    """
    full = max(settings.full_evidence_seconds, 1e-9)
    sums, seconds, apart = sums.copy(), seconds.copy(), apart | np.eye(len(sums), dtype=bool)
    labels = np.arange(len(sums))
    vectors = normalise(sums)

    def similarity_to(a: int) -> np.ndarray:
        evidence = seconds * seconds[a] / np.maximum(seconds + seconds[a], 1e-9)
        distance = (1 - vectors @ vectors[a]) * np.sqrt(np.minimum(evidence / full, 1))
        return np.where(apart[a], -np.inf, 1 - distance)

    similarity = np.array([similarity_to(a) for a in range(len(sums))])
    each, nearest = np.arange(len(sums)), similarity.argmax(axis=1)
    for left in range(len(sums), count.fewest, -1):
        a = similarity[each, nearest].argmax()
        b = nearest[a]
        if similarity[a, b] == -np.inf or (similarity[a, b] < settings.same_speaker_similarity and left <= count.most):
            break
        sums[a] += sums[b]
        seconds[a] += seconds[b]
        vectors[a] = normalise(sums[a])
        apart[a] |= apart[b]
        apart[:, a] = apart[a]
        apart[b] = apart[:, b] = True
        similarity[a] = similarity[:, a] = similarity_to(a)
        similarity[b] = similarity[:, b] = -np.inf
        stale = (nearest == a) | (nearest == b)
        stale[a] = True
        nearest[stale] = similarity[stale].argmax(axis=1)
        nearest[similarity[:, a] > similarity[each, nearest]] = a
        labels[labels == b] = a
    return np.unique(labels, return_inverse=True)[1]


def group(sums: np.ndarray, labels: np.ndarray) -> np.ndarray:
    grouped = np.zeros((labels.max() + 1, sums.shape[1]), np.float32)
    np.add.at(grouped, labels, sums)
    return grouped


def normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
