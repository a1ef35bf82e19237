"""Who each local speaker of each window is: the best path through all windows (Viterbi)."""

import numpy as np

from .settings_fast_diarization import FRAME_SECONDS
from .windows_fast_diarization import WindowOutputs, agreement, is_present, solo_seconds

CANDIDATES, FOLLOWED, BEAM = 8, 4096, 64
"""Speakers considered for one local speaker, and ways of naming local speakers: while they are named one after another,
and of all of a window."""
AGREEMENT_WEIGHT = 0.5
"""What a second of agreement between windows weighs beside a second of likeness within them."""


def best_path(outputs: WindowOutputs, centroids: np.ndarray) -> np.ndarray:
    """(windows, local speakers) the speaker each of them is, -1 where absent: the best path through all windows.

    A state names all local speakers of one window, each differently. Where all states come from one, the path up
    to there is settled and the states before are forgotten.
    """
    path: list[np.ndarray] = []
    states: list[np.ndarray] = []
    steps: list[np.ndarray] = []
    before, scores = None, np.zeros(1)
    for output in outputs:
        activity = output["activity"]
        likeness = solo_seconds(activity)[:, None] * (output["vectors"].astype(np.float32) @ centroids.T)
        here, likely = likeliest_names(likeness, np.flatnonzero(is_present(activity)))
        if before is not None:
            shift, named = output["start"] - before["start"], states[-1]
            both, _ = agreement(before["activity"][shift:], activity[: len(activity) - shift])
            same = (named[:, None, :, None] == here[None, :, None]) & (named[:, None, :, None] >= 0)
            total = scores[:, None] + AGREEMENT_WEIGHT * FRAME_SECONDS * (same * both).sum(axis=(2, 3))
            steps.append(total.argmax(axis=0).astype(np.uint8))
            scores = total.max(axis=0)
            if (steps[-1] == steps[-1][0]).all():
                path.append(trace_back(states, steps[:-1], steps[-1][0]))
                states, steps = [], []
        states.append(here.astype(np.int8))
        before, scores = output, scores + likely
    return np.concatenate([*path, trace_back(states, steps, scores.argmax())])


def trace_back(states: list[np.ndarray], steps: list[np.ndarray], state: int) -> np.ndarray:
    """The best path that ends in `state` of the last window, (windows, local speakers).

    Args:
        states: of each window, (ways, local speakers).
        steps: of each window but the first, (ways,) the state of the window before that leads to each.
    """
    path = [states[-1][state]]
    for before, step in zip(reversed(states[:-1]), reversed(steps)):
        state = step[state]
        path.append(before[state])
    return np.stack(path[::-1])


def likeliest_names(likeness: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest ways of naming the local speakers present, (ways, local speakers), and their likeness (ways,).

    Args:
        likeness: (local speakers, speakers).
        present: indices of local speakers; the others are -1.
    """
    ways = np.zeros((1, 0), int)
    enough = likeness.shape[1] >= len(present)  # not where fewer speakers are looked for than a window has
    for count, local in enumerate(present, 1):
        likeliest = np.argsort(-likeness[local], kind="stable")[:CANDIDATES]
        ways = np.column_stack([np.repeat(ways, len(likeliest), axis=0), np.tile(likeliest, len(ways))])
        if enough:
            ways = ways[(ways[:, :-1] != ways[:, -1:]).all(axis=1)]
        if len(ways) > FOLLOWED:
            total = likeness[present[:count], ways].sum(axis=1)
            ways = ways[np.sort(np.argsort(-total, kind="stable")[:FOLLOWED])]
    total = likeness[present, ways].sum(axis=1)
    best = np.argsort(-total, kind="stable")[:BEAM]
    states = np.full((len(best), len(likeness)), -1)
    states[:, present] = ways[best]
    return states, total[best]
