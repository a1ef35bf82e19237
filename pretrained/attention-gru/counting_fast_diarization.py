"""What is found in a recording: segments, speakers, and how sure their number is."""

from dataclasses import dataclass

import numpy as np

from .segments_fast_diarization import Segment
from .settings_fast_diarization import LinkingSettings, SpeakerCount


@dataclass(frozen=True)
class Speaker:
    """One speaker of a recording: the centroid (dim,), a unit vector, of so many seconds of non-overlapped speech."""

    centroid: np.ndarray
    solo_seconds: float


@dataclass(frozen=True)
class CountEstimate:
    """The number of speakers `found`, which may also be any from `fewest` to `most`."""

    found: int
    fewest: int
    most: int

    @property
    def sure(self) -> bool:
        """Whether no other number is possible; how often it is then right, `evaluation/calibration.py` tells."""
        return self.fewest == self.most

    def within(self, count: SpeakerCount) -> "CountEstimate":
        """No fewer and no more than asked for, but what is found; what was asked for and not found is possible."""
        fewest, most = (min(max(number, count.fewest), count.most) for number in (self.fewest, self.most))
        return CountEstimate(self.found, min(fewest, self.found), max(most, self.found))


@dataclass(frozen=True)
class Diarization:
    """Who speaks when in a recording, segments by start, the speakers by name, and how many there may be."""

    segments: list[Segment]
    speakers: dict[str, Speaker]
    count: CountEstimate


def estimate_count(
    found: int, more: int, likeness: float, confidence: float, settings: LinkingSettings
) -> CountEstimate:
    """
    More speakers are possible as far as a stricter similarity finds them, fewer where two are alike, and either where
    somebody's segments have little confidence: of several that one may be noise, of one it may hide another.

    Args:
        found: speakers.
        more: speakers that are found beyond these with a similarity higher by `sure_margin`.
        likeness: as of `alike`.
        confidence: as of `least_confidence`.
    """
    fewest, most = found, found + more
    if likeness >= settings.sure_similarity:
        fewest -= 1
    if confidence < settings.sure_confidence:
        fewest, most = (min(fewest, found - 1), most) if found > 1 else (found, max(most, found + 1))
    return CountEstimate(found, fewest, most)


def alike(speakers: dict[str, Speaker]) -> float:
    """The cosine of the two speakers most alike, -1 if there are not two."""
    centroids = np.stack([speaker.centroid for speaker in speakers.values()]) if speakers else np.zeros((0, 1))
    return float((centroids @ centroids.T - 2 * np.eye(len(centroids))).max()) if len(centroids) > 1 else -1.0


def least_confidence(segments: list[Segment]) -> float:
    """The mean confidence of the segments of the speaker for whom it is lowest, 1 if there are none."""
    sums: dict[str, np.ndarray] = {}
    for segment in segments:
        length = segment.end - segment.start
        sums[segment.speaker] = sums.get(segment.speaker, 0) + np.array([length * segment.confidence, length])
    return min((float(confident / length) for confident, length in sums.values()), default=1.0)
