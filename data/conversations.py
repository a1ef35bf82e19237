"""Simulated conversations: turns drawn from measured statistics and filled with speech, cut by its activity.

Turns are planned first (who speaks from when to when), then rendered: each is filled with speech of its speaker from
the available utterances, aligned to the speech activity of the utterance and not to the edges of its file. Labels are
the activity of that speech on a grid of 10 ms, so they mark speech and not turns.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.speech_activity import speech_segments

SAMPLING_RATE = 16_000
GRID = 160
FADE = np.linspace(0, 1, 80, dtype=np.float32)
LEVEL = 0.05
TURN_TAKING = json.loads((Path(__file__).parent / "turn_taking.json").read_text())
STYLES = ("primock57", "voxconverse_2spk", "lively")
"""Two measured styles, and `lively`: short turns, most of whose changes overlap by 0.3 to 2.5 s."""
LENGTHS = {
    quantity: np.array([TURN_TAKING[style][quantity] for style in STYLES[:2]])
    for quantity in TURN_TAKING[STYLES[0]]
    if quantity.endswith("_seconds")
}
# Higher than measured, to make up for changes that do not fit: the resulting probabilities are the measured ones.
CHANGE_PROBABILITIES = (0.93, 0.58, 0.95)
OVERLAP_PROBABILITIES = (0.5, 0.51, 0.9)
ATTEMPTS = 6
LEANING = 0.6
DEPTH = 0.4
SHORTEST_PAUSE = 0.2
# A conversation starts in silence; after half a minute the distribution of turn lengths is stationary.
EXCERPTS_FROM, EXCERPTS_UNTIL = 30.0, 60.0


@dataclass
class Turns:
    """Planned turns of `count` conversations, arrays of shape (count, turns), times in seconds."""

    speaker: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __getitem__(self, conversations) -> "Turns":
        return Turns(self.speaker[conversations], self.start[conversations], self.end[conversations])


def plan_turns(
    rng: np.random.Generator, count: int, seconds: float, num_speakers: int = 2, style_shares=(0.45, 0.45, 0.1)
) -> Turns:
    """Draw turns in the order of their starts, until each conversation has a turn that starts after `seconds`.

    Turn, pause, gap and overlap lengths come from `turn_taking.json`, measured between turns that follow each other
    by start, on PriMock57 and on the two-speaker recordings of VoxConverse. Turns of one speaker never overlap, and an
    overlap cannot be longer than the turn it falls into, so a change that does not fit is drawn again. As in the
    recordings, long overlaps fall into long turns, and turns that start inside another one are short.
    """
    style = rng.choice(len(STYLES), size=count, p=style_shares)
    lively = style == 2
    change = np.array(CHANGE_PROBABILITIES)[style] * (num_speakers > 1)
    overlap = np.array(OVERLAP_PROBABILITIES)[style]
    pace = np.where(lively, 0.5, 1.0)
    each, measured = np.arange(count), np.where(style == 0, 0, 1)
    speaker, start = rng.integers(num_speakers, size=count), np.zeros(count)
    inside = np.zeros(count, bool)
    busy_until = np.full((count, num_speakers), -np.inf)
    turns = []
    while not turns or turns[-1][1].min() <= seconds:
        one, two, leaning, pause = rng.random((4, count))
        longer = np.where(leaning < LEANING, np.maximum(one, two), one)
        rank = np.where(inside, np.minimum(one, two), longer)
        end = start + _quantile("turn_seconds", measured, rank) * pace
        busy_until[each, speaker] = end
        turns.append((speaker, start, end))

        following, begin = speaker.copy(), end + _quantile("same_speaker_pause_seconds", measured, pause)
        left = each
        for _ in range(ATTEMPTS):
            left = left[rng.random(len(left)) < change[left]]
            if len(left) == 0:
                break
            other = (speaker[left] + rng.integers(1, num_speakers, len(left))) % num_speakers
            overlaps, deep, place = rng.random((3, len(left)))
            overlaps = overlaps < overlap[left]
            gap = _quantile("speaker_change_gap_seconds", measured[left], place)
            depth = np.where(deep < DEPTH, rank[left], place)
            depth = _quantile("speaker_change_overlap_seconds", measured[left], depth)
            depth = np.where(lively[left], 0.3 + (2.5 - 0.3) * place, depth)
            at = end[left] + np.where(overlaps, -depth, gap)
            fits = (at > start[left]) & (at >= busy_until[left, other] + SHORTEST_PAUSE)
            following[left[fits]], begin[left[fits]] = other[fits], at[fits]
            left = left[~fits]
        speaker, start = following, begin
        inside = busy_until.max(axis=1) > start
    return Turns(*(np.stack(column, axis=1) for column in zip(*turns)))


def _quantile(quantity: str, style: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Lengths in seconds at ranks in [0, 1), interpolated between evenly spaced quantiles."""
    table = LENGTHS[quantity]
    place = rank * (table.shape[1] - 1)
    below = place.astype(np.int64)
    lower = table[style, below]
    return lower + (place - below) * (table[style, below + 1] - lower)


def plan_independent_turns(rng: np.random.Generator, count: int, seconds: float, num_speakers: int = 2) -> Turns:
    """Draw each speaker independently: exponential turns (mean 3 s) and silences (mean 2 s).

    These are the mixtures of Fujita et al. (Interspeech 2019), a baseline for turn-taking statistics.
    """
    shape = (count, num_speakers, 20 + int(seconds / 2))
    turn, silence = rng.exponential(3.0, shape), rng.exponential(2.0, shape)
    start = (turn + silence).cumsum(axis=2) - turn
    speaker = np.broadcast_to(np.arange(num_speakers)[:, None], shape)
    order = np.argsort(start.reshape(count, -1), axis=1)
    return Turns(*(np.take_along_axis(x.reshape(count, -1), order, axis=1) for x in (speaker, start, start + turn)))


TURN_PLANS = {"measured": plan_turns, "independent": plan_independent_turns}


def speaker_number(name: str) -> int:
    """A stable integer for a speaker's name, the same in every process and run."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


@dataclass
class Pool:
    """Decoded utterances at one level, trimmed to their speech, with the speech activity of every 10 ms.

    `add` takes float32 mono 16 kHz waveforms and returns whether the utterance held any speech.
    """

    audio: list = field(default_factory=list)
    active: list = field(default_factory=list)
    edges: list = field(default_factory=list)
    speakers: dict = field(default_factory=dict)
    narrow: bool = False

    def add(self, waveform: np.ndarray, speaker: str) -> bool:
        segments = speech_segments(waveform)
        if len(segments) == 0:
            return False
        segments = segments // GRID
        first, last = segments[0, 0], segments[-1, 1]
        if last - first < 20:
            return False
        active = np.zeros(last - first, bool)
        for begin, end in segments - first:
            active[begin:end] = True
        waveform = waveform[first * GRID : last * GRID]
        power = np.square(waveform.reshape(-1, GRID)[active]).mean()
        if power == 0:
            return False
        self.speakers.setdefault(speaker, []).append(len(self.audio))
        self.audio.append(waveform * np.float32(LEVEL / np.sqrt(power)))
        self.active.append(active)
        self.edges.append(segments - first)
        return True

    def of(self, speakers: list[str]) -> "Pool":
        """A pool with only these speakers."""
        some = Pool()
        for speaker in speakers:
            some.speakers[speaker] = list(range(len(some.audio), len(some.audio) + len(self.speakers[speaker])))
            for mine, all_of_them in ((some.audio, self.audio), (some.active, self.active), (some.edges, self.edges)):
                mine.extend(all_of_them[utterance] for utterance in self.speakers[speaker])
        return some

    def pieces(
        self, rng: np.random.Generator, speaker: str, length: int, onset: bool, offset: bool
    ) -> list[tuple[int, int, int, int]]:
        """Choose speech of a speaker for a turn of `length` grid steps.

        With `onset` it starts at an onset of speech; with `offset` it ends at an end of speech if one lies at 80 to
        100 % of the length, and is cut off otherwise. A turn longer than an utterance continues with another one.

        Returns:
            list of (utterance, first grid step in the utterance, grid steps, grid step in the turn).
        """
        utterances = self.speakers[speaker]
        chosen, done = [], 0

        def one_of(number: int) -> int:
            return int(rng.random() * number)  # ten times faster than rng.integers

        while done < length:
            utterance = utterances[one_of(len(utterances))]
            edges, total = self.edges[utterance], len(self.active[utterance])
            left = length - done
            if done == 0 and onset and offset:
                spans = edges[None, :, 1] - edges[:, None, 0]
                fitting = np.argwhere((0.8 * left <= spans) & (spans <= left))
                if len(fitting):
                    first, last = fitting[one_of(len(fitting))]
                    return [(utterance, edges[first, 0], spans[first, last], 0)]
            if offset and not onset:
                end = edges[one_of(len(edges)), 1] if done == 0 else total
                begin = max(end - left, 0)
                at = left - (end - begin)
            else:
                if done:
                    begin = 0
                elif onset:
                    begin = edges[one_of(len(edges)), 0]
                else:
                    begin = one_of(max(1, total - min(left, total // 2)))
                end = min(begin + left, total)
                at = done
            chosen.append((utterance, begin, end - begin, at))
            done += end - begin
        return chosen


@dataclass
class Conversations:
    """Rendered speech before any augmentation.

    Args:
        tracks: float32 (count, num_speakers, samples), one track per speaker.
        active: bool (count, num_speakers, samples // 160), speech activity every 10 ms.
        speakers: names, `count` lists of `num_speakers`; `None` for silent tracks.
    """

    tracks: np.ndarray
    active: np.ndarray
    speakers: list[list[str | None]]


def render(rng: np.random.Generator, pool: Pool, turns: Turns, cast: list[list[str]], begin, seconds: float):
    """Fill the turns within [begin, begin + seconds) of each conversation with speech.

    Args:
        cast: for each conversation, the speaker of the pool behind each track.
        begin: start of the excerpt in seconds, one number per conversation.

    Returns:
        [`Conversations`]
    """
    count, steps = len(cast), int(round(seconds * SAMPLING_RATE)) // GRID
    num_speakers = len(cast[0])
    tracks = np.zeros((count, num_speakers, steps * GRID), np.float32)
    active = np.zeros((count, num_speakers, steps), bool)
    names: list[list[str | None]] = [[None] * num_speakers for _ in range(count)]
    starts = np.round((turns.start - np.asarray(begin)[:, None]) * (SAMPLING_RATE // GRID)).astype(int)
    ends = np.round((turns.end - np.asarray(begin)[:, None]) * (SAMPLING_RATE // GRID)).astype(int)
    for c, t in zip(*np.nonzero((starts < steps) & (ends > 0) & (ends > starts))):
        start, end, part = starts[c, t], ends[c, t], turns.speaker[c, t]
        first, last = max(start, 0), min(end, steps)
        for utterance, source, length, at in pool.pieces(rng, cast[c][part], last - first, start >= 0, end <= steps):
            target = first + at
            speech = tracks[c, part, target * GRID : (target + length) * GRID]
            speech[:] = pool.audio[utterance][source * GRID : (source + length) * GRID]
            speech[: len(FADE)] *= FADE
            speech[-len(FADE) :] *= FADE[::-1]
            active[c, part, target : target + length] = pool.active[utterance][source : source + length]
        names[c][part] = cast[c][part]
    return Conversations(tracks, active, names)


def cast_speakers(rng: np.random.Generator, pool: Pool, count: int, num_speakers: int) -> list[list[str]]:
    """Assign speakers of the pool: different ones within a conversation, the same few throughout a batch.

    A batch has about half as many speakers as tracks, so that the contrastive loss finds each of them in several
    windows.
    """
    names = sorted(pool.speakers)
    few = max(num_speakers, count * num_speakers // 4)
    names = [names[i] for i in rng.permutation(len(names))[:few]]
    return [[names[i] for i in rng.permutation(len(names))[:num_speakers]] for _ in range(count)]


def plan_windows(
    rng: np.random.Generator,
    count: int,
    seconds: float,
    num_speakers: int,
    shares: tuple[float, ...] | None,
    turn_taking: str = "measured",
) -> tuple[Turns, np.ndarray]:
    """Plan `count` windows, cut out of longer conversations at random positions.

    Args:
        shares: wanted shares of windows with 0, 1, ... `num_speakers` speakers; `None` keeps the shares that the
            turn-taking statistics give. Of windows too rare to be as many as wanted, others take the place.
        turn_taking: one of `TURN_PLANS`.

    Returns:
        the turns of `count` conversations and the start of the window in each, in seconds.
    """
    conversations, excerpts = (count, 1) if shares is None else (2 * count, 4)
    turns = TURN_PLANS[turn_taking](rng, conversations, EXCERPTS_UNTIL + seconds, num_speakers)
    source = np.tile(np.arange(conversations), excerpts)
    turns = turns[source]
    begin = rng.uniform(EXCERPTS_FROM, EXCERPTS_UNTIL, len(source))
    if shares is None:
        return turns, begin
    inside = np.minimum(turns.end, begin[:, None] + seconds) - np.maximum(turns.start, begin[:, None])
    heard = np.stack([np.where(turns.speaker == s, inside, 0).max(axis=1) > 0.02 for s in range(num_speakers)])
    kind = heard.sum(axis=0)
    wanted = rng.choice(len(shares), size=count, p=shares)
    order = np.concatenate([np.flatnonzero(kind == k)[: (wanted == k).sum()] for k in range(len(shares))])
    rest = np.setdiff1d(np.arange(len(source)), order)[: count - len(order)]
    keep = rng.permutation(np.concatenate([order, rest]))
    return turns[keep], begin[keep]
