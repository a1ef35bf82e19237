"""Tracklets, their clustering and the path through all windows, against the plain definitions, and bounded memory."""

import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_network import OracleNetwork
from pyannote.core import Annotation
from pyannote.core import Segment as Interval

import modeling.linking_fast_diarization as linking
import modeling.windows_fast_diarization as windows_module
from diarization.formats import to_annotation
from evaluation.recording_scores import score_recording
from modeling.clustering_fast_diarization import cluster, merge
from modeling.linking_fast_diarization import Linker, diarize
from modeling.path_fast_diarization import BEAM, best_path, likeliest_names
from modeling.segments_fast_diarization import to_segments
from modeling.settings_fast_diarization import LinkingSettings, SpeakerCount
from modeling.tracklets_fast_diarization import Tracklets
from modeling.windows_fast_diarization import agreement, sliding_windows, solo_seconds


def merge_plainly(sums, seconds, apart, threshold, full, fewest, most):
    clusters = [[i] for i in range(len(sums))]

    def likeness(one, other):
        if apart[np.ix_(one, other)].any():
            return -np.inf
        a, b = sums[one].sum(axis=0), sums[other].sum(axis=0)
        heard, also = seconds[one].sum(), seconds[other].sum()
        evidence = min(scipy.stats.hmean([heard, also]) / 2 / full, 1) if full else 1
        return 1 - scipy.spatial.distance.cosine(a, b) * evidence**0.5

    while len(clusters) > fewest:
        pairs = [(likeness(a, b), i, j) for i, a in enumerate(clusters) for j, b in enumerate(clusters) if i < j]
        nearest, i, j = max(pairs, key=lambda pair: pair[0], default=(-np.inf, 0, 0))
        if nearest == -np.inf or (nearest < threshold and len(clusters) <= most):
            break
        clusters[i] += clusters.pop(j)
    return {frozenset(c) for c in clusters}


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 16),
    threshold=st.floats(-0.5, 0.95),
    fewest=st.integers(1, 4),
    most=st.integers(4, 16),
    full=st.sampled_from([0.0, 1.0, 10.0]),
)
@settings(deadline=None)
def test_clusters_are_those_of_the_definition(seed, count, threshold, fewest, most, full):
    rng = np.random.default_rng(seed)
    sums, seconds = rng.standard_normal((count, 6)), rng.uniform(0.5, 30, count)
    apart = rng.random((count, count)) < 0.1
    apart |= apart.T
    np.fill_diagonal(apart, False)
    chosen = LinkingSettings(same_speaker_similarity=threshold, full_evidence_seconds=full)
    labels = merge(sums, seconds, apart, chosen, SpeakerCount(min_speakers=fewest, max_speakers=most))
    found = {frozenset(np.flatnonzero(labels == cluster).tolist()) for cluster in set(labels.tolist())}
    assert found == merge_plainly(sums, seconds, apart, threshold, full, fewest, most)


def test_a_scrap_of_sound_takes_nobodys_place():
    """Two people alike at 0.5, heard for a minute each, and two seconds of something that is like neither."""
    vectors = np.array([[1, 0, 0], [0.5, 0.75**0.5, 0], [0.3, 0, 0.91**0.5]])
    seconds = np.array([60.0, 60.0, 2.0])
    sums, apart, two = vectors * seconds[:, None], np.zeros((3, 3), bool), SpeakerCount(num_speakers=2)
    labels = merge(sums, seconds, apart, LinkingSettings(), two)
    assert labels[0] != labels[1]
    plain = merge(sums, seconds, apart, LinkingSettings(full_evidence_seconds=0), two)
    assert plain[0] == plain[1]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), few=st.booleans())
def test_a_number_of_speakers_that_would_be_found_changes_nothing(seed, count, few):
    rng = np.random.default_rng(seed)
    sums, seconds = rng.standard_normal((count, 4)), rng.uniform(0.5, 8, count)
    chosen, none = LinkingSettings(same_speaker_similarity=0.5), np.zeros((0, 2), int)
    unknown = cluster(sums, seconds, none, chosen, SpeakerCount())
    found = unknown.max() + 1
    np.testing.assert_array_equal(cluster(sums, seconds, none, chosen, SpeakerCount(int(found))), unknown)
    wanted = max(found - 1, 1) if few else min(found + 1, count)
    assert cluster(sums, seconds, none, chosen, SpeakerCount(int(wanted))).max() + 1 == wanted


def test_two_seconds_of_noise_are_not_the_second_of_two_people_told():
    """Three clusters are found: two people in many pieces, and noise. Told two, the noise is merged or dropped."""
    vectors = np.array([[1, 0, 0, 0], [0.3, 0.91**0.5, 0, 0], [0, 0, 1, 0]])
    seconds = np.array([60.0, 12.0, 2.0])
    sums, none = vectors * seconds[:, None], np.zeros((0, 2), int)
    chosen = LinkingSettings(min_speaker_seconds=3.0, min_speaker_share=0.0)
    labels = cluster(sums, seconds, none, chosen, SpeakerCount(2))
    assert labels[0] != labels[1] and labels[2] == -1
    assert set(cluster(sums, seconds, none, chosen, SpeakerCount(3)).tolist()) == {0, 1, 2}


def test_who_is_hardly_alone_is_no_proof_that_two_are_two():
    voice = np.eye(4, dtype=np.float32)
    tracklets = Tracklets(LinkingSettings())
    for local, seconds in enumerate((0.4, 0.6)):
        both = np.zeros((150, 2))
        both[:75, 0] = both[75 : 75 + round(seconds * 50), 1] = 1
        tracklets.follow(1000 * local, both, voice[[2 * local, 2 * local + 1]])
    assert tracklets.conflicts == {(2, 3)}


@pytest.mark.parametrize(
    ("seconds", "count", "expected"),
    [(30.0, None, 2), (300.0, None, 1), (300.0, 2, 2)],
    ids=["short", "long", "long and told"],
)
def test_how_long_somebody_is_heard_counts_beside_the_length_of_the_recording(seconds, count, expected):
    turns = [(0.0, 20.0, "a"), (20.5, 21.7, "b"), (22.0, seconds, "a")]
    network = OracleNetwork(turns, seconds)
    chosen = LinkingSettings(min_solo_seconds=2.0, min_speaker_seconds=0.5, min_speaker_share=0.02)
    found = diarize(network, [network.waveform()], chosen, SpeakerCount(count))
    assert len({segment.speaker for segment in found}) == expected


def test_voices_and_path_refine_each_other_until_they_stay():
    turns = [(start, start + 4.5, "ab"[int(start) // 5 % 2]) for start in np.arange(0.0, 60.0, 5.0)]
    network = OracleNetwork(turns, 60.0)
    linker = Linker(LinkingSettings())
    for starts, windows in sliding_windows([network.waveform()], linker.settings):
        linker.add(starts, *network(windows))
    one, other = network.voices
    mixed = np.stack([one + 0.9 * other, 0.9 * one + other]).astype(np.float32)
    linker.tracklets.speakers = lambda count: (None, mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
    found = [(s.start, s.end, s.speaker) for s in linker.segments(SpeakerCount(2))]
    assert [speaker for *_, speaker in found] == ["SPEAKER_00", "SPEAKER_01"] * 6
    np.testing.assert_allclose([s[:2] for s in found], [t[:2] for t in turns], atol=0.021)


def test_two_people_of_one_window_are_kept_apart_and_one_voice_heard_as_two_is_not():
    voice = np.eye(4, dtype=np.float32)
    both = np.zeros((150, 2))
    both[:75, 0] = both[75:, 1] = 1
    every = LinkingSettings(same_speaker_similarity=-1, min_solo_seconds=0, min_speaker_share=0)
    for vectors, expected in ((voice[[0, 1]], 2), (voice[[0, 0]], 1)):
        tracklets = Tracklets(every)
        for window in range(20):
            tracklets.follow(150 * window, both, vectors)
        labels, voices = tracklets.speakers(SpeakerCount())
        assert len(labels) == 40 and len(voices) == expected


@pytest.mark.parametrize(
    ("degrees", "together", "count", "expected"),
    [(25, 1, None, 1), (60, 1, None, 2), (25, 1, 2, 2), (25, 3, None, 1), (25, 4, None, 2)],
)
def test_voices_alike_over_the_whole_recording_are_one_whatever_few_windows_say(degrees, together, count, expected):
    """Five windows of a voice, five of one `degrees` away, and some that hear both farther apart than they are."""

    def voice(angle: float) -> list[float]:
        return [np.cos(np.radians(angle)), np.sin(np.radians(angle))]

    alone, both = np.full((150, 2), -9.0), np.full((150, 2), -9.0)
    alone[:, 0] = both[:75, 0] = both[75:, 1] = 9.0
    linker = Linker(LinkingSettings(hop_seconds=3.0, full_evidence_seconds=0))
    for window, angle in enumerate(5 * [0] + 5 * [degrees]):
        linker.add([150 * window], alone[None], np.array([[voice(angle), voice(angle)]]))
    for window in range(together):
        linker.add([1500 + 150 * window], both[None], np.array([[voice(-15), voice(degrees + 15)]]))
    assert (10, 11) in linker.tracklets.conflicts and len(linker.tracklets.speakers(SpeakerCount())[1]) == 2
    assert len({s.speaker for s in linker.segments(SpeakerCount(num_speakers=count))}) == expected


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), windows=st.integers(1, 40), speakers=st.integers(2, 4))
def test_folded_tracklets_have_the_same_speakers(seed, windows, speakers):
    rng = np.random.default_rng(seed)
    tracklets = Tracklets(LinkingSettings(min_solo_seconds=0, min_speaker_seconds=0, min_speaker_share=0))
    voices = np.linalg.qr(rng.standard_normal((8, 8)))[0][:speakers].astype(np.float32)
    for window in range(windows):
        heard = rng.permutation(speakers)[:2]
        split = rng.integers(30, 120)
        activity = np.zeros((150, 2))
        activity[:split, 0] = activity[split:, 1] = 1
        tracklets.follow(150 * window, activity, voices[heard])
    labels, before = tracklets.speakers(SpeakerCount())
    under_way = tracklets.latest[2]
    numbers = tracklets.fold(labels)
    again, after = tracklets.speakers(SpeakerCount())
    assert len(tracklets.sums) <= speakers + 2
    assert (tracklets.latest[2] == numbers[under_way]).all()
    assert len(after) == len(before)
    np.testing.assert_allclose(after[again[numbers]], before[labels], atol=1e-5)


def random_outputs(seed: int, windows: int, speakers: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Starts, log-odds of 50 frames with turns in them, and embeddings, of windows every 10 frames."""
    rng = np.random.default_rng(seed)
    logits = np.repeat(rng.choice([-4.0, 4.0], (windows, 5, speakers), p=[0.6, 0.4]), 10, axis=1)
    vectors = rng.standard_normal((windows, speakers, 3))
    starts = (10 * np.arange(windows)).tolist()
    return starts, logits.astype(np.float32), (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


@given(seed=st.integers(0, 2**32 - 1), windows=st.integers(1, 6))
def test_the_path_is_the_best_of_all_paths(seed, windows):
    starts, logits, vectors = random_outputs(seed, windows, 2)
    voices = np.eye(3, dtype=np.float32)[:2]
    linker = Linker(LinkingSettings(sliding_window_seconds=1.0, hop_seconds=0.2))
    linker.add(starts, logits, vectors)
    answers = [answer.copy() for answer in linker.outputs]

    def names(present: np.ndarray) -> list[tuple[int, ...]]:
        ways = product(*[(0, 1) if here else (-1,) for here in present])
        return [way for way in ways if len(set(way) - {-1}) == sum(present)]

    def score(path) -> float:
        total = 0.0
        for window, (answer, named) in enumerate(zip(answers, path)):
            likeness = solo_seconds(answer["activity"])[:, None] * (answer["vectors"].astype(np.float32) @ voices.T)
            total += sum(likeness[local, name] for local, name in enumerate(named) if name >= 0)
            if window:
                both, _ = agreement(answers[window - 1]["activity"][10:], answer["activity"][:40])
                shared = [(a, b) for a, b in product((0, 1), repeat=2) if path[window - 1][a] == named[b] >= 0]
                total += 0.5 * 0.02 * sum(both[a, b] for a, b in shared)
        return float(total)

    present = [(answer["activity"] > 0.5).sum(axis=0) >= 8 for answer in answers]
    best = max(score(path) for path in product(*map(names, present)))
    found = best_path(linker.outputs, voices)
    assert score(found.tolist()) == pytest.approx(best, abs=1e-4)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), windows=st.integers(1, 60))
def test_outputs_in_a_file_and_sums_in_parts_change_nothing(seed, windows):
    starts, logits, vectors = random_outputs(seed, windows, 2)
    lenient = LinkingSettings(sliding_window_seconds=1.0, hop_seconds=0.2, min_solo_seconds=0, min_speaker_seconds=0)
    found = []
    for kept, read, summed in ((2**24, 256, 10_000), (1, 3, 7)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windows_module, "KEPT_BYTES", kept)
            patch.setattr(windows_module, "READ_TOGETHER", read)
            patch.setattr(linking, "SUMMED_TOGETHER", summed)
            linker = Linker(lenient)
            for start, *answer in zip(starts, logits, vectors):
                linker.add([start], *(part[None] for part in answer))
            found.append(linker.segments())
    assert found[0] == found[1]


@given(
    levels=st.lists(st.sampled_from([0.0, 0.45, 0.7]), min_size=1, max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=6),
    pause=st.sampled_from([0.0, 0.04, 0.1]),
)
def test_where_activities_are_cut_changes_no_segment(levels, cuts, pause):
    track = np.array(levels, np.float32)[:, None]
    thresholds = LinkingSettings(onset=0.6, offset=0.4, min_duration_on=0.0, min_duration_off=pause)
    whole = to_segments([track], thresholds)
    parts = np.split(track, sorted(min(cut, len(track)) for cut in cuts))
    assert to_segments(parts, thresholds) == whole
    for segment in whole:
        inside = track[round(segment.start / 0.02) : round(segment.end / 0.02)]
        assert segment.confidence == pytest.approx(inside.mean(), abs=1e-4)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording():
    def peak(windows: int) -> int:
        vectors = np.eye(2, 192, dtype=np.float32)[None]
        pattern = np.full((2, 250, 2), -6, np.float32)
        pattern[0, :125, 0] = pattern[0, 125:, 1] = pattern[1, 125:, 0] = pattern[1, :125, 1] = 6
        tracemalloc.start()
        linker = Linker(LinkingSettings(sliding_window_seconds=5.0, hop_seconds=1.0))
        for window in range(windows):
            linker.add([50 * window], pattern[None, window % 2], vectors)
        linker.segments()
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "KEPT_BYTES", 2**20)
        patch.setattr(linking, "MOST_TRACKLETS", 500)
        assert peak(2_000) < peak(700) + 2**20


@pytest.mark.slow
@pytest.mark.parametrize("tracks", [3, 4])
def test_windows_of_three_and_four_tracks_are_linked(tracks):
    """Short turns of six people, three or four of them in a window: two tracks miss some, more do not."""
    rng = np.random.default_rng(0)
    turns, at, person = [], 0.5, 0
    while at < 90:
        length = rng.integers(30, 60) * 0.02
        turns.append((round(at, 2), round(at + length, 2), f"person{person}"))
        at += length + rng.integers(-8, 8) * 0.02
        person = (person + rng.integers(1, 6)) % 6
    reference = Annotation(uri="call")
    for number, (start, end, speaker) in enumerate(turns):
        reference[Interval(start, end), number] = speaker
    rates = {}
    for told_apart in (2, tracks):
        network = OracleNetwork(turns, 100.0, tracks=told_apart, noise=0.1)
        found = to_annotation("call", diarize(network, [network.waveform()], LinkingSettings()))
        rates[told_apart] = score_recording(reference, found)["diarization_error_rate"]
    assert rates[tracks] < 0.01 and rates[2] > 0.05


@pytest.mark.parametrize("present", [6, 8])
def test_naming_many_tracks_at_once_is_cheap(present):
    likeness = np.random.default_rng(1).random((8, 12))
    heard = np.arange(present)
    tracemalloc.start()
    states, total = likeliest_names(likeness, heard)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    _, best = scipy.optimize.linear_sum_assignment(-likeness[heard])
    assert tuple(states[0][:present]) == tuple(best) and total[0] == pytest.approx(likeness[heard, best].sum())
    assert (states[:, present:] == -1).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(1, 9))
def test_all_ways_of_naming_a_few_tracks_are_weighed(seed, present, speakers):
    likeness = np.random.default_rng(seed).random((4, speakers)).round(1)
    ways = list(product(range(speakers), repeat=present))
    if speakers >= present:
        ways = [way for way in ways if len(set(way)) == present]
    expected = sorted((float(likeness[np.arange(present), list(way)].sum()) for way in ways), reverse=True)
    _, total = likeliest_names(likeness, np.arange(present))
    np.testing.assert_allclose(total[:8], expected[:8][: len(total)], atol=1e-9)


def test_of_four_tracks_at_once_few_ways_of_naming_them_are_kept():
    likeness = np.random.default_rng(0).random((4, 12))
    states, total = likeliest_names(likeness, np.arange(4))
    assert len(states) == len(total) <= BEAM and (np.diff(total) <= 0).all()
    best = max(permutations(range(12), 4), key=lambda names: likeness[np.arange(4), names].sum())
    assert tuple(states[0]) == best
