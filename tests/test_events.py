"""Events of a live stream: replaying them gives the timeline, and names that come later reach what was said before."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_network import DIMENSION, OracleNetwork
from pyannote.core import Annotation
from pyannote.core import Segment as Interval

from diarization.backends import open_network
from diarization.formats import to_annotation
from evaluation.recording_scores import score_recording
from modeling import streaming_fast_diarization
from modeling.audio_fast_diarization import load_audio
from modeling.counting_fast_diarization import Speaker
from modeling.enrolment_fast_diarization import KnownVoices
from modeling.events_fast_diarization import LiveEvents, replay
from modeling.linking_fast_diarization import diarize
from modeling.segments_fast_diarization import Segment, join_segments
from modeling.settings_fast_diarization import LinkingSettings
from modeling.streaming_fast_diarization import StreamingDiarizer

ROOT = Path(__file__).resolve().parent.parent
CALL = ROOT / "../shared/conversations/validation/hvb_01cefd6f5c044a6f.flac"
SETTINGS = LinkingSettings()


def conversation(seed: int, seconds: float, speakers: int) -> list[tuple[float, float, str]]:
    rng = np.random.default_rng(seed)
    turns, at = [], 0.2
    while at < seconds - 4:
        length = rng.integers(20, 200) * 0.02
        turns.append((round(at, 2), round(at + length, 2), f"person{rng.integers(speakers)}"))
        at += length + rng.integers(-10, 40) * 0.02
    return turns


def known(oracle: OracleNetwork, names: list[str]) -> KnownVoices:
    people = {f"Known {name}": Speaker(oracle.voices[oracle.names.index(name)], 10.0) for name in names}
    return KnownVoices(np.zeros(DIMENSION), people)


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 2**32 - 1),
    speakers=st.integers(1, 4),
    noise=st.sampled_from([0.0, 0.5, 1.5]),
    tracklets=st.sampled_from([4, 30]),
    chunk=st.sampled_from([1_600, 8_000, 30_000]),
    since=st.integers(0, 40),
)
def test_replaying_all_events_gives_the_timeline_at_the_end(seed, speakers, noise, tracklets, chunk, since):
    turns = conversation(seed, 20.0, speakers)
    oracle = OracleNetwork(turns, 20.0, noise=noise, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming_fast_diarization, "MOST_TRACKLETS", tracklets)
        diarizer = StreamingDiarizer(oracle, SETTINGS, voices=known(oracle, oracle.names[:1]))
        live = LiveEvents(diarizer)
        waveform = oracle.waveform()
        events, kept = [], None
        for at in range(0, len(waveform), chunk):
            events += live.push(waveform[at : at + chunk])
            if kept is None and live.revision >= since:
                kept = live.revision, list(events)
        events += live.finish()
    events = [json.loads(json.dumps(event)) for event in events]
    assert replay(events) == live.segments and events[-1]["event"] == "end" and events[-1]["seconds"] == 20.0
    assert [event["revision"] for event in events] == list(range(1, len(events) + 1))
    if kept:  # who was away from that revision on
        assert replay([*kept[1], *live.history(kept[0])]) == live.segments


def test_somebody_known_is_named_in_what_was_said_before_too():
    turns = [(0.5, 4.0, "a"), (4.5, 8.0, "b"), (8.5, 12.0, "a")]
    oracle = OracleNetwork(turns, 14.0)
    diarizer = StreamingDiarizer(oracle, SETTINGS, voices=known(oracle, ["a"]))
    live = diarizer.events()
    events = [event for part in np.split(oracle.waveform(), 100) for event in live.push(part)] + live.finish()
    first = next(event for event in events if event["event"] == "turn")
    named = next(event for event in events if event["event"] == "relabel")
    assert first["speaker"] == "SPEAKER_00" and named["speaker"] == "Known a" and first["id"] in named["ids"]
    found = [(round(s.start, 1), s.speaker) for s in replay(events)]
    assert found == [(0.5, "Known a"), (4.5, "SPEAKER_01"), (8.5, "Known a")]


pieces = st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from("ab"))


@given(st.lists(pieces, max_size=20))
def test_joined_segments_hold_what_each_speaker_said(found):
    """Also where two turns that became one person's end together."""
    segments = [Segment(start / 2, (start + length) / 2, speaker, 0.9) for start, length, speaker in found]
    expected = to_annotation("call", segments).support()
    joined = [(s.start, s.end, s.speaker) for s in join_segments(segments)]
    assert joined == sorted((turn.start, turn.end, name) for turn, _, name in expected.itertracks(yield_label=True))


def test_confidence_is_calibrated_once():
    chosen = LinkingSettings(confidence_scale=0.5, confidence_offset=-0.5)
    oracle = OracleNetwork([(0.0, 6.0, "a")], 8.0, log_odds=2.0)
    live = StreamingDiarizer(oracle, chosen).events()
    live.push(oracle.waveform())
    live.finish()
    (offline,) = diarize(oracle, [oracle.waveform()], chosen)
    assert live.segments[0].confidence == pytest.approx(offline.confidence, abs=1e-3)


@pytest.mark.slow
def test_one_person_taken_for_two_at_first_is_one_at_the_end():
    """A voice counts from its first second on: live that second goes to somebody else, and comes back."""
    before = after = 0.0
    for seed in range(3):
        turns = conversation(seed, 60.0, 3)
        oracle = OracleNetwork(turns, 60.0, noise=0.4, seed=seed)
        diarizer = StreamingDiarizer(oracle, SETTINGS)
        live = LiveEvents(diarizer)
        pieces = [piece for part in np.split(oracle.waveform(), 60) for piece in diarizer.push(part)]
        live.finish()
        reference = Annotation(uri="call")
        for number, (start, end, speaker) in enumerate(turns):
            reference[Interval(start, end), number] = speaker
        before += score_recording(reference, to_annotation("call", join_segments(pieces)))["confusion"]
        after += score_recording(reference, to_annotation("call", live.segments))["confusion"]
    assert after < 0.5 * before


@pytest.mark.skipif(not CALL.is_file(), reason="needs the shared conversations")
def test_events_of_a_real_call_amount_to_its_timeline():
    network, chosen = open_network(str(ROOT / "pretrained/lightweight-cnn/model.onnx"))
    live = LiveEvents(StreamingDiarizer(network, chosen))
    waveform = load_audio(CALL)[: 16_000 * 20]
    events = [event for at in range(0, len(waveform), 8_000) for event in live.push(waveform[at : at + 8_000])]
    events += live.finish()
    assert replay(events) == live.segments and len(live.segments) > 4


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"event": "end", "revision": 2, "seconds": 1.0}, {"event": "end", "revision": 1}], "must be in order"),
        ([{"event": "pause", "revision": 1}], "must be turn, relabel or end, got 'pause'"),
    ],
)
def test_events_that_do_not_follow_are_refused(events, message):
    with pytest.raises(ValueError, match=message):
        replay(events)
