"""Speech far quieter than the rest of a recording is of nobody present."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diarization.backends import open_network
from modeling.audio_fast_diarization import load_audio
from modeling.levels_fast_diarization import SMOOTHED_FRAMES, Loudness, frame_levels
from modeling.linking_fast_diarization import diarize
from modeling.settings_fast_diarization import FRAME_SAMPLES, SAMPLING_RATE
from modeling.streaming_fast_diarization import StreamingDiarizer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def published():
    return open_network(str(ROOT / "pretrained" / "lightweight-cnn" / "model.onnx"))


@pytest.fixture(scope="module")
def call() -> np.ndarray:
    return load_audio(str(ROOT / "data" / "sample" / "call.ogg"))


@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 80), offset=st.floats(-0.5, 0.5))
@settings(deadline=None, max_examples=30)
def test_a_level_is_the_mean_power_around_a_frame_without_its_constant(seed, frames, offset):
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(frames * FRAME_SAMPLES) * np.repeat(10 ** rng.uniform(-3, 0, frames), FRAME_SAMPLES)
    (levels,) = frame_levels((sound - sound.mean() + offset)[None].astype(np.float32))
    half = SMOOTHED_FRAMES // 2
    for frame in range(frames):
        around = (sound - sound.mean())[max(frame - half, 0) * FRAME_SAMPLES : (frame + half + 1) * FRAME_SAMPLES]
        assert levels[frame] == pytest.approx(10 * np.log10(np.mean(around**2)), abs=0.05)


def test_loudness_is_the_mean_power_of_speech_alone():
    loudness = Loudness()
    assert loudness.decibels == -np.inf
    loudness.add(np.array([[0.9, 0.1], [0.2, 0.6], [0.1, 0.1]]), np.array([-20.0, -10.0, 0.0]))
    loudness.add(np.array([[0.5, 0.0]]), np.array([-20.0]))
    assert loudness.decibels == pytest.approx(10 * np.log10((0.01 + 0.1 + 0.01) / 3), abs=1e-6)


def spoken(segments) -> float:
    return sum(segment.end - segment.start for segment in segments)


@pytest.mark.slow
def test_talk_far_in_the_background_before_a_call_is_nobody_of_it(published, call):
    network, settings = published
    behind = call[: 8 * SAMPLING_RATE] * 10 ** (-45 / 20)
    between = np.zeros(2 * SAMPLING_RATE, np.float32)
    alone = diarize(network, [call], settings)
    both = diarize(network, [np.concatenate([behind, between, call])], settings)
    assert not [segment for segment in both if segment.start < 9.5]
    assert {segment.speaker for segment in both} == {segment.speaker for segment in alone}
    assert spoken(both) == pytest.approx(spoken(alone), rel=0.03)


def test_how_loud_a_whole_recording_is_changes_nothing(published, call):
    network, settings = published
    quiet = diarize(network, [call * 10 ** (-30 / 20)], settings)
    assert [segment.speaker for segment in quiet] == [segment.speaker for segment in diarize(network, [call], settings)]


@pytest.mark.slow
def test_somebody_12_db_quieter_is_heard(published, call):
    network, settings = published
    loud = np.concatenate([call, call * 10 ** (-12 / 20)])
    half = [segment for segment in diarize(network, [loud], settings) if segment.start >= len(call) / SAMPLING_RATE]
    assert spoken(half) == pytest.approx(spoken(diarize(network, [call], settings)), rel=0.05)


@pytest.mark.slow
def test_live_talk_in_the_background_after_a_call_is_left_out(published, call):
    network, settings = published
    live = StreamingDiarizer(network, settings)
    segments = live.push(np.concatenate([call, call[: 8 * SAMPLING_RATE] * 10 ** (-45 / 20)])) + live.flush()
    assert max(segment.end for segment in segments) <= len(call) / SAMPLING_RATE + 0.5
