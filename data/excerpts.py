"""Windows cut out of annotated conversations: where they begin, who speaks in them, and their sound.

Labels are the reference on the frame grid of the network, overlaps included: a frame is what the reference says at its
centre, as in the scoring of recordings. Windows begin at frames, so that a window's labels are a part of the
recording's.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.annotations import Conversation
from modeling.audio_fast_diarization import SAMPLING_RATE, AudioNotice, AudioWarning, Source, audio_blocks
from modeling.settings_fast_diarization import FRAME_SAMPLES

CANDIDATES = 4
"""Windows looked at for each that is taken: a rare kind is drawn at most this many times as often as it occurs."""


@dataclass(frozen=True)
class Excerpts:
    """Windows of one conversation, in the order of their starts.

    Args:
        starts: (windows,) first frames.
        labels: float32 (windows, frames, tracks), those who speak most in a window first.
        speakers: int (windows, tracks), places in `names`, -1 where a track is silent.
        names: of the people in the conversation.
        crowded: windows with more people than tracks.
        left_out: share of the speech in the windows that is not in the labels, as it is of further people.
    """

    starts: np.ndarray
    labels: np.ndarray
    speakers: np.ndarray
    names: tuple[str, ...]
    crowded: int
    left_out: float


def speaker_activity(conversation: Conversation, frames: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bool (people, frames) of 20 ms, and the names of the people."""
    names = tuple(dict.fromkeys(speaker for _, _, speaker in conversation.turns))
    active = np.zeros((len(names), frames), bool)
    for start, end, speaker in conversation.turns:
        active[names.index(speaker), slice(*_frames_between(start, end))] = True
    return active, names


def _frames_between(start: float, end: float) -> tuple[int, int]:
    """First and past-the-end frame whose centres lie in [start, end)."""
    per_second = SAMPLING_RATE / FRAME_SAMPLES
    return tuple(max(0, int(np.ceil(round(at * per_second - 0.5, 6)))) for at in (start, end))


def choose_excerpts(
    rng: np.random.Generator,
    conversation: Conversation,
    frames: int,
    tracks: int,
    shares: tuple[float, ...] | None,
    per_length: float,
) -> Excerpts:
    """Choose windows of `frames` in the annotated regions of a conversation.

    Args:
        tracks: of people who speak most in a window; further people are not labelled, and counted.
        shares: wanted shares of windows with 0, 1, ... people, the last of so many or more. A kind is taken at most
            `CANDIDATES` times as often as it occurs, and the others make up for it. `None` takes windows anywhere.
        per_length: windows for each length of a window in the annotated regions.

    Raises:
        ValueError: the reference goes on after the end of the recording.
    """
    regions = [_frames_between(*region) for region in conversation.annotated_regions()]
    active, names = speaker_activity(conversation, max([end for _, end in regions], default=0))
    possible = np.concatenate([np.arange(0), *(np.arange(start, end - frames + 1) for start, end in regions)])
    annotated = sum(end - start for start, end in regions if end - start >= frames)
    count = round(per_length * annotated / frames)
    if possible.size:
        starts = possible[rng.integers(possible.size, size=max(1, count) * (1 if shares is None else CANDIDATES))]
    else:
        starts = possible
    before = np.concatenate([np.zeros((len(names), 1), np.int32), active.cumsum(axis=1, dtype=np.int32)], axis=1)
    spoken = before[:, starts + frames] - before[:, starts]
    if shares is not None and possible.size:
        kept = _with_shares(rng, (spoken > 0).sum(axis=0), shares, max(1, count))
        starts, spoken = starts[kept], spoken[:, kept]
    order = np.argsort(starts, kind="stable")
    return _excerpts(active, names, starts[order], spoken[:, order].T, frames, tracks)


def _with_shares(rng: np.random.Generator, people: np.ndarray, shares: tuple[float, ...], count: int) -> np.ndarray:
    """Which of the windows to take so that their numbers of people come in these shares, as far as they go."""
    kinds = np.minimum(people, len(shares) - 1)
    wanted = np.bincount(rng.choice(len(shares), size=count, p=shares), minlength=len(shares))
    taken = np.concatenate([np.flatnonzero(kinds == kind)[: wanted[kind]] for kind in range(len(shares))])
    rest = np.setdiff1d(np.arange(len(people)), taken)[: count - len(taken)]
    return np.concatenate([taken, rest])


def _excerpts(active, names, starts: np.ndarray, spoken: np.ndarray, frames: int, tracks: int) -> Excerpts:
    """`spoken`: frames of each person in each window, (windows, people)."""
    if len(names) < tracks:
        nobody = tracks - len(names)
        active = np.pad(active, ((0, nobody), (0, 0)))
        spoken = np.pad(spoken, ((0, 0), (0, nobody)))
    most = np.argsort(-spoken, axis=1, kind="stable")[:, :tracks]
    heard = np.take_along_axis(spoken, most, axis=1)
    labels = (
        np.stack([active[who, start : start + frames].T for who, start in zip(most, starts)])
        if len(starts)
        else (np.zeros((0, frames, tracks), bool))
    )
    return Excerpts(
        starts,
        labels.astype(np.float32),
        np.where(heard > 0, most, -1),
        names,
        int(((spoken > 0).sum(axis=1) > tracks).sum()),
        1 - float(heard.sum() / max(spoken.sum(), 1)) if spoken.any() else 0.0,
    )


def cut_excerpts(audio: Source, starts: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """The windows that begin at samples `starts`, ascending, as far as the recording goes; it is read once, in blocks.

    Yields:
        float32 (samples,), mono 16 kHz.

    Raises:
        AudioError: the recording cannot be read.
        AudioWarning: it is damaged; what is cut out before that is whole.
    """
    held, offset, blocks, done = np.zeros(0, np.float32), 0, audio_blocks(audio), 0
    while done < len(starts):
        with warnings.catch_warnings():
            warnings.simplefilter("error", AudioWarning)
            warnings.simplefilter("ignore", AudioNotice)
            block = next(blocks, None)
        if block is None:
            return
        held = np.concatenate([held, block])
        while done < len(starts) and starts[done] + samples <= offset + len(held):
            yield held[starts[done] - offset :][:samples].copy()
            done += 1
        passed = min(starts[done] - offset, len(held)) if done < len(starts) else len(held)
        held, offset = held[passed:], offset + passed
