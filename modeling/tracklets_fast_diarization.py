"""Tracklets: stretches of consecutive windows in which one local speaker goes on."""

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np

from .clustering_fast_diarization import cluster, group, more_speakers, normalise
from .settings_fast_diarization import LinkingSettings, SpeakerCount
from .windows_fast_diarization import agreement, is_present, solo_seconds

MIN_SHARED_FRAMES = 10
MIN_CERTAIN_SECONDS = 0.5
"""A local speaker with less non-overlapped speech says little about who it is."""


class Tracklets:
    """Stretches of windows in which one local speaker goes on, each with the mean of its embeddings.

    Attributes:
        sums: (dim,) embeddings times seconds of non-overlapped speech, of each tracklet.
        seconds: of non-overlapped speech.
        conflicts: pairs of tracklets that are each alone for a while in one window, the smaller number first.
        latest: the first frame, activities and tracklets of the latest window.
    """

    def __init__(self, settings: LinkingSettings):
        self.settings = settings
        self.sums: list[np.ndarray] = []
        self.seconds: list[float] = []
        self.conflicts: set[tuple[int, int]] = set()
        self.latest: tuple[int, np.ndarray, np.ndarray] | None = None

    def follow(self, start: int, activity: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Take in the window that follows, of which `start` is the first frame.

        Args:
            activity: (frames, local speakers).
            vectors: (local speakers, dim) their embeddings.

        Returns:
            (local speakers,) the tracklet of each, -1 where it is absent.
        """
        solo = solo_seconds(activity)
        present = is_present(activity)
        certain = present & (solo >= MIN_CERTAIN_SECONDS)
        tracklets = np.where(present, self._continued(start, activity, vectors, certain), -1)
        # A second is heard in several windows and counts once.
        weights = solo * min(1.0, self.settings.hop_frames / len(activity))
        for local in np.flatnonzero(present):
            if tracklets[local] < 0:
                tracklets[local] = len(self.sums)
                self.sums.append(np.zeros(vectors.shape[1], np.float32))
                self.seconds.append(0.0)
            self.sums[tracklets[local]] += weights[local] * vectors[local]
            self.seconds[tracklets[local]] += float(weights[local])
        self.conflicts.update(combinations(sorted(tracklets[certain].tolist()), 2))
        self.latest = start, activity, tracklets
        return tracklets

    def _continued(self, start: int, activity: np.ndarray, vectors: np.ndarray, certain: np.ndarray) -> np.ndarray:
        """The tracklets that the local speakers of a new window continue, -1 for none."""
        continued = np.full(activity.shape[1], -1)
        if self.latest is None:
            return continued
        before_start, before_activity, before_tracklets = self.latest
        known = before_activity[start - before_start :]
        shared, either = agreement(known, activity[: len(known)])
        for before, local in enumerate(best_order(shared)):
            tracklet = before_tracklets[before]
            agreed = shared[before, local] >= max(MIN_SHARED_FRAMES, 0.5 * either[before, local])
            if tracklet < 0 or not agreed:
                continue
            heard = self.seconds[tracklet] > 0 and certain[local]
            if not heard or normalise(self.sums[tracklet]) @ vectors[local] >= self.settings.same_tracklet_similarity:
                continued[local] = tracklet
        return continued

    def speakers(self, count: SpeakerCount, short_ones: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Cluster the tracklets.

        Args:
            short_ones: a cluster with hardly any speech is a speaker too.

        Returns:
            (tracklets,) the speaker of each, -1 where it is no evidence of one, and (speakers, dim) their centroids as
            unit vectors.
        """
        sums, seconds = np.array(self.sums), np.array(self.seconds)
        settings = replace(self.settings, min_speaker_seconds=0, min_speaker_share=0) if short_ones else self.settings
        labels = self._clustered(self._evident(), settings, SpeakerCount(max_speakers=count.most))
        if labels.max(initial=-1) + 1 < count.fewest:
            evident = np.flatnonzero(seconds >= MIN_CERTAIN_SECONDS)
            if len(evident) < count.fewest:
                evident = np.sort(np.argsort(-seconds, kind="stable")[: count.fewest])
            labels = self._clustered(evident, settings, SpeakerCount(count.fewest))
        return labels, normalise(group(sums[labels >= 0], labels[labels >= 0]))

    def more_speakers(self) -> int:
        """How many more there may be than `speakers` finds, as of `more_speakers`."""
        evident = self._evident()
        return more_speakers(*self._to_cluster(evident), self.settings) if len(evident) else 0

    def _evident(self) -> np.ndarray:
        """The tracklets that are evidence of a speaker."""
        seconds = np.array(self.seconds)
        share = self.settings.min_speaker_share * seconds.sum()
        return np.flatnonzero(seconds >= min(max(MIN_CERTAIN_SECONDS, share), self.settings.min_solo_seconds))

    def _clustered(self, evident: np.ndarray, settings: LinkingSettings, count: SpeakerCount) -> np.ndarray:
        """(tracklets,) the cluster of each of those that are `evident`, -1 of the others."""
        labels = np.full(len(self.sums), -1)
        if len(evident):
            labels[evident] = cluster(*self._to_cluster(evident), settings, count)
        return labels

    def _to_cluster(self, evident: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums, seconds and conflicts of some tracklets, as of `cluster`."""
        sums, seconds = np.array(self.sums)[evident], np.array(self.seconds)[evident]
        conflicts = np.array(sorted(self.conflicts), int).reshape(-1, 2)
        at = np.searchsorted(evident, conflicts).clip(max=len(evident) - 1)
        conflicts = at[(evident[at] == conflicts).all(axis=1)]
        one, other = normalise(sums)[conflicts.T]
        conflicts = conflicts[(one * other).sum(axis=1) < self.settings.same_tracklet_similarity]
        return sums, seconds, np.concatenate([conflicts, conflicts[:, ::-1]])

    def fold(self, labels: np.ndarray) -> np.ndarray:
        """Put the tracklets of each speaker together, but for those of the latest window, and forget those of none.

        Args:
            labels: as `speakers` gave them.

        Returns:
            (tracklets,) the new number of each, -1 where it is forgotten.
        """
        under_way = self.latest[2][self.latest[2] >= 0]
        groups = labels.copy()
        groups[under_way] = labels.max() + 1 + np.arange(len(under_way))
        numbers = np.full(len(groups), -1)
        numbers[groups >= 0] = np.unique(groups[groups >= 0], return_inverse=True)[1]
        kept = numbers >= 0
        self.sums = list(group(np.array(self.sums)[kept], numbers[kept]))
        self.seconds = np.bincount(numbers[kept], np.array(self.seconds)[kept]).tolist()
        pairs = (sorted((int(numbers[a]), int(numbers[b]))) for a, b in self.conflicts)
        self.conflicts = {(a, b) for a, b in pairs if 0 <= a < b}
        start, activity, tracklets = self.latest
        self.latest = start, activity, np.where(tracklets >= 0, numbers[tracklets], -1)
        return numbers


def best_order(scores: np.ndarray) -> tuple[int, ...]:
    """The permutation of columns with the largest sum of `scores[row, column]`; rows are no more than columns."""
    rows, columns = scores.shape
    return max(permutations(range(columns), rows), key=lambda order: scores[np.arange(rows), order].sum())
