"""Whole recordings: scores computed by hand, by frames, and published floors of real ones."""

import json
import warnings

import pytest
from hypothesis import given
from pyannote.core import Annotation, Segment, Timeline
from test_evaluation import ERRORS, batches, real_annotation, to_annotation, unhurried

from evaluation.recording_scores import RecordingScores, recording_table, score_recording
from evaluation.window_scores import tabulate


def annotation(uri: str, *turns: tuple[float, float, str]) -> Annotation:
    result = Annotation(uri=uri)
    for track, (start, end, speaker) in enumerate(turns):
        result[Segment(start, end), track] = speaker
    return result


def test_a_reference_of_a_longer_recording_is_said():
    reference = annotation("call", (0, 10, "a"), (60, 90, "b"))
    with pytest.warns(UserWarning, match=r"the reference of 'call' goes on to 90.0 s, its audio ends at 49.0 s; is it"):
        RecordingScores().add(reference, reference, seconds=49.0)
    with pytest.warns(UserWarning, match="the UEM of 'other' goes on to 200.0 s"):
        RecordingScores().add(annotation("other"), annotation("other"), Timeline([Segment(100, 200)]), seconds=49.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RecordingScores().add(reference, reference, Timeline([Segment(0, 90)]), seconds=89.5)


def test_known_scores_of_one_recording():
    reference = annotation("call", (0, 6, "agent"), (5, 10, "caller"))
    hypothesis = annotation("call", (0, 5, "a"), (5, 9, "b"), (12, 13, "c"))
    scores = score_recording(reference, hypothesis)
    # 11 s of speech: the agent lacks 5-6, the caller 9-10, and 12-13 is a false alarm.
    assert scores == pytest.approx(
        {
            "speech": 11,
            "diarization_error_rate": 3 / 11,
            "missed_speech": 2 / 11,
            "false_alarm": 1 / 11,
            "confusion": 0,
            "jaccard_error_rate": (1 / 6 + 1 / 5) / 2,
            # 0-10 on one speaker: 1 s missed, 4 s of the caller confused.
            "floor_diarization_error_rate": 5 / 11,
            "floor_missed_speech": 1 / 11,
            "floor_false_alarm": 0,
            "floor_confusion": 4 / 11,
            "floor_jaccard_error_rate": (4 / 10 + 1) / 2,
            "reference_speakers": 2,
            "hypothesis_speakers": 3,
            "speaker_count_error": 1,
        }
    )


def test_collar_is_the_total_width():
    reference = annotation("call", (1, 9, "agent"))
    late = annotation("call", (1.3, 9, "a"))
    # 0.25 s are forgiven on each side of 1 and 9: 7.5 s are scored, of which 1.25-1.3 is missed.
    scores = score_recording(reference, late, collar=0.5)
    assert scores["speech"] == pytest.approx(7.5)
    assert scores["diarization_error_rate"] == pytest.approx(0.05 / 7.5)


def test_skip_overlap_and_evaluation_map_restrict_what_is_scored():
    reference = annotation("call", (0, 6, "agent"), (5, 10, "caller"))
    hypothesis = annotation("call", (0, 10, "a"))
    assert score_recording(reference, hypothesis, skip_overlap=True)["speech"] == pytest.approx(9)
    scores = score_recording(reference, hypothesis, uem=Timeline([Segment(0, 5)]))
    assert (scores["diarization_error_rate"], scores["reference_speakers"]) == (0, 1)
    # The edges of the map are no boundaries of turns: the collar takes nothing there.
    scores = score_recording(reference, hypothesis, uem=Timeline([Segment(1, 4)]), collar=0.5)
    assert scores["speech"] == pytest.approx(3)


def test_overlapping_turns_of_one_speaker_are_speech_once():
    reference = annotation("call", (0, 6, "agent"), (4, 10, "agent"))
    scores = score_recording(reference, annotation("call", (0, 10, "a"), (2, 3, "a")))
    assert (scores["speech"], scores["diarization_error_rate"]) == (10, 0)


@unhurried
@given(batches())
def test_recording_scores_equal_window_scores_on_the_same_frames(batch):
    predictions, references = batch
    scores = score_recording(to_annotation(references[0]), to_annotation(predictions[0]))
    result = tabulate(predictions[:1], references[:1])["all_windows"]
    for name in ("diarization_error_rate", *ERRORS):
        assert scores[name] == pytest.approx(result[name], abs=1e-6)
        assert scores[f"floor_{name}"] == pytest.approx(result[f"floor_{name}"], abs=1e-6)


def test_total_is_errors_over_speech():
    scores = RecordingScores()
    # 1 s missed of 10 s, and 2 s confused of 4 s: a mean of rates would be 30 %.
    scores.add(annotation("long", (0, 10, "a")), annotation("long", (0, 9, "x")))
    scores.add(annotation("short", (0, 2, "a"), (2, 4, "b")), annotation("short", (0, 4, "x")))
    result = scores.result()
    assert result["total"]["diarization_error_rate"] == pytest.approx(3 / 14)
    assert result["total"]["floor_diarization_error_rate"] == pytest.approx(2 / 14)
    # Over the three speakers: 1 s of 10 s, 2 s of 4 s, and one who was never found.
    assert result["total"]["jaccard_error_rate"] == pytest.approx((0.1 + 0.5 + 1) / 3)
    assert result["total"]["speaker_count_error"] == 0.5
    assert json.loads(json.dumps(result)) == result
    assert recording_table(result).splitlines() == [
        "Collar 0 s in total (nothing forgiven), overlap scored.",
        "",
        "| % (floor) | speech (s) | DER | missed | false alarm | confusion | JER | speakers (true) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| long | 10.0 | 10.0 (0.0) | 10.0 (0.0) | 0.0 (0.0) | 0.0 (0.0) | 10.0 (0.0) | 1 (1) |",
        "| short | 4.0 | 50.0 (50.0) | 0.0 (0.0) | 0.0 (0.0) | 50.0 (50.0) | 75.0 (75.0) | 1 (2) |",
        "| total | 14.0 | 21.4 (14.3) | 7.1 (0.0) | 0.0 (0.0) | 14.3 (14.3) | 53.3 (50.0) | off by 0.5 |",
    ]


def test_recordings_without_speech():
    silence, speech = annotation("silent"), annotation("silent", (0, 1, "a"))
    for hypothesis, rate in ((silence, 0), (speech, 1)):
        scores = score_recording(silence, hypothesis)
        assert (scores["diarization_error_rate"], scores["jaccard_error_rate"]) == (rate, rate)
    scores = score_recording(speech, silence)
    assert (scores["missed_speech"], scores["jaccard_error_rate"], scores["speaker_count_error"]) == (1, 1, 1)


def test_recording_scores_name_what_is_wrong():
    scores = RecordingScores()
    with pytest.raises(ValueError, match="no recording to score"):
        scores.result()
    scores.add(annotation("call"), annotation("call"))
    with pytest.raises(ValueError, match="recording 'call' is there twice"):
        scores.add(annotation("call"), annotation("call"))
    with pytest.raises(ValueError, match="collar is -0.5; expected seconds"):
        RecordingScores(collar=-0.5)


@pytest.mark.parametrize(("name", "expected"), [("lca_auto_repairs_40", 49.1), ("ami_dev00", 28.4)])
def test_floor_of_real_recordings_is_the_published_one(name, expected):
    reference = real_annotation(name)
    scores = score_recording(reference, reference)
    assert round(100 * scores["floor_diarization_error_rate"], 1) == expected
    assert scores["diarization_error_rate"] == 0
