"""From windows to whole recordings: who is active in each window, and with which speaker
embedding, becomes segments of speakers.

A window of the network tells a few speakers apart without knowing them from other windows. Four steps link them:

1. Local speakers of windows that follow each other are chained into tracklets where they agree on the frames they
   share and sound alike.
2. Tracklets are clustered by the mean of their embeddings, weighted by the time of non-overlapped speech; those with
   little of it may differ more, which is between centroid linkage and that of Ward (1963). Tracklets with
   non-overlapped speech in one window are never merged, as in EEND-VC (Kinoshita et al., ICASSP 2021), unless their
   embeddings are alike: then the window took one speaker for two.
3. The clusters only say which centroids there are. Which local speaker of which window is whom is the best path through
   all windows (Viterbi), by embeddings within windows and by agreement on shared frames between them. Centroids that
   turn out alike over the whole recording are one, kept apart by a window that took one speaker for two, unless many
   windows tell them apart. From the path come better centroids and from those a better path, as in k-means (Lloyd,
   1982), until it stays.
4. Activities are summed up over windows under the speakers found and thresholded with hysteresis.

Speech far quieter than the rest is left out of all of them: it is of nobody present. Only activities, embeddings and
levels are kept, in a temporary file once they are more than 16 MB (some two hours), so a
recording may be of any length. numpy is all this file needs: torch and ONNX Runtime give their outputs to the same
code.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from .clustering_fast_diarization import group, merge, normalise
from .counting_fast_diarization import (
    CountEstimate,
    Diarization,
    Speaker,
    alike,
    estimate_count,
    least_confidence,
)
from .levels_fast_diarization import Loudness, frame_levels
from .path_fast_diarization import best_path
from .segments_fast_diarization import Segment, find_runs, segments_of, speaker_name
from .settings_fast_diarization import LinkingSettings, SpeakerCount
from .tracklets_fast_diarization import MIN_CERTAIN_SECONDS, Tracklets
from .windows_fast_diarization import (
    WINDOWS_PER_BATCH,
    Network,
    WindowOutputs,
    probabilities,
    sliding_windows,
    solo_seconds,
)

MOST_TRACKLETS = 1_000
"""When there are more, those of one speaker are put together: the cost of clustering is cubic, memory is bounded."""
MOST_ROUNDS = 5
"""From centroids to a path and back; mostly two are enough."""
MIN_TOGETHER_WINDOWS, MIN_TOGETHER_SHARE = 4, 0.03
"""Two speakers, each alone for a while in so many windows and in such a share of all, are two people however alike. The
network takes one speaker for two in 0.7 % of the windows of validation speakers, and hears two who converse in 5 %."""
SUMMED_TOGETHER = 10_000
"""Frames summed up at a time."""


def diarize(
    network: Network, blocks: Iterable[np.ndarray], settings: LinkingSettings, count: SpeakerCount = SpeakerCount()
) -> list[Segment]:
    """Who speaks when in a recording given as consecutive mono 16 kHz waveforms of any lengths, in order of start."""
    return link(network, blocks, settings).segments(count)


def link(
    network: Network,
    blocks: Iterable[np.ndarray],
    settings: LinkingSettings,
    windows_per_batch: int = WINDOWS_PER_BATCH,
) -> "Linker":
    """A `Linker` of a whole recording, given as of `diarize`."""
    linker = Linker(settings)
    for starts, windows in sliding_windows(blocks, settings, windows_per_batch):
        linker.add(starts, *network(windows), frame_levels(windows))
    return linker


class Linker:
    """Collects the outputs for all windows of a recording and links them.

    Example:

    ```python
    >>> linker = Linker(LinkingSettings())
    >>> linker.add([0, 50], logits, speaker_embeddings, frame_levels(windows))
    >>> linker.segments(SpeakerCount(num_speakers=2))
    ```
    """

    def __init__(self, settings: LinkingSettings):
        self.settings = settings
        self.outputs, self.loudness = WindowOutputs(), Loudness()

    def add(self, starts: list[int], logits: np.ndarray, embeddings: np.ndarray, levels: np.ndarray | None = None):
        """
        Args:
            starts: first frame of each window, ascending over all calls.
            logits: (windows, frames, speakers) log-odds.
            embeddings: (windows, speakers, dim) unit vectors.
            levels: (windows, frames) in dB, as of `frame_levels`; without them all speech counts, however quiet.
        """
        self.__dict__.pop("tracklets", None)
        activities = probabilities(logits).astype(np.float16)
        levels = np.zeros(activities.shape[:2]) if levels is None else levels
        for start, activity, vectors, level in zip(starts, activities, embeddings, levels):
            self.outputs.append(start, activity, vectors, level)
            self.loudness.add(activity, level)

    @cached_property
    def tracklets(self) -> Tracklets:
        """Those of all windows added."""
        self.outputs.least_level = self.loudness.decibels - self.settings.speech_range_db
        tracklets, most = Tracklets(self.settings), MOST_TRACKLETS
        for output in self.outputs:
            tracklets.follow(int(output["start"]), output["activity"], output["vectors"].astype(np.float32))
            if len(tracklets.sums) > most:
                tracklets.fold(tracklets.speakers(SpeakerCount(), short_ones=True)[0])
                most = max(MOST_TRACKLETS, 2 * len(tracklets.sums))
        return tracklets

    def segments(self, count: SpeakerCount = SpeakerCount()) -> list[Segment]:
        """Segments of all speakers by start; speakers are named SPEAKER_00, SPEAKER_01, ... as they appear."""
        return self.diarization(count).segments

    def diarization(self, count: SpeakerCount = SpeakerCount()) -> Diarization:
        """Segments and speakers, as of `segments`."""
        if not self.tracklets.sums:
            return Diarization([], {}, CountEstimate(0, 0, 0))
        path, speakers = self._link(count)
        seconds = np.zeros(speakers)

        def counted() -> Iterator[np.ndarray]:
            for block in self._sum_up(path, speakers):
                seconds[:] += solo_seconds(block)
                yield block

        runs = find_runs(counted(), self.settings)
        centroids = normalise(self._heard_along(path)[0])
        appearing = dict.fromkeys(speaker for _, _, speaker, _ in runs)
        speakers = {speaker_name(n): Speaker(centroids[one], float(seconds[one])) for n, one in enumerate(appearing)}
        segments = segments_of(runs)
        return Diarization(segments, speakers, self._estimate(segments, speakers, count))

    def _estimate(self, segments: list[Segment], speakers: dict[str, Speaker], count: SpeakerCount) -> CountEstimate:
        likeness, confidence = alike(speakers), least_confidence(segments)
        estimate = estimate_count(len(speakers), self.tracklets.more_speakers(), likeness, confidence, self.settings)
        return estimate.within(count)

    def activities(self, count: SpeakerCount = SpeakerCount()) -> Iterator[np.ndarray]:
        """Consecutive (frames, speakers) activities of all speakers; none where nobody speaks."""
        if self.tracklets.sums:
            yield from self._sum_up(*self._link(count))

    def _link(self, count: SpeakerCount) -> tuple[np.ndarray, int]:
        """(windows, local speakers) the speaker each of them is, -1 where absent, and the number of speakers."""
        centroids = self.tracklets.speakers(count)[1]
        path = best_path(self.outputs, centroids)
        for _ in range(MOST_ROUNDS):
            centroids = self._centroids_along(path, count)
            before, path = path, best_path(self.outputs, centroids)
            if np.array_equal(path, before):
                break
        return path, len(centroids)

    def _centroids_along(self, path: np.ndarray, count: SpeakerCount) -> np.ndarray:
        """(speakers, dim) centroids of the speakers named; those alike are put together as far as `count` allows."""
        sums, seconds, together = self._heard_along(path)
        apart = together >= max(MIN_TOGETHER_WINDOWS, MIN_TOGETHER_SHARE * len(path))
        alike = self.settings.same_tracklet_similarity
        settings = replace(self.settings, same_speaker_similarity=alike, full_evidence_seconds=0)
        return normalise(group(sums, merge(sums, seconds, apart, settings, count)))

    def _heard_along(self, path: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the speakers named: (speakers, dim) embeddings times non-overlapped seconds in all windows, (speakers,)
        these seconds, and (speakers, speakers) windows in which both are alone for a while."""
        seconds = np.zeros(path.max() + 1)
        sums = np.zeros((len(seconds), self.tracklets.sums[0].size), np.float32)
        together = np.zeros((len(seconds), len(seconds)), int)
        for output, speakers in zip(self.outputs, path):
            solo = solo_seconds(output["activity"])
            for local in np.flatnonzero(speakers >= 0):
                sums[speakers[local]] += solo[local] * output["vectors"][local]
                seconds[speakers[local]] += solo[local]
            certain = speakers[(speakers >= 0) & (solo >= MIN_CERTAIN_SECONDS)]
            together[np.ix_(certain, certain)] += 1
        np.fill_diagonal(together, 0)
        return sums, seconds, together

    def _sum_up(self, path: np.ndarray, speakers: int) -> Iterator[np.ndarray]:
        """Consecutive (frames, speakers) activities: means over the windows that saw a frame, edges counting less."""
        first, total, weight = 0, np.zeros((0, speakers), np.float32), np.zeros((0, 1), np.float32)
        for output, named in zip(self.outputs, path):
            activity, start = output["activity"], int(output["start"])
            length = len(activity)
            if start + length > first + len(total):
                done = start - first
                yield total[:done] / np.maximum(weight[:done], 1e-6)
                more = SUMMED_TOGETHER + length - len(total) + done
                total = np.concatenate([total[done:], np.zeros((more, speakers), np.float32)])
                weight = np.concatenate([weight[done:], np.zeros((more, 1), np.float32)])
                first = start
                edge = np.hamming(length + 2)[1:-1].astype(np.float32)[:, None]
            seen = slice(start - first, start - first + length)
            mapped = np.zeros((length, speakers), np.float32)
            for local in np.flatnonzero(named >= 0):
                mapped[:, named[local]] = np.maximum(mapped[:, named[local]], activity[:, local])
            total[seen] += edge * mapped
            weight[seen] += edge
        yield total[: seen.stop] / np.maximum(weight[: seen.stop], 1e-6)
