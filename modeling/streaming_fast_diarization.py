"""Live diarization: samples go in as they come, segments come out at most a second later."""

import numpy as np

from .linking_fast_diarization import (
    FRAME_SAMPLES,
    FRAME_SECONDS,
    MIN_ACTIVE_FRAMES,
    MIN_SAMPLES,
    MIN_SHARED_FRAMES,
    MOST_SPEAKERS,
    LinkingSettings,
    Network,
    Segment,
    agreement,
    best_order,
    hysteresis,
    probabilities,
    solo_seconds,
)

STEP_FRAMES = 25
AGREEMENT_BONUS = 0.1


class StreamingDiarizer:
    """Who speaks, while they speak.

    Every 0.5 s the network sees the last `sliding_window_seconds`. Its local speakers are matched with those known
    by the frames they share with the window before and by their embeddings, as in diart (Coria et al., ASRU 2021);
    a voice that matches none is a new speaker. Memory does not grow with time.

    Args:
        network: waveforms (1, samples) -> log-odds (1, frames, speakers) and embeddings (1, speakers, dim).
        settings: of the model's configuration.
        latency_seconds: segments come out when the sample that ends them is at most this old, 0.5 or more.
        max_speakers: no more than these are told apart.

    Example:

    ```python
    >>> live = pipe.stream()                      # of a FastDiarizationPipeline
    >>> for samples in microphone:                # float32 mono 16 kHz, any number at a time
    ...     for segment in live.push(samples):
    ...         print(segment)
    >>> live.flush()
    ```
    """

    def __init__(
        self,
        network: Network,
        settings: LinkingSettings,
        latency_seconds: float = 1.0,
        max_speakers: int = MOST_SPEAKERS,
    ):
        ahead = round(latency_seconds / FRAME_SECONDS) - STEP_FRAMES
        if ahead < 0:
            raise ValueError(f"latency_seconds must be at least {STEP_FRAMES * FRAME_SECONDS}, got {latency_seconds}")
        if not 1 <= max_speakers <= MOST_SPEAKERS:
            raise ValueError(f"max_speakers must be from 1 to {MOST_SPEAKERS}, got {max_speakers}")
        self.network, self.settings, self.ahead, self.max_speakers = network, settings, ahead, max_speakers
        self.audio = np.zeros(0, np.float32)
        self.heard = 0
        self.seen = 0
        self.decided = 0
        self.centroids: list[np.ndarray] = []
        self.names: dict[int, str] = {}
        self.active: set[int] = set()
        self.latest = np.zeros((0, 0), np.float32)
        self.total = np.zeros((0, 0), np.float32)
        self.windows = np.zeros((0, 1), np.float32)
        self.finished = False

    def push(self, samples: np.ndarray) -> list[Segment]:
        """
        Args:
            samples: any number of the samples that follow, float mono 16 kHz. NaN and infinity are taken as 0.

        Returns:
            the segments decided since, by start. A turn comes in pieces that touch, one for every 0.5 s
            (`join_segments` puts them together); where the samples are cut changes no piece.

        Raises:
            ValueError: samples of another shape or type, or pushed after `flush`.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise ValueError(f"push needs float samples of shape (samples,), got {samples.dtype} {samples.shape}")
        if self.finished:
            raise ValueError("flush has ended this stream; make another StreamingDiarizer for the next one")
        segments = []
        samples = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        while len(samples):
            due = (self.seen + STEP_FRAMES) * FRAME_SAMPLES
            taken, samples = np.split(samples, [due - self.heard])
            self._hear(taken)
            if self.heard == due:
                segments += self._step(self.seen + STEP_FRAMES - self.ahead)
        return segments

    def flush(self) -> list[Segment]:
        """The segments still open at the end of the stream."""
        self.finished = True
        frames = self.heard // FRAME_SAMPLES
        if frames > self.seen and len(self.audio) >= MIN_SAMPLES:
            return self._step(frames)
        return self._decide(self.seen)

    def _hear(self, samples: np.ndarray):
        self.audio = np.concatenate([self.audio, samples])[-self.settings.window_frames * FRAME_SAMPLES :]
        self.heard += len(samples)

    def _step(self, until: int) -> list[Segment]:
        """Run the network on the latest window, and decide the frames up to `until`."""
        whole = self.heard // FRAME_SAMPLES
        rest = self.heard - whole * FRAME_SAMPLES
        window = self.audio[: len(self.audio) - rest]
        window = window[len(window) % FRAME_SAMPLES :]
        logits, embeddings = self.network(window[None])
        activity = probabilities(logits[0])
        mapped = self._match(activity, embeddings[0], whole - self.seen)
        first, self.seen, self.latest = whole - len(mapped), whole, mapped
        self._accumulate(mapped, first)
        return self._decide(until)

    def _match(self, activity: np.ndarray, embeddings: np.ndarray, shift: int) -> np.ndarray:
        """(frames, local speakers) -> (frames, known speakers)."""
        solo = solo_seconds(activity)
        present = np.flatnonzero((activity > 0.5).sum(axis=0) >= MIN_ACTIVE_FRAMES)
        shared_frames = min(len(self.latest), len(activity)) - shift if len(self.latest) else 0
        speakers = np.full(activity.shape[1], -1)
        if len(present) and self.centroids:
            known = np.stack(self.centroids)
            known = known / np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-9)
            scores = embeddings[present] @ known.T
            evident = np.repeat(solo[present, None] >= self.settings.min_solo_seconds, len(known), axis=1)
            if shared_frames > 0:
                before = self.latest[len(self.latest) - shared_frames :]
                now = activity[len(activity) - shift - shared_frames : len(activity) - shift]
                both, either = agreement(now[:, present], before)
                agreed = (both >= MIN_SHARED_FRAMES) & (both >= 0.5 * either)
                scores = scores + AGREEMENT_BONUS * agreed
                scores = scores + ~evident * agreed
            for row, speaker in _assign(scores):
                threshold = self.settings.same_speaker_similarity if evident[row, 0] else -np.inf
                if scores[row, speaker] >= threshold or len(known) == self.max_speakers:
                    speakers[present[row]] = speaker
        for track in present:
            fresh = solo[track] >= self.settings.min_solo_seconds or not self.centroids
            if speakers[track] < 0 and fresh and len(self.centroids) < self.max_speakers:
                speakers[track] = len(self.centroids)
                self.centroids.append(np.zeros(embeddings.shape[1], np.float32))
            if speakers[track] >= 0:
                self.centroids[speakers[track]] += solo[track] * embeddings[track]
        mapped = np.zeros((len(activity), len(self.centroids)), np.float32)
        for track in present[speakers[present] >= 0]:
            mapped[:, speakers[track]] = activity[:, track]
        return mapped

    def _accumulate(self, mapped: np.ndarray, first: int):
        """Sum up activities of the frames not yet decided."""
        total = np.zeros((self.seen - self.decided, mapped.shape[1]), np.float32)
        windows = np.zeros((len(total), 1), np.float32)
        total[: len(self.total), : self.total.shape[1]] = self.total
        windows[: len(self.windows)] = self.windows
        pending = mapped[max(self.decided - first, 0) :]
        total[len(total) - len(pending) :] += pending
        windows[len(total) - len(pending) :] += 1
        self.total, self.windows = total, windows

    def _decide(self, until: int) -> list[Segment]:
        frames = max(until - self.decided, 0)
        track = self.total[:frames] / np.maximum(self.windows[:frames], 1)
        found = []
        for speaker in range(track.shape[1]):
            runs = hysteresis(track[:, speaker], self.settings.onset, self.settings.offset, speaker in self.active)
            found += [(int(a), int(b), speaker, float(track[a:b, speaker].mean())) for a, b in runs]
            if frames:
                (self.active.add if len(runs) and runs[-1, 1] == frames else self.active.discard)(speaker)
        segments = []
        for first, end, speaker, confidence in sorted(found):
            name = self.names.setdefault(speaker, f"SPEAKER_{len(self.names):02d}")
            start, stop = ((self.decided + frame) * FRAME_SECONDS for frame in (first, end))
            segments.append(Segment(round(start, 3), round(stop, 3), name, round(confidence, 4)))
        self.total, self.windows = self.total[frames:], self.windows[frames:]
        self.decided += frames
        return segments


def _assign(scores: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of row and column with the largest sum of scores, each row and column once."""
    rows, columns = scores.shape
    if rows > columns:
        return [(row, column) for column, row in _assign(scores.T)]
    return list(enumerate(best_order(scores)))
