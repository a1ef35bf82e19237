"""A pyannote 3.1-style pipeline over whole files, rebuilt from public parts, to compare with.

Windows of 10 s every second through segmentation-3.0 (Plaquet and Bredin, Interspeech 2023); of each local speaker an
embedding by CAM++ (Wang et al., Interspeech 2023), of non-overlapped speech where there is enough; agglomerative
clustering of the embeddings with average linkage of cosine distances, small clusters joined to the nearest large one;
then in every frame as many speakers as the windows count on average, those whose clusters are most active (Bredin,
Interspeech 2023). pyannote's own pipeline differs in its embedding and in settings tuned on much more data.
"""

from collections.abc import Callable

import numpy as np
from pyannote.core import Annotation
from pyannote.core import Segment as Interval
from scipy.cluster.hierarchy import fcluster, linkage

from evaluation.systems import Segmentation3
from modeling.settings_fast_diarization import SAMPLING_RATE

WINDOW_SECONDS, HOP_SECONDS = 10.0, 1.0
FRAMES = 500
"""Of 20 ms in a window."""
THRESHOLD = 0.45
LEAST_SECONDS = 0.5
"""Of speech, for an embedding; of non-overlapped speech, for one of that alone."""


class WholeFilePeer:
    """
    Args:
        segmentation: segmentation-3.0 as an ONNX file.
        embed: waveform (samples,) at 16 kHz -> embedding.
        threshold: cosine distance up to which clusters are joined, by default chosen for CAM++ on 14 short
            recordings of bank calls and meetings (DER 25.6 % with 0.3, 42.1 % with 0.65, 23.1 % with this one).
        smallest: share of the largest cluster's windows below which a cluster is joined to the nearest other.
    """

    def __init__(
        self,
        segmentation: str,
        embed: Callable[[np.ndarray], np.ndarray],
        threshold: float = THRESHOLD,
        smallest: float = 0.1,
    ):
        self.segmentation, self.embed = Segmentation3(segmentation), embed
        self.threshold, self.smallest = threshold, smallest

    def analyse(self, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Local activity bool (windows, frames, 3), which speakers have an embedding (windows, 3), and those."""
        samples, hop = round(WINDOW_SECONDS * SAMPLING_RATE), round(HOP_SECONDS * SAMPLING_RATE)
        count = max(0, -(-(len(waveform) - samples) // hop)) + 1
        padded = np.pad(waveform, (0, (count - 1) * hop + samples - len(waveform)))
        windows = [padded[at * hop : at * hop + samples] for at in range(count)]
        active = np.concatenate([self.segmentation.activity(window[None], FRAMES) for window in windows])
        embedded, embeddings = np.zeros(active.shape[::2], bool), []
        for window, activity, known in zip(windows, active, embedded):
            for speaker in range(activity.shape[1]):
                speech = _speech_of(window, activity, speaker)
                if len(speech) >= LEAST_SECONDS * SAMPLING_RATE:
                    known[speaker] = True
                    embeddings.append(self.embed(speech))
        vectors = np.stack(embeddings) if embeddings else np.zeros((0, 1))
        return active, embedded, vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def cluster(self, embeddings: np.ndarray, num_speakers: int | None) -> np.ndarray:
        """Cluster numbers from 0 on."""
        if len(embeddings) < 2:
            return np.zeros(len(embeddings), int)
        tree = linkage(embeddings, "average", metric="cosine")
        clusters, large = self._cut(tree, self.threshold)
        if num_speakers:
            cuts = [self._cut(tree, height) for height in tree[::-1, 2]]
            clusters, large = min(cuts, key=lambda cut: abs(len(cut[1]) - num_speakers))
        centroids = np.stack([embeddings[clusters == c].mean(axis=0) for c in large])
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        return np.where(
            np.isin(clusters, large), np.searchsorted(large, clusters), (embeddings @ centroids.T).argmax(1)
        )

    def _cut(self, tree: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
        """Clusters joined below a height, and which of them are large."""
        clusters = fcluster(tree, height * (1 + 1e-9), "distance") - 1
        sizes = np.bincount(clusters)
        return clusters, np.flatnonzero(sizes >= self.smallest * sizes.max())

    def diarize(self, name: str, waveform: np.ndarray, counts: dict[str, int | None]) -> dict[str, Annotation]:
        """The hypothesis for each of `counts`, numbers of speakers or `None`; the networks run once."""
        active, embedded, embeddings = self.analyse(waveform)
        return {
            words: self._put_together(name, active, embedded, self.cluster(embeddings, count), len(waveform))
            for words, count in counts.items()
        }

    def _put_together(
        self, name: str, active: np.ndarray, embedded: np.ndarray, clusters: np.ndarray, samples: int
    ) -> Annotation:
        hypothesis = Annotation(uri=name)
        if not len(clusters):
            return hypothesis
        step = WINDOW_SECONDS / FRAMES
        hop = round(HOP_SECONDS / step)
        frames = (len(active) - 1) * hop + FRAMES
        score, together, seen = np.zeros((frames, clusters.max() + 1)), np.zeros(frames), np.zeros(frames)
        of_local = np.full(embedded.shape, -1)
        of_local[embedded] = clusters
        for number, (activity, speakers) in enumerate(zip(active, of_local)):
            at = slice(number * hop, number * hop + FRAMES)
            seen[at] += 1
            together[at] += activity.sum(axis=1)
            for cluster in set(speakers[speakers >= 0]):
                score[at, cluster] += activity[:, speakers == cluster].any(axis=1)
        most = np.round(together / seen).astype(int)
        rank = (-score).argsort(axis=1, kind="stable").argsort(axis=1)
        chosen = (rank < most[:, None]) & (score > 0)
        for cluster in range(chosen.shape[1]):
            edges = np.flatnonzero(np.diff(np.pad(chosen[:, cluster].astype(np.int8), 1))).reshape(-1, 2)
            for first, end in edges * step:
                if first < (end := min(end, samples / SAMPLING_RATE)):
                    hypothesis[Interval(first, end), cluster] = f"SPEAKER_{cluster:02d}"
        return hypothesis


def _speech_of(window: np.ndarray, activity: np.ndarray, speaker: int) -> np.ndarray:
    """Samples of a local speaker: where nobody else speaks, if that is long enough."""
    alone = activity[:, speaker] & (activity.sum(axis=1) == 1)
    wanted = alone if alone.mean() * WINDOW_SECONDS >= LEAST_SECONDS else activity[:, speaker]
    return window[np.repeat(wanted, len(window) // FRAMES)]
