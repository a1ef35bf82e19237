"""Tracks and channels: nothing cancels, nobody is missed, what was heard is said, one speaker a channel."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from audio_files import RATE, encode, pipe, speech_like, wav
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation
from pyannote.core import Segment as Interval
from test_audio import said

from data.rttm import read_rttm
from diarization.backends import open_network
from diarization.formats import to_annotation
from evaluation.recording_scores import score_recording
from modeling.audio_fast_diarization import AudioError, AudioNotice, array_to_16k, audio_blocks, load_audio
from modeling.linking_fast_diarization import diarize
from modeling.mixing_fast_diarization import mix
from modeling.separate_fast_diarization import diarize_channels
from modeling.settings_fast_diarization import FRAME_SAMPLES, LinkingSettings, SpeakerCount
from modeling.tracks_fast_diarization import SideBySide

ROOT = Path(__file__).resolve().parent.parent
CASES, CALLS = ROOT / "../shared/cases/audio", ROOT / "../shared/conversations"
MODEL = ROOT / "pretrained/lightweight-cnn"
SPEECH, OTHER = speech_like(12), speech_like(12, seed=1)
NOISE = 0.3 * np.random.default_rng(0).standard_normal(12 * RATE).astype(np.float32)
HUM = 0.3 * np.sin(2 * np.pi * 50 * np.arange(12 * RATE) / RATE).astype(np.float32)
BAD = {"dead": 0 * SPEECH, "inverted": -SPEECH, "inverted, quieter": -0.3 * SPEECH, "noise": NOISE, "hum": HUM}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", BAD)
def test_no_second_channel_drowns_or_cancels_the_first(name, order):
    recording = wav(np.stack([SPEECH, BAD[name]])[list(order)])
    with said() as messages:
        waveform = load_audio(recording)
    likeness = np.corrcoef(waveform, SPEECH)[0, 1]
    assert abs(likeness) > 0.999
    assert np.std(waveform) > 0.6 * np.std(SPEECH)
    (message,) = [text for kind, text in messages if kind is AudioNotice]
    number = order.index(1) + 1
    assert ("is inverted" if "inverted" in name else f"channel {number} carries no speech") in message
    np.testing.assert_array_equal(load_audio(recording, channels=order.index(0) + 1), load_audio(wav(SPEECH)))


def test_channels_that_are_recordings_of_one_scene_are_averaged():
    for second in (SPEECH, 0.5 * SPEECH, 0.5 * SPEECH + 0.1 * OTHER):
        with said() as messages:
            waveform = load_audio(wav(np.stack([SPEECH, second])))
        np.testing.assert_allclose(waveform, (SPEECH + second) / 2, atol=1e-4)
        assert messages == []


def test_two_people_on_two_channels_are_both_heard_and_separating_is_proposed():
    with said() as messages:
        waveform = load_audio(wav(np.stack([SPEECH, OTHER])))
    np.testing.assert_allclose(waveform, (SPEECH + OTHER) / 2, atol=1e-4)
    ((kind, message),) = messages
    assert kind is AudioNotice and "--channels" in message


def test_somebody_who_speaks_late_on_a_noisy_channel_is_heard_from_the_first_word():
    late = 0.01 * NOISE
    late[6 * RATE :] += OTHER[6 * RATE :]
    waveform = mix(np.stack([SPEECH, late]), RATE)
    np.testing.assert_allclose(waveform[: 6 * RATE], SPEECH[: 6 * RATE])
    expected = (SPEECH + late) / 2
    np.testing.assert_allclose(waveform[round(6.02 * RATE) :], expected[round(6.02 * RATE) :], atol=1e-6)
    steps = np.abs(np.diff(waveform))
    assert steps.max() <= max(np.abs(np.diff(SPEECH)).max(), np.abs(np.diff(OTHER)).max()), "no click where it begins"


@given(gains=st.lists(st.floats(-1, 1), min_size=2, max_size=6).filter(lambda gains: max(map(abs, gains)) > 0.1))
@settings(deadline=None, max_examples=50)
def test_copies_of_one_sound_never_cancel(gains):
    waveform = mix(np.outer(gains, SPEECH[: 4 * RATE]).astype(np.float32), RATE)
    assert np.std(waveform) > 0.1 / len(gains) * np.std(SPEECH[: 4 * RATE])


def test_a_channel_that_is_not_there_is_one_line():
    for channels, message in (
        (3, "no channel 3; it has channels 1 to 2"),
        ("left", "channels must be mix, separate or"),
    ):
        with pytest.raises(ValueError, match=message):
            load_audio(wav(np.stack([SPEECH, OTHER])), channels=channels)
    with pytest.raises(AudioError, match="no track 2; it has only one audio track"):
        load_audio(wav(SPEECH), track=2)


def test_separate_gives_the_channels_of_any_source():
    both = np.stack([SPEECH, OTHER])
    np.testing.assert_allclose(load_audio(wav(both), channels="separate"), both, atol=1e-4)
    np.testing.assert_allclose(array_to_16k(both, RATE, "separate"), both)
    with pipe(wav(both)) as file:
        blocks = list(audio_blocks(file, 0.7, channels="separate"))
    assert {block.shape for block in blocks[:-1]} == {(2, round(0.7 * RATE))}
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), both, atol=1e-4)


# Tracks


def tracks(*waveforms: np.ndarray, **options) -> bytes:
    return encode("matroska", "pcm_s16le", *waveforms, **options)


@pytest.mark.parametrize("interleave", [True, False])
def test_two_microphones_in_one_file_are_both_heard(interleave):
    recording = tracks(SPEECH, OTHER, interleave=interleave)
    with said() as messages:
        waveform = load_audio(recording)
    np.testing.assert_allclose(waveform, (SPEECH + OTHER) / 2, atol=1e-4)
    ((kind, message),) = messages
    assert kind is AudioNotice and "2 audio tracks, mixed" in message
    np.testing.assert_allclose(load_audio(recording, track=2), OTHER, atol=1e-4)
    np.testing.assert_allclose(load_audio(recording, channels="separate"), np.stack([SPEECH, OTHER]), atol=1e-4)
    blocks = [np.concatenate(list(audio_blocks(recording, seconds))) for seconds in (0.3, 2.0)]
    np.testing.assert_array_equal(blocks[0], blocks[1])


def test_a_silent_first_track_is_not_all_that_is_heard():
    with said() as messages:
        waveform = load_audio(tracks(0 * SPEECH, SPEECH))
    np.testing.assert_allclose(waveform, SPEECH, atol=1e-4)
    assert any("track 1 carries no speech" in message for _, message in messages)


def test_a_track_that_ends_early_or_begins_late_stays_where_it_is():
    waveform = load_audio(tracks(SPEECH, OTHER[: 5 * RATE]), channels="separate")
    assert waveform.shape == (2, len(SPEECH))
    np.testing.assert_allclose(waveform[1, : 5 * RATE], OTHER[: 5 * RATE], atol=1e-4)
    assert not waveform[1, 5 * RATE :].any()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40_000)), min_size=1, max_size=20))
@settings(deadline=None)
def test_tracks_come_out_side_by_side_a_second_at_a_time(pieces):
    side, expected, blocks = SideBySide(3), [[np.zeros(0)] for _ in range(3)], []
    for number, (track, length) in enumerate(pieces, 1):
        expected[track].append(np.full(length, number))
        blocks += side.push(track, np.full((1, length), number, np.float32))
    blocks += side.flush()
    assert max(block.shape[1] for block in blocks) <= RATE
    whole = [np.concatenate(of_track) for of_track in expected]
    longest = max(map(len, whole))
    padded = np.stack([np.pad(track, (0, longest - len(track))) for track in whole])
    assert np.array_equal(np.concatenate(blocks, axis=1), padded)


def test_a_track_far_ahead_of_many_is_not_kept_whole():
    side, minute = SideBySide(30), np.zeros((1, 60 * RATE), np.float32)
    given_out = sum(block.shape[1] for _ in range(5) for block in side.push(0, minute))
    assert given_out == (300 - 40) * RATE and max(side.lengths) == 40 * RATE


def test_of_the_languages_of_a_film_one_is_heard():
    recording = tracks(SPEECH, OTHER, metadata=({"language": "eng"}, {"language": "fre"}))
    with said() as messages:
        waveform = load_audio(recording)
    np.testing.assert_allclose(waveform, SPEECH, atol=1e-4)
    assert [message for _, message in messages] == ["audio: audio track 1 of 2 is heard; track (--track) picks another"]


# One speaker a channel


def loud_is_speech(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A network to which everything above -70 dB is one speaker, as it hears every window at one level."""
    level = np.square(windows).reshape(len(windows), -1, FRAME_SAMPLES).mean(axis=2)
    logits = np.full((*level.shape, 2), -8, np.float32)
    logits[..., 0] = np.where(level > 1e-7, 8, -8)
    return logits, np.broadcast_to(np.eye(2, 32, dtype=np.float32), (len(windows), 2, 32))


def conversation(leak: float) -> tuple[np.ndarray, Annotation]:
    """Turns of 2 s on two channels, the second one quieter, half a second of overlap, and crosstalk a little later."""
    rng = np.random.default_rng(5)
    channels, reference = np.zeros((2, 60 * RATE), np.float32), Annotation(uri="call")
    for turn in range(20):
        start, end = round((3 * turn) * RATE), round((3 * turn + (3.5 if turn % 5 == 4 else 2.5)) * RATE)
        end = min(end, channels.shape[1])
        sound = rng.standard_normal(end - start) * (0.1, 0.03)[turn % 2]
        channels[turn % 2, start:end] += sound * (1 + 0.5 * np.sin(np.arange(end - start) / 800))
        reference[Interval(start / RATE, end / RATE), turn] = str(turn % 2)
    crosstalk = np.roll(channels[::-1], 80, axis=1) * np.array([[0.03 / 0.1], [0.1 / 0.03]]) ** -1
    return (channels + leak * crosstalk).astype(np.float32), reference


@pytest.mark.parametrize("leak", [0.0, 0.05, 0.2])
def test_nobody_is_counted_twice_who_is_heard_on_the_other_channel(leak):
    channels, reference = conversation(leak)
    segments = diarize_channels(loud_is_speech, np.split(channels, 12, axis=1), LinkingSettings())
    assert {segment.speaker for segment in segments} == {"SPEAKER_00", "SPEAKER_01"}
    assert segments == sorted(segments, key=lambda s: (s.start, s.end))
    scores = score_recording(reference, to_annotation("call", segments))
    assert scores["diarization_error_rate"] < 0.08
    first = [s for s in segments if s.speaker == "SPEAKER_00"]
    assert abs(first[0].start) < 0.1, "SPEAKER_00 is the one on channel 1"


def test_separate_needs_channels_that_differ():
    with pytest.raises(
        AudioError, match="^the recording has one channel, so its speakers cannot be kept separate by channel; mix it"
    ):
        diarize_channels(loud_is_speech, [SPEECH[None]], LinkingSettings())
    with pytest.raises(AudioError, match="channels 1 and 2 carry the same sound"):
        diarize_channels(loud_is_speech, [np.stack([SPEECH, -0.5 * SPEECH])], LinkingSettings())
    assert diarize_channels(loud_is_speech, [np.zeros((2, 500), np.float32)], LinkingSettings()) == []


# Real files


@pytest.fixture(scope="module")
def published():
    if not (MODEL / "model.onnx").is_file():
        pytest.skip("no published model here")
    return open_network(str(MODEL))


@pytest.mark.slow
@pytest.mark.skipif(not CALLS.is_dir(), reason="no real calls here")
def test_on_real_calls_separate_is_better_than_the_mix(published):
    network, linking = published
    errors = {"mix": [], "separate": []}
    for file in sorted(CALLS.glob("validation/hvb_*.flac")):
        (reference,) = read_rttm(file.with_suffix(".rttm")).values()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioNotice)
            found = {
                "mix": diarize(network, audio_blocks(file), linking),
                "separate": diarize_channels(network, audio_blocks(file, channels="separate"), linking),
            }
        for name, segments in found.items():
            errors[name].append(
                score_recording(reference, to_annotation(file.stem, segments))["diarization_error_rate"]
            )
    assert np.mean(errors["separate"]) < np.mean(errors["mix"])


EXPECTED = {
    "late_track.mkv": (34.0, 1.0, ""),
    "lost_packets.webm": (30.0, 1.0, "6.0 s in 1 hole"),
    "two_microphones.mkv": (60.0, 0.2, "2 audio tracks, mixed"),
    "inverted_channel.flac": (24.0, 0.4, "channel 2 is inverted; it was flipped back"),
    "streamed.wav": (10.0, 0.6, ""),
    "piped.flac": (6.0, None, ""),
    "ring_then_call.ogg": (75.0, None, ""),
    "tone.flac": (20.0, None, ""),
}
"""Length, the most DER that is no fault of the decoder (DER of the same sound alone varies with its shift), notice."""
TAKEN_FOR_TWO = "two_microphones.mkv"
"""Where one person is taken for two unless the number of speakers is given."""


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason="no cases here")
@pytest.mark.parametrize("name", EXPECTED)
def test_files_of_real_tools(name, published):
    seconds, most, notice = EXPECTED[name]
    with said() as messages:
        waveform = load_audio(CASES / name)
    assert len(waveform) / RATE == pytest.approx(seconds, abs=0.02)
    assert [text for kind, text in messages if kind is not AudioNotice] == []
    assert len(messages) == bool(notice) and all(notice in text for _, text in messages)
    if most is not None:
        network, linking = published
        (reference,) = read_rttm((CASES / name).with_suffix(".rttm")).values()
        for count in (len(reference.labels()), *([None] if name != TAKEN_FOR_TWO else [])):
            segments = diarize(network, [waveform], linking, SpeakerCount(count))
            rates = score_recording(reference, to_annotation(Path(name).stem, segments))
            assert rates["missed_speech"] < 0.1 and rates["diarization_error_rate"] < most
