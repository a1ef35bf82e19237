"""Annotated conversations as training data: what windows hold, what is refused, and that all of it can go on."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from annotated_fixtures import CONFIG, batches, same, talks, whole, write_directory
from corpora_fixtures import SAMPLING_RATE
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import SMALL

import train
from data.acoustics import Augmentation
from data.annotated import open_source
from data.annotated_stream import AnnotatedStream
from data.annotations import Conversation
from data.conversations import speaker_number
from data.corpora import open_corpus
from data.excerpts import choose_excerpts, cut_excerpts, speaker_activity
from data.mixing import MixedStream, windows_of_shares
from data.streaming import ConversationStream, PositionedLoader, StreamConfig
from modeling.audio_fast_diarization import AudioError
from modeling.loss_fast_diarization import contrastive_speaker_loss

FRAME = 320
REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "conversations"


@pytest.fixture(scope="module")
def made():
    return talks()


@pytest.fixture(scope="module")
def directory(tmp_path_factory, made) -> Path:
    path = tmp_path_factory.mktemp("calls")
    write_directory(path, made)
    return path


# Windows and their labels

turns = st.lists(
    st.tuples(st.integers(0, 900), st.integers(1, 300), st.sampled_from("ABCD")).map(
        lambda t: (t[0] / 100, (t[0] + t[1]) / 100, t[2])
    ),
    min_size=1,
    max_size=12,
)


def reference_at(drawn, seconds: float) -> dict[str, bool]:
    return {who: any(s <= seconds < e for s, e, w in drawn if w == who) for who in "ABCD"}


@pytest.mark.slow
@settings(deadline=None)
@given(turns, st.sampled_from([None, (0.1, 0.4, 0.5)]), st.integers(0, 99))
def test_labels_are_the_reference_on_the_frame_grid(drawn, shares, seed):
    """Counted frame by frame at the centres of frames; the order of people does not matter."""
    conversation = Conversation("talk", b"", tuple(drawn), ((0.0, 12.0),))
    excerpts = choose_excerpts(np.random.default_rng(seed), conversation, 50, 2, shares, 1.0)
    assert len(excerpts.starts) == 12 and (np.diff(excerpts.starts) >= 0).all()
    crowded = 0
    for start, labels, speakers in zip(excerpts.starts, excerpts.labels, excerpts.speakers):
        expected = [reference_at(drawn, (start + frame + 0.5) * 0.02) for frame in range(50)]
        totals = {who: sum(at[who] for at in expected) for who in "ABCD"}
        crowded += sum(total > 0 for total in totals.values()) > 2
        kept = [excerpts.names[place] if place >= 0 else None for place in speakers]
        for track, who in enumerate(kept):
            assert labels[:, track].tolist() == [float(who is not None and at[who]) for at in expected]
        assert sorted(totals[who] for who in kept if who) == [n for n in sorted(totals.values())[-2:] if n]
    assert excerpts.crowded == crowded


@pytest.mark.slow
@settings(deadline=None)
@given(turns, st.integers(0, 99), st.randoms())
def test_the_order_of_turns_does_not_matter(drawn, seed, shuffler):
    shuffled = list(drawn)
    shuffler.shuffle(shuffled)
    one, other = (
        choose_excerpts(np.random.default_rng(seed), Conversation("", b"", tuple(t), ((0, 12),)), 50, 4, None, 1.0)
        for t in (drawn, shuffled)
    )
    assert one.starts.tolist() == other.starts.tolist()
    np.testing.assert_array_equal(np.sort(one.labels, axis=2), np.sort(other.labels, axis=2))


def test_windows_lie_within_the_annotated_regions():
    conversation = Conversation("", b"", ((0.0, 100.0, "A"),), ((2.0, 4.0), (10.0, 11.0), (20.0, 20.5)))
    starts = choose_excerpts(np.random.default_rng(0), conversation, 50, 2, None, 40.0).starts
    assert set(starts) <= {*range(100, 151), 500} and {100, 150, 500} <= set(starts)


def test_windows_come_in_the_shares_asked_for_as_far_as_there_are_any():
    rng = np.random.default_rng(0)

    def shares_of(turns: list) -> list[float]:
        conversation = Conversation("", b"", tuple(turns), ((0.0, 3000.0),))
        heard = choose_excerpts(rng, conversation, 150, 2, (0.1, 0.3, 0.6), 1.0).labels.any(axis=1).sum(axis=1)
        return [float((heard == k).mean()) for k in range(3)]

    alternating = [(float(t), t + 5.5, "AB"[t // 5 % 2]) for t in range(0, 2000, 5)]
    np.testing.assert_allclose(shares_of(alternating), (0.1, 0.3, 0.6), atol=0.04)
    alone = [(float(t), t + 20.0, "A") for t in range(0, 3000, 25)]
    none, one, two = shares_of([*alone, (1000.0, 1200.0, "B")])
    assert 0.2 < two < 0.3 and none > 0.07 and one > 0.6, "what is rare comes four times as often and no more"


def test_the_sound_of_a_window_is_that_of_the_recording_there(tmp_path):
    waveform = np.random.default_rng(0).uniform(-1, 1, 70 * SAMPLING_RATE).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", waveform, SAMPLING_RATE, subtype="FLOAT")
    starts = np.array(
        [0, 0, 29 * SAMPLING_RATE + 160, 29 * SAMPLING_RATE + 320, 60 * SAMPLING_RATE, 67 * SAMPLING_RATE]
    )
    windows = list(cut_excerpts(tmp_path / "noise.wav", starts, 3 * SAMPLING_RATE))
    assert len(windows) == len(starts)
    for start, window in zip(starts, windows):
        np.testing.assert_array_equal(window, waveform[start : start + 3 * SAMPLING_RATE])
    beyond = np.append(starts, [68 * SAMPLING_RATE, 90 * SAMPLING_RATE])
    assert len(list(cut_excerpts(tmp_path / "noise.wav", beyond, 3 * SAMPLING_RATE))) == len(starts)
    with pytest.raises(AudioError):
        list(cut_excerpts(b"no audio", starts, 100))


@pytest.mark.slow
def test_batches_hold_what_is_said_and_heard(directory, made):
    """Every window is found again in the talks, and its labels are the reference there."""
    conversations = open_source(str(directory), "train")
    by_number = {speaker_number(f"{talk.name} {talk.name}"): talk for talk in made}
    overlapped = 0
    for batch in batches(AnnotatedStream(conversations, CONFIG), 12):
        assert batch["input_values"].shape == (4, SAMPLING_RATE) and batch["labels"].shape == (4, 50, 2)
        for window, labels, speakers, recording in zip(*(batch[k].numpy() for k in batch)):
            talk = by_number[int(recording)]
            waveform = np.round(talk.waveform * 32768) / 32768
            shifts = np.lib.stride_tricks.sliding_window_view(waveform, SAMPLING_RATE)[::FRAME]
            (found,) = np.flatnonzero(np.abs(shifts - window).max(axis=1) < 1 / 32768 + 1e-6)
            active, names = speaker_activity(Conversation("", b"", tuple(talk.turns)), 600)
            for track, number in zip(labels.T, speakers):
                who = [n for n in names if speaker_number(f"{talk.name} {talk.name} {n}") == number]
                expected = active[names.index(who[0]), found : found + 50] if who else np.zeros(50)
                assert (number == -1) == (not track.any())
                np.testing.assert_array_equal(track, expected)
            overlapped += (labels.sum(axis=1) == 2).any()
    assert overlapped > 5, "overlaps are kept"


@pytest.mark.slow
def test_only_the_level_is_changed_and_nothing_clips(directory):
    conversations = open_source(str(directory), "train")
    plain = batches(AnnotatedStream(conversations, CONFIG), 4)
    louder = batches(AnnotatedStream(conversations, replace(CONFIG, augmentation=Augmentation())), 4)
    for one, other in zip(plain, louder):
        assert torch.equal(one["labels"], other["labels"])
        gain = other["input_values"].abs().amax(1) / one["input_values"].abs().amax(1)
        torch.testing.assert_close(one["input_values"] * gain[:, None], other["input_values"], atol=1e-6, rtol=1e-4)
        assert other["input_values"].abs().max() <= max(1, one["input_values"].abs().max())
        assert ((gain > 10 ** (-12.1 / 20)) & (gain < 10 ** (12.1 / 20))).all() and gain.std() > 0


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="no real conversations at hand")
def test_real_conversations():
    train, held_out = (open_source(str(REAL), split) for split in ("train", "validation"))
    assert not whole(train).keys() & whole(held_out).keys()
    config = StreamConfig(batch_size=16, units_per_block=2)
    heard = torch.cat([b["labels"].amax(1).sum(1) for b in batches(AnnotatedStream(train, config), 40)])
    assert 0.5 < (heard == 2).float().mean() < 0.7 and 0.25 < (heard == 1).float().mean() < 0.5
    stream = AnnotatedStream(held_out, config)
    assert all(b["input_values"].isfinite().all() for b in batches(stream, 4)) and not stream.skipped


# Streams


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 6, 11])
def test_a_stream_goes_on_where_it_was(directory, done):
    conversations = open_source(str(directory), "train")
    loader = PositionedLoader(AnnotatedStream(conversations, CONFIG), 0)
    whole_run = []
    for number, batch in zip(range(16), loader):
        whole_run.append(batch)
        if number == done - 1:
            state = loader.state_dict()
    rest = batches(AnnotatedStream(conversations, CONFIG, state=state), 16 - done)
    assert same(whole_run[done:], rest)


@pytest.fixture(scope="module")
def mixed_settings():
    return StreamConfig(batch_size=6, window_seconds=1.0, units_per_block=2, pool_size=12, windows_per_utterance=2)


def mixed(directory: Path, settings: StreamConfig, states=(None, None), turn: int = 0) -> MixedStream:
    simulated = ConversationStream(open_corpus("demo", "train"), settings, state=states[0])
    real = AnnotatedStream(open_source(str(directory), "train"), replace(settings, batch_size=2), state=states[1])
    return MixedStream([simulated, real], turn)


@pytest.mark.slow
def test_a_batch_holds_windows_of_all_corpora(directory, mixed_settings):
    for batch in batches(mixed(directory, mixed_settings), 6):
        assert batch["input_values"].shape == (8, SAMPLING_RATE)
        assert (batch["recording_labels"][:6] == -1).all() and (batch["recording_labels"][6:] >= 0).all()
        assert (batch["speaker_labels"] >= -1).all()


@pytest.fixture(scope="module")
def in_two_parts(directory, mixed_settings) -> tuple[list[dict], dict, list[dict]]:
    """Five batches, the state after them, and the next five."""
    loader = PositionedLoader(mixed(directory, mixed_settings), 0)
    first = [batch for batch, _ in zip(loader, range(5))]
    state = loader.state_dict()
    return first, state, [batch for batch, _ in zip(loader, range(5))]


@pytest.mark.process
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_mixed_batches_go_on_and_do_not_depend_on_workers(directory, mixed_settings, in_two_parts, workers):
    first, state, rest = in_two_parts
    again = mixed(directory, mixed_settings, state["streams"], state["turn"])
    assert same([batch for batch, _ in zip(PositionedLoader(again, workers), range(5))], rest)
    assert not same(first, rest)


@pytest.mark.slow
def test_mixed_batches_have_one_length(directory, mixed_settings):
    longer = replace(mixed_settings, long_window_seconds=2.0)
    lengths = [batch["input_values"].shape[1] for batch in batches(mixed(directory, longer), 8)]
    assert lengths == 4 * [SAMPLING_RATE, 2 * SAMPLING_RATE]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(5, 64))
def test_shares_of_a_batch(shares, size):
    sizes = windows_of_shares(size, shares)
    assert sum(sizes) == size and min(sizes) >= 1
    exact = [size * share / sum(shares) for share in shares]
    assert all(n == 1 or abs(n - e) < len(shares) for n, e in zip(sizes, exact))


def test_shares_of_the_guide():
    assert windows_of_shares(32, [0.6, 0.2, 0.2]) == [19, 7, 6]
    assert windows_of_shares(32, [1, 1]) == [16, 16]


# What the embeddings are told


def test_people_of_two_recordings_are_not_compared():
    """With two recordings in a batch the loss is that of each alone, weighed by their speakers; -1 compares all."""
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(6, 2, 8), dim=-1)
    labels = torch.zeros(6, 50, 2)
    labels[:, :25, 0] = labels[:, 25:, 1] = 1
    names = torch.tensor([[1, 2], [2, 1], [1, 2], [3, 4], [4, 3], [3, 4]])
    recordings = torch.tensor([7, 7, 7, 8, 8, 8])
    parts = [contrastive_speaker_loss(embeddings[k], names[k], labels[k]) for k in (slice(0, 3), slice(3, 6))]
    together = contrastive_speaker_loss(embeddings, names, labels, recordings)
    torch.testing.assert_close(together, sum(parts) / 2)
    everywhere = contrastive_speaker_loss(embeddings, names, labels, torch.full((6,), -1))
    torch.testing.assert_close(everywhere, contrastive_speaker_loss(embeddings, names, labels))
    assert not torch.isclose(together, everywhere)


# A run on several corpora


@pytest.mark.training
def test_each_corpus_is_scored_beside_its_floor(directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    flags = [*SMALL.split(), "--dataset", "demo", directory, "--shares", "0.75", "0.25", "--eval_windows", "16"]
    flags += ["--max_steps", "2", "--eval_on_start", "--save_steps", "2", "--output_dir", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, flags)])
    train.main()
    label = directory.name
    windows = json.loads((tmp_path / "run/model/windows.json").read_text())
    parts = [windows["corpora"][name]["all_windows"] for name in ("demo", label)]
    assert [part["windows"] for part in parts] == [8, 8] and windows["all_windows"]["windows"] == 16
    assert sum(part["speech"] for part in parts) == windows["all_windows"]["speech"]
    state = json.loads((tmp_path / "run/checkpoint-2/trainer_state.json").read_text())
    scored = [entry for entry in state["log_history"] if f"eval_{label}_der" in entry][-1]
    assert all(f"eval_{name}_{prefix}der" in scored for name in ("demo", label) for prefix in ("", "floor_"))
    card, said = (tmp_path / "run/model/README.md").read_text(), capsys.readouterr().out
    assert f"unseen speakers ({label});" in said and f"| 1 s windows held out of {label} |" in card
    trained = json.loads((tmp_path / "run/model/training.json").read_text())
    assert trained["shares"] == {"demo": 0.75, label: 0.25} and trained["dataset"] == f"demo, {directory}"
