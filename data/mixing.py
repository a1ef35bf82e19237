"""Several corpora in one stream: every batch holds windows of each of them, in fixed shares.

The corpora keep their own blocks and their own places, and batch n takes the next batch of lane n mod lanes of each.
Mixing inside a batch keeps the statistics of batch normalisation and the contrast between speakers those of all.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from data.streaming import ConversationStream, LanedStream


def windows_of_shares(batch_size: int, shares: Sequence[float]) -> list[int]:
    """Windows of each corpus in a batch: at least one, and the largest remainders rounded up.

    A batch has as many windows as there are corpora, or more.
    """
    exact = np.array(shares) / sum(shares) * batch_size
    sizes = np.maximum(1, np.floor(exact).astype(int))
    while sizes.sum() != batch_size:
        step = np.sign(batch_size - sizes.sum())
        lacking = np.where((sizes > 1) | (step > 0), step * (exact - sizes), -np.inf)
        sizes[lacking.argmax()] += step
    return sizes.tolist()


class MixedStream(LanedStream):
    """Batches with windows of several streams, which have the same lanes, ranks and lengths of windows.

    The batches have the fields of [`AnnotatedStream`]'s; `recording_labels` are -1 for simulated conversations, whose
    speakers are known by name.

    Args:
        streams: one for each corpus, each with its part of the batch as `batch_size`.
        turn: the lane to begin with.
    """

    def __init__(self, streams: Sequence[ConversationStream], turn: int = 0):
        self.streams, self.lanes, self.turn = list(streams), streams[0].lanes, turn

    @property
    def num_speakers(self) -> int:
        return self.streams[0].num_speakers

    @property
    def state(self) -> dict:
        return {"turn": self.turn, "streams": [stream.state for stream in self.streams]}

    @state.setter
    def state(self, state: dict) -> None:
        self.turn = state["turn"]
        for stream, of_stream in zip(self.streams, state["streams"]):
            stream.state = of_stream

    def state_dict(self) -> dict:
        return {"turn": self.turn, "streams": [stream.state_dict() for stream in self.streams]}

    def afresh(self, **changes) -> "MixedStream":
        return MixedStream([stream.afresh(**changes) for stream in self.streams])

    def advance(self, position: np.ndarray) -> None:
        for stream, of_stream in zip(self.streams, position):
            stream.advance(of_stream)
        self.turn = (self.turn + 1) % self.lanes

    def lane(self, lane: int, first: int, step: int) -> Iterator[dict]:
        for batches in zip(*(stream.lane(lane, first, step) for stream in self.streams)):
            positions = np.stack([batch.pop("position") for batch in batches])
            for batch in batches:
                batch.setdefault("recording_labels", np.full(len(batch["labels"]), -1))
            yield {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]} | {
                "position": positions
            }
