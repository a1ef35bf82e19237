"""The stream of a run that is resumed: the same batches, little read again."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from training_runs import write_corpus

from data.corpora import CorpusError, Utterances, open_corpus
from data.streaming import ConversationStream, PositionedLoader, StreamConfig
from training.checkpoints import newest_local

pytestmark = pytest.mark.training


SETTINGS = StreamConfig(batch_size=4, window_seconds=1.0, units_per_block=2, windows_per_utterance=2)


class CountingUtterances(Utterances):
    """Counts the units that are read."""

    def __init__(self, utterances: Utterances):
        self.__dict__.update(vars(utterances))
        self.read_units = []

    def read(self, unit: int):
        self.read_units.append(unit)
        return super().read(unit)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> Utterances:
    corpus = tmp_path_factory.mktemp("corpus")
    write_corpus(corpus)
    return open_corpus(str(corpus), "train")


def batches(stream: ConversationStream, count: int, workers: int = 0) -> tuple[list[dict], dict]:
    """The first batches and the state after them."""
    loader = PositionedLoader(stream, workers)
    return [batch for batch, _ in zip(loader, range(count))], loader.state_dict()


@pytest.mark.parametrize("done", [1, 4, 7, 13, 18])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_it_was(utterances, done, workers):
    loader = PositionedLoader(ConversationStream(utterances, SETTINGS), 0)
    whole, state = [], None
    for batch, number in zip(loader, range(24)):
        whole.append(batch)
        if number == done - 1:
            state = json.loads(json.dumps(loader.state_dict()))
    rest, _ = batches(ConversationStream(utterances, SETTINGS, state=state), 24 - done, workers)
    for one, other in zip(whole[done:], rest):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("step", [100, 10_000])
def test_what_is_read_again_does_not_grow_with_the_step(utterances, step):
    counting = CountingUtterances(utterances)
    stream = ConversationStream(counting, SETTINGS)
    blocks = step // 5 // SETTINGS.lanes
    state = {"turn": 0, "lanes": [[k + SETTINGS.lanes * blocks, 3] for k in range(SETTINGS.lanes)]}
    state["stream"] = stream.identity()
    given, _ = batches(ConversationStream(counting, SETTINGS, state=state), SETTINGS.lanes)
    assert len(given) == SETTINGS.lanes
    again = [unit for k in range(SETTINGS.lanes) for unit in stream.units_of(k + SETTINGS.lanes * blocks)]
    assert counting.read_units == again, "one block a lane, and nothing else"


def test_no_window_comes_twice_in_lanes_of_several_processes(utterances):
    streams = [ConversationStream(utterances, SETTINGS, rank, 3) for rank in range(3)]
    places = [tuple(batch["position"]) for stream in streams for batch, _ in zip(stream, range(40))]
    blocks = {place[1:] for place in places}
    assert len(blocks) == len(places)
    opened = {block for block, _ in blocks}
    first_pass = range(streams[0].blocks_per_pass)
    assert set(first_pass) <= opened, "no block of the first pass is left out"


def test_a_stream_of_another_number_of_processes_is_refused(utterances):
    _, state = batches(ConversationStream(utterances, SETTINGS, 0, 2), 3)
    with pytest.raises(CorpusError, match="made with processes 2 and this run has 1"):
        ConversationStream(utterances, SETTINGS, state=state)


def test_newest_local_of_nothing(tmp_path):
    assert newest_local(tmp_path / "none") is None


def test_a_corpus_rewritten_at_the_same_size_is_refused_and_one_touched_is_said(tmp_path, caplog):
    write_corpus(tmp_path)
    file = tmp_path / "train-0.parquet"
    _, state = batches(ConversationStream(open_corpus(str(tmp_path), "train"), SETTINGS), 3)
    state, before = json.loads(json.dumps(state)), file.read_bytes()
    os.utime(file, (0, 2**31 - 1))
    ConversationStream(open_corpus(str(tmp_path), "train"), SETTINGS, state=state)
    assert "have other dates than at the checkpoint; the samples that are compared are the same" in caplog.text
    audio = pq.read_table(file)["audio"][7].as_py()["bytes"]
    at = before.index(audio)
    file.write_bytes(before[:at] + audio[::-1] + before[at + len(audio) :])
    assert file.stat().st_size == len(before)
    changed = open_corpus(str(tmp_path), "train")
    with pytest.raises(CorpusError, match="made with contents of the data '[0-9a-f]{12}' and this run has"):
        ConversationStream(changed, SETTINGS, state=state)


def test_another_speaker_column_is_refused(tmp_path):
    write_corpus(tmp_path)
    for file in tmp_path.glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.append_column("client", table["speaker_id"]), file, row_group_size=5)
    _, state = batches(ConversationStream(open_corpus(str(tmp_path), "train"), SETTINGS), 3)
    with pytest.raises(CorpusError, match="made with speaker column 'speaker_id' and this run has 'client'"):
        ConversationStream(open_corpus(str(tmp_path), "train", "client"), SETTINGS, state=state)
