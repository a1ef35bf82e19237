"""Several corpora in one stream: every batch holds windows of each of them, in fixed shares.

The corpora keep their own blocks and their own places, and batch n takes the next batch of lane n mod lanes of each.
Mixing inside a batch keeps the statistics of batch normalisation and the contrast between speakers those of all.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from data.corpora import CorpusError
from data.streaming import ConversationStream, LanedStream


def windows_of_shares(batch_size: int, shares: Sequence[float]) -> list[int]:
    """Windows of each corpus in a batch: at least one, and the largest remainders rounded up.

    Raises:
        CorpusError: fewer windows than corpora.
    """
    if batch_size < len(shares):
        raise CorpusError(f"a batch of {batch_size} windows cannot hold some of each of {len(shares)} corpora")
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
        state: as `state_dict` gave it, to go on from there; the streams have their parts of it already.
    """

    def __init__(self, streams: Sequence[ConversationStream], state: dict | None = None):
        self.streams, self.lanes = list(streams), streams[0].lanes
        self.turn = 0
        if state is not None:
            made_with = len(state.get("streams", [None]))
            if made_with != len(self.streams):
                raise CorpusError(
                    f"the checkpoint was made with {made_with} corpora and this run has {len(self.streams)}; resume "
                    "with the same, or start a new run from its weights with --start_from"
                )
            self.turn = state["turn"]

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
