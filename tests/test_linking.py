"""Clustering of tracklets against the plain definition: the nearest two clusters merge until none are near enough."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modeling.linking_fast_diarization import _merge


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
