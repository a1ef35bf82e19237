"""Segments, and words with speakers, as text: RTTM, JSON, CSV, subtitles, a transcript, Audacity labels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from diarization.subtitles import to_srt, to_vtt
from diarization.talk_time import talk_times
from diarization.timeline import clock
from modeling.segments_fast_diarization import Segment
from modeling.words_fast_diarization import Word, spoken_turns


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


def to_json(name: str, segments: Sequence[Segment], about: Mapping = {}, words: Sequence[Word] | None = None) -> str:
    """`about` holds further facts of the recording, such as what number of speakers was asked for."""
    speakers = [asdict(one) for one in talk_times(segments)]
    found = {"recording": name, "num_speakers": len(speakers), **about, "speakers": speakers}
    found |= {"segments": [asdict(s) for s in segments]}
    if words is not None:
        turns = [turn.as_dict() for turn in spoken_turns(words)]
        found["turns"] = [{key: turn[key] for key in ("start", "end", "speaker", "text")} for turn in turns]
        found["words"] = [{"word": w.text, "start": w.start, "end": w.end, "speaker": w.speaker} for w in words]
    return json.dumps(found, indent=1) + "\n"


def to_csv(name: str, segments: Sequence[Segment]) -> str:
    lines = [f"{s.start:.3f},{s.end:.3f},{csv_field(s.speaker)},{s.confidence:.4f}\n" for s in segments]
    return "start,end,speaker,confidence\n" + "".join(lines)


def to_txt(name: str, segments: Sequence[Segment], words: Sequence[Word] | None = None) -> str:
    """A transcript: one paragraph a turn; of segments without words, a line each."""
    if words is None:
        return "".join(f"[{clock(s.start)}] {s.speaker}\n" for s in segments)
    turns = [(f"[{clock(t.start)}]", f"{t.speaker}: " if t.speaker else "", t.text) for t in spoken_turns(words)]
    return "\n".join(f"{time} {speaker}{text}\n" for time, speaker, text in turns)


def to_audacity(name: str, segments: Sequence[Segment]) -> str:
    return "".join(f"{s.start:.3f}\t{s.end:.3f}\t{s.speaker}\n" for s in segments)


FORMATS: dict[str, tuple[str, Callable[..., str]]] = {
    "rttm": (".rttm", to_rttm),
    "json": (".json", to_json),
    "csv": (".csv", to_csv),
    "srt": (".srt", to_srt),
    "vtt": (".vtt", to_vtt),
    "txt": (".txt", to_txt),
    "audacity": (".txt", to_audacity),
}
"""Suffix and writer by name."""
WITH_WORDS = ("json", "srt", "vtt", "txt")
"""Formats that hold words; their writers take `words`."""


def to_annotation(name: str, segments: Sequence[Segment]):
    """As a `pyannote.core.Annotation`, for scoring."""
    from pyannote.core import Annotation
    from pyannote.core import Segment as Interval

    annotation = Annotation(uri=name)
    for number, s in enumerate(segments):
        annotation[Interval(s.start, s.end), number] = s.speaker
    return annotation
