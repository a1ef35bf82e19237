"""From windows to whole recordings: who is active in each window, and as whose voice, becomes segments of speakers.

A window of the network tells a few speakers apart without knowing them from other windows. Three steps link them:

1. Local speakers of windows that follow each other are chained into tracklets where they agree on the frames they
   share and do not sound like two people.
2. Tracklets are clustered by the mean of their embeddings, weighted by the time a speaker is heard alone. Tracklets
   active in one window are never merged, as in EEND-VC (Kinoshita et al., ICASSP 2021).
3. Activities are summed up over all windows under the speakers found and thresholded with hysteresis.

Only activities and embeddings are kept, about 10 MB for an hour, so a recording may be of any length. numpy is all
this file needs: torch and ONNX Runtime give their answers to the same code.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

SAMPLING_RATE = 16_000
FRAME_SAMPLES = 320
FRAME_SECONDS = FRAME_SAMPLES / SAMPLING_RATE
MIN_SAMPLES = 1_600
MOST_SPEAKERS = 100
WINDOWS_PER_BATCH = 16
CLUSTERED_TOGETHER = 400
"""Tracklets clustered in one stage: the cost of a stage is cubic, that of all stages linear."""

Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(windows, samples) -> logits (windows, frames, speakers) and speaker embeddings (windows, speakers, dim)."""


@dataclass(frozen=True)
class LinkingSettings:
    """How windows become a recording. The defaults were chosen on simulated recordings of validation speakers.

    Args:
        sliding_window_seconds, hop_seconds: length of the windows and the step from one to the next.
        onset, offset: a speaker starts where the activity rises to `onset` and stops where it falls below `offset`.
        min_duration_on: shorter segments are dropped, in seconds.
        min_duration_off: shorter pauses of a speaker are filled, in seconds.
        min_solo_seconds: a tracklet heard alone for less is no evidence of a speaker; it joins the nearest one.
        same_speaker_similarity: two clusters whose embeddings have this cosine or more are one speaker.
        min_speaker_seconds: a cluster with less speech is no speaker of its own where their number is unknown.

    Raises:
        ValueError: a value outside its range.
    """

    sliding_window_seconds: float = 5.0
    hop_seconds: float = 1.0
    onset: float = 0.5
    offset: float = 0.4
    min_duration_on: float = 0.1
    min_duration_off: float = 0.2
    min_solo_seconds: float = 1.0
    same_speaker_similarity: float = 0.5
    min_speaker_seconds: float = 2.0

    def __post_init__(self):
        if not 0.5 <= self.sliding_window_seconds <= 60:
            raise ValueError(f"sliding_window_seconds must be in [0.5, 60], got {self.sliding_window_seconds}")
        if not FRAME_SECONDS <= self.hop_seconds <= self.sliding_window_seconds:
            raise ValueError(
                f"hop_seconds must be in [{FRAME_SECONDS}, sliding_window_seconds], got {self.hop_seconds}"
            )
        if not 0 < self.offset <= self.onset < 1:
            raise ValueError(f"0 < offset <= onset < 1 must hold, got offset {self.offset} and onset {self.onset}")
        for name in ("min_duration_on", "min_duration_off", "min_solo_seconds", "min_speaker_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be seconds, 0 or more, got {getattr(self, name)}")
        if not -1 <= self.same_speaker_similarity <= 1:
            raise ValueError(f"same_speaker_similarity must be in [-1, 1], got {self.same_speaker_similarity}")

    @classmethod
    def of(cls, config: dict) -> "LinkingSettings":
        """From the fields of a model's configuration, with defaults for those it does not have."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})

    @property
    def window_frames(self) -> int:
        return round(self.sliding_window_seconds / FRAME_SECONDS)

    @property
    def hop_frames(self) -> int:
        return round(self.hop_seconds / FRAME_SECONDS)


@dataclass(frozen=True)
class Segment:
    """`speaker` is active from `start` to `end` (seconds); `confidence` is the mean activity, 0 to 1."""

    start: float
    end: float
    speaker: str
    confidence: float


@dataclass(frozen=True)
class SpeakerCount:
    """How many speakers are looked for: exactly `num_speakers`, or from `min_speakers` to `max_speakers`.

    Raises:
        ValueError: a number below 1 or above 100, or a minimum above the maximum.
    """

    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is not None and (value != int(value) or not 1 <= value <= MOST_SPEAKERS):
                raise ValueError(f"{name} must be a whole number from 1 to {MOST_SPEAKERS}, got {value}")
        if self.fewest > self.most:
            raise ValueError(f"min_speakers is {self.fewest}, more than max_speakers, which is {self.most}")

    @property
    def fewest(self) -> int:
        return self.num_speakers or self.min_speakers or 1

    @property
    def most(self) -> int:
        return self.num_speakers or self.max_speakers or MOST_SPEAKERS


def diarize(
    network: Network, blocks: Iterable[np.ndarray], settings: LinkingSettings, count: SpeakerCount = SpeakerCount()
) -> list[Segment]:
    """Who speaks when in a recording given as consecutive mono 16 kHz waveforms of any lengths, in order of start."""
    linker = Linker(settings)
    for starts, windows in sliding_windows(blocks, settings):
        linker.add(starts, *network(windows))
    return linker.segments(count)


def sliding_windows(
    blocks: Iterable[np.ndarray], settings: LinkingSettings, windows_per_batch: int = WINDOWS_PER_BATCH
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Cut a stream of waveforms (samples,) into overlapping windows; the last one is moved back to end with it.

    Yields:
        the first frame of each window, and float32 windows of shape (windows, samples). A recording shorter than
        a window gives one of its own length, or none below 0.1 s, the least the network takes.
    """
    size, hop = settings.window_frames * FRAME_SAMPLES, settings.hop_frames * FRAME_SAMPLES
    held, offset, at = np.zeros(0, np.float32), 0, 0
    starts: list[int] = []
    windows: list[np.ndarray] = []
    for block in blocks:
        held = np.concatenate([held, np.asarray(block, np.float32)])
        while at + size <= offset + len(held):
            starts.append(at // FRAME_SAMPLES)
            windows.append(held[at - offset :][:size])
            at += hop
            if len(windows) == windows_per_batch:
                yield starts, np.stack(windows)
                starts, windows = [], []
        passed = max(at - size - offset, 0)
        held, offset = held[passed:], offset + passed
    end = (offset + len(held)) // FRAME_SAMPLES * FRAME_SAMPLES
    if at == 0:
        if end >= MIN_SAMPLES:
            yield [0], held[None, :end]
    elif end > at - hop + size:
        starts.append((end - size) // FRAME_SAMPLES)
        windows.append(held[end - size - offset :][:size])
    if windows:
        yield starts, np.stack(windows)


class Linker:
    """Collects the answers for all windows of a recording and links them.

    Example:

    ```python
    >>> linker = Linker(LinkingSettings())
    >>> linker.add([0, 50], logits, speaker_embeddings)
    >>> linker.segments(SpeakerCount(num_speakers=2))
    ```
    """

    min_active_frames = 8
    min_shared_frames = 10
    min_agreement = 0.5
    min_similarity = 0.0

    def __init__(self, settings: LinkingSettings):
        self.settings = settings
        self.starts: list[int] = []
        self.activities: list[np.ndarray] = []
        self.embeddings: list[np.ndarray] = []
        self.solo: list[np.ndarray] = []
        self.tracklets: list[np.ndarray] = []
        self.tracklet_count = 0

    def add(self, starts: list[int], logits: np.ndarray, embeddings: np.ndarray):
        """
        Args:
            starts: first frame of each window, ascending over all calls.
            logits: (windows, frames, speakers) log-odds.
            embeddings: (windows, speakers, dim) unit vectors.
        """
        for start, activity, vectors in zip(starts, probabilities(logits).astype(np.float16), embeddings):
            solo = solo_seconds(activity)
            tracklets = np.full(activity.shape[1], -1)
            present = (activity > 0.5).sum(axis=0) >= self.min_active_frames
            if self.starts:
                self._chain(start, activity, vectors, solo, tracklets)
            for speaker in np.flatnonzero(present & (tracklets < 0)):
                tracklets[speaker] = self.tracklet_count
                self.tracklet_count += 1
            tracklets[~present] = -1
            self.starts.append(start)
            self.activities.append(activity)
            self.embeddings.append(vectors.astype(np.float16))
            self.solo.append(solo)
            self.tracklets.append(tracklets)

    def _chain(self, start, activity, vectors, solo, tracklets):
        """Continue the tracklets of the window before where both windows agree."""
        before, shift = self.activities[-1], start - self.starts[-1]
        shared, union = agreement(before[shift:], activity[: len(before) - shift])
        similarity = self.embeddings[-1].astype(np.float32) @ vectors.T
        certain = (self.solo[-1][:, None] > 0.5) & (solo[None] > 0.5)
        linked = shared >= self.min_shared_frames
        linked &= shared >= self.min_agreement * union
        linked &= ~certain | (similarity >= self.min_similarity)
        for before_speaker, speaker in enumerate(best_order(shared)):
            if linked[before_speaker, speaker]:
                tracklets[speaker] = self.tracklets[-1][before_speaker]

    def segments(self, count: SpeakerCount = SpeakerCount()) -> list[Segment]:
        """Segments of all speakers by start; speakers are named SPEAKER_00, SPEAKER_01, ... as they appear."""
        if not self.tracklet_count:
            return []
        speakers, found = self._speakers(count)
        return to_segments(self._sum_up(speakers, found), self.settings)

    def _speakers(self, count: SpeakerCount) -> tuple[np.ndarray, int]:
        """The speaker of each tracklet, and how many there are."""
        settings = self.settings
        tracklets, solo = np.stack(self.tracklets), np.stack(self.solo)
        window, local = np.nonzero(tracklets >= 0)
        of = tracklets[window, local]
        sums = np.zeros((self.tracklet_count, self.embeddings[0].shape[-1]), np.float32)
        weights = solo * np.float32(min(1.0, settings.hop_seconds / settings.sliding_window_seconds))
        for n in range(len(tracklets)):
            for s in np.flatnonzero(tracklets[n] >= 0):
                sums[tracklets[n, s]] += weights[n, s] * self.embeddings[n][s]
        seconds = np.bincount(of, weights[window, local], self.tracklet_count)
        pairs = {
            (int(row[a]), int(row[b]))
            for row in tracklets
            for a in range(len(row))
            for b in range(a)
            if row[a] >= 0 and row[b] >= 0
        }
        conflicts = np.array(sorted(pairs | {(b, a) for a, b in pairs}), int).reshape(-1, 2)

        evident = np.flatnonzero(seconds >= settings.min_solo_seconds)
        if len(evident) < count.fewest:
            evident = np.sort(np.argsort(-seconds, kind="stable")[: count.fewest])
        labels = cluster(sums[evident], seconds[evident], _among(conflicts, evident), settings, count)
        speakers = np.full(self.tracklet_count, -1)
        speakers[evident] = labels
        found = labels.max() + 1
        centroids = np.zeros((found, sums.shape[1]), np.float32)
        np.add.at(centroids, labels[labels >= 0], sums[evident[labels >= 0]])
        centroids = _normalise(centroids)
        rivals: dict[int, list[int]] = {}
        for a, b in conflicts:
            rivals.setdefault(int(a), []).append(int(b))
        similarity = _normalise(sums) @ centroids.T
        for tracklet in sorted(np.flatnonzero(speakers < 0), key=lambda t: -seconds[t]):
            taken = {int(speakers[r]) for r in rivals.get(int(tracklet), [])}
            free = [s for s in range(found) if s not in taken] or list(range(found))
            speakers[tracklet] = max(free, key=lambda s: similarity[tracklet, s])
        return speakers, found

    def _sum_up(self, speakers: np.ndarray, found: int) -> np.ndarray:
        """(frames, found) mean activity over the windows that saw a frame, their edges counting less."""
        length = len(self.activities[0])
        edge = np.hamming(length + 2)[1:-1].astype(np.float32)[:, None]
        total = np.zeros((self.starts[-1] + length, found), np.float32)
        weight = np.zeros((len(total), 1), np.float32)
        for start, activity, tracklets in zip(self.starts, self.activities, self.tracklets):
            weight[start : start + length] += edge
            mapped = np.zeros((length, found), np.float32)
            for local in np.flatnonzero(tracklets >= 0):
                speaker = speakers[tracklets[local]]
                mapped[:, speaker] = np.maximum(mapped[:, speaker], activity[:, local])
            total[start : start + length] += edge * mapped
        total /= np.maximum(weight, 1e-6)
        return total


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Log-odds to activities in float32; far from overflow."""
    return 1 / (1 + np.exp(-np.clip(np.asarray(logits, np.float32), -30, 30)))


def solo_seconds(activity: np.ndarray) -> np.ndarray:
    """(frames, speakers) activities -> (speakers,) seconds in which each is heard alone."""
    activity = activity.astype(np.float32)
    others = activity.sum(axis=1, keepdims=True) - activity
    return (activity * (1 - np.minimum(others, 1))).sum(axis=0) * FRAME_SECONDS


def agreement(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames in which both, and in which either, of two speakers of two windows is active, over shared frames.

    Args:
        before, after: (frames, speakers) activities of the same frames.

    Returns:
        two arrays of shape (speakers before, speakers after).
    """
    before, after = before.astype(np.float32), after.astype(np.float32)
    both = np.minimum(before[:, :, None], after[:, None]).sum(axis=0)
    return both, before.sum(axis=0)[:, None] + after.sum(axis=0)[None] - both


def best_order(scores: np.ndarray) -> tuple[int, ...]:
    """The permutation of columns with the largest sum of `scores[row, column]`; rows are no more than columns."""
    rows, columns = scores.shape
    return max(permutations(range(columns), rows), key=lambda order: scores[np.arange(rows), order].sum())


def cluster(
    sums: np.ndarray, seconds: np.ndarray, conflicts: np.ndarray, settings: LinkingSettings, count: SpeakerCount
) -> np.ndarray:
    """Agglomerative clustering of tracklets in stages.

    Args:
        sums: (tracklets, dim) embeddings times seconds.
        seconds: (tracklets,) of each heard alone.
        conflicts: (pairs, 2) tracklets that must stay apart.

    Returns:
        (tracklets,) cluster from 0 on, or -1 for a tracklet of no speaker of its own.
    """
    labels = np.arange(len(sums))
    threshold = settings.same_speaker_similarity
    while (items := labels.max() + 1) > CLUSTERED_TOGETHER:
        merged = np.empty(items, int)
        made = 0
        for at in range(0, items, CLUSTERED_TOGETHER):
            part = np.arange(at, min(at + CLUSTERED_TOGETHER, items))
            apart = _between(conflicts, labels, part)
            groups = _merge(_group(sums, labels, items)[part], apart, threshold, 1, len(part))
            merged[part] = groups + made
            made += groups.max() + 1
        labels = merged[labels]
        if made > 0.9 * items:
            break
    items = labels.max() + 1
    everyone = np.arange(items)
    groups = _merge(
        _group(sums, labels, items), _between(conflicts, labels, everyone), threshold, count.fewest, count.most
    )
    labels = groups[labels]
    lengths = np.bincount(labels, seconds)
    order = np.argsort(-lengths, kind="stable")
    keep = order[: count.most]
    if count.num_speakers is None:
        long = [c for c in keep if lengths[c] >= settings.min_speaker_seconds]
        keep = long if len(long) >= count.fewest else keep[: count.fewest]
    new = np.full(len(lengths), -1)
    new[list(keep)] = np.arange(len(keep))
    return new[labels]


def _merge(sums: np.ndarray, conflicts: np.ndarray, threshold: float, fewest: int, most: int) -> np.ndarray:
    """Merge the nearest two clusters until none are near enough, or `most` are left; never below `fewest`."""
    sums, apart = sums.copy(), conflicts | np.eye(len(sums), dtype=bool)
    labels = np.arange(len(sums))
    vectors = _normalise(sums)
    similarity = np.where(apart, -np.inf, vectors @ vectors.T)
    left = len(sums)
    while left > fewest:
        a, b = np.unravel_index(similarity.argmax(), similarity.shape)
        nearest = similarity[a, b]
        if nearest == -np.inf or (nearest < threshold and left <= most):
            break
        sums[a] += sums[b]
        vectors[a] = _normalise(sums[a])
        apart[a] |= apart[b]
        apart[:, a] = apart[a]
        similarity[a] = np.where(apart[a], -np.inf, vectors @ vectors[a])
        similarity[:, a] = similarity[a]
        similarity[b] = similarity[:, b] = -np.inf
        apart[b] = apart[:, b] = True
        labels[labels == b] = a
        left -= 1
    return np.unique(labels, return_inverse=True)[1]


def _group(sums: np.ndarray, labels: np.ndarray, items: int) -> np.ndarray:
    grouped = np.zeros((items, sums.shape[1]), np.float32)
    np.add.at(grouped, labels, sums)
    return grouped


def _between(conflicts: np.ndarray, labels: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(part, part) which clusters of a run of them hold tracklets that must stay apart."""
    ends = labels[conflicts] - part[0]
    ends = ends[((ends >= 0) & (ends < len(part))).all(axis=1)]
    apart = np.zeros((len(part), len(part)), bool)
    apart[ends[:, 0], ends[:, 1]] = True
    return apart


def _among(pairs: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The pairs of which both ends are chosen, as indices into `chosen`."""
    at = np.searchsorted(chosen, pairs).clip(max=len(chosen) - 1)
    return at[(chosen[at] == pairs).all(axis=1)]


def _normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def to_segments(activity: np.ndarray, settings: LinkingSettings) -> list[Segment]:
    """(frames, speakers) activities -> segments, after hysteresis and minimum durations."""
    found = []
    for speaker in range(activity.shape[1]):
        track = activity[:, speaker]
        runs = join_runs(hysteresis(track, settings.onset, settings.offset), settings.min_duration_off / FRAME_SECONDS)
        for first, end in runs[np.diff(runs)[:, 0] >= settings.min_duration_on / FRAME_SECONDS - 1e-6]:
            found.append((int(first), int(end), speaker, float(track[first:end].mean())))
    names: dict[int, str] = {}
    for _, _, speaker, _ in sorted(found):
        names.setdefault(speaker, f"SPEAKER_{len(names):02d}")
    return [
        Segment(round(first * FRAME_SECONDS, 3), round(end * FRAME_SECONDS, 3), names[speaker], round(confidence, 4))
        for first, end, speaker, confidence in sorted(found)
    ]


def join_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Segments by start, with those of a speaker that touch put together, as the live diarizer's pieces do."""
    joined: dict[tuple[str, float], Segment] = {}
    for segment in sorted(segments, key=lambda s: (s.start, s.end)):
        before = joined.pop((segment.speaker, segment.start), None)
        if before is not None:
            lengths = before.end - before.start, segment.end - segment.start
            confidence = float(np.average([before.confidence, segment.confidence], weights=lengths))
            segment = Segment(before.start, segment.end, segment.speaker, round(confidence, 4))
        joined[segment.speaker, segment.end] = segment
    return sorted(joined.values(), key=lambda s: (s.start, s.end))


def hysteresis(track: np.ndarray, onset: float, offset: float, active: bool = False) -> np.ndarray:
    """(runs, 2) first and past-the-end frame of each stretch that begins at `onset` and holds until below `offset`.

    `active` tells whether a stretch is under way before the first frame.
    """
    decided = np.flatnonzero((track >= onset) | (track < offset))
    state = np.full(len(track), active)
    latest = np.searchsorted(decided, np.arange(len(track)), side="right") - 1
    known = latest >= 0
    state[known] = track[decided[latest[known]]] >= onset
    return np.flatnonzero(np.diff(state.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)


def join_runs(runs: np.ndarray, shortest_pause: float) -> np.ndarray:
    """The runs with pauses shorter than `shortest_pause` filled."""
    apart = runs[1:, 0] - runs[:-1, 1] >= shortest_pause - 1e-6
    return np.stack([runs[np.r_[True, apart][: len(runs)], 0], runs[np.r_[apart, True][: len(runs)], 1]], axis=1)
