"""Corpora of annotated conversations: directories and Hub sets, who is held out, what is refused and what is lost."""

import itertools
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotated_fixtures import CONFIG, batches, rttm, same, talks, whole, write_directory, write_hub_set
from corpora_fixtures import SAMPLING_RATE, encode_flac
from loopback_clients import redirect
from loopback_hub import LoopbackHub

from data.annotated import open_source
from data.annotated_stream import AnnotatedStream
from data.annotations import annotated_conversations
from data.corpora import CorpusError, open_corpus
from data.decoding import decode
from data.excerpts import choose_excerpts


@pytest.fixture(scope="module")
def made():
    return talks()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["beside", "together", "splits"])
def test_layouts_of_a_directory(tmp_path, made, layout):
    if layout == "splits":
        write_directory(tmp_path / "train", made[:4])
        write_directory(tmp_path / "validation", made[4:], together=True)
    else:
        write_directory(tmp_path, made, together=layout == "together")
    train, held_out = (whole(open_source(str(tmp_path), split)) for split in ("train", "validation"))
    assert train.keys() | held_out.keys() == {talk.name for talk in made} and not train.keys() & held_out.keys()
    assert len(held_out) == (2 if layout == "splits" else 1)
    for talk in made:
        found = (train | held_out)[talk.name]
        assert [(round(s, 3), round(e, 3), who) for s, e, who in found.turns] == talk.turns


def test_who_is_held_out_depends_on_the_names_alone(tmp_path, made):
    write_directory(tmp_path / "one", made)
    write_directory(tmp_path / "other", made[::-1], together=True)
    held_out = [set(whole(open_source(str(tmp_path / name), "validation"))) for name in ("one", "other")]
    assert held_out[0] == held_out[1]


def test_a_fingerprint_tells_of_other_turns_and_other_sound(tmp_path, made):
    write_directory(tmp_path, made)
    before = open_source(str(tmp_path), "train").fingerprint()
    assert open_source(str(tmp_path), "train").fingerprint() == before
    name = next(iter(whole(open_source(str(tmp_path), "train"))))
    lines = (tmp_path / f"{name}.rttm").read_text()
    (tmp_path / f"{name}.rttm").write_text(lines.replace(" A ", " Z ", 1))
    renamed = open_source(str(tmp_path), "train").fingerprint()
    (tmp_path / f"{name}.rttm").write_text(lines)
    (tmp_path / f"{name}.uem").write_text(f"{name} 1 0.0 9.0\n")
    assert len({before, renamed, open_source(str(tmp_path), "train").fingerprint()}) == 3


def test_uem_says_what_is_annotated(tmp_path, made):
    write_directory(tmp_path, made)
    (tmp_path / "parts.uem").write_text("".join(f";; comment\n{t.name} 1 1.0 2.5\n{t.name} 1 6 9\n" for t in made))
    for conversation in whole(open_source(str(tmp_path), "train")).values():
        assert conversation.annotated_regions() == ((1.0, 2.5), (6.0, 9.0))


def test_a_recording_in_which_nobody_speaks(tmp_path, made):
    write_directory(tmp_path, made)
    (tmp_path / "silence.flac").write_bytes(encode_flac(made[0].waveform * 0.01))
    (tmp_path / "silence.rttm").write_text("")
    silence = {c.name: c for c in annotated_conversations(tmp_path)}["silence"]
    excerpts = choose_excerpts(np.random.default_rng(0), silence, 50, 2, None, 1.0)
    assert len(excerpts.starts) == 12 and not excerpts.labels.any() and (excerpts.speakers == -1).all()


@pytest.mark.slow
def test_they_serve_as_a_corpus_of_single_speakers_too(tmp_path, made):
    write_directory(tmp_path, made)
    rows = [row for unit in range(5) for row in open_source(str(tmp_path), "train").read(unit)]
    talk = {talk.name: talk for talk in made}[rows[0].speaker.split(",")[0]]
    solo = decode(rows[0].audio)
    assert len(solo) >= SAMPLING_RATE and rows[0].speaker.endswith((", A", ", B", ", C"))
    shifts = np.lib.stride_tricks.sliding_window_view(talk.waveform, len(solo))[::16]
    assert np.abs(shifts - solo).max(axis=1).min() < 2 / 32768


def wrong_directories(path: Path, made: list) -> dict[str, str]:
    """Directories that cannot be used, and what is said."""
    a, b, *_ = made
    flac = encode_flac(a.waveform)
    files = {
        "one": {"talk0.flac": flac, "talk0.rttm": rttm(a)},
        "lost": {"talk0.flac": flac, "all.rttm": rttm(a) + rttm(b)},
        "bare": {"talk0.flac": flac, "talk1.flac": flac, "talk0.rttm": rttm(a)},
        "both": {"talk0.flac": flac, "talk0.rttm": rttm(a), "all.rttm": rttm(a) + rttm(b), "talk1.flac": flac},
        "misnamed": {"call.flac": flac, "all.rttm": rttm(a) + rttm(b)},
        "long": {"talk0.flac": encode_flac(a.waveform[:32_000]), "talk0.rttm": rttm(a)},
        "nameless": {f"{n}.flac": flac for n in "xyz"}
        | {f"{n}.rttm": f"SPEAKER {n} 1 0 2 <NA> <NA> speaker <NA> <NA>\n" for n in "xyz"},
        "nobody": {"x.flac": flac, "x.rttm": "", "y.flac": flac, "y.rttm": ""},
        "broken": {"talk0.flac": flac, "talk0.rttm": "SPEAKER talk0 1 zero 1 <NA> <NA> A <NA> <NA>\n"},
        "region": {"talk0.flac": flac, "talk0.rttm": rttm(a), "talk0.uem": "talk0 1 5 4\n"},
        "twice": {"a/talk0.flac": flac, "b/talk0.wav": flac, "talk0.rttm": rttm(a)},
        "loose": {"talk0.flac": flac, "talk1.flac": flac},
        "untrained": {"validation/talk0.flac": flac, "validation/talk0.rttm": rttm(a)},
    }
    for directory, contents in files.items():
        for name, content in contents.items():
            file = path / directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {
        "one": "has 1 recording; at least 2 are needed, 1 of them held out",
        "lost": r"all.rttm speaks of 'talk1', and no audio file below .* has that name",
        "bare": r"talk1.flac has no reference: no RTTM file below .* speaks of 'talk1' \(there is none left\)",
        "both": r"talk0.flac has more than one reference, in all.rttm, talk0.rttm; keep one of them",
        "misnamed": r"call.flac has no reference: .* speaks of 'call' \(they speak of talk0, talk1\)",
        "long": r"reference of 'talk0' goes on to \d+.\d s, its audio ends at 2.0 s",
        "nameless": "names one speaker in each recording .such as 'speaker'.; to tell people apart",
        "nobody": "has references without a single turn",
        "broken": "talk0.rttm:1: start is 'zero'; expected seconds",
        "region": "talk0.uem:1: start is 5 and end is 4",
        "twice": "are both recording 'talk0'; give each its own name",
        "loose": r"has audio and no RTTM file \(talk0.flac and others\)",
        "untrained": "has a directory validation and none called train",
    }


def test_what_cannot_be_used_is_one_line(tmp_path, made):
    for directory, message in wrong_directories(tmp_path, made).items():
        with pytest.raises(CorpusError, match=message) as error:
            open_source(str(tmp_path / directory), "train")
        assert "\n" not in str(error.value) and directory in str(error.value)


# Rows of the Hub's conversation sets


@pytest.fixture
def hub(tmp_path, monkeypatch, made):
    with LoopbackHub() as server:
        write_hub_set(tmp_path / "set", made)
        server.add_repository("user/talks", tmp_path / "set")
        redirect(server.url, tmp_path / "cache", monkeypatch.setattr)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server


@pytest.mark.hub
def test_rows_of_the_hub_are_conversations(hub, made):
    train, held_out = (open_source("user/talks", split) for split in ("train", "validation"))
    assert len(train) == 2 and len(held_out) == 1
    assert [list(c.turns) for c in whole(train).values()] == [made[n].turns for n in (0, 2, 1, 3)]
    assert [list(c.turns) for c in whole(held_out).values()] == [made[n].turns for n in (4, 5)]
    assert train.revision == hub.repositories["dataset", "user/talks"].head.oid


@pytest.mark.hub
def test_the_hub_gives_the_windows_that_a_directory_gives(hub, tmp_path, made):
    stream = AnnotatedStream(open_source("user/talks", "train"), CONFIG)
    talk_of = {rttm_turns: talk for talk in made for rttm_turns in [tuple(talk.turns)]}
    conversation = next(open_source("user/talks", "train").conversations(0))
    assert conversation.audio == encode_flac(talk_of[conversation.turns].waveform)
    hub.forget_requests()
    one = batches(stream, 10)
    hub.faults.add("*.parquet", "reset", times=3, at=0.5)
    hub.faults.add("*.parquet", "status", times=2, skip=2, code=503)
    assert same(batches(AnnotatedStream(open_source("user/talks", "train"), CONFIG), 10), one)


def test_without_a_validation_split_every_tenth_row_is_held_out(tmp_path, made):
    write_hub_set(tmp_path, made)
    (tmp_path / "data" / "validation-00000-of-00001.parquet").unlink()
    (tmp_path / "README.md").unlink()
    train, held_out = (whole(open_source(str(tmp_path), split)) for split in ("train", "validation"))
    assert (len(train), len(held_out)) == (3, 1) and not train.keys() & held_out.keys()


def test_rows_of_no_use_are_counted_among_good_ones(tmp_path, made, caplog):
    a, b, c, d, *rest = made
    long = type(a)("long", a.waveform[:16_000], a.turns)
    write_hub_set(tmp_path, [a, type(b)("damaged", np.zeros(0, np.float32), b.turns), long, d, *rest], shards=1)
    stream = AnnotatedStream(open_source(str(tmp_path), "train"), CONFIG)
    with caplog.at_level(logging.WARNING):
        made_of = list(itertools.islice((b for _, b in stream.block_batches(0)), 6))
    assert len(made_of) == 6
    assert stream.skipped["references that do not fit the audio"] >= 1
    assert sum(stream.skipped.values()) >= 2 and any("the last one" in m for m in caplog.messages)


@pytest.mark.parametrize("end", [math.inf, math.nan, 8.64e7, None])
def test_times_that_are_not_seconds_cost_one_row(tmp_path, made, end):
    wrong = replace(made[0], waveform=np.zeros(0, np.float32), turns=[*made[0].turns, (1.0, end, "A")])
    write_hub_set(tmp_path, [wrong, *made[1:]], shards=1)
    stream = AnnotatedStream(open_source(str(tmp_path), "train"), CONFIG)
    assert len(list(itertools.islice((b for _, b in stream.block_batches(0)), 6))) == 6
    assert stream.skipped["references that do not fit the audio"] >= 1
    speakers = {row.speaker for row in open_corpus(str(tmp_path), "train").read(0)}
    assert "" in speakers and {s.rpartition(", ")[0][-5:] for s in speakers if s} == {"row 1"}


def test_everybody_with_one_name_on_the_hub(tmp_path, made):
    write_hub_set(tmp_path, [type(t)(t.name, t.waveform, [(s, e, "speaker") for s, e, _ in t.turns]) for t in made])
    with pytest.raises(CorpusError, match="names one speaker in each recording .such as 'speaker'"):
        open_source(str(tmp_path), "train")
