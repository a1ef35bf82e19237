"""Simulated conversations: planned as measured, rendered where planned, heard as asked."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
import scipy.signal
from corpora_fixtures import speech_utterances
from hypothesis import given, settings
from hypothesis import strategies as st

from data import turn_statistics
from data.acoustics import BACKGROUNDS, CLEAN, Augmentation, Conditions, Scenery, load_noises
from data.conversations import (
    FADE,
    GRID,
    LEVEL,
    QUANTILES,
    SAMPLING_RATE,
    STYLES,
    TURN_PLANS,
    TURN_TAKING,
    Conversations,
    Pool,
    Turns,
    cast_speakers,
    plan_independent_turns,
    plan_turns,
    plan_windows,
    render,
    speaker_number,
)
from data.streaming import StreamConfig, make_batch
from data.turn_statistics import QUANTITIES, measure, turns_of, window_shares
from modeling.task_fast_diarization import Task

STEPS = SAMPLING_RATE // GRID
SAMPLES = 48_000


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Real speech of eight people."""
    pool = Pool()
    for utterance in speech_utterances(speakers=8, utterances=3, seconds=4.0):
        pool.add(utterance.waveform, utterance.speaker)
    assert len(pool.speakers) == 8
    return pool


@pytest.fixture(scope="module")
def scenery(pool) -> Scenery:
    return Scenery(np.random.default_rng(0), SAMPLES, pool, [])


def drawn_pool(**speakers: list[str]) -> Pool:
    """Utterances drawn as '#' (speech) and '.' (pause) steps of 100 ms; the samples of step n are n + 1."""
    pool = Pool()
    for speaker, utterances in speakers.items():
        for drawn in utterances:
            active = np.repeat([state == "#" for state in drawn], 10)
            edges = np.flatnonzero(np.diff(active.astype(int), prepend=0, append=0)).reshape(-1, 2)
            pool.speakers.setdefault(speaker, []).append(len(pool.audio))
            pool.audio.append(np.repeat(np.arange(1, len(active) + 1, dtype=np.float32), GRID))
            pool.active.append(active)
            pool.edges.append(edges)
    return pool


def turns(*rows: tuple[int, float, float]) -> Turns:
    speaker, start, end = (np.array([column]) for column in zip(*rows))
    return Turns(speaker, start, end)


# Plans


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), seconds=st.floats(0.5, 40), speakers=st.integers(1, 4), style=st.integers(0, 2))
def test_plans_reach_their_end_in_order_and_nobody_overlaps_himself(seed, seconds, speakers, style):
    planned = plan_turns(np.random.default_rng(seed), 16, seconds, speakers, np.eye(3)[style])
    assert (planned.start[:, -1] > seconds).all()
    assert (np.diff(planned.start, axis=1) > 0).all() and (planned.end > planned.start).all()
    assert set(np.unique(planned.speaker)) <= set(range(speakers))
    for speaker, start, end in zip(planned.speaker, planned.start, planned.end):
        for person in range(speakers):
            mine = speaker == person
            assert (start[mine][1:] >= end[mine][:-1] + 0.199).all()


@pytest.mark.parametrize("number", [0, 1])
def test_planned_lengths_are_those_measured_on_real_conversations(number):
    style = STYLES[number]
    planned = measure(plan_turns(np.random.default_rng(5), 150, 300, 2, np.eye(3)[number]), 300)
    for quantity in QUANTITIES:
        reference = np.interp([0.25, 0.5, 0.75], QUANTILES, TURN_TAKING[style][quantity])
        found = np.quantile(planned[quantity], [0.25, 0.5, 0.75])
        tolerance = 0.45 if "overlap" in quantity else 0.2
        np.testing.assert_allclose(found, reference, rtol=tolerance, atol=0.03, err_msg=quantity)
    for share, tolerance in (
        ("probability_next_turn_is_other_speaker", 0.03),
        ("probability_change_overlaps", 0.03),
        ("overlap_fraction_of_speech", 0.04),
        ("speech_fraction", 0.12),
    ):
        assert planned[share] == pytest.approx(TURN_TAKING[style][share], abs=tolerance), share


def test_plans_depend_on_the_generator_alone():
    first, second = (plan_turns(np.random.default_rng(3), 8, 20.0) for _ in range(2))
    for name in ("speaker", "start", "end"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(
    "shares", [(0.03, 0.37, 0.60), (0.2, 0.3, 0.5), (0.0, 0.0, 1.0), (0.1, 0.9), Task(3).shares, Task(4).shares]
)
def test_windows_have_as_many_speakers_as_asked(shares):
    count, speakers = 2000, len(shares) - 1
    planned, begin = plan_windows(np.random.default_rng(1), count, 3.0, speakers, shares)
    assert planned.start.shape[0] == len(begin) == count
    inside = np.minimum(planned.end, begin[:, None] + 3.0) - np.maximum(planned.start, begin[:, None])
    heard = sum((np.where(planned.speaker == s, inside, 0).max(axis=1) > 0.02).astype(int) for s in range(speakers))
    found = np.bincount(heard, minlength=speakers + 1) / count
    np.testing.assert_allclose(found, shares, atol=0.035)


def test_no_window_lies_beyond_the_end_of_its_plan():
    planned, begin = plan_windows(np.random.default_rng(2), 500, 3.0, 2, None)
    assert (planned.start.max(axis=1) > begin + 3.0).all()


# Pools


def test_a_pool_keeps_speech_only_at_one_level(pool):
    for audio, active, edges in zip(pool.audio, pool.active, pool.edges):
        assert len(audio) == GRID * len(active)
        assert active[0] and active[-1]
        power = np.square(audio.reshape(-1, GRID)[active]).mean()
        assert np.sqrt(power) == pytest.approx(LEVEL, rel=1e-4)
        marked = np.zeros_like(active)
        for first, last in edges:
            marked[first:last] = True
        np.testing.assert_array_equal(marked, active)


@pytest.mark.parametrize("waveform", [np.zeros(16_000, np.float32), np.zeros(0, np.float32), np.ones(100, np.float32)])
def test_a_pool_refuses_what_is_no_speech(waveform):
    pool = Pool()
    assert not pool.add(waveform, "nobody")
    assert not pool.speakers and not pool.audio


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    utterances=st.lists(st.from_regex(r"#([#.]{0,12}#)?", fullmatch=True), min_size=1, max_size=3),
    length=st.integers(1, 400),
    onset=st.booleans(),
    offset=st.booleans(),
)
def test_pieces_fill_a_turn_without_gaps_from_edges_of_speech(seed, utterances, length, onset, offset):
    pool = drawn_pool(A=utterances)
    pieces = sorted(pool.pieces(np.random.default_rng(seed), "A", length, onset, offset), key=lambda piece: piece[3])
    filled = 0
    for utterance, first, steps, at in pieces:
        assert at == filled and steps > 0
        assert first >= 0 and first + steps <= len(pool.active[utterance])
        filled += steps
    assert filled == length or (onset and offset and 0.8 * length <= filled <= length)
    utterance, first, *_ = pieces[0]
    if onset:
        assert first in pool.edges[utterance][:, 0]
    utterance, first, steps, _ = pieces[-1]
    if offset and (not onset or filled < length):
        assert first + steps in pool.edges[utterance][:, 1]


def test_pieces_of_a_turn_that_fits_no_utterance_are_not_cut_to_one():
    pool = drawn_pool(A=["###..#"])  # the last stretch of speech is 0.1 s
    for seed in range(50):
        pieces = pool.pieces(np.random.default_rng(seed), "A", 300, True, True)
        assert sum(steps for _, _, steps, _ in pieces) >= 240


# Rendering


def test_a_turn_is_laid_exactly_where_it_is_planned():
    pool = drawn_pool(A=["##########"])  # 1 s of speech
    planned = turns((0, 10.5, 11.5), (0, 13.5, 14.0))
    speech = render(np.random.default_rng(0), pool, planned, [["A", "A"]], [10.0], 3.0)
    expected = np.zeros(300, bool)
    expected[50:150] = True
    np.testing.assert_array_equal(speech.active, [[expected, np.zeros(300, bool)]])
    laid = np.repeat(np.arange(1, 101, dtype=np.float32), GRID)
    laid[:80] *= FADE
    laid[-80:] *= FADE[::-1]
    np.testing.assert_array_equal(speech.tracks[0, 0, 8_000:24_000], laid)
    assert not speech.tracks[0, 0, :8_000].any() and not speech.tracks[0, 0, 24_000:].any()
    assert speech.speakers == [["A", None]]


def test_overlapping_turns_of_two_people_are_both_there():
    pool = drawn_pool(A=["##########"], B=["#####"])
    planned = turns((0, 0.0, 1.0), (1, 0.7, 1.2))
    speech = render(np.random.default_rng(0), pool, planned, [["A", "B"]], [0.0], 2.0)
    np.testing.assert_array_equal(np.flatnonzero(speech.active[0, 0]), np.arange(0, 100))
    np.testing.assert_array_equal(np.flatnonzero(speech.active[0, 1]), np.arange(70, 120))
    assert np.count_nonzero(speech.active.all(axis=1)) == 30
    assert speech.tracks[0, :, 80 * GRID].all()
    assert speech.speakers == [["A", "B"]]


def test_labels_are_the_speech_of_the_turn_and_not_the_turn():
    pool = drawn_pool(A=["##...##.##"])
    speech = render(np.random.default_rng(0), pool, turns((0, 0.5, 1.5)), [["A"]], [0.0], 2.0)
    drawn = "".join("#" if speech.active[0, 0, 50 + 10 * n + 5] else "." for n in range(10))
    spoken = speech.tracks[0, 0, 50 * GRID : 150 * GRID : GRID * 10]
    assert drawn.startswith("##") and np.count_nonzero(spoken) >= 2
    assert not speech.active[0, 0, :50].any() and not speech.active[0, 0, 150:].any()


def test_turns_across_the_edges_of_the_window_are_cut_there():
    pool = drawn_pool(A=["##########"], B=["##########"])
    planned = turns((0, 8.0, 11.0), (1, 12.5, 15.0))
    speech = render(np.random.default_rng(0), pool, planned, [["A", "B"]], [10.0], 3.0)
    np.testing.assert_array_equal(np.flatnonzero(speech.active[0, 0]), np.arange(0, 100))
    np.testing.assert_array_equal(np.flatnonzero(speech.active[0, 1]), np.arange(250, 300))


def test_real_speech_lies_under_the_labels(pool):
    rng = np.random.default_rng(7)
    planned, begin = plan_windows(rng, 64, 3.0, 2, None)
    speech = render(rng, pool, planned, cast_speakers(rng, pool, 64, 2), begin, 3.0)
    energy = np.square(speech.tracks.astype(np.float64)).reshape(64, 2, 300, GRID).sum(axis=-1)
    assert energy[~speech.active].sum() < 0.02 * energy.sum()
    assert (np.sqrt(energy[speech.active].mean() / GRID)) == pytest.approx(LEVEL, rel=0.25)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), people=st.integers(2, 9), parts=st.integers(1, 2), count=st.integers(1, 20))
def test_two_parts_of_a_conversation_are_never_the_same_person(seed, people, parts, count):
    pool = drawn_pool(**{f"speaker{n}": ["#"] for n in range(people)})
    cast = cast_speakers(np.random.default_rng(seed), pool, count, parts)
    assert len(cast) == count
    assert all(len(set(conversation)) == parts for conversation in cast)


def test_voices_come_back_within_a_batch(pool):
    cast = cast_speakers(np.random.default_rng(0), pool, 8, 2)
    people = [name for conversation in cast for name in conversation]
    assert len(set(people)) == 4, "a quarter of 16 parts"


def test_speaker_numbers_are_stable_and_fit_int64():
    assert speaker_number("1089") == 0x8CF04F0D07191F  # the first digits of its SHA-256
    numbers = {speaker_number(f"speaker {n}") for n in range(2000)}
    assert len(numbers) == 2000 and all(0 <= number < 2**63 for number in numbers)


# Windows


def test_batches_keep_the_contract(pool, scenery):
    config = StreamConfig(batch_size=64)
    batch = make_batch(np.random.default_rng(0), pool, scenery, config)
    assert batch["input_values"].shape == (64, SAMPLES) and batch["input_values"].dtype == np.float32
    assert batch["labels"].shape == (64, 150, 2) and set(np.unique(batch["labels"])) == {0, 1}
    assert batch["speaker_labels"].shape == (64, 2)
    assert np.isfinite(batch["input_values"]).all() and np.abs(batch["input_values"]).max() <= 1
    active = batch["labels"].any(axis=1)
    assert (batch["speaker_labels"][active] >= 0).all()
    both = (batch["speaker_labels"] >= 0).all(axis=1)
    assert (batch["speaker_labels"][both, 0] != batch["speaker_labels"][both, 1]).all()
    assert (batch["labels"].sum(axis=2) == 2).any(), "overlap occurs"
    known = {speaker_number(name) for name in pool.speakers} | {-1}
    assert set(batch["speaker_labels"].flat) <= known


@pytest.mark.slow
def test_labels_have_the_shares_asked_for(pool, scenery):
    config = StreamConfig(batch_size=1000, shares=(0.1, 0.4, 0.5), augmentation=CLEAN)
    shares = window_shares(make_batch(np.random.default_rng(0), pool, scenery, config)["labels"])
    assert [shares[k] for k in ("none", "one", "two")] == pytest.approx([0.1, 0.4, 0.5], abs=0.05)


@pytest.mark.parametrize("speakers", [1, 3, 4])
def test_windows_of_another_number_of_speakers(pool, scenery, speakers):
    config = StreamConfig(batch_size=800, num_speakers=speakers, augmentation=CLEAN)
    batch = make_batch(np.random.default_rng(0), pool, scenery, config)
    assert batch["labels"].shape == (800, 150, speakers) and batch["speaker_labels"].shape == (800, speakers)
    heard = np.bincount(batch["labels"].any(axis=1).sum(axis=1), minlength=speakers + 1) / 800
    np.testing.assert_allclose(heard, config.shares, atol=0.06)


def test_a_task_has_a_share_for_each_number_of_speakers():
    assert [Task(n).shares for n in (1, 2, 3)] == [(0.10, 0.90), (0.10, 0.36, 0.54), (0.10, 0.30, 0.37, 0.23)]
    for number in range(1, 9):
        task = Task(number)
        assert len(task.shares) == number + 1 and sum(task.shares) == pytest.approx(1) and min(task.shares) > 0
        assert task.max_simultaneous == min(2, number)
        assert Task(number, shares=None).shares is None
    for wrong, message in (
        ({"num_speakers": 0}, "num_speakers must be a whole number from 1 to 8, got 0"),
        ({"num_speakers": 3, "shares": (0.5, 0.5)}, "shares must be 4 numbers, of windows with 0 to 3 speakers, got 2"),
        ({"shares": (0.5, 0.4, 0.2)}, "shares must be 0 or more and 1 in all, got 0.5, 0.4, 0.2"),
        ({"shares": (-0.5, 0.5, 1.0)}, "shares must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            StreamConfig(**wrong)


# Augmentation


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


# Statistics


def test_statistics_of_a_conversation_counted_by_hand():
    #      A 0-4, B 3-5 (overlap 1), B 6-7 (pause 1), A 7.5-8 (gap .5), A begins after the end
    conversation = turns((0, 0.0, 4.0), (1, 3.0, 5.0), (1, 6.0, 7.0), (0, 7.5, 8.0), (0, 12.0, 13.0))
    found = measure(conversation, 10.0)
    assert found["turn_seconds"].tolist() == [4, 2, 1, 0.5]
    assert found["same_speaker_pause_seconds"].tolist() == [1]
    assert found["speaker_change_gap_seconds"].tolist() == [0.5]
    assert found["speaker_change_overlap_seconds"].tolist() == [1]
    assert found["speech_fraction"] == pytest.approx(0.65)
    assert found["overlap_fraction_of_speech"] == pytest.approx(1 / 6.5)
    assert found["probability_next_turn_is_other_speaker"] == pytest.approx(2 / 3)
    assert found["probability_change_overlaps"] == pytest.approx(1 / 2)


def test_turns_are_read_off_speech_activity():
    active = np.zeros((2, 2, 100), bool)
    active[0, 0, 10:20] = active[0, 1, 15:40] = active[0, 0, 90:] = True
    found = turns_of(active)
    real = found.end[0] > found.start[0]
    assert found.speaker[0][real].tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.start[0][real], [0.1, 0.9, 0.15])
    np.testing.assert_allclose(found.end[0][real], [0.2, 1.0, 0.4])
    assert not (found.end[1] > found.start[1]).any()


def test_window_shares_counted_by_hand():
    labels = np.zeros((4, 10, 2))
    labels[1, :5, 0] = labels[2, :5, 1] = labels[3, :5, 0] = labels[3, 4:, 1] = 1
    shares = window_shares(labels)
    assert (shares["none"], shares["one"], shares["two"]) == (0.25, 0.5, 0.25)
    assert shares["speech"] == pytest.approx(20 / 40) and shares["overlap"] == pytest.approx(1 / 20)


@pytest.mark.slow
def test_the_command_prints_simulated_beside_measured(monkeypatch, capsys, pool):
    monkeypatch.setattr(sys, "argv", ["conversations", "--dataset", "demo", "--windows", "64"])
    monkeypatch.setattr(turn_statistics, "CONVERSATIONS", 10)
    monkeypatch.setattr(turn_statistics, "open_corpus", lambda name, split: (name, split))
    monkeypatch.setattr(turn_statistics, "fill_pool", lambda corpus, size: pool)
    turn_statistics.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| seconds | 5 % | 25 % | 50 % | 75 % | 90 % | 95 % |"
    assert "| turn: primock57, measured | 0.59 | 1.12 | 2.65 | 5.61 | 10.00 | 15.15 |" in lines
    assert sum(line.startswith("| overlap at a change: ") for line in lines) == 5
    assert "| training, requested | 10.0 | 36.0 | 54.0 |  |  |" in lines
    assert len({line.count("|") for line in lines if line.startswith("| training")}) == 1
    monkeypatch.setattr(sys, "argv", ["conversations", "--windows", "64", "--num_speakers", "3"])
    turn_statistics.main()
    assert "| training, requested | 10.0 | 30.0 | 37.0 | 23.0 |  |  |" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--windows", "0"], "--windows must be at least 1, got 0"),
        (["--dataset", "/nowhere"], "/nowhere"),
        (["--num_speakers", "0"], "num_speakers must be a whole number from 1 to 8, got 0"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(monkeypatch, flags, message):
    monkeypatch.setattr(sys, "argv", ["conversations", *flags])
    with pytest.raises(SystemExit, match=message) as error:
        turn_statistics.main()
    assert str(error.value).startswith("error: ") and "\n" not in str(error.value)


def test_independent_turns_are_in_order_cover_the_time_and_never_overlap_their_own_speaker():
    turns = plan_independent_turns(np.random.default_rng(0), 40, 63.0, 3)
    assert (np.diff(turns.start, axis=1) >= 0).all() and (turns.end > turns.start).all()
    for speaker in range(3):
        for conversation in range(40):
            mine = turns.speaker[conversation] == speaker
            start, end = turns.start[conversation, mine], turns.end[conversation, mine]
            assert end[-1] > 63 and (start[1:] >= end[:-1]).all()
    lengths = (turns.end - turns.start)[:, :20]
    assert abs(lengths.mean() - 3.0) < 0.3


def test_windows_of_independent_turns_overlap_more_than_measured_ones():
    overlap = {}
    for turn_taking in TURN_PLANS:
        planned, begin = plan_windows(np.random.default_rng(1), 400, 3.0, 2, None, turn_taking)
        grid = begin[:, None] + np.arange(0, 3, 0.1)
        heard = (planned.start[..., None] <= grid[:, None]) & (grid[:, None] < planned.end[..., None])
        overlap[turn_taking] = (heard.sum(axis=1) > 1).mean()
    assert overlap["independent"] > 2 * overlap["measured"]
