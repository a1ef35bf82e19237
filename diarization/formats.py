"""Segments as text: RTTM, JSON, CSV, subtitles, Audacity labels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from diarization.talk_time import talk_times
from modeling.segments_fast_diarization import Segment


def to_rttm(name: str, segments: Sequence[Segment]) -> str:
    """Lines of RTTM (NIST RT-09), in milliseconds."""
    return "".join(
        f"SPEAKER {name} 1 {s.start:.3f} {s.end - s.start:.3f} <NA> <NA> {rttm_field(s.speaker)} <NA> <NA>\n"
        for s in segments
    )


def rttm_field(name: str) -> str:
    """A speaker's name in RTTM, whose fields end at a space."""
    return "_".join(name.split())


def csv_field(name: str) -> str:
    """A speaker's name in CSV (RFC 4180), quoted where it must be."""
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name


def to_json(name: str, segments: Sequence[Segment], about: Mapping = {}) -> str:
    """`about` holds further facts of the recording, such as what number of speakers was asked for."""
    speakers = [asdict(one) for one in talk_times(segments)]
    found = {"recording": name, "num_speakers": len(speakers), **about, "speakers": speakers}
    return json.dumps(found | {"segments": [asdict(s) for s in segments]}, indent=1) + "\n"


def to_csv(name: str, segments: Sequence[Segment]) -> str:
    lines = [f"{s.start:.3f},{s.end:.3f},{csv_field(s.speaker)},{s.confidence:.4f}\n" for s in segments]
    return "start,end,speaker,confidence\n" + "".join(lines)


def to_srt(name: str, segments: Sequence[Segment]) -> str:
    return "".join(
        f"{number}\n{_clock(s.start)} --> {_clock(s.end)}\n{s.speaker}\n\n" for number, s in enumerate(segments, 1)
    )


def to_audacity(name: str, segments: Sequence[Segment]) -> str:
    return "".join(f"{s.start:.3f}\t{s.end:.3f}\t{s.speaker}\n" for s in segments)


FORMATS: dict[str, tuple[str, Callable[..., str]]] = {
    "rttm": (".rttm", to_rttm),
    "json": (".json", to_json),
    "csv": (".csv", to_csv),
    "srt": (".srt", to_srt),
    "audacity": (".txt", to_audacity),
}
"""Suffix and writer by name."""


def to_annotation(name: str, segments: Sequence[Segment]):
    """As a `pyannote.core.Annotation`, for scoring."""
    from pyannote.core import Annotation
    from pyannote.core import Segment as Interval

    annotation = Annotation(uri=name)
    for number, s in enumerate(segments):
        annotation[Interval(s.start, s.end), number] = s.speaker
    return annotation


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d},{milliseconds % 1000:03d}"
