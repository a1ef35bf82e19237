"""Settings of linking, and what is known of the number of speakers."""

from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real

SAMPLING_RATE = 16_000
FRAME_SAMPLES = 320
FRAME_SECONDS = FRAME_SAMPLES / SAMPLING_RATE
MIN_SAMPLES = 1_600
"""The shortest waveform the network takes."""
MOST_SPEAKERS = 100
LONGEST_SECONDS = 3_600.0
"""Of every duration in the settings."""
MOST_WINDOWS_A_FRAME = 150
"""What a recording costs is the windows that see a frame times its length."""


def check_number(name: str, value: object, least: float, most: float, whole: bool = False) -> None:
    """Refuse what is no finite number from `least` to `most`: a configuration file may hold anything.

    Raises:
        ValueError: text, null, NaN, a truth value, or a number out of range; with `whole`, a fraction too.
    """
    kind = Integral if whole else Real
    if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} from {least:g} to {most:g}, got {value!r:.60}")


@dataclass(frozen=True)
class LinkingSettings:
    """How windows become a recording. A trained model's configuration has its own, chosen by `evaluation/tuning.py`.

    Args:
        sliding_window_seconds, hop_seconds: length of the windows and the step from one to the next.
        onset, offset: a speaker starts where the activity rises to `onset` and stops where it falls below `offset`.
        min_duration_on: shorter segments are dropped, in seconds.
        min_duration_off: shorter pauses of a speaker are filled, in seconds.
        min_solo_seconds: a tracklet with less non-overlapped speech is no evidence of a speaker where their number is
            unknown; in a short recording, with less than `min_speaker_share` of all speech.
        same_tracklet_similarity: a local speaker continues a tracklet if their embeddings have this cosine or more, and
            two tracklets each alone for a while in one window are two people if theirs have less, unless their
            centroids over the whole recording have it.
        same_speaker_similarity: clusters of tracklets with this cosine or more are one speaker.
        full_evidence_seconds: two clusters with less non-overlapped speech than twice this may differ by more and be
            one speaker.
        known_voice_similarity: a speaker is the known person whose embedding has this cosine or more; chosen by
            `evaluation/identification.py`.
        confidence_scale, confidence_offset: the odds of a segment's confidence are those of its mean activity to the
            power of the first, times e to the power of the second; `evaluation/calibration.py` chooses them, and the
            next three.
        sure_margin: the number of speakers found is sure if it stays with `same_speaker_similarity` so much higher,
        sure_similarity, sure_confidence: and no two speakers have this cosine or more, and everybody's segments this
            mean confidence.
        min_speaker_seconds, min_speaker_share: a cluster with less speech, in seconds or as a share of all of it, is no
            speaker of its own where their number is unknown.
        speech_range_db: what is quieter by more than the mean of all speech is of nobody present, as talk in another
            room or on another line.

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
    speech_range_db: float = 25.0
    known_voice_similarity: float = 0.6
    confidence_scale: float = 1.0
    confidence_offset: float = 0.0
    sure_margin: float = 0.05
    sure_similarity: float = 0.65
    sure_confidence: float = 0.9

    def __post_init__(self):
        check_number("sliding_window_seconds", self.sliding_window_seconds, 0.5, 60)
        check_number("hop_seconds", self.hop_seconds, 0, LONGEST_SECONDS)
        least_hop = max(FRAME_SECONDS, self.sliding_window_seconds / MOST_WINDOWS_A_FRAME)
        if not least_hop <= self.hop_seconds <= self.sliding_window_seconds:
            raise ValueError(f"hop_seconds must be in [{least_hop:g}, sliding_window_seconds], got {self.hop_seconds}")
        for name in ("onset", "offset"):
            check_number(name, getattr(self, name), 0, 1)
        if not 0 < self.offset <= self.onset < 1:
            raise ValueError(f"0 < offset <= onset < 1 must hold, got offset {self.offset} and onset {self.onset}")
        durations = ("min_duration_on", "min_duration_off", "min_solo_seconds", "min_speaker_seconds")
        for name in (*durations, "full_evidence_seconds"):
            check_number(name, getattr(self, name), 0, LONGEST_SECONDS)
        check_number("min_speaker_share", self.min_speaker_share, 0, 1)
        for name in (n for n in self.__dataclass_fields__ if n.endswith("similarity")):
            check_number(name, getattr(self, name), -1, 1)
        check_number("speech_range_db", self.speech_range_db, 0, 200)
        check_number("confidence_scale", self.confidence_scale, 0.01, 100)
        check_number("confidence_offset", self.confidence_offset, -100, 100)
        check_number("sure_margin", self.sure_margin, 0, 2)
        check_number("sure_confidence", self.sure_confidence, 0, 1)

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


CANDIDATES = {
    "same_speaker_similarity": tuple(hundredths / 100 for hundredths in range(20, 92, 5)),
    "full_evidence_seconds": (0.0, 5.0, 10.0, 20.0),
    "same_tracklet_similarity": (0.5, 0.6, 0.7, 0.8, 0.85, 0.9),
    "min_solo_seconds": (0.5, 1.0, 1.5, 2.0),
    "min_speaker_seconds": (1.0, 2.0, 3.0, 4.0, 6.0),
    "min_speaker_share": (0.0, 0.02, 0.03, 0.05),
    "onset": (0.4, 0.5, 0.6),
    "offset": (0.3, 0.4, 0.5),
    "min_duration_on": (0.0, 0.1, 0.2, 0.3),
    "min_duration_off": (0.0, 0.1, 0.2, 0.3, 0.5),
    "speech_range_db": (20.0, 22.5, 25.0, 27.5, 30.0, 40.0),
}
"""Values of each setting that `evaluation/tuning.py` tries."""


@dataclass(frozen=True)
class SpeakerCount:
    """How many speakers are looked for: exactly `num_speakers`, or from `min_speakers` to `max_speakers`.

    Raises:
        ValueError: a number below 1 or above 100, or one that contradicts another.
    """

    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is not None:
                check_number(name, value, 1, MOST_SPEAKERS, whole=True)
        names = [name for name in ("min_speakers", "num_speakers", "max_speakers") if getattr(self, name) is not None]
        for lower, upper in pairwise(names):
            if getattr(self, lower) > getattr(self, upper):
                raise ValueError(
                    f"{lower} is {getattr(self, lower)}, more than {upper}, which is {getattr(self, upper)}"
                )

    @property
    def fewest(self) -> int:
        return self.num_speakers or self.min_speakers or 1

    @property
    def most(self) -> int:
        return self.num_speakers or self.max_speakers or MOST_SPEAKERS
