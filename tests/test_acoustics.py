"""Rooms, microphones, backgrounds and telephones: known answers, for windows and recordings alike."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conversations import eight_people

from data.acoustics import BACKGROUNDS, CLEAN, Augmentation, Conditions, Scenery, load_noises
from data.conversations import (
    GRID,
    LEVEL,
    SAMPLING_RATE,
    Conversations,
    Pool,
    cast_speakers,
    plan_windows,
    render,
)

STEPS = SAMPLING_RATE // GRID
SAMPLES = 48_000


@pytest.fixture(scope="module")
def pool() -> Pool:
    return eight_people()


@pytest.fixture(scope="module")
def scenery(pool) -> Scenery:
    return Scenery(np.random.default_rng(0), SAMPLES, pool, [])


def impulses(at: list[int], amplitude=0.5) -> Conversations:
    tracks = np.zeros((len(at), 2, SAMPLES), np.float32)
    active = np.zeros((len(at), 2, SAMPLES // GRID), bool)
    for row, sample in enumerate(at):
        tracks[row, 0, sample] = amplitude
        active[row, 0, sample // GRID] = True
    return Conversations(tracks, active, [["A", None]] * len(at))


def continuous(count: int, rng: np.random.Generator) -> Conversations:
    """White noise throughout in place of one speaker's speech."""
    tracks = np.zeros((count, 2, SAMPLES), np.float32)
    tracks[:, 0] = LEVEL * rng.standard_normal((count, SAMPLES))
    active = np.zeros((count, 2, SAMPLES // GRID), bool)
    active[:, 0] = True
    return Conversations(tracks, active, [["A", None]] * count)


def alone(**effects) -> Augmentation:
    return Augmentation(**{**vars(CLEAN), **effects})


def hear(scenery: Scenery, rng: np.random.Generator, speech: Conversations, augmentation: Augmentation) -> np.ndarray:
    return scenery.apply(speech, scenery.draw(rng, *speech.tracks.shape[:2], augmentation))


def one_of(conditions: Conditions, window: int) -> Conditions:
    """The conditions of one window among several."""
    arrays = {name: value for name, value in vars(conditions).items() if isinstance(value, np.ndarray)}
    return replace(conditions, **{name: value[window : window + 1] for name, value in arrays.items()})


def cut(speech: Conversations, window: int, samples: int) -> Iterator[Conversations]:
    """One conversation in pieces."""
    for at in range(0, speech.tracks.shape[2], samples):
        tracks = speech.tracks[window : window + 1, :, at : at + samples]
        active = speech.active[window : window + 1, :, at // GRID : (at + samples) // GRID]
        yield Conversations(tracks, active, speech.speakers[window : window + 1])


def test_rooms_and_equalisers_keep_speech_under_its_labels(scenery):
    at = np.random.default_rng(0).integers(2_000, 40_000, 30).tolist()
    heard = hear(scenery, np.random.default_rng(1), impulses(at), alone(room=1.0, quiet_snr=(90, 90)))
    np.testing.assert_array_equal(np.abs(heard).argmax(axis=1), at)
    heard = hear(scenery, np.random.default_rng(1), impulses(at), alone(room=1.0, equaliser=1.0, quiet_snr=(90, 90)))
    assert (np.abs(np.abs(heard).argmax(axis=1) - at) <= 8).all(), "half a millisecond"


def test_rooms_reverberate_for_less_than_their_share(scenery):
    heard = hear(scenery, np.random.default_rng(1), impulses([10_000] * 40), alone(room=1.0, quiet_snr=(120, 120)))
    direct = np.square(heard[:, 10_000])
    tail = np.square(heard[:, 10_001:]).sum(axis=1)
    ratio = 10 * np.log10(direct / tail)
    assert (ratio > -16).all() and (ratio < 25).all() and ratio.max() - ratio.min() > 8
    assert np.square(heard[:, :10_000]).sum() < 1e-3 * tail.sum()


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_backgrounds_have_the_signal_to_noise_ratio_asked_for(pool, scenery, snr):
    steady = Scenery(np.random.default_rng(0), SAMPLES, pool, [])
    steady.backgrounds = [np.random.default_rng(3).standard_normal(20 * SAMPLING_RATE, dtype=np.float32)] * 6
    speech = continuous(8, np.random.default_rng(4))
    speech.tracks[:, 0, : SAMPLES // 2] = 0  # silence takes no part in the ratio
    speech.active[:, 0, : SAMPLES // GRID // 2] = False
    clean = speech.tracks[:, 0].copy()
    heard = hear(steady, np.random.default_rng(5), speech, alone(noise=1.0, noise_snr=(snr, snr)))
    background = heard[:, : SAMPLES // 2]
    together = np.square(heard[:, SAMPLES // 2 :]).mean(axis=1)
    noise = np.square(background).mean(axis=1)
    np.testing.assert_allclose(10 * np.log10((together - noise) / noise), snr, atol=0.3)
    gain = (heard * clean).sum(axis=1) / np.square(clean).sum(axis=1)
    assert (gain > 0).all()


def test_a_telephone_removes_what_lies_outside_its_band(scenery):
    heard = hear(
        scenery, np.random.default_rng(2), continuous(20, np.random.default_rng(1)), alone(telephone=1.0, noise=1.0)
    )
    frequency, power = scipy.signal.welch(heard, SAMPLING_RATE, nperseg=1024, detrend=False)
    inside = power[:, (frequency > 500) & (frequency < 3000)].mean(axis=1)
    for outside in (frequency < 60, frequency > 4500):
        assert (10 * np.log10(power[:, outside].mean(axis=1) / inside) < -40).all()


@pytest.mark.slow
def test_a_recording_of_one_windows_length_sounds_like_the_window_under_the_same_conditions(pool, scenery):
    rng, count = np.random.default_rng(5), 24
    planned, begin = plan_windows(rng, count, 3.0, 2, (0.1, 0.3, 0.6))
    speech = render(rng, pool, planned, cast_speakers(rng, pool, count, 2), begin, 3.0)
    conditions = scenery.draw(rng, count, 2, Augmentation(room=0.5, equaliser=0.7, telephone=0.5))
    together = scenery.apply(speech, conditions)
    for window, samples in zip(range(count), cycle((1_600, 20_000, scenery.longest_piece))):
        recorded = scenery.record(cut(speech, window, samples), SAMPLES, one_of(conditions, window))
        assert np.abs(recorded - together[window]).max() < 1e-4


def test_a_long_recording_has_no_seams(scenery):
    """A steady tone through a telephone, an equaliser and a room stays a steady tone across pieces and loops."""
    seconds = 40
    tone = np.sin(2 * np.pi * np.arange(seconds * SAMPLING_RATE) / 16).astype(np.float32)
    active = np.ones((1, 1, seconds * STEPS), bool)
    whole = Conversations(tone[None, None], active, [["A"]])
    augmentation = alone(room=1.0, equaliser=1.0, telephone=1.0, quiet_snr=(120, 120), gain_db=(-6, -6))
    conditions = scenery.draw(np.random.default_rng(0), 1, 1, augmentation)
    heard = scenery.record(cut(whole, 0, scenery.longest_piece), len(tone), conditions)[SAMPLING_RATE:-SAMPLING_RATE]
    basis = np.stack([np.sin(2 * np.pi * np.arange(len(heard)) / 16), np.cos(2 * np.pi * np.arange(len(heard)) / 16)])
    rest = heard - (heard @ basis.T * 2 / len(heard)) @ basis
    assert np.abs(rest).max() < 1e-3 * np.abs(heard).max()


def test_the_background_of_a_long_recording_does_not_click_where_it_begins_again(pool):
    scenery = Scenery(np.random.default_rng(0), SAMPLES, pool, [])
    hum = np.sin(2 * np.pi * 100.37 * np.arange(len(scenery.backgrounds[0])) / SAMPLING_RATE).astype(np.float32)
    scenery.backgrounds = [hum] * BACKGROUNDS
    silence = Conversations(np.zeros((1, 1, SAMPLES), np.float32), np.zeros((1, 1, SAMPLES // GRID), bool), [[None]])
    seconds = 60
    for seed in range(5):
        conditions = scenery.draw(np.random.default_rng(seed), 1, 1, CLEAN)
        heard = scenery.record([silence] * (seconds // 3), seconds * SAMPLING_RATE, conditions)
        steps = np.abs(np.diff(heard)).reshape(-1)
        assert steps.max() < 1.7 * np.median(np.sort(steps)[-SAMPLING_RATE:])
        level = np.square(heard.reshape(-1, SAMPLING_RATE // 10)).mean(axis=1)
        assert level.min() > 0.05 * np.median(level)


def test_a_telephone_carries_the_background_of_a_recording_too(pool):
    """Everything a recording holds lies in the telephone's band, and behind its codec nothing above 4 kHz."""
    scenery = Scenery(np.random.default_rng(0), SAMPLES, pool, [])
    speech = continuous(1, np.random.default_rng(1))
    for codec, quietest in ((None, -40), ("GSM", -30)):
        by_telephone = alone(telephone=0.0 if codec else 1.0, noise=1.0, noise_snr=(0, 0))
        conditions = scenery.draw(np.random.default_rng(2), 1, 2, by_telephone, codec)
        assert conditions.telephone[0] >= 0, "a codec of telephones comes with their band"
        heard = scenery.record(cut(speech, 0, 16_000), SAMPLES, conditions)
        frequency, power = scipy.signal.welch(heard, SAMPLING_RATE, nperseg=1024, detrend=False)
        inside = power[(frequency > 500) & (frequency < 3000)].mean()
        for outside in (frequency > 4500,) if codec else (frequency < 60, frequency > 4500):
            assert 10 * np.log10(power[outside].mean() / inside) < quietest, codec


def test_people_at_different_distances_are_heard_at_different_levels(scenery, monkeypatch):
    """In windows and in recordings: two people one after the other, and how loud each of them is."""
    monkeypatch.setattr("data.acoustics.FAR_SHARE", 1.0)
    speech = continuous(20, np.random.default_rng(1))
    speech.tracks[:, 1, SAMPLES // 2 :] = speech.tracks[:, 0, SAMPLES // 2 :]
    speech.tracks[:, 0, SAMPLES // 2 :] = 0
    conditions = scenery.draw(
        np.random.default_rng(3), 20, 2, alone(speaker_level_db=1.0, far_level_db=40.0, quiet_snr=(90, 90))
    )
    drawn = 20 * np.log10(conditions.level)
    assert np.ptp(drawn, axis=1).max() > 20 and np.abs(drawn).max() <= 20
    for window, heard in enumerate(scenery.apply(speech, conditions)):
        recorded = scenery.record(cut(speech, window, 16_000), SAMPLES, one_of(conditions, window))
        for sound in (heard, recorded):
            halves = 10 * np.log10(np.square(sound.reshape(2, -1)).mean(axis=1))
            assert halves[0] - halves[1] == pytest.approx(drawn[window, 0] - drawn[window, 1], abs=0.3)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-6, 0.05, 1.0, 50.0]),
    gain=st.tuples(st.floats(-60, -6), st.floats(0, 5)),
)
def test_windows_are_finite_and_as_loud_as_asked_whatever_goes_in(scenery, seed, scale, gain):
    rng = np.random.default_rng(seed)
    speech = continuous(4, rng)
    speech.tracks *= scale
    if scale == 0:
        speech = Conversations(speech.tracks, np.zeros_like(speech.active), [[None, None]] * 4)
    low, high = gain[0], gain[0] + gain[1]
    heard = hear(scenery, rng, speech, Augmentation(gain_db=(low, high)))
    assert np.isfinite(heard).all() and heard.dtype == np.float32
    peak = 20 * np.log10(np.abs(heard).max(axis=1))
    assert (peak > low - 0.01).all() and (peak < high + 0.01).all() and high <= 0


def test_backgrounds_from_a_directory(tmp_path, pool):
    import soundfile

    with pytest.raises(ValueError, match="has no .flac, .wav or .ogg file"):
        load_noises(str(tmp_path))
    tone = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(2 * SAMPLING_RATE) / SAMPLING_RATE)
    soundfile.write(tmp_path / "tone.wav", tone, SAMPLING_RATE)
    noises = load_noises(str(tmp_path))
    assert len(noises) == 1 and np.square(noises[0]).mean() == pytest.approx(1, rel=1e-3)
    backgrounds = Scenery(np.random.default_rng(0), SAMPLES, pool, noises).backgrounds
    tones = [np.abs(np.fft.rfft(b[:SAMPLING_RATE])).argmax() for b in backgrounds[1:4]]
    assert tones == [1000] * 3
    assert load_noises(None) == []

    quick = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(6 * SAMPLING_RATE) / (3 * SAMPLING_RATE))
    soundfile.write(tmp_path / "tone.wav", np.stack([quick, quick], axis=1), 3 * SAMPLING_RATE)
    (resampled,) = load_noises(str(tmp_path))
    assert len(resampled) == 2 * SAMPLING_RATE
    assert np.abs(np.fft.rfft(resampled[:SAMPLING_RATE])).argmax() == 1000
    soundfile.write(tmp_path / "tone.wav", tone[:0], SAMPLING_RATE)
    with pytest.raises(ValueError, match="tone.wav cannot be read"):
        load_noises(str(tmp_path))
