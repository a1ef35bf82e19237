"""What the page keeps and draws, without a browser: changes of names, the player's data, the copy of the sound."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_tones import SECONDS, write_recording

from modeling.audio_fast_diarization import SAMPLING_RATE, load_audio
from modeling.segments_fast_diarization import Segment
from modeling.words_fast_diarization import Word
from space.hypothesis import LONGEST_NAME, EditError, Hypothesis
from space.player import player, script
from space.sound import MOST_PEAKS, PEAK_SAMPLES, SoundCopy

FRAMES = 60
NAMES = ("Anna", "Ben", "Cleo")
turns = st.tuples(st.integers(0, FRAMES - 1), st.integers(1, 20), st.sampled_from(NAMES))
HOSTILE = "<script>alert(1)</script>{{value}}${1+1}`"


def hypothesis_of(spans) -> Hypothesis:
    segments = [Segment(a / 10, min(a + n, FRAMES) / 10, name, 0.9) for a, n, name in spans]
    return Hypothesis.of("call", FRAMES / 10, sorted(segments, key=lambda s: (s.start, s.end)))


def frames(found: Hypothesis) -> dict[str, set[int]]:
    """Who is active in which tenths of a second."""
    active: dict[str, set[int]] = {}
    for s in found.segments:
        active.setdefault(s.speaker, set()).update(range(round(s.start * 10), round(s.end * 10)))
    return active


@given(st.lists(turns, min_size=1, max_size=12), st.sampled_from(NAMES), st.sampled_from((*NAMES, "Dora")))
def test_a_new_name_has_the_speech_of_the_old_one_and_of_its_own(spans, old, new):
    before = hypothesis_of(spans)
    there = frames(before)
    if old not in there:
        with pytest.raises(EditError, match="there is no speaker"):
            before.edited({"do": "rename", "speaker": old, "to": new})
        return
    after = before.edited({"do": "rename", "speaker": old, "to": f"  {new} "})
    expected = {name: tenths for name, tenths in there.items() if name != old}
    expected[new] = there[old] | there.get(new, set())
    assert frames(after) == expected
    assert all(after.slots[name] == before.slots[name] for name in expected if name in there)
    if old != new:
        assert frames(after.edited({"do": "undo"})) == there
        assert new in there or after.slots[new] == before.slots[old]


@given(st.lists(turns, min_size=1, max_size=12), st.integers(0, FRAMES), st.integers(0, FRAMES), st.booleans())
def test_what_is_given_moves_and_nothing_else_does(spans, start, end, to_new):
    before = hypothesis_of(spans)
    there, old = frames(before), before.speakers[0]
    to = "" if to_new else before.speakers[-1]
    after = before.edited({"do": "give", "speaker": old, "start": start / 10, "end": end / 10, "to": to})
    name, moved = to or "SPEAKER_00", there[old] & set(range(start, end))
    expected = {**there, old: there[old] - moved}
    expected[name] = expected.get(name, set()) | moved
    assert frames(after) == {speaker: tenths for speaker, tenths in expected.items() if tenths}
    for one, other in zip(after.segments, after.segments[1:]):
        assert one.start <= other.start
    assert len(set(after.slots.values())) == len(after.slots)
    json.loads(base64.b64decode(player(after).split('"')[1]))


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(("do", "speaker", "to", "start", "end")),
        st.sampled_from(("rename", "give", "undo", "Anna", "", " ", "x" * (LONGEST_NAME + 1), "a\x00b"))
        | st.floats()
        | st.none()
        | st.integers()
        | st.lists(st.integers(), max_size=1),
    )
)
def test_whatever_a_browser_sends_is_a_change_or_one_line(edit):
    try:
        found = hypothesis_of([(0, 20, "Anna"), (20, 20, "Ben")]).edited(edit)
    except EditError as error:
        assert "\n" not in str(error)
    else:
        assert sum(map(len, frames(found).values())) == 40
        assert all(name.isprintable() and 0 < len(name) <= LONGEST_NAME for name in found.speakers)


def test_names_and_words_travel_as_data_only():
    found = hypothesis_of([(0, 20, "Anna")]).edited({"do": "rename", "speaker": "Anna", "to": HOSTILE})
    words = [Word(HOSTILE, 0.0, 1.0, HOSTILE), Word("\u4f60", 1.0, 1.2, HOSTILE), Word("\u597d", 1.2, 1.4, HOSTILE)]
    html = player(found, words)
    assert html.startswith('<diarized-recording data="') and html.endswith('"></diarized-recording>')
    content = html.removeprefix('<diarized-recording data="').removesuffix('"></diarized-recording>')
    data = json.loads(base64.b64decode(content, validate=True))
    assert data["speakers"][0]["name"] == HOSTILE
    assert data["lines"] == [[0, [[0.0, 1.0, f"{HOSTILE} "], [1.0, 1.2, "\u4f60"], [1.2, 1.4, "\u597d"]]]]
    assert script().count("</script") == 1


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_the_copy_sounds_as_the_recording_and_its_peaks_are_on_time(suffix, tmp_path):
    heard = load_audio(write_recording(tmp_path / f"call.{suffix}"))
    sound = SoundCopy(tmp_path / "copy.wav")
    for first in range(0, len(heard), 10 * SAMPLING_RATE):
        sound.hear(heard[first : first + 10 * SAMPLING_RATE])
    sound.close()
    copy = load_audio(tmp_path / "copy.wav")
    assert copy.shape == heard.shape
    assert np.square(copy - heard).mean() < 1e-3 * np.square(heard).mean()  # mu-law: about 38 dB
    peaks = np.frombuffer(sound.peaks(), np.uint8)
    assert len(peaks) == SECONDS * SAMPLING_RATE / PEAK_SAMPLES
    loud = np.flatnonzero(peaks > 128) * PEAK_SAMPLES / SAMPLING_RATE
    assert loud[0] < 0.05 and not ((loud > 4.1) & (loud < 4.9)).any() and abs(loud[-1] - 14) < 0.1


def test_a_long_recording_has_no_more_peaks_than_are_drawn(tmp_path):
    sound = SoundCopy(tmp_path / "copy.wav")
    sound.loudest = [np.r_[np.zeros(700_000, np.float32), np.full(20_000, 0.5, np.float32)]]
    peaks = np.frombuffer(sound.peaks(), np.uint8)
    assert len(peaks) <= MOST_PEAKS
    assert np.flatnonzero(peaks)[0] / len(peaks) == pytest.approx(700_000 / 720_000, abs=1e-3)
