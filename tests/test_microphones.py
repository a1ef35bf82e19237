"""One microphone makes spectra alike, a codec does what that codec does; neither moves speech from under its labels."""

import numpy as np
import pytest
import scipy.signal

from data.acoustics import CLEAN, Augmentation
from data.codecs import CODECS, NARROW
from data.conversations import GRID, LEVEL, SAMPLING_RATE, Pool
from data.corpora import open_corpus
from data.decoding import decode
from data.microphones import distort, use_codec, use_one_microphone
from data.simulated_recordings import SimulatedRecordings
from data.streaming import ConversationStream, StreamConfig


@pytest.fixture(scope="module")
def utterances():
    demo = open_corpus("demo", "validation")
    return [(decode(row.audio), row.speaker) for row in list(demo.read(0))[::6][:10]]


@pytest.fixture
def pool(utterances):
    pool = Pool()
    for waveform, speaker in utterances:
        assert pool.add(waveform, speaker)
    return pool


def octave_levels(pool: Pool) -> np.ndarray:
    """(utterances, octaves) level of speech in dB from 125 Hz to 8 kHz, by Welch's method."""
    levels = []
    for waveform, active in zip(pool.audio, pool.active):
        frequency, power = scipy.signal.welch(waveform.reshape(-1, GRID)[active].ravel(), SAMPLING_RATE, nperseg=512)
        octave = np.floor(np.log2(np.maximum(frequency, 1) / 125))
        levels.append([10 * np.log10(power[octave == k].mean()) for k in range(6)])
    return np.array(levels)


def speech_level(pool: Pool) -> np.ndarray:
    return np.array(
        [np.sqrt(np.square(a.reshape(-1, GRID)[on]).mean()) for a, on in zip(pool.audio, pool.active, strict=True)]
    )


def lag(before: np.ndarray, after: np.ndarray) -> int:
    correlation = scipy.signal.correlate(after[:SAMPLING_RATE], before[:SAMPLING_RATE])
    return int(correlation.argmax()) - (SAMPLING_RATE - 1)


def test_one_microphone_brings_spectra_together_by_its_strength(pool):
    untouched = [waveform.copy() for waveform in pool.audio]
    use_one_microphone(pool, 0.0)
    spread = octave_levels(pool).std(axis=0)
    assert all(np.corrcoef(a, b)[0, 1] > 0.9999 for a, b in zip(untouched, pool.audio))
    use_one_microphone(pool, 1.0)
    assert octave_levels(pool).std(axis=0).mean() < 0.5 * spread.mean()
    assert speech_level(pool) == pytest.approx(LEVEL, rel=1e-3)
    assert [lag(a, b) for a, b in zip(untouched, pool.audio)] == [0] * len(untouched)


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_keeps_speech_where_it_was_and_a_telephone_nothing_above_4_khz(pool, name):
    untouched, active = [waveform.copy() for waveform in pool.audio], pool.active
    before = octave_levels(pool)
    use_codec(pool, name)
    assert [len(a) for a in pool.audio] == [len(a) for a in untouched]
    assert all(a.dtype == np.float32 for a in pool.audio)
    assert [lag(a, b) for a, b in zip(untouched, pool.audio)] == [0] * len(untouched)
    assert np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(untouched, pool.audio)]) > 0.8
    assert pool.narrow == (name in NARROW)
    assert ((octave_levels(pool)[:, 5] < before[:, 5] - 15).all()) == pool.narrow
    assert pool.active is active


def test_shares_are_those_asked_for(pool):
    distort(np.random.default_rng(0), pool, CLEAN)
    kept = [waveform.copy() for waveform in pool.audio]
    distort(np.random.default_rng(1), pool, CLEAN)
    assert all(np.array_equal(a, b) for a, b in zip(kept, pool.audio))
    distort(np.random.default_rng(0), pool, Augmentation(one_microphone=1, codec=0))
    assert not any(np.array_equal(a, b) for a, b in zip(kept, pool.audio))


def test_a_pool_of_some_speakers_holds_their_utterances_alone_and_shares_none(pool):
    name = sorted(pool.speakers)[-1]
    some = pool.of([name])
    assert [some.audio[u] is pool.audio[v] for u, v in zip(some.speakers[name], pool.speakers[name])] == [True] * len(
        pool.speakers[name]
    )
    before = pool.audio[pool.speakers[name][0]].copy()
    use_codec(some, "G.711")
    assert np.array_equal(before, pool.audio[pool.speakers[name][0]])
    assert not pool.narrow


@pytest.mark.slow
def test_a_channel_changes_no_label_and_no_turn():
    demo = open_corpus("demo", "validation")
    streams = (
        ConversationStream(demo, StreamConfig(batch_size=8, windows_per_utterance=4, augmentation=augmentation))
        for augmentation in (CLEAN, Augmentation(one_microphone=1, codec=1))
    )
    clean, coded = (next(iter(stream)) for stream in streams)
    assert np.array_equal(clean["labels"], coded["labels"])
    assert not np.array_equal(clean["input_values"], coded["input_values"])
    plain, narrow = (
        SimulatedRecordings(demo, 1, augmentation=augmentation).make(0, 20.0, 2)
        for augmentation in (Augmentation(one_microphone=0, codec=0), Augmentation(one_microphone=1, codec=1))
    )
    assert plain.turns == narrow.turns


@pytest.mark.slow
def test_every_other_window_may_be_longer():
    stream = ConversationStream(
        open_corpus("demo", "validation"),
        StreamConfig(batch_size=4, pool_size=8, windows_per_utterance=1, window_seconds=1.0, long_window_seconds=2.0),
    )
    batches = [batch for _, batch in zip(range(24), stream)]
    lengths = {batch["input_values"].shape[1] for batch in batches}
    assert lengths == {16_000, 32_000}
    assert all(batch["labels"].shape[1] * 320 == batch["input_values"].shape[1] for batch in batches)
