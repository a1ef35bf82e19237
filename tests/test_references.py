"""References and evaluation maps as people bring them: bounded reading, names, recordings without speech, regions."""

import os
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.util import load_uem
from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate
from two_tones import TURNS, write_model, write_recording

import diarize
from common import text
from data.rttm import read_rttm
from data.uem import read_uem
from evaluation.recording_scores import RecordingScores, recording_table, score_recording
from evaluation.references import read_references
from evaluation.sources import SourceError, from_directory, with_regions
from evaluation.turn_errors import Turns

CONVERSATIONS = Path(__file__).parent.parent / "../shared/conversations/validation"
COMPONENTS = {"missed_speech": "missed detection", "false_alarm": "false alarm", "confusion": "confusion"}
TURN = "SPEAKER {} 1 0 1 <NA> <NA> a <NA> <NA>\n"


def annotation(*turns: tuple[float, float, str], uri: str = "call") -> Annotation:
    return Annotation.from_records(((Segment(a, b), n, who) for n, (a, b, who) in enumerate(turns)), uri=uri)


# Files


@pytest.mark.slow
def test_a_large_rttm_equals_its_turns_set_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    starts, lengths = rng.uniform(0, 1e5, 30_000).round(3), rng.uniform(0.001, 9, 30_000).round(3)
    lines, slow = [], {name: Annotation(uri=name) for name in ("a", "b")}
    for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist()), 1):
        name, speaker = "ab"[number % 2], f"s{number % 7}"
        lines.append(f"SPEAKER {name} 1 {start} {length} <NA> <NA> {speaker} <NA> <NA>\n")
        slow[name][Segment(start, start + length), number] = speaker
    (tmp_path / "large.rttm").write_text("".join(lines))
    read = read_rttm(tmp_path / "large.rttm")
    assert read == slow
    assert {name: turns.labels() for name, turns in read.items()} == {
        name: turns.labels() for name, turns in slow.items()
    }
    assert all(read[name].get_timeline() == slow[name].get_timeline() for name in slow)


@pytest.mark.parametrize("read", [read_rttm, read_uem])
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_a_device_is_no_reference(read, device):
    with pytest.raises(ValueError, match=f"^{device}: a device, not a file; expected lines of '"):
        read(device)


@pytest.mark.parametrize("read", [read_rttm, read_uem])
def test_what_is_binary_or_too_large_is_named(read, tmp_path, monkeypatch):
    (tmp_path / "binary").write_bytes(b";; one\n;; two\n\0\0")
    with pytest.raises(ValueError, match="binary:3: not UTF-8 text; expected lines of"):
        read(tmp_path / "binary")
    monkeypatch.setattr(text, "LARGEST", 2_000_000)
    (tmp_path / "large").write_bytes(b";;\n" * 1_000_000)
    with pytest.raises(ValueError, match="large: more than 2 MB; expected lines of"):
        read(tmp_path / "large")


def test_a_pipe_without_end_is_read_no_further_than_the_limit(monkeypatch):
    monkeypatch.setattr(text, "LARGEST", 1_000_000)
    reading, writing = os.pipe()
    written = []

    def write():
        with os.fdopen(writing, "wb", 0) as pipe, pytest.raises(BrokenPipeError):
            while True:
                written.append(pipe.write(b";; again and again\n" * 1000))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(ValueError, match="more than 1 MB"):
            read_rttm(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        thread.join()
    assert sum(written) < 4_000_000


def test_a_pipe_with_a_reference_is_read():
    reading, writing = os.pipe()
    os.write(writing, TURN.format("call").encode())
    os.close(writing)
    try:
        assert list(read_rttm(f"/dev/fd/{reading}")) == ["call"]
    finally:
        os.close(reading)


def test_uem_is_read_as_pyannote_reads_it(tmp_path):
    path = tmp_path / "all.uem"
    path.write_text("b 1 0.5 10\na 1 0 2.25\nb 1 20 30.125\n")
    ours, theirs = read_uem(path), load_uem(path)
    assert list(ours) == ["b", "a"]
    assert {name: list(regions) for name, regions in ours.items()} == {n: list(r) for n, r in theirs.items()}
    path.write_text("\ufeff;; made by hand\r\n\r\nb 1 5 10\r\nb 1 0 6\r\n")
    assert list(read_uem(path)["b"]) == [Segment(0, 10)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("call 1 0", "3 fields; expected 4, 'file channel start end'"),
        ("call 1 zero 1", "start is 'zero'; expected seconds, 0 or more"),
        ("call 1 0 inf", "end is 'inf'; expected seconds"),
        ("call 1 5 5", "start is 5 and end is 5; expected an end after the start"),
        ("call 1 6 5", "start is 6 and end is 5"),
    ],
)
def test_malformed_uem_is_named_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "broken.uem"
    path.write_text(f"call 1 0 1\n{line}\n")
    with pytest.raises(ValueError) as caught:
        read_uem(path)
    assert str(caught.value).startswith(f"{path}:2: {message}")
    path.write_text(";; nothing\n")
    with pytest.raises(ValueError, match="broken.uem: no region; expected lines of"):
        read_uem(path)


# References by name


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("call.rttm").write_text(TURN.format("call"))
    Path("other.rttm").write_text(TURN.format("other"))
    Path("empty.rttm").touch()
    Path("both.uem").write_text("call 1 0 5\nsilent 1 0 9\n")


def test_a_reference_of_another_recording_is_refused_unless_asked(files):
    with pytest.raises(ValueError, match="has no recording 'call', only: other; .* --ignore_reference_name takes it"):
        read_references("other.rttm", ["call"])
    assert len(read_references("other.rttm", ["call"], any_name=True)["call"].turns) == 1
    with pytest.raises(ValueError, match="has no recording 'call', only: other; a recording is known") as caught:
        read_references("other.rttm", ["call", "b"], any_name=True)
    assert "ignore" not in str(caught.value)


def test_a_file_without_turns_is_the_reference_of_silence(files, capsys):
    assert not read_references("empty.rttm", ["call"])["call"].turns
    assert capsys.readouterr().err == "warning: the reference of 'call' has no speech\n"
    found = read_references(".", ["empty", "call"])
    assert (len(found["empty"].turns), len(found["call"].turns)) == (0, 1)
    with pytest.raises(ValueError, match="no recording 'call', only: empty"):
        read_references("empty.rttm", ["call", "b"])


def test_a_recording_in_the_map_alone_has_no_speech(files, capsys):
    found = read_references("call.rttm", ["call", "silent"], "both.uem")
    assert not found["silent"].turns and found["silent"].regions == Timeline([Segment(0, 9)])
    assert "'silent' has no speech" in capsys.readouterr().err
    Path("call.uem").write_text("call 1 0 5\n")
    with pytest.raises(ValueError, match="--uem call.uem has no recording 'silent', only: call; add its regions"):
        read_references("call.rttm", ["call", "silent"], "call.uem")
    with pytest.raises(ValueError, match="--uem absent.uem: No such file or directory; give a UEM file"):
        read_references("call.rttm", ["call"], "absent.uem")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_compared_normalised(files, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    name, written = (unicodedata.normalize(f, "café au lait") for f in (form, other))
    Path("names.rttm").write_text(TURN.format(written.replace(" ", "_")))
    Path("names.uem").write_text(f"{written.replace(' ', '_')} 1 0 5\n")
    truth = read_references("names.rttm", [name], "names.uem")[name]
    assert len(truth.turns) == 1 and truth.regions and truth.turns.uri == name


def test_many_names_make_no_endless_message(files):
    Path("many.rttm").write_text("".join(TURN.format(f"call{number}") for number in range(5000)))
    with pytest.raises(ValueError, match="only: call0, call1, call2, call3, call4 and 4995 more; ") as caught:
        read_references("many.rttm", ["call"])
    assert len(str(caught.value)) < 300


# Scores


@st.composite
def turns(draw, uri: str = "call") -> Annotation:
    edges = st.integers(0, 60).map(lambda edge: edge / 4)
    found = draw(st.lists(st.tuples(edges, edges, st.sampled_from("abc")), max_size=8))
    return annotation(*((a, b, who) for a, b, who in found if a < b), uri=uri)


@settings(max_examples=60, deadline=None)
@given(turns(), turns(), turns(), st.sampled_from([0.0, 0.5]), st.booleans())
def test_regions_are_scored_as_pyannote_metrics_does(reference, hypothesis, drawn, collar, skip_overlap):
    uem = drawn.get_timeline().support() or Timeline([Segment(1, 9)])
    scores = score_recording(reference, hypothesis, uem, collar, skip_overlap)
    chosen = {"collar": collar, "skip_overlap": skip_overlap}
    theirs = DiarizationErrorRate(**chosen)(reference.support(), hypothesis.support(), uem=uem, detailed=True)
    assert scores["speech"] == pytest.approx(theirs["total"], abs=1e-6)
    if not theirs["total"]:
        assert scores["scored_seconds"] == pytest.approx(uem.duration())
        assert scores["false_alarm_seconds"] == pytest.approx(theirs["false alarm"], abs=1e-6)
        return
    for name, component in COMPONENTS.items():
        assert scores[name] * theirs["total"] == pytest.approx(theirs[component], abs=1e-5)
    jaccard = JaccardErrorRate(**chosen)(reference.support(), hypothesis.support(), uem=uem)
    assert scores["jaccard_error_rate"] < jaccard + 1e-5, "of equally good mappings ours has the least"


@pytest.mark.skipif(not CONVERSATIONS.is_dir(), reason=f"no real conversations at {CONVERSATIONS}")
@pytest.mark.parametrize("collar", [0.0, 0.5])
def test_real_turns_are_scored_as_pyannote_metrics_does(collar):
    rng = np.random.default_rng(0)
    for file in sorted(CONVERSATIONS.glob("*.rttm"))[::4]:
        ((name, reference),) = read_rttm(file).items()
        hypothesis = Annotation(uri=name)
        for track, (turn, _, who) in enumerate(reference.itertracks(yield_label=True)):
            start, end = np.add((turn.start, turn.end), rng.normal(0, 0.2, 2)).clip(0)
            if end > start and rng.random() < 0.9:
                hypothesis[Segment(start, end), track] = who if rng.random() < 0.8 else f"other {track % 3}"
        uem = Timeline([reference.get_timeline().extent() | hypothesis.get_timeline().extent()])
        scores = score_recording(reference, hypothesis, collar=collar)
        for metric, rate in (
            (DiarizationErrorRate, "diarization_error_rate"),
            (JaccardErrorRate, "jaccard_error_rate"),
        ):
            expected = metric(collar=collar)(reference.support(), hypothesis.support(), uem=uem)
            assert scores[rate] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(turns())
def test_turns_of_one_speaker_are_merged_as_pyannote_does(drawn):
    ours = Turns.of(drawn)
    theirs = [(who, turn.start, turn.end) for turn, _, who in drawn.support().itertracks(yield_label=True)]
    labels = sorted(drawn.labels())
    assert sorted((labels[n], *span) for n, span in zip(ours.speakers, ours.spans.tolist())) == sorted(theirs)
    everyone = [(turn.start, turn.end) for turn in drawn.get_timeline().support()]
    assert list(map(tuple, ours.of_anyone().spans.tolist())) == everyone


@pytest.mark.slow
def test_a_day_of_turns_is_scored_too():
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(0, 86_400, 50_000).round(3))
    many = annotation(*((start, start + 1.5, f"s{n % 9}") for n, start in enumerate(starts.tolist())))
    scores = score_recording(many, many)
    assert (scores["diarization_error_rate"], scores["jaccard_error_rate"]) == (0, 0)
    assert scores["floor_missed_speech"] > 0 and scores["reference_speakers"] == 9


def test_false_alarm_without_speech_is_given_in_seconds_and_seconds_a_minute():
    scores = RecordingScores()
    scores.add(annotation(uri="tone"), annotation((0, 12, "a"), (20, 23, "b"), uri="tone"), seconds=120.0)
    scores.add(annotation(uri="music"), annotation(uri="music"), Timeline([Segment(0, 40), Segment(50, 70)]))
    result = scores.result()
    assert result["recordings"]["tone"]["false_alarm_seconds"] == 15
    assert result["total"]["false_alarm_seconds"] == 15 and result["total"]["scored_seconds"] == 180
    assert recording_table(result).splitlines()[4:] == [
        "| tone | 0.0 | - | - | 15.0 s, 7.5 s a minute | - | - | 2 (0) |",
        "| music | 0.0 | - | - | 0.0 s, 0.0 s a minute | - | - | 0 (0) |",
        "| total | 0.0 | - | - | 15.0 s, 5.0 s a minute | - | - | off by 1.0 |",
    ]
    scores.add(annotation((0, 10, "a")), annotation((0, 10, "a")))
    assert scores.result()["total"]["false_alarm"] == 1.5, "15 s over the 10 s of the third"


def test_numbers_of_speakers_are_exact_or_within_one():
    scores = RecordingScores()
    for found in range(1, 5):
        everyone = [(float(n), n + 1.0, str(n)) for n in range(found)]
        scores.add(annotation((0, 1, "a"), (1, 2, "b"), uri=str(found)), annotation(*everyone, uri=str(found)))
    total = scores.result()["total"]
    assert (total["count_exact"], total["count_within_one"], total["speaker_count_error"]) == (0.25, 0.75, 1.0)


# Where they are used


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


def test_diarize_scores_regions_and_silence(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_recording(Path("call.wav"))
    Path("call.rttm").write_text(
        "".join(f"SPEAKER call 1 {a} {b - a} <NA> <NA> p{who} <NA> <NA>\n" for a, b, who in (*TURNS[:2], (9, 10, 2)))
    )
    Path("half.uem").write_text("call 1 0 7\n")
    assert diarize.main(["call.wav", "--model", model, "--reference", "call.rttm", "--uem", "half.uem"]) == 0
    # Of the regions 4 s are of one speaker and 2 s of the other; the oracle's only speaker shares 4 of 6 s with one.
    row = "| call | 6.0 | 0.0 (33.3) | 0.0 (0.0) | 0.0 (0.0) | 0.0 (33.3) | 0.0 (66.7) | 2 (2) |"
    assert row in capsys.readouterr().out
    Path("silence.rttm").touch()
    assert diarize.main(["call.wav", "--model", model, "--reference", "silence.rttm"]) == 0
    assert "| call | 0.0 | - | - | 12.0 s, 48.0 s a minute | - | - | 2 (0) |" in capsys.readouterr().out
    Path("other.rttm").write_text(TURN.format("other"))
    told = ["call.wav", "--model", model, "--reference", "other.rttm"]
    assert diarize.main(told) == 2
    assert "no recording 'call', only: other" in capsys.readouterr().err
    assert diarize.main([*told, "--ignore-reference-name"]) == 0


@pytest.mark.parametrize("flag", [["--uem", "a.uem"], ["--ignore_reference_name"]])
def test_what_is_for_scoring_needs_a_reference(flag, capsys):
    with pytest.raises(SystemExit):
        diarize.parse(["call.wav", *flag])
    assert "are for scoring; add --reference" in capsys.readouterr().err


def test_directories_hold_silence_regions_and_other_names(tmp_path):
    for name in ("tone", unicodedata.normalize("NFD", "café")):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    (tmp_path / "tone.rttm").touch()
    (tmp_path / "all.rttm").write_text(TURN.format(unicodedata.normalize("NFC", "café")))
    found = {reference.name: reference for reference in from_directory(tmp_path)}
    assert {name: len(reference.turns) for name, reference in found.items()} == {"tone": 0, "café": 1}
    (tmp_path / "some.uem").write_text("tone 1 0 0.5\n")
    with pytest.raises(SourceError, match="some.uem has no recording 'café', only: tone; add it"):
        with_regions(list(found.values()), str(tmp_path / "some.uem"))
    (tmp_path / "some.uem").write_text("tone 1 0 0.5\ncafe\u0301 1 0 1\n")
    limited = with_regions(list(found.values()), str(tmp_path / "some.uem"))
    assert {reference.name: reference.regions.duration() for reference in limited} == {"tone": 0.5, "café": 1}
    (tmp_path / "tone.rttm").write_text(TURN.format("another"))
    with pytest.warns(UserWarning, match="tone.rttm names 'another' and is taken as that of 'tone' by its file name"):
        from_directory(tmp_path)
