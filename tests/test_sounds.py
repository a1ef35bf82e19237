"""Non-speech sounds: known spectra and cadences, levels, and that they never depend on anything but the draw."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data import noisy_sounds, tonal_sounds
from data.acoustics import CLEAN, NOT, SOUNDS, Augmentation, Scenery, load_noises, noise_files
from data.conversations import Conversations, Pool
from data.corpora import CorpusError, open_corpus
from data.sounds import GRID, KINDS, SoundBank, is_clip, is_held_out, keep_in_silence, level, silences
from data.streaming import ConversationStream, StreamConfig
from data.tonal_sounds import RATE

SECONDS = 4


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spectrum(wave: np.ndarray) -> np.ndarray:
    """Power in bins of 1 Hz."""
    wave = wave[: len(wave) // RATE * RATE].reshape(-1, RATE)
    return np.square(np.abs(np.fft.rfft(wave * np.hanning(RATE)))).sum(axis=0)


def share(wave: np.ndarray, frequencies, width: int = 3) -> float:
    """Of the power that lies within some hertz of the frequencies."""
    power = spectrum(wave)
    near = np.zeros(len(power), bool)
    for frequency in frequencies:
        near[max(0, round(frequency) - width) : round(frequency) + width + 1] = True
    return power[near].sum() / power.sum()


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1), seconds=st.floats(0.5, 7))
@settings(deadline=None, max_examples=8)
def test_every_kind_is_a_function_of_the_draw_of_any_length(kind, seed, seconds):
    samples = int(seconds * RATE)
    wave = KINDS[kind](generator(seed), samples)
    assert wave.shape == (samples,) and wave.dtype == np.float32 and np.isfinite(wave).all()
    np.testing.assert_array_equal(wave, KINDS[kind](generator(seed), samples))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_sounds_and_differs_from_draw_to_draw(kind):
    waves = [KINDS[kind](generator(seed), 10 * RATE) for seed in range(6)]
    assert sum(level(wave) > 0 for wave in waves) >= 5
    assert len({wave.tobytes() for wave in waves}) >= 5


@pytest.mark.parametrize("seed", range(4))
def test_hum_lies_on_multiples_of_the_mains(seed):
    wave = tonal_sounds.mains_hum(generator(seed), SECONDS * RATE)
    shares = {mains: share(wave, mains * np.arange(1, 25), 2) for mains in (50, 60)}
    assert max(shares.values()) > 0.99


@pytest.mark.parametrize("seed", range(6))
def test_every_key_is_one_low_and_one_high_frequency(seed):
    wave = tonal_sounds.dtmf(generator(seed), 8 * RATE)
    assert share(wave, tonal_sounds.DTMF_LOW + tonal_sounds.DTMF_HIGH, 25) > 0.95
    frames = wave[: len(wave) // 480 * 480].reshape(-1, 480)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(480), 16_000)))
    loud = frames.std(axis=1) > 0.6 * frames.std(axis=1).max()
    pairs = 0
    for frame in power[loud]:
        low = frame[600:1050].argmax() + 600
        high = frame[1100:1750].argmax() + 1100
        pairs += (
            min(abs(low - f) for f in tonal_sounds.DTMF_LOW) < 20 > min(abs(high - f) for f in tonal_sounds.DTMF_HIGH)
        )
    assert pairs > 0.8 * loud.sum() > 0


def test_a_cadence_is_on_and_off_for_as_long_as_it_says():
    gate = tonal_sounds.cadence(12 * RATE, (0.4, 0.2, 0.4, 2)) > 0.5
    changes = np.flatnonzero(np.diff(gate.astype(int))) / RATE
    np.testing.assert_allclose(changes, np.add.outer(3 * np.arange(4), (0.4, 0.6, 1, 3)).ravel()[:-1], atol=0.003)
    later = tonal_sounds.cadence(9 * RATE, (0.4, 0.2, 0.4, 2), 1.5) > 0.5
    np.testing.assert_array_equal(gate[24_160 : 9 * RATE], later[160 : 9 * RATE - 24_000])
    assert (tonal_sounds.cadence(100, ()) == 1).all()


def test_partials_are_sines_and_none_is_above_the_band():
    wave = tonal_sounds.partials(300.0, RATE, [1, 0, 0.5])
    time = np.arange(RATE) / RATE
    np.testing.assert_allclose(wave, np.sin(600 * np.pi * time) + 0.5 * np.sin(1800 * np.pi * time), atol=1e-5)
    assert (tonal_sounds.partials(4000.0, RATE, [0, 1, 1]) == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_and_a_siren_do_not_fold_back(seed):
    for kind in (tonal_sounds.sweep, tonal_sounds.alarm, tonal_sounds.harmonic_tone):
        power = spectrum(kind(generator(seed), SECONDS * RATE))
        assert power[7900:].sum() < 1e-4 * power.sum()


def test_noise_has_the_spectrum_it_is_told():
    told = np.array([0, 0, 0, 0, -20, -20, -40, -40, -40])
    power = spectrum(noisy_sounds.noise(generator(), 20 * RATE, told))
    bands = [10 * np.log10(power[f - 20 : f + 20].mean()) for f in (250, 1000, 4000)]
    np.testing.assert_allclose(np.diff(bands), [-20, -20], atol=1.5)


def test_breath_comes_and_goes_a_few_times_in_ten_seconds():
    for seed in range(5):
        wave = noisy_sounds.breath(generator(seed), 20 * RATE)
        frames = np.sqrt(np.square(wave.reshape(-1, 1600)).mean(axis=1))
        runs = np.flatnonzero(np.diff((frames > 0.2 * frames.max()).astype(int)) == 1)
        assert 4 <= len(runs) <= 24
        assert frames.min() < 0.05 * frames.max()


def test_clicks_and_keys_are_short_and_wind_is_low():
    for kind in (noisy_sounds.clicks, noisy_sounds.typing):
        wave = kind(generator(1), SECONDS * RATE)
        frames = np.square(wave.reshape(-1, GRID)).mean(axis=1)
        assert np.median(frames) < 0.05 * frames.max()
    power = spectrum(noisy_sounds.wind(generator(2), SECONDS * RATE))
    assert power[:500].sum() > 0.7 * power.sum()


@pytest.mark.parametrize("clips", [0, 3])
def test_a_bank_has_many_kinds_at_one_level_in_any_order(clips):
    recorded = [generator(9).standard_normal(RATE).astype(np.float32) for _ in range(clips)]
    room = np.eye(1, 4000, dtype=np.float32)
    bank, again = (SoundBank(generator(3), 30, 5 * RATE, recorded, room) for _ in range(2))
    assert len(bank) == 30 and set(bank.kinds) == set(KINDS)
    backwards = {number: again[number] for number in reversed(range(30))}
    levels = np.array([level(bank[number]) for number in range(30)])
    assert np.isin(np.round(levels, 3), [0, 1]).all() and (levels > 0).sum() >= 25
    for number, wave in backwards.items():
        assert wave.shape == (5 * RATE,) and wave.dtype == np.float32
        np.testing.assert_array_equal(bank[number], wave)


def test_the_level_of_a_sound_is_that_of_what_sounds():
    tone = tonal_sounds.partials(1000.0, RATE, [1])
    assert level(tone) == pytest.approx(np.sqrt(0.5), rel=1e-3)
    assert level(np.concatenate([tone, np.zeros(9 * RATE, np.float32)])) == pytest.approx(np.sqrt(0.5), rel=1e-3)
    assert level(np.zeros(RATE, np.float32)) == 0 == level(np.zeros(10, np.float32))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 80)), min_size=1, max_size=12))
@settings(deadline=None)
def test_in_silence_a_sound_is_where_nobody_speaks_and_nowhere_else(runs):
    active = np.concatenate([np.full(steps, state) for state, steps in runs])
    kept = keep_in_silence(np.ones(len(active) * GRID, np.float32), active)
    assert kept.dtype == np.float32 and (kept >= 0).all() and (kept <= 1).all()
    assert (kept[np.repeat(active, GRID)] == 0).all()
    assert np.abs(np.diff(kept)).max(initial=0) < 0.002, "no click where it begins and ends"
    heard = sum(last - first for first, last in silences(active)) * GRID
    edges = sum((first > 0) + (last < len(active)) for first, last in silences(active))
    assert kept.sum() == pytest.approx(heard - edges * 2 * GRID)
    inverted = np.flatnonzero(np.diff(active.astype(int), prepend=1, append=1)).reshape(-1, 2)
    assert silences(active) == [(a, b) for a, b in inverted.tolist() if b - a >= 30]


def test_clips_of_the_fold_for_evaluation_are_told_by_name():
    assert is_held_out(Path("dog_bark_5-203128-A.ogg")) and is_held_out(Path("5-203128-B-0.wav"))
    assert not is_held_out(Path("dog_bark_1-5-A.ogg")) and not is_held_out(Path("15-203128-A.wav"))
    assert not is_held_out(Path("rain5-1.wav")) and is_clip(np.zeros(80_000)) and not is_clip(np.zeros(200_000))


# In windows


def scenery_with(sounds: list[np.ndarray]) -> Scenery:
    """A scenery of 3 s windows whose backgrounds are silent and whose sounds are those given."""
    pool = Pool(audio=[np.ones(RATE, np.float32)])
    scenery = Scenery(generator(), 3 * RATE, pool, [])
    scenery.sounds = [np.resize(wave / level(wave), 6 * RATE) for wave in sounds for _ in range(SOUNDS // len(sounds))]
    scenery.backgrounds = [np.zeros_like(background) for background in scenery.backgrounds]
    return scenery


def speech(count: int, speaking: slice) -> Conversations:
    """White noise in place of one speaker's speech, in some of the 300 steps."""
    tracks = np.zeros((count, 2, 300, GRID), np.float32)
    tracks[:, 0, speaking] = 0.05 * generator(1).standard_normal(tracks[:, 0, speaking].shape)
    active = np.zeros((count, 2, 300), bool)
    active[:, 0, speaking] = True
    return Conversations(tracks.reshape(count, 2, -1), active, [["A", None]] * count)


def only_sounds(**settings) -> Augmentation:
    return replace(CLEAN, sound=1.0, gain_db=(-6, -6), **settings)


@pytest.mark.parametrize("snr", [-5.0, 5.0, 15.0])
def test_a_sound_is_as_far_below_the_speech_as_asked(snr):
    tone = tonal_sounds.partials(1000.0, RATE, [1])
    scenery = scenery_with([tone])
    talk = speech(12, slice(0, 300))
    conditions = scenery.draw(generator(2), 12, 2, only_sounds(sound_in_silence=0.0, sound_snr=(snr, snr)))
    for heard in scenery.apply(talk, conditions):
        power = spectrum(heard)
        near = np.abs(np.arange(len(power)) - 1000) <= 3
        noise = power[~near].mean()
        sound = power[near].sum() - noise * near.sum()
        assert 10 * np.log10(noise * len(power) / sound) == pytest.approx(snr, abs=0.7)


def test_a_sound_in_silence_leaves_speech_as_it_is_and_is_heard_beside_it():
    scenery = scenery_with([tonal_sounds.partials(1000.0, RATE, [1])])
    talk = speech(8, slice(150, 300))
    with_sounds = scenery.draw(generator(3), 8, 2, only_sounds(sound_in_silence=1.0, sound_snr=(0.0, 0.0)))
    without = replace(with_sounds, sound=np.full(8, NOT))
    for heard, plain in zip(scenery.apply(talk, with_sounds), scenery.apply(talk, without)):
        silence, spoken = heard[: 146 * GRID], heard[150 * GRID :]
        np.testing.assert_allclose(spoken / spoken.std(), plain[150 * GRID :] / plain[150 * GRID :].std(), atol=1e-4)
        assert level(silence) == pytest.approx(level(spoken), rel=0.05)
        assert share(silence, [1000]) > 0.99 > share(plain, [1000])


def test_a_window_may_hold_a_sound_alone():
    scenery = scenery_with([tonal_sounds.partials(1000.0, RATE, [1])])
    silent = speech(8, slice(0, 0))
    for in_silence in (0.0, 1.0):
        conditions = scenery.draw(generator(4), 8, 2, only_sounds(sound_in_silence=in_silence))
        for heard in scenery.apply(silent, conditions):
            assert share(heard, [1000]) > 0.99 and np.abs(heard).max() == pytest.approx(10 ** (-6 / 20), rel=1e-3)


def test_sounds_come_in_the_share_of_windows_asked_for():
    scenery = scenery_with([tonal_sounds.partials(1000.0, RATE, [1])])
    conditions = scenery.draw(generator(5), 4000, 2, replace(CLEAN, sound=0.6, sound_in_silence=0.5))
    sounding = conditions.sound != NOT
    assert sounding.mean() == pytest.approx(0.6, abs=0.03)
    assert conditions.in_silence[sounding].mean() == pytest.approx(0.5, abs=0.04)
    assert len(np.unique(conditions.sound[sounding])) == SOUNDS
    assert (scenery.draw(generator(5), 100, 2, CLEAN).sound == NOT).all()


@pytest.mark.slow
def test_labels_are_those_of_the_same_windows_without_sounds():
    corpus, config = open_corpus("demo", "train"), StreamConfig(batch_size=32, lanes=1)
    config = replace(config, augmentation=replace(config.augmentation, sound=0.7))
    quiet = replace(config, augmentation=replace(config.augmentation, sound=0.0))
    silent = heard = 0
    for (batch, plain), _ in zip(zip(*(ConversationStream(corpus, c) for c in (config, quiet))), range(6)):
        np.testing.assert_array_equal(batch["labels"], plain["labels"])
        np.testing.assert_array_equal(batch["speaker_labels"], plain["speaker_labels"])
        differ = (batch["input_values"] != plain["input_values"]).any(axis=1)
        heard += differ.sum()
        silent += (~batch["labels"].any(axis=(1, 2))).sum()
    assert 0.3 < heard / 192 < 0.65
    assert silent / 192 > 0.05, "windows of sound alone"


def test_recordings_of_the_fold_for_evaluation_are_never_trained_on(tmp_path):
    tones = {name: frequency for frequency, name in enumerate(("dog_1-2-A", "dog_5-2-A", "5-77-B", "rain_15-2-A"), 500)}
    for name, frequency in tones.items():
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * tonal_sounds.partials(frequency, RATE, [1]), RATE)
    assert [f.stem for f in noise_files(str(tmp_path))] == ["dog_1-2-A", "rain_15-2-A"]
    assert [f.stem for f in noise_files(str(tmp_path), held_out=True)] == ["5-77-B", "dog_5-2-A"]
    found = [spectrum(noise).argmax() for noise in load_noises([str(tmp_path)])]
    assert found == [tones["dog_1-2-A"], tones["rain_15-2-A"]]
    (tmp_path / "only").mkdir()
    soundfile.write(tmp_path / "only" / "5-1-A.wav", np.ones(10), RATE)
    with pytest.raises(CorpusError, match="only' has no .flac, .wav or .ogg file"):
        load_noises([str(tmp_path), str(tmp_path / "only")])


def test_recorded_clips_are_sounds_and_long_recordings_backgrounds():
    clip, long = (np.resize(tonal_sounds.partials(f, RATE, [1]), s * RATE) for f, s in ((700.0, 4), (900.0, 20)))
    pool = Pool(audio=[np.ones(RATE, np.float32)])
    scenery = Scenery(generator(6), 3 * RATE, pool, [clip, long])
    assert all(share(background, [900]) > 0.95 for background in scenery.backgrounds[1:4])
    clips = [share(scenery.sounds[number], [700]) > 0.9 for number in range(SOUNDS)]
    assert 3 <= sum(clips) <= 17
    assert all(share(b, [700]) > 0.9 for b in Scenery(generator(6), 3 * RATE, pool, [clip]).backgrounds[1:4])
