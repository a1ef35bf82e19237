"""Speakers of a hypothesis beside those of a reference, and their colours in a picture."""

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from diarization.matching import match_speakers
from diarization.timeline import plot_timeline
from modeling.segments_fast_diarization import Segment

REFERENCE = [Segment(0, 4, "Ann", 1.0), Segment(4, 9, "Bob", 1.0), Segment(20, 21, "Cy", 1.0)]
FOUND = [Segment(4, 9, "SPEAKER_00", 0.9), Segment(0, 3, "SPEAKER_01", 0.9), Segment(30, 31, "SPEAKER_02", 0.9)]


def test_speakers_are_matched_by_the_time_they_share():
    assert match_speakers(FOUND, REFERENCE) == {"SPEAKER_00": "Bob", "SPEAKER_01": "Ann"}
    assert match_speakers(FOUND, []) == match_speakers([], REFERENCE) == match_speakers([], []) == {}


turns = st.lists(
    st.builds(
        lambda start, length, speaker: Segment(start, start + length, speaker, 1.0),
        st.integers(0, 50),
        st.integers(1, 20),
        st.sampled_from("abcd"),
    ),
    min_size=1,
    max_size=12,
)


@given(turns, turns)
@settings(max_examples=50, deadline=None)
def test_no_other_matching_shares_more_time(found, reference):
    def active(segments, speaker):
        seconds = np.arange(70) + 0.5
        return np.any([(s.start < seconds) & (seconds < s.end) for s in segments if s.speaker == speaker], axis=0)

    mine, theirs = (sorted({s.speaker for s in some}) for some in (found, reference))
    shared = {(m, t): (active(found, m) & active(reference, t)).sum() for m in mine for t in theirs}
    padded = [*theirs, *[None] * len(mine)]
    best = max(sum(shared.get(pair, 0) for pair in zip(mine, some)) for some in permutations(padded, len(mine)))
    matched = match_speakers(found, reference)
    assert sum(shared[pair] for pair in matched.items()) == best
    assert len(set(matched.values())) == len(matched)


def test_a_speaker_of_the_reference_has_the_colour_of_the_one_found(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "broken_barh", lambda self, spans, rows, color, **_: drawn.append((spans[0], color)))
    plot_timeline(tmp_path / "call.png", "call", FOUND, REFERENCE)
    hues = dict(drawn)
    assert len(drawn) == 6 and len({color for _, color in drawn[:3]}) == 3
    ann, bob, cy = (color for _, color in drawn[3:])
    assert ann == hues[(0, 3)] and bob == hues[(4, 5)] and cy == "dimgray"
