"""From windows to whole recordings: who is active in each window, and as whose voice, becomes segments of speakers.

A window of the network tells a few speakers apart without knowing them from other windows. Four steps link them:

1. Local speakers of windows that follow each other are chained into tracklets where they agree on the frames they
   share and sound alike.
2. Tracklets are clustered by the mean of their embeddings, weighted by the time a speaker is heard alone; those heard
   for short may differ more, which is between centroid linkage and that of Ward (1963). Tracklets both heard alone in
   one window are never merged, as in EEND-VC (Kinoshita et al., ICASSP 2021), unless they sound alike: then the window
   heard one voice as two.
3. The clusters only say which voices there are. Which local speaker of which window is whom is the best path through
   all windows (Viterbi), by embeddings within windows and by agreement on shared frames between them. Voices that turn
   out alike over the whole recording are one, kept apart by a window that heard one voice as two. From the path come
   better voices and from those a better path, as in k-means (Lloyd, 1982), until it stays.
4. Activities are summed up over windows under the speakers found and thresholded with hysteresis.

Only activities and embeddings are kept, in a temporary file once they are more than 16 MB (some two hours), so a
recording may be of any length. numpy is all this file needs: torch and ONNX Runtime give their answers to the same
code.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product
from os import SEEK_END
from tempfile import SpooledTemporaryFile

import numpy as np

SAMPLING_RATE = 16_000
FRAME_SAMPLES = 320
FRAME_SECONDS = FRAME_SAMPLES / SAMPLING_RATE
MIN_SAMPLES = 1_600
MOST_SPEAKERS = 100
WINDOWS_PER_BATCH = 16
MOST_TRACKLETS = 1_000
"""When there are more, those of one speaker are put together: the cost of clustering is cubic, memory is bounded."""
MIN_ACTIVE_FRAMES = 8
"""A local speaker active for less is taken as absent from its window."""
MIN_SHARED_FRAMES = 10
MIN_CERTAIN_SECONDS = 0.5
"""A local speaker alone for less says little about whose voice it is."""
CANDIDATES, BEAM = 8, 64
"""Speakers considered for one local speaker, and ways of naming all local speakers of a window."""
AGREEMENT_WEIGHT = 0.5
"""What a second of agreement between windows weighs beside a second of likeness within them."""
MOST_ROUNDS = 5
"""From voices to a path and back; mostly two are enough."""
KEPT_BYTES, READ_TOGETHER, SUMMED_TOGETHER = 16 * 2**20, 256, 10_000
"""Answers kept in memory, windows read back at a time, and frames summed up at a time."""

Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(windows, samples) -> logits (windows, frames, speakers) and speaker embeddings (windows, speakers, dim)."""


@dataclass(frozen=True)
class LinkingSettings:
    """How windows become a recording. A trained model's configuration has its own, chosen by `evaluation/tuning.py`.

    Args:
        sliding_window_seconds, hop_seconds: length of the windows and the step from one to the next.
        onset, offset: a speaker starts where the activity rises to `onset` and stops where it falls below `offset`.
        min_duration_on: shorter segments are dropped, in seconds.
        min_duration_off: shorter pauses of a speaker are filled, in seconds.
        min_solo_seconds: a tracklet heard alone for less is no evidence of a speaker where their number is unknown; in
            a short recording, for less than `min_speaker_share` of all speech.
        same_tracklet_similarity: a local speaker continues a tracklet if their embeddings have this cosine or more, and
            two tracklets each alone for a while in one window are two people if theirs have less, unless their voices
            over the whole recording have it.
        same_speaker_similarity: clusters of tracklets with this cosine or more are one speaker.
        full_evidence_seconds: two clusters heard alone for less than twice this may differ by more and be one speaker.
        min_speaker_seconds, min_speaker_share: a cluster with less speech, in seconds or as a share of all of it, is no
            speaker of its own where their number is unknown.

    Raises:
        ValueError: a value outside its range.
    """

    sliding_window_seconds: float = 3.0
    hop_seconds: float = 0.5
    onset: float = 0.5
    offset: float = 0.4
    min_duration_on: float = 0.1
    min_duration_off: float = 0.2
    min_solo_seconds: float = 1.0
    same_tracklet_similarity: float = 0.8
    same_speaker_similarity: float = 0.85
    full_evidence_seconds: float = 10.0
    min_speaker_seconds: float = 3.0
    min_speaker_share: float = 0.045

    def __post_init__(self):
        if not 0.5 <= self.sliding_window_seconds <= 60:
            raise ValueError(f"sliding_window_seconds must be in [0.5, 60], got {self.sliding_window_seconds}")
        if not FRAME_SECONDS <= self.hop_seconds <= self.sliding_window_seconds:
            raise ValueError(
                f"hop_seconds must be in [{FRAME_SECONDS}, sliding_window_seconds], got {self.hop_seconds}"
            )
        if not 0 < self.offset <= self.onset < 1:
            raise ValueError(f"0 < offset <= onset < 1 must hold, got offset {self.offset} and onset {self.onset}")
        durations = ("min_duration_on", "min_duration_off", "min_solo_seconds", "min_speaker_seconds")
        for name in (*durations, "full_evidence_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be seconds, 0 or more, got {getattr(self, name)}")
        if not 0 <= self.min_speaker_share < 1:
            raise ValueError(f"min_speaker_share must be in [0, 1), got {self.min_speaker_share}")
        for name in ("same_tracklet_similarity", "same_speaker_similarity"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a cosine, from -1 to 1, got {getattr(self, name)}")

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


class Tracklets:
    """Stretches of windows in which one local speaker goes on, each with the mean of its embeddings.

    Attributes:
        sums: (dim,) embeddings times seconds heard alone, of each tracklet.
        seconds: heard alone.
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
        present = (activity > 0.5).sum(axis=0) >= MIN_ACTIVE_FRAMES
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
            if not heard or _normalise(self.sums[tracklet]) @ vectors[local] >= self.settings.same_tracklet_similarity:
                continued[local] = tracklet
        return continued

    def speakers(self, count: SpeakerCount, short_ones: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Cluster the tracklets.

        Args:
            short_ones: a cluster with hardly any speech is a speaker too.

        Returns:
            (tracklets,) the speaker of each, -1 where it is no evidence of one, and (speakers, dim) their voices as
            unit vectors.
        """
        sums, seconds = np.array(self.sums), np.array(self.seconds)
        least = MIN_CERTAIN_SECONDS
        if not count.num_speakers:
            share = self.settings.min_speaker_share * seconds.sum()
            least = min(max(least, share), self.settings.min_solo_seconds)
        evident = np.flatnonzero(seconds >= least)
        if len(evident) < count.fewest:
            evident = np.sort(np.argsort(-seconds, kind="stable")[: count.fewest])
        conflicts = np.array(sorted(self.conflicts), int).reshape(-1, 2)
        at = np.searchsorted(evident, conflicts).clip(max=len(evident) - 1)
        conflicts = at[(evident[at] == conflicts).all(axis=1)]
        one, other = _normalise(sums[evident])[conflicts.T]
        conflicts = conflicts[(one * other).sum(axis=1) < self.settings.same_tracklet_similarity]
        conflicts = np.concatenate([conflicts, conflicts[:, ::-1]])
        labels = np.full(len(sums), -1)
        settings = replace(self.settings, min_speaker_seconds=0, min_speaker_share=0) if short_ones else self.settings
        labels[evident] = cluster(sums[evident], seconds[evident], conflicts, settings, count)
        return labels, _normalise(_group(sums[labels >= 0], labels[labels >= 0]))

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
        self.sums = list(_group(np.array(self.sums)[kept], numbers[kept]))
        self.seconds = np.bincount(numbers[kept], np.array(self.seconds)[kept]).tolist()
        pairs = (sorted((int(numbers[a]), int(numbers[b]))) for a, b in self.conflicts)
        self.conflicts = {(a, b) for a, b in pairs if 0 <= a < b}
        start, activity, tracklets = self.latest
        self.latest = start, activity, np.where(tracklets >= 0, numbers[tracklets], -1)
        return numbers


class Answers:
    """The network's answers for one window after another: in memory while they are few, then in a temporary file.

    Iterating gives records of `start` (first frame), `activity` (frames, local speakers), `vectors` (local speakers,
    dim) and `present` (local speakers,).
    """

    def __init__(self):
        self.file = SpooledTemporaryFile(max_size=KEPT_BYTES)  # noqa: SIM115 (it lives as long as these answers)
        self.record: np.ndarray | None = None

    def append(self, start: int, activity: np.ndarray, vectors: np.ndarray, present: np.ndarray):
        values = {"start": np.int64(start), "activity": activity, "vectors": vectors, "present": present}
        if self.record is None:
            kept = {"start": np.int64, "activity": np.float16, "vectors": np.float16, "present": bool}
            self.record = np.zeros((), [(name, kept[name], value.shape) for name, value in values.items()])
        for name, value in values.items():
            self.record[name] = value
        self.file.seek(0, SEEK_END)
        self.file.write(self.record.tobytes())

    def __iter__(self) -> Iterator[np.ndarray]:
        self.file.seek(0)
        while part := self.file.read(READ_TOGETHER * self.record.itemsize):
            yield from np.frombuffer(part, self.record.dtype)


class Linker:
    """Collects the answers for all windows of a recording and links them.

    Example:

    ```python
    >>> linker = Linker(LinkingSettings())
    >>> linker.add([0, 50], logits, speaker_embeddings)
    >>> linker.segments(SpeakerCount(num_speakers=2))
    ```
    """

    def __init__(self, settings: LinkingSettings):
        self.settings = settings
        self.tracklets, self.most_tracklets = Tracklets(settings), MOST_TRACKLETS
        self.answers = Answers()

    def add(self, starts: list[int], logits: np.ndarray, embeddings: np.ndarray):
        """
        Args:
            starts: first frame of each window, ascending over all calls.
            logits: (windows, frames, speakers) log-odds.
            embeddings: (windows, speakers, dim) unit vectors.
        """
        for start, activity, vectors in zip(starts, probabilities(logits).astype(np.float16), embeddings):
            present = self.tracklets.follow(start, activity, vectors) >= 0
            self.answers.append(start, activity, vectors, present)
            if len(self.tracklets.sums) > self.most_tracklets:
                self.tracklets.fold(self.tracklets.speakers(SpeakerCount(), short_ones=True)[0])
                self.most_tracklets = max(MOST_TRACKLETS, 2 * len(self.tracklets.sums))

    def segments(self, count: SpeakerCount = SpeakerCount()) -> list[Segment]:
        """Segments of all speakers by start; speakers are named SPEAKER_00, SPEAKER_01, ... as they appear."""
        if not self.tracklets.sums:
            return []
        voices = self.tracklets.speakers(count)[1]
        path = self._path(voices)
        for _ in range(MOST_ROUNDS):
            voices = self._voices_along(path, count)
            before, path = path, self._path(voices)
            if np.array_equal(path, before):
                break
        return to_segments(self._sum_up(path, len(voices)), self.settings)

    def _path(self, voices: np.ndarray) -> np.ndarray:
        """(windows, local speakers) the speaker each of them is, -1 where absent: the best path through all windows.

        A state names all local speakers of one window, each differently. Where all states come from one, the path up
        to there is settled and the states before are forgotten.
        """
        path: list[np.ndarray] = []
        states: list[np.ndarray] = []
        steps: list[np.ndarray] = []
        before, scores = None, np.zeros(1)
        for answer in self.answers:
            activity = answer["activity"]
            likeness = solo_seconds(activity)[:, None] * (answer["vectors"].astype(np.float32) @ voices.T)
            here, likely = likeliest_names(likeness, np.flatnonzero(answer["present"]))
            if before is not None:
                shift, named = answer["start"] - before["start"], states[-1]
                both, _ = agreement(before["activity"][shift:], activity[: len(activity) - shift])
                same = (named[:, None, :, None] == here[None, :, None]) & (named[:, None, :, None] >= 0)
                total = scores[:, None] + AGREEMENT_WEIGHT * FRAME_SECONDS * (same * both).sum(axis=(2, 3))
                steps.append(total.argmax(axis=0).astype(np.uint8))
                scores = total.max(axis=0)
                if (steps[-1] == steps[-1][0]).all():
                    path.append(trace_back(states, steps[:-1], steps[-1][0]))
                    states, steps = [], []
            states.append(here.astype(np.int8))
            before, scores = answer, scores + likely
        return np.concatenate([*path, trace_back(states, steps, scores.argmax())])

    def _voices_along(self, path: np.ndarray, count: SpeakerCount) -> np.ndarray:
        """(speakers, dim) the mean voices of the speakers named, those alike put together as far as `count` allows."""
        seconds = np.zeros(path.max() + 1)
        sums = np.zeros((len(seconds), self.tracklets.sums[0].size), np.float32)
        for answer, named in zip(self.answers, path):
            solo = solo_seconds(answer["activity"])
            for local in np.flatnonzero(named >= 0):
                sums[named[local]] += solo[local] * answer["vectors"][local]
                seconds[named[local]] += solo[local]
        alike = self.settings.same_tracklet_similarity
        settings = replace(self.settings, same_speaker_similarity=alike, full_evidence_seconds=0)
        return _normalise(_group(sums, _merge(sums, seconds, np.zeros((len(sums), len(sums)), bool), settings, count)))

    def _sum_up(self, path: np.ndarray, speakers: int) -> Iterator[np.ndarray]:
        """Consecutive (frames, speakers) activities: means over the windows that saw a frame, edges counting less."""
        first, total, weight = 0, np.zeros((0, speakers), np.float32), np.zeros((0, 1), np.float32)
        for answer, named in zip(self.answers, path):
            activity, start = answer["activity"], int(answer["start"])
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


def trace_back(states: list[np.ndarray], steps: list[np.ndarray], state: int) -> np.ndarray:
    """The best path that ends in `state` of the last window, (windows, local speakers).

    Args:
        states: of each window, (ways, local speakers).
        steps: of each window but the first, (ways,) the state of the window before that leads to each.
    """
    path = [states[-1][state]]
    for before, step in zip(reversed(states[:-1]), reversed(steps)):
        state = step[state]
        path.append(before[state])
    return np.stack(path[::-1])


def likeliest_names(likeness: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest ways of naming the local speakers present, (ways, local speakers), and their likeness (ways,).

    Args:
        likeness: (local speakers, speakers).
        present: indices of local speakers; the others are -1.
    """
    likeliest = [np.argsort(-likeness[local], kind="stable")[:CANDIDATES] for local in present]
    ways = np.array(list(product(*likeliest)), int)
    distinct = np.array([len(set(way)) == len(way) for way in ways.tolist()])
    if distinct.any():  # it is not where fewer speakers are looked for than a window has
        ways = ways[distinct]
    total = likeness[present, ways].sum(axis=1)
    best = np.argsort(-total, kind="stable")[:BEAM]
    states = np.full((len(best), len(likeness)), -1)
    states[:, present] = ways[best]
    return states, total[best]


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
    labels = _merge(sums, seconds, apart, settings, count)

    lengths = np.bincount(labels, seconds)
    order = np.argsort(-lengths, kind="stable")[: count.most]
    least = max(settings.min_speaker_seconds, settings.min_speaker_share * lengths.sum())
    keep = order[lengths[order] >= (0 if count.num_speakers else least)]
    if len(keep) < count.fewest:
        keep = order[: count.fewest]
    renamed = np.full(len(lengths), -1)
    renamed[keep] = np.arange(len(keep))
    return renamed[labels]


def _merge(
    sums: np.ndarray, seconds: np.ndarray, apart: np.ndarray, settings: LinkingSettings, count: SpeakerCount
) -> np.ndarray:
    """Merge the nearest two clusters until none are near enough, or the most wanted are left; never below the fewest.

    Their distance is one minus cosine, times the square root of the evidence for it: half the harmonic mean of the
    times they are heard, as a share of `full_evidence_seconds` and at most 1.
    """
    full = max(settings.full_evidence_seconds, 1e-9)
    sums, seconds, apart = sums.copy(), seconds.copy(), apart | np.eye(len(sums), dtype=bool)
    labels = np.arange(len(sums))
    vectors = _normalise(sums)

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
        vectors[a] = _normalise(sums[a])
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


def _group(sums: np.ndarray, labels: np.ndarray) -> np.ndarray:
    grouped = np.zeros((labels.max() + 1, sums.shape[1]), np.float32)
    np.add.at(grouped, labels, sums)
    return grouped


def _normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def to_segments(blocks: Iterable[np.ndarray], settings: LinkingSettings) -> list[Segment]:
    """Consecutive (frames, speakers) activities -> segments, after hysteresis and minimum durations."""
    at, heard, edges = 0, 0.0, []
    for block in blocks:
        sums = heard + np.concatenate([np.zeros((1, block.shape[1])), block.cumsum(axis=0, dtype=np.float64)])
        for speaker, track in enumerate(block.T):
            edges += [[] for _ in range(speaker + 1 - len(edges))]
            under_way = bool(edges[speaker]) and edges[speaker][-1][0] == at
            runs = hysteresis(track, settings.onset, settings.offset, under_way)
            edges[speaker] += [(at + int(edge), float(sums[edge, speaker])) for edge in runs.ravel()]
        at, heard = at + len(block), sums[-1]
    found = []
    for speaker, sums in enumerate(map(dict, edges)):
        runs = np.array([edge for edge, _ in edges[speaker]], int).reshape(-1, 2)
        runs = join_runs(runs, settings.min_duration_off / FRAME_SECONDS)
        for first, end in runs[np.diff(runs)[:, 0] >= settings.min_duration_on / FRAME_SECONDS - 1e-6].tolist():
            found.append((first, end, speaker, (sums[end] - sums[first]) / (end - first)))
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
    """The runs with pauses shorter than `shortest_pause` frames filled, and runs that touch made one."""
    apart = runs[1:, 0] - runs[:-1, 1] >= max(shortest_pause, 1) - 1e-6
    return np.stack([runs[np.r_[True, apart][: len(runs)], 0], runs[np.r_[apart, True][: len(runs)], 1]], axis=1)
