"""Compare the speech activity of the labels with silero-vad, frame by frame, and measure its cost.

python -m data.speech_agreement --dataset path/to/speech

needs requirements-dev.txt. Neither detector is a reference: the table shows how much the convention alone matters.
"""

import time
from collections.abc import Callable
from itertools import islice

from common.program import end_quietly
from data.flags import of_speech_agreement

if __name__ == "__main__":
    end_quietly()
    of_speech_agreement(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np
import torch

import data.speech_activity as rule
from common.markdown import table
from data.corpora import CorpusError, Utterances, open_corpus
from data.decoding import RowError, decode

SAMPLING_RATE = 16_000
FRAME = 320
BRIDGES_MS = (100, 200, 300, 500)
NEAR = 10
"""Frames: a difference within 0.2 s of an onset or end is attributed to that boundary."""


def frames_of(segments: np.ndarray, samples: int) -> np.ndarray:
    """(segments, 2) samples to bool (frames of 20 ms,): frames whose centre lies in a segment."""
    middles = np.arange(samples // FRAME) * FRAME + FRAME // 2
    segments = np.asarray(segments).reshape(-1, 2)
    return (np.searchsorted(segments[:, 0], middles, "right") - np.searchsorted(segments[:, 1], middles, "right")) > 0


def disagreement(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, float]:
    """Shares of all frames, given bool (frames,) of every utterance: `differ`, and its parts.

    `missed` is speech for them only, `extra` for us only. Each is split by its place in their speech: at an onset, at
    an end, inside (a pause that we do not bridge, or that we do), or elsewhere.
    """
    total = sum(map(len, ours))
    counts = dict.fromkeys(
        ("missed at onset", "missed at end", "missed inside", "extra at onset", "extra at end", "extra inside"), 0
    )
    for mine, their in zip(ours, theirs):
        onset, end = (
            _near(np.flatnonzero(np.diff(their.astype(int), prepend=0, append=0) == s), their) for s in (1, -1)
        )
        for kind, wrong in (("missed", their & ~mine), ("extra", mine & ~their)):
            counts[f"{kind} at onset"] += np.count_nonzero(wrong & onset & ~end)
            counts[f"{kind} at end"] += np.count_nonzero(wrong & end)
            counts[f"{kind} inside"] += np.count_nonzero(wrong & ~onset & ~end)
    return {"differ": sum(counts.values()) / total} | {name: count / total for name, count in counts.items()}


def _near(edges: np.ndarray, frames: np.ndarray) -> np.ndarray:
    near = np.zeros(len(frames), bool)
    for edge in edges:
        near[max(edge - NEAR, 0) : edge + NEAR] = True
    return near


def boundary_shifts(ours: list[np.ndarray], theirs: list[np.ndarray], sign: int) -> np.ndarray:
    """Seconds from each of their onsets (`sign` 1) or ends (-1) to our nearest within 0.5 s; positive is later."""
    shifts = []
    for mine, their in zip(ours, theirs):
        mine, their = (np.flatnonzero(np.diff(f.astype(int), prepend=0, append=0) == sign) for f in (mine, their))
        if len(mine):
            nearest = mine[np.abs(mine[None] - their[:, None]).argmin(axis=1)] - their
            shifts.extend(nearest[np.abs(nearest) <= 25])
    return np.array(shifts) * FRAME / SAMPLING_RATE


def sample(utterances: Utterances, count: int) -> list[np.ndarray]:
    """Waveforms of `count` utterances from units spread over the corpus."""
    waveforms = []
    units = np.random.default_rng(0).permutation(len(utterances))
    for unit in units:
        for row in islice(utterances.read(unit), max(1, -(-count // len(units)))):
            try:
                waveforms.append(decode(row.audio))
            except RowError:
                continue
    return waveforms[:count]


def our_frames(waveforms: list[np.ndarray], bridge_ms: int) -> list[np.ndarray]:
    """The frames of our rule when pauses up to `bridge_ms` are bridged."""
    usual, rule.BRIDGE = rule.BRIDGE, bridge_ms // 10
    try:
        return [frames_of(rule.speech_segments(waveform), len(waveform)) for waveform in waveforms]
    finally:
        rule.BRIDGE = usual


def silero_frames(waveforms: list[np.ndarray], bridge_ms: int) -> list[np.ndarray]:
    """The frames of silero-vad at its default threshold when pauses up to `bridge_ms` are bridged."""
    from silero_vad import get_speech_timestamps, load_silero_vad

    model, frames = load_silero_vad(), []
    for waveform in waveforms:
        found = get_speech_timestamps(torch.from_numpy(waveform), model, min_silence_duration_ms=bridge_ms)
        frames.append(frames_of(np.array([[s["start"], s["end"]] for s in found]), len(waveform)))
    return frames


def report(waveforms: list[np.ndarray]) -> str:
    """Markdown tables: the effect of bridging, where the two differ, and the cost."""
    seconds = sum(map(len, waveforms)) / SAMPLING_RATE
    usual = 10 * rule.BRIDGE
    ours = {bridge: our_frames(waveforms, bridge) for bridge in BRIDGES_MS}
    theirs = {bridge: silero_frames(waveforms, bridge) for bridge in BRIDGES_MS}
    differ = table(
        ["% of frames that differ", *(f"silero bridges {bridge} ms" for bridge in BRIDGES_MS)],
        [
            [f"ours bridges {b} ms", *(f"{100 * disagreement(ours[b], theirs[t])['differ']:.1f}" for t in BRIDGES_MS)]
            for b in BRIDGES_MS
        ],
    )
    parts = disagreement(ours[usual], theirs[usual])
    where = table(["% of frames, against silero", "share"], [[name, f"{100 * p:.1f}"] for name, p in parts.items()])
    quantiles = (10, 25, 50, 75, 90)
    shifts = table(
        ["ours later than silero (ms)", *(f"{q} %" for q in quantiles)],
        [
            [
                name,
                *(
                    f"{1000 * s:.0f}"
                    for s in np.percentile(boundary_shifts(ours[usual], theirs[usual], sign), quantiles)
                ),
            ]
            for name, sign in (("onsets", 1), ("ends", -1))
        ],
    )
    costs = [("this rule", our_frames), ("silero-vad", silero_frames)]
    cost = table(
        ["cost", "share of real time, one thread"],
        [[name, f"{_seconds(detect, waveforms, usual) / seconds:.5f}"] for name, detect in costs],
    )
    head = f"{len(waveforms)} utterances, {seconds / 60:.1f} min; both bridge {usual} ms unless stated otherwise."
    return "\n\n".join([head, differ, where, shifts, cost])


def _seconds(detect: Callable, waveforms: list[np.ndarray], bridge_ms: int) -> float:
    started = time.process_time()
    detect(waveforms, bridge_ms)
    return time.process_time() - started


def main() -> None:
    arguments = of_speech_agreement(__doc__)
    if arguments.utterances < 1:
        raise SystemExit(f"error: --utterances must be at least 1, got {arguments.utterances}")
    torch.set_num_threads(1)
    try:
        print(report(sample(open_corpus(arguments.dataset, "validation"), arguments.utterances)))
    except CorpusError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
