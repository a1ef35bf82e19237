"""Tracklets and their clustering, against the plain definition: the nearest two merge until none are near enough."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modeling.linking_fast_diarization import LinkingSettings, SpeakerCount, Tracklets, _merge


def merge_plainly(sums, apart, threshold, fewest, most):
    clusters = [[i] for i in range(len(sums))]

    def likeness(one, other):
        if apart[np.ix_(one, other)].any():
            return -np.inf
        a, b = sums[one].sum(axis=0), sums[other].sum(axis=0)
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    while len(clusters) > fewest:
        pairs = [(likeness(a, b), i, j) for i, a in enumerate(clusters) for j, b in enumerate(clusters) if i < j]
        nearest, i, j = max(pairs, key=lambda pair: pair[0], default=(-np.inf, 0, 0))
        if nearest == -np.inf or (nearest < threshold and len(clusters) <= most):
            break
        clusters[i] += clusters.pop(j)
    return {frozenset(c) for c in clusters}


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 16),
    threshold=st.floats(-0.5, 0.95),
    fewest=st.integers(1, 4),
    most=st.integers(4, 16),
)
def test_clusters_are_those_of_the_definition(seed, count, threshold, fewest, most):
    rng = np.random.default_rng(seed)
    sums = rng.standard_normal((count, 6))
    apart = rng.random((count, count)) < 0.1
    apart |= apart.T
    np.fill_diagonal(apart, False)
    labels = _merge(sums, apart, threshold, fewest, most)
    found = {frozenset(np.flatnonzero(labels == cluster).tolist()) for cluster in set(labels.tolist())}
    assert found == merge_plainly(sums, apart, threshold, fewest, most)


def test_two_people_of_one_window_are_kept_apart_and_one_voice_heard_as_two_is_not():
    voice = np.eye(4, dtype=np.float32)
    both = np.zeros((150, 2))
    both[:75, 0] = both[75:, 1] = 1
    settings = LinkingSettings(same_speaker_similarity=-1, min_solo_seconds=0, min_speaker_share=0)
    for vectors, expected in ((voice[[0, 1]], 2), (voice[[0, 0]], 1)):
        tracklets = Tracklets(settings)
        for window in range(20):
            tracklets.follow(150 * window, both, vectors)
        labels, voices = tracklets.speakers(SpeakerCount())
        assert len(labels) == 40 and len(voices) == expected


@given(seed=st.integers(0, 2**32 - 1), windows=st.integers(1, 40), speakers=st.integers(2, 4))
def test_folded_tracklets_have_the_same_speakers(seed, windows, speakers):
    rng = np.random.default_rng(seed)
    settings = LinkingSettings(min_solo_seconds=0, min_speaker_seconds=0, min_speaker_share=0)
    tracklets = Tracklets(settings)
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
