"""How sure the number of speakers is, and confidences: their settings chosen so that they mean what they say."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_network import OracleNetwork
from pyannote.core import Segment as Interval
from pyannote.core import Timeline
from two_tones import write_model, write_recording

import diarize
from data.simulated_recordings import Recording
from diarization.counts import count_sentence
from evaluation.calibration import (
    MARGINS,
    Found,
    calibrate,
    calibration_error,
    choose,
    count_table,
    draw,
    find,
    left_out,
    reliability,
)
from modeling.clustering_fast_diarization import cluster, dendrogram, more_speakers
from modeling.counting_fast_diarization import CountEstimate, Speaker, alike, estimate_count, least_confidence
from modeling.linking_fast_diarization import link
from modeling.segments_fast_diarization import Segment, to_confidence
from modeling.settings_fast_diarization import LinkingSettings, SpeakerCount

CHOSEN = LinkingSettings(sure_margin=0.1, sure_similarity=0.6, sure_confidence=0.8)


@pytest.mark.parametrize(
    ("found", "more", "likeness", "confidence", "fewest", "most"),
    [
        (2, 0, 0.1, 0.9, 2, 2),
        (1, 0, -1.0, 0.9, 1, 1),
        (1, 2, -1.0, 0.9, 1, 3),
        (2, 0, 0.7, 0.9, 1, 2),
        (2, 1, 0.7, 0.5, 1, 3),
        (3, 0, 0.1, 0.5, 2, 3),
        (1, 0, -1.0, 0.5, 1, 2),
        (0, 0, -1.0, 1.0, 0, 0),
    ],
)
def test_what_else_is_possible_follows_from_the_evidence(found, more, likeness, confidence, fewest, most):
    estimate = estimate_count(found, more, likeness, confidence, CHOSEN)
    assert estimate == CountEstimate(found, fewest, most) and estimate.sure == (fewest == most)


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (CountEstimate(2, 2, 2), "2 speakers found"),
        (CountEstimate(0, 0, 0), "0 speakers found"),
        (CountEstimate(1, 1, 2), "1 speaker found; 2 possible: try --num_speakers 2"),
        (CountEstimate(3, 2, 4), "3 speakers found; 2 or 4 possible: try --num_speakers 4"),
        (CountEstimate(3, 2, 3), "3 speakers found; 2 possible: try --num_speakers 2"),
        (CountEstimate(2, 1, 7), "2 speakers found; 1 to 7 possible: try --num_speakers 3"),
    ],
)
def test_the_terminal_says_what_to_try(count, sentence):
    assert count_sentence(count) == sentence


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tracklets=st.integers(1, 12), margin=st.sampled_from([0.0, 0.1, 0.5]))
def test_more_speakers_are_those_found_with_higher_similarities(seed, tracklets, margin):
    rng = np.random.default_rng(seed)
    sums, seconds = rng.standard_normal((tracklets, 3)), rng.uniform(0.5, 9, tracklets)
    none, chosen = np.zeros((0, 2), int), LinkingSettings(same_speaker_similarity=0.3, sure_margin=margin)
    tree = dendrogram(sums, seconds, np.zeros((tracklets, tracklets), bool), chosen)
    steps = np.r_[0.3, 0.3 + margin, np.nextafter(tree.similarity, 1)]  # all there are
    found = [
        cluster(sums, seconds, none, replace(chosen, same_speaker_similarity=float(s)), SpeakerCount()).max() + 1
        for s in steps[(steps >= 0.3) & (steps <= 0.3 + margin)]
    ]
    assert more_speakers(sums, seconds, none, chosen) >= max(found) - found[0]
    assert margin or more_speakers(sums, seconds, none, chosen) == 0


def test_likeness_and_confidence_are_those_of_the_worst():
    unit = np.array([[1, 0], [0, 1], [0.6, 0.8]])
    speakers = {f"SPEAKER_0{n}": Speaker(vector, 5.0) for n, vector in enumerate(unit)}
    assert alike(speakers) == pytest.approx(0.8) and alike({}) == -1
    segments = [Segment(0, 3, "a", 0.9), Segment(3, 4, "a", 0.5), Segment(4, 5, "b", 0.85)]
    assert least_confidence(segments) == pytest.approx(0.8) and least_confidence([]) == 1


def test_two_clear_people_are_sure_and_two_alike_are_not():
    turns = [(at, at + 4.5, "ab"[int(at) // 5 % 2]) for at in np.arange(0.0, 60.0, 5.0)]
    clear = OracleNetwork(turns, 60.0, noise=0.02)
    for margin, most in ((0.05, 2), (0.15, 12)):  # the latter keeps all that are not the same apart
        chosen = LinkingSettings(same_speaker_similarity=0.85, sure_margin=margin)
        assert link(clear, [clear.waveform()], chosen).diarization().count == CountEstimate(2, 2, most)
    near = OracleNetwork(turns, 60.0)
    near.voices[1] = 0.75 * near.voices[0] + (1 - 0.75**2) ** 0.5 * near.voices[1]
    linker = link(near, [near.waveform()], LinkingSettings(same_speaker_similarity=0.8))
    assert linker.diarization().count == CountEstimate(2, 1, 2)
    assert linker.diarization(SpeakerCount(2)).count.sure
    assert linker.diarization(SpeakerCount(min_speakers=2)).count == CountEstimate(2, 2, 2)


def test_json_and_terminal_have_the_range(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path / "model")
    write_recording(tmp_path / "call.wav")
    assert diarize.main(["call.wav", "--model", str(model), "--format", "json"]) == 0
    answer = json.loads((tmp_path / "results/call.json").read_text())
    assert answer["num_speakers_range"] == [2, 2] and answer["num_speakers_sure"] is True
    assert "possible" not in capsys.readouterr().out
    config = json.loads((model / "config.json").read_text()) | {"sure_confidence": 1.0}
    (model / "config.json").write_text(json.dumps(config))
    assert diarize.main(["call.wav", "--model", str(model), "--format", "json"]) == 0
    answer = json.loads((tmp_path / "results/call.json").read_text())
    assert answer["num_speakers_range"] == [1, 2] and answer["num_speakers_sure"] is False
    assert "  2 speakers found; 1 possible: try --num_speakers 1\n" in capsys.readouterr().out


# Calibration


@given(activity=st.floats(0, 1), scale=st.floats(0.1, 5), offset=st.floats(-5, 5))
def test_confidence_is_logistic_in_the_log_odds(activity, scale, offset):
    confidence = to_confidence(activity, LinkingSettings(confidence_scale=scale, confidence_offset=offset))
    assert 0 <= confidence <= 1
    if 1e-6 < activity < 1 - 1e-6:
        odds = scale * math.log(activity / (1 - activity)) + offset
        assert confidence == pytest.approx(1 / (1 + math.exp(-odds)))
    assert to_confidence(activity, LinkingSettings()) == pytest.approx(activity, abs=1e-12)


def some_found(rng: np.random.Generator, count: int = 60, segments: int = 60) -> list[Found]:
    """Recordings whose segments are right by the odds to the power of 0.8, times e^-1; wrong counts are those alike."""
    found = []
    for number in range(count):
        activity = rng.uniform(0.5, 0.99, segments)
        odds = 0.8 * np.log(activity / (1 - activity)) - 1
        right = rng.random(segments) < 1 / (1 + np.exp(-odds))
        rows = np.stack([activity, np.ones(segments), right, np.zeros(segments)], axis=1)
        likeness = rng.uniform(0, 0.9)
        true = 2 if likeness < 0.62 else 1
        found.append(Found(f"seed {number % 3}", true, 2, {margin: 0 for margin in MARGINS}, likeness, rows))
    return found


def test_the_map_of_confidences_is_found_again_and_off_by_little():
    found = some_found(np.random.default_rng(0))
    chosen = calibrate(found, LinkingSettings())
    assert chosen.confidence_scale == pytest.approx(0.8, abs=0.1)
    assert chosen.confidence_offset == pytest.approx(-1, abs=0.15)
    before, after = (calibration_error(reliability(found, s)) for s in (LinkingSettings(), chosen))
    assert after < 0.03 < 0.1 < before


@pytest.mark.slow
def test_the_count_is_sure_where_it_is_right():
    found = some_found(np.random.default_rng(1))
    chosen = choose(found, replace(LinkingSettings(), sure_confidence=0.0))
    assert 0.55 <= chosen.sure_similarity <= 0.7
    sure = [one for one in found if one.count(chosen).sure]
    assert sum(one.true == one.speakers for one in sure) >= 0.9 * len(sure) and len(sure) > 30
    assert np.mean(left_out(found, LinkingSettings())) > 0.85
    assert f"| sure | {len(sure)} |" in count_table(found, chosen)
    with pytest.raises(ValueError, match="with no settings is a sure number right in 90%"):
        choose([replace(one, true=5) for one in found], LinkingSettings())


def test_segments_are_right_for_the_time_their_speaker_speaks(tmp_path):
    turns = [(0.0, 4.0, "a"), (4.0, 8.0, "b"), (8.0, 12.0, "a"), (12.0, 13.0, "c")]
    oracle = OracleNetwork(turns, 14.0)
    said = [(0.0, 4.0, "a"), (4.0, 6.0, "b"), (8.0, 12.0, "a")]
    found = find(oracle, LinkingSettings(), Recording("call", oracle.waveform(), said), "g")
    assert found.true == 2 and set(found.more) == set(MARGINS)
    np.testing.assert_allclose(found.segments[:3, 2], [1.0, 0.5, 1.0], atol=0.03)
    in_region = find(
        oracle, LinkingSettings(), Recording("call", oracle.waveform(), said), "g", Timeline([Interval(0, 3)])
    )
    assert (in_region.true, in_region.speakers) == (1, 1)
    np.testing.assert_allclose(in_region.segments[:, 1:3], [[3.0, 1.0]], atol=0.03)
    draw(tmp_path / "curve.png", [found], LinkingSettings())
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
