"""Make the sample call beside this file: two voices of the demo corpus in turn, sometimes both at once.

    python -m data.sample.build

writes `call.ogg`, and `call.rttm` with who speaks when. Only silence between utterances and their levels are chosen
here; the labels are those of each utterance, by the rule of training (`data.speech_activity`).
"""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile
from pyannote.core import Annotation, Segment

from common.flags import FlagParser
from data.decoding import decode
from data.rttm import write_rttm
from data.speech_activity import speech_segments

HERE = Path(__file__).parent
DEMO = HERE.parent / "demo"
NAME = "call"
RATE = 16_000
VOICES = {"af_nova": 0.6, "bm_george": 1.0}
"""Voices of the validation split, on which nothing is trained, and how loud each is."""
GAPS = (0.5, 0.4, 0.2, -0.6, 0.7, 0.3, -1.0, 0.4, 0.6, 0.2)
"""Seconds of silence before each utterance; below 0, of both voices at once."""


def make() -> tuple[np.ndarray, Annotation]:
    """The waveform (samples,), float32 at 16 kHz, and who speaks when."""
    rows = [row for file in sorted(DEMO.glob("validation-*.parquet")) for row in pq.read_table(file).to_pylist()]
    said = [[row for row in rows if row["speaker_id"] == voice] for voice in VOICES]
    call, turns = np.zeros(0, np.float32), Annotation(uri=NAME)
    for row, gap in zip((row for pair in zip(*said) for row in pair), GAPS, strict=True):
        utterance = decode(row["audio"]["bytes"]) * VOICES[row["speaker_id"]]
        begin = len(call) + round(gap * RATE)
        longer = np.zeros(begin + len(utterance), np.float32)
        longer[: len(call)] = call
        longer[begin:] += utterance
        call = longer
        for first, end in (begin + speech_segments(utterance)) / RATE:
            turns[Segment(round(first, 2), round(end, 2))] = row["speaker_id"]
    return call, turns


def main() -> None:
    FlagParser(description=__doc__).parse_args()
    call, turns = make()
    encoded = io.BytesIO()
    soundfile.write(encoded, call, RATE, format="OGG", subtype="OPUS")
    (HERE / f"{NAME}.ogg").write_bytes(encoded.getvalue())
    write_rttm(HERE / f"{NAME}.rttm", [turns])
    print(f"{HERE / NAME}.ogg: {len(call) / RATE:.1f} s, {len(encoded.getvalue()) / 1000:.0f} kB, {len(turns)} turns")


if __name__ == "__main__":
    main()
