"""Agglomerative clustering of tracklets into speakers."""

from dataclasses import dataclass

import numpy as np

from .settings_fast_diarization import LinkingSettings, SpeakerCount


@dataclass(frozen=True)
class Dendrogram:
    """All merges of clusters, the nearest two first, as far as conflicts allow.

    Args:
        seconds: (tracklets,) of non-overlapped speech.
        pairs: (merges, 2) the cluster that stays and the one that is merged into it, each by one of its tracklets.
        similarity: (merges,) of the two.
    """

    seconds: np.ndarray
    pairs: np.ndarray
    similarity: np.ndarray

    def merges(self, threshold: float, least: int = 0) -> int:
        """Merges before the first one below a similarity, the first `least` of them whatever their similarity."""
        below = np.flatnonzero(self.similarity[least:] < threshold)
        return least + int(below[0]) if len(below) else len(self.pairs)

    def labels(self, merges: int) -> np.ndarray:
        """(tracklets,) the cluster of each after so many merges, from 0 on."""
        labels = np.arange(len(self.seconds))
        for stays, merged in self.pairs[:merges]:
            labels[labels == merged] = stays
        return np.unique(labels, return_inverse=True)[1]

    def speakers(self, least: float) -> np.ndarray:
        """(merges + 1,) clusters with `least` seconds or more after each number of merges, and no fewer than one."""
        lengths, found = self.seconds.copy(), [int((self.seconds >= least).sum())]
        for stays, merged in self.pairs:
            before = (lengths[[stays, merged]] >= least).sum()
            lengths[stays] += lengths[merged]
            found.append(found[-1] - int(before) + int(lengths[stays] >= least))
        return np.maximum(found, 1)


def cluster(
    sums: np.ndarray, seconds: np.ndarray, conflicts: np.ndarray, settings: LinkingSettings, count: SpeakerCount
) -> np.ndarray:
    """Agglomerative clustering of tracklets, the nearest two first.

    Clusters are merged as far as `same_speaker_similarity` says, and on while more speakers than `count` allows have
    `min_speaker_seconds` and `min_speaker_share` of speech. So nothing changes if a number is given that would have
    been found. Where fewer are found than `count` allows, all tracklets are merged until that many clusters are left.

    Args:
        sums: (tracklets, dim) embeddings times seconds.
        seconds: (tracklets,) of non-overlapped speech.
        conflicts: (pairs, 2) tracklets that must stay apart, each pair in both orders.

    Returns:
        (tracklets,) cluster from 0 on, or -1 for a tracklet of no speaker of its own.
    """
    tree = dendrogram(sums, seconds, to_apart(conflicts, len(sums)), settings)
    least = least_seconds(seconds, settings)
    merges, found = tree.merges(settings.same_speaker_similarity), tree.speakers(least)
    while found[merges] > count.most and merges < len(tree.pairs):
        merges += 1
    if found[merges] < count.fewest:
        merges, least = max(min(len(sums) - count.fewest, len(tree.pairs)), 0), 0.0

    labels = tree.labels(merges)
    lengths = np.bincount(labels, seconds)
    order = np.argsort(-lengths, kind="stable")[: count.most]
    keep = order[(lengths[order] >= least) | (np.arange(len(order)) == 0)]
    renamed = np.full(len(lengths), -1)
    renamed[keep] = np.arange(len(keep))
    return renamed[labels]


def more_speakers(sums: np.ndarray, seconds: np.ndarray, conflicts: np.ndarray, settings: LinkingSettings) -> int:
    """How many more speakers `cluster` finds, given the same, with `same_speaker_similarity` higher by up to
    `sure_margin`."""
    tree = dendrogram(sums, seconds, to_apart(conflicts, len(sums)), settings)
    found = tree.speakers(least_seconds(seconds, settings))
    here, higher = (tree.merges(settings.same_speaker_similarity + by) for by in (0, settings.sure_margin))
    return int(found[higher : here + 1].max() - found[here])


def to_apart(conflicts: np.ndarray, tracklets: int) -> np.ndarray:
    """(tracklets, tracklets) whether two must stay apart, of (pairs, 2)."""
    apart = np.zeros((tracklets, tracklets), bool)
    apart[tuple(conflicts.T)] = True
    return apart


def least_seconds(seconds: np.ndarray, settings: LinkingSettings) -> float:
    """Non-overlapped speech of a cluster that is a speaker, where tracklets have `seconds` of it."""
    return max(settings.min_speaker_seconds, settings.min_speaker_share * seconds.sum())


def merge(
    sums: np.ndarray, seconds: np.ndarray, apart: np.ndarray, settings: LinkingSettings, count: SpeakerCount
) -> np.ndarray:
    """(tracklets,) clusters once the nearest two are merged until none are near enough, or the most wanted are left;
    never below the fewest. Distances are those of `dendrogram`."""
    tree = dendrogram(sums, seconds, apart, settings)
    merges = tree.merges(settings.same_speaker_similarity, max(len(sums) - count.most, 0))
    return tree.labels(min(merges, max(len(sums) - count.fewest, 0)))


def dendrogram(sums: np.ndarray, seconds: np.ndarray, apart: np.ndarray, settings: LinkingSettings) -> Dendrogram:
    """
    The distance of two clusters is one minus cosine, times the square root of the evidence for it: half the harmonic
    mean of the times they are heard, as a share of `full_evidence_seconds` and at most 1.

    Args:
        sums, seconds: as of `cluster`.
        apart: (tracklets, tracklets) whether two must stay apart.
    """
    full = max(settings.full_evidence_seconds, 1e-9)
    sums, lengths, apart = sums.copy(), seconds.copy(), apart | np.eye(len(sums), dtype=bool)
    vectors = normalise(sums)

    def similarity_to(a: int) -> np.ndarray:
        evidence = lengths * lengths[a] / np.maximum(lengths + lengths[a], 1e-9)
        distance = (1 - vectors @ vectors[a]) * np.sqrt(np.minimum(evidence / full, 1))
        return np.where(apart[a], -np.inf, 1 - distance)

    similarity = np.array([similarity_to(a) for a in range(len(sums))])
    each, nearest = np.arange(len(sums)), similarity.argmax(axis=1)
    pairs, similarities = [], []
    while len(pairs) < len(sums) - 1:
        a = similarity[each, nearest].argmax()
        b = nearest[a]
        if similarity[a, b] == -np.inf:
            break
        pairs.append((int(a), int(b)))
        similarities.append(float(similarity[a, b]))
        sums[a] += sums[b]
        lengths[a] += lengths[b]
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
    return Dendrogram(seconds, np.array(pairs, int).reshape(-1, 2), np.array(similarities))


def group(sums: np.ndarray, labels: np.ndarray) -> np.ndarray:
    grouped = np.zeros((labels.max() + 1, sums.shape[1]), np.float32)
    np.add.at(grouped, labels, sums)
    return grouped


def normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
