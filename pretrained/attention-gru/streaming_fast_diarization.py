"""Live diarization: samples go in as they come, segments come out at most a second later."""

from dataclasses import replace

import numpy as np

from .counting_fast_diarization import Speaker
from .enrolment_fast_diarization import LEAST_SECONDS, KnownVoices
from .events_fast_diarization import LiveEvents
from .levels_fast_diarization import Loudness, frame_levels
from .path_fast_diarization import likeliest_names
from .segments_fast_diarization import Segment, hysteresis, join_runs, speaker_name, to_confidence
from .settings_fast_diarization import (
    FRAME_SAMPLES,
    FRAME_SECONDS,
    MIN_SAMPLES,
    MOST_SPEAKERS,
    LinkingSettings,
    SpeakerCount,
)
from .tracklets_fast_diarization import Tracklets
from .windows_fast_diarization import Network, agreement, probabilities, solo_seconds

STEP_FRAMES = 25
EVIDENCE_SECONDS, SIMILARITY_MARGIN, AGREEMENT_WEIGHT = 1.0, 0.2, 0.1
"""Live, a speaker counts from the first second on, is taken for a known one at a cosine lower by this margin, and
frames shared with the window before say less: they may have been named wrongly. Chosen on validation speakers."""
MOST_TRACKLETS = 30


class StreamingDiarizer:
    """Who speaks, while they speak.

    Every 0.5 s the network sees the last `sliding_window_seconds`, and all tracklets heard so far are clustered anew,
    as a whole recording is; a cluster goes by the name that most of it had before. So two names given to one speaker
    become one as soon as more is heard of it, while what came out stays as it was. From time to time the tracklets of
    each speaker are put together: memory does not grow with time.

    Args:
        network: waveforms (1, samples) -> log-odds (1, frames, speakers) and embeddings (1, speakers, dim).
        settings: of the model's configuration.
        latency_seconds: segments come out when the sample that ends them is at most this old, 0.5 or more.
        max_speakers: no more than these are told apart.
        voices: people who are called by their names, from two seconds of non-overlapped speech on.

    Attributes:
        log: what happens, for [`LiveEvents`]; kept if it is a list.

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
        voices: KnownVoices | None = None,
    ):
        ahead = round(latency_seconds / FRAME_SECONDS) - STEP_FRAMES
        if ahead < 0:
            raise ValueError(f"latency_seconds must be at least {STEP_FRAMES * FRAME_SECONDS}, got {latency_seconds}")
        if not 1 <= max_speakers <= MOST_SPEAKERS:
            raise ValueError(f"max_speakers must be from 1 to {MOST_SPEAKERS}, got {max_speakers}")
        self.network, self.settings, self.ahead, self.max_speakers = network, settings, ahead, max_speakers
        self.audio, self.loudness = np.zeros(0, np.float32), Loudness()
        self.heard = 0
        self.seen = 0
        self.decided = 0
        # A new speaker must be named at once, on less evidence than a whole recording has.
        evidence = {
            "min_solo_seconds": EVIDENCE_SECONDS,
            "min_speaker_seconds": EVIDENCE_SECONDS,
            "min_speaker_share": 0,
            "full_evidence_seconds": 0,
        }
        similarity = max(settings.same_speaker_similarity - SIMILARITY_MARGIN, -1.0)
        hop = STEP_FRAMES * FRAME_SECONDS
        self.tracklets = Tracklets(replace(settings, hop_seconds=hop, same_speaker_similarity=similarity, **evidence))
        self.speakers: list[int] = []
        self.names: dict[int, str] = {}
        self.known, self.people = voices, {}
        self.owners = np.zeros((0, 0), int)
        self.log: list[tuple] | None = None
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

    def events(self) -> LiveEvents:
        """The stream as events that say what changes later too; samples are pushed to it instead, from the first on."""
        return LiveEvents(self)

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
        activity = self._loud_enough(probabilities(logits[0]), frame_levels(window[None])[0], whole - self.seen)
        mapped = self._match(activity, embeddings[0], whole - self.seen)
        first, self.seen, self.latest = whole - len(mapped), whole, mapped
        self._accumulate(mapped, first)
        return self._decide(until)

    def _loud_enough(self, activity: np.ndarray, levels: np.ndarray, new: int) -> np.ndarray:
        """The activity without frames far quieter than the speech so far; the last `new` ones were not heard before."""
        self.loudness.add(activity[-new:], levels[-new:])
        return activity * (levels >= self.loudness.decibels - self.settings.speech_range_db)[:, None]

    def _match(self, activity: np.ndarray, vectors: np.ndarray, shift: int) -> np.ndarray:
        """(frames, local speakers) -> (frames, known speakers)."""
        tracklets = self.tracklets.follow(self.heard // FRAME_SAMPLES - len(activity), activity, vectors)
        present = np.flatnonzero(tracklets >= 0)
        mapped = np.zeros((len(activity), self.latest.shape[1]), np.float32)
        self.owners = np.full(mapped.shape, -1)
        if len(present):
            labels, centroids = self.tracklets.speakers(SpeakerCount(max_speakers=self.max_speakers))
            speakers = self._recognise(labels, len(centroids))
            if self.known:
                self._identify(labels, speakers, centroids)
            mapped = np.zeros((len(activity), max(self.latest.shape[1], speakers.max() + 1)), np.float32)
            self.owners = np.full(mapped.shape, -1)
            likeness = solo_seconds(activity)[:, None] * (vectors @ centroids.T)
            shared = min(len(self.latest), len(activity)) - shift
            if shared > 0:
                before = np.zeros((shared, mapped.shape[1]), np.float32)
                before[:, : self.latest.shape[1]] = self.latest[len(self.latest) - shared :]
                both, _ = agreement(activity[len(activity) - shift - shared : len(activity) - shift], before)
                likeness += AGREEMENT_WEIGHT * FRAME_SECONDS * both[:, speakers]
            ways, _ = likeliest_names(likeness, present)
            for track in present:
                speaker = speakers[ways[0, track]]
                self.owners[activity[:, track] > mapped[:, speaker], speaker] = tracklets[track]
                mapped[:, speaker] = np.maximum(mapped[:, speaker], activity[:, track])
            if len(labels) > MOST_TRACKLETS:
                numbers = self.tracklets.fold(labels)
                named = dict(zip(numbers.tolist(), self.speakers))
                self.speakers = [named[number] for number in range(len(self.tracklets.sums))]
                self.owners = np.where(self.owners >= 0, numbers[self.owners], -1)
                self._tell("folded", numbers)
        return mapped

    def _recognise(self, labels: np.ndarray, clusters: int) -> np.ndarray:
        """(clusters,) the speaker that each cluster of tracklets is: whose name most of it bears, else a new one."""
        self.speakers += [-1] * (len(labels) - len(self.speakers))
        before, seconds = np.array(self.speakers), np.array(self.tracklets.seconds)
        known = before.max() + 1
        votes = np.zeros((clusters, known + clusters))
        named = (labels >= 0) & (before >= 0)
        np.add.at(votes, (labels[named], before[named]), seconds[named])
        speakers = np.full(clusters, -1)
        for cluster in np.argsort(-votes.max(axis=1), kind="stable"):
            speaker = votes[cluster].argmax()
            if votes[cluster, speaker] == 0:
                unused = np.setdiff1d(np.arange(self.max_speakers), speakers)
                speaker = known if known < self.max_speakers else unused[0]
            speakers[cluster] = speaker
            votes[:, speaker] = 0
            known = max(known, speakers[cluster] + 1)
        after = before.copy()
        after[labels >= 0] = speakers[labels[labels >= 0]]
        moved = {int(at): (int(before[at]), int(after[at])) for at in np.flatnonzero(before != after)}
        if moved:
            self._tell("moved", moved, self.heard // FRAME_SAMPLES * FRAME_SECONDS)
        self.speakers = after.tolist()
        return speakers

    def _identify(self, labels: np.ndarray, speakers: np.ndarray, centroids: np.ndarray):
        """Give known people their names, and take back those that more speech does not bear out."""
        seconds = np.bincount(labels[labels >= 0], np.array(self.tracklets.seconds)[labels >= 0], len(speakers))
        heard = {
            int(speaker): Speaker(centroid, float(length))
            for speaker, centroid, length in zip(speakers, centroids, seconds)
            if length >= LEAST_SECONDS
        }
        people = self.known.names(heard, self.settings.known_voice_similarity)
        changed = [one for one in heard if people.get(one) != self.people.get(one)]
        self.people = {one: name for one, name in self.people.items() if one not in heard} | people
        for speaker in changed:
            self._tell("named", speaker)

    def name_of(self, speaker: int) -> str:
        """What a speaker is called now: the name of somebody known, or SPEAKER_00, ... in order of appearance."""
        if speaker in self.people:
            return self.people[speaker]
        return self.names.setdefault(speaker, speaker_name(len(self.names)))

    def _owner(self, first: int, end: int, speaker: int) -> int:
        """The tracklet of a piece of a speaker, or where the latest window knows better of another; -1 if of none."""
        at = self.decided - self.seen + len(self.owners)
        owners = self.owners[max(at + first, 0) : max(at + end, 0)]
        own = owners[:, speaker : speaker + 1]
        owners = own if (own >= 0).any() else owners
        return int(np.bincount(owners[owners >= 0]).argmax()) if (owners >= 0).any() else -1

    def _tell(self, *what):
        if self.log is not None:
            self.log.append(what)

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

    def _runs(self, track: np.ndarray, active: bool, frames: int) -> np.ndarray:
        """(runs, 2) of a speaker in the next `frames`, given all activity that is known, the frames after them too.

        Pauses and runs that are too short are left out, but for a run that may go on and, having come out, one that is
        `active`.
        """
        runs = hysteresis(track, self.settings.onset, self.settings.offset, active)
        before = np.zeros((int(active), 2), int)
        runs = join_runs(np.concatenate([before, runs]), self.settings.min_duration_off / FRAME_SECONDS)
        long_enough = runs[:, 1] - runs[:, 0] >= self.settings.min_duration_on / FRAME_SECONDS - 1e-6
        goes_on = (runs[:, 1] == len(track)) & (not self.finished)
        came_out = (runs[:, 0] == 0) & active
        runs = np.minimum(runs[long_enough | goes_on | came_out], frames)
        return runs[runs[:, 1] > runs[:, 0]]

    def _decide(self, until: int) -> list[Segment]:
        frames = max(until - self.decided, 0)
        track = self.total / np.maximum(self.windows, 1)
        found = []
        for speaker in range(track.shape[1]):
            runs = self._runs(track[:, speaker], speaker in self.active, frames)
            found += [(int(a), int(b), speaker, float(track[a:b, speaker].mean())) for a, b in runs]
            if frames:
                (self.active.add if len(runs) and runs[-1, 1] == frames else self.active.discard)(speaker)
        segments = []
        for first, end, speaker, activity in sorted(found):
            confidence = float(to_confidence(activity, self.settings))
            self.names.setdefault(speaker, speaker_name(len(self.names)))
            start, stop = (round((self.decided + frame) * FRAME_SECONDS, 3) for frame in (first, end))
            segments.append(Segment(start, stop, self.name_of(speaker), round(confidence, 4)))
            self._tell("piece", start, stop, speaker, confidence, self._owner(first, end, speaker))
        self.total, self.windows = self.total[frames:], self.windows[frames:]
        self.decided += frames
        return segments
