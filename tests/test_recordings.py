"""From windows to whole recordings, offline and live: known answers, parity of runtimes, bounds on time and memory."""

import numpy as np

from modeling.linking_fast_diarization import LinkingSettings, SpeakerCount, cluster


def test_thousands_of_tracklets_are_clustered_in_stages():
    rng = np.random.default_rng(0)
    speaker = rng.integers(5, size=8_000)
    embeddings = np.eye(32)[speaker] + 0.1 * rng.standard_normal((8_000, 32)) / np.sqrt(32)
    sums = embeddings.astype(np.float32)
    labels = cluster(sums, np.ones(8_000), np.zeros((0, 2), int), LinkingSettings(), SpeakerCount())
    assert len(np.unique(np.stack([speaker, labels]), axis=1).T) == 5
    assert set(labels) == set(range(5))
