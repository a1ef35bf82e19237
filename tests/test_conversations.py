"""Simulated conversations: planned as measured, rendered where planned, heard as asked."""

import numpy as np
import pytest
from corpora_fixtures import speech_utterances
from hypothesis import given, settings
from hypothesis import strategies as st

from data.acoustics import CLEAN, Scenery
from data.conversations import (
    FADE,
    GRID,
    LEVEL,
    SAMPLING_RATE,
    STYLES,
    TURN_TAKING,
    Pool,
    Turns,
    cast_speakers,
    plan_turns,
    plan_windows,
    render,
    speaker_number,
)
from data.streaming import StreamConfig, make_batch
from data.turn_statistics import QUANTITIES, measure, window_shares
from modeling.task_fast_diarization import Task

STEPS = SAMPLING_RATE // GRID
SAMPLES = 48_000


def eight_people() -> Pool:
    """Real speech of eight people."""
    pool = Pool()
    for utterance in speech_utterances(speakers=8, utterances=3, seconds=4.0):
        pool.add(utterance.waveform, utterance.speaker)
    assert len(pool.speakers) == 8
    return pool


@pytest.fixture(scope="module")
def pool() -> Pool:
    return eight_people()


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
        reference = np.interp([25, 50, 75], TURN_TAKING["quantiles_percent"], TURN_TAKING[style][quantity])
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


@pytest.mark.slow
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
