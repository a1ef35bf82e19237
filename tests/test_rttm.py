"""RTTM files: read by recording, refused by line, written as they are read."""

import pytest
from hypothesis import given
from pyannote.core import Annotation
from test_evaluation import batches, to_annotation, turns_of, unhurried
from test_recording_scores import annotation

from data.rttm import read_rttm, write_rttm


def test_rttm_is_read_by_recording(tmp_path):
    path = tmp_path / "two.rttm"
    path.write_text(
        "\ufeff;; made by hand\r\n"
        "SPKR-INFO b 1 <NA> <NA> <NA> unknown anna <NA>\r\n"
        "SPEAKER b 1 1.5 0.25 <NA> <NA> anna <NA> <NA>\r\n"
        "\r\n"
        "SPEAKER\ta\t1\t0\t2e0\t<NA>\t<NA>\tJosé\t<NA>\r\n"
        "SPEAKER b 1 1.5 0.25 <NA> <NA> ben <NA> <NA>",
        encoding="utf-8",
    )
    result = read_rttm(path)
    assert list(result) == [recording.uri for recording in result.values()] == ["b", "a"]
    assert turns_of(result["b"]) == [(1.5, 1.75, "anna"), (1.5, 1.75, "ben")]
    assert turns_of(result["a"]) == [(0, 2, "José")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER call 1 0.0 1.0 agent", "6 fields; expected 9 or 10"),
        ("SPEAKER call 1 0 1 <NA> <NA> the agent <NA> <NA>", "11 fields; expected 9 or 10"),
        ("call 1 0 1 <NA> <NA> agent <NA> <NA>", "line type 'call' is not of RTTM; expected 'SPEAKER file"),
        ("SPEAKER call 1 zero 1 <NA> <NA> agent <NA> <NA>", "start is 'zero'; expected seconds, 0 or more"),
        ("SPEAKER call 1 -1 1 <NA> <NA> agent <NA> <NA>", "start is '-1'"),
        ("SPEAKER call 1 nan 1 <NA> <NA> agent <NA> <NA>", "start is 'nan'"),
        ("SPEAKER call 1 0 inf <NA> <NA> agent <NA> <NA>", "duration is 'inf'"),
        ("SPEAKER call 1 0 -2 <NA> <NA> agent <NA> <NA>", "duration is '-2'"),
        ("SPEAKER call 1 0 0.000 <NA> <NA> agent <NA> <NA>", "duration is 0; expected more"),
        ("SPEAKER call 1 0 1 <NA> <NA> <NA> <NA> <NA>", "speaker '<NA>'; both need a name"),
    ],
)
def test_malformed_rttm_is_named_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "broken.rttm"
    path.write_text(f"SPEAKER call 1 0 1 <NA> <NA> agent <NA> <NA>\n{line}\n")
    with pytest.raises(ValueError) as caught:
        read_rttm(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "audio.rttm"
    path.write_bytes(b"SPEAKER\n\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"audio\.rttm:2: not UTF-8 text"):
        read_rttm(path)


def test_an_empty_rttm_holds_no_recording(tmp_path):
    path = tmp_path / "empty.rttm"
    path.touch()
    assert read_rttm(path) == {}


@unhurried
@given(batches())
def test_written_rttm_reads_back(tmp_path_factory, batch):
    path = tmp_path_factory.mktemp("rttm") / "written.rttm"
    written = [to_annotation(batch[0][0], "first"), to_annotation(batch[1][0], "second")]
    write_rttm(path, written)
    read = read_rttm(path)
    for recording in written:
        assert turns_of(read.get(recording.uri, Annotation())) == turns_of(recording)


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (annotation("call", (0, 1, "the agent")), "spaces"),
        (annotation("call", (0, 1, "the\tagent")), "11 fields"),
        (annotation("call", (0, 1, "")), "both need a name"),
        (annotation("", (0, 1, "agent")), "both need a name"),
        (annotation("call", (-1, 1, "agent")), "start is '-1.000'"),
        (annotation("call", (0, 0.0001, "agent")), "duration is 0"),
    ],
)
def test_what_rttm_cannot_express_is_not_written(tmp_path, recording, message):
    path = tmp_path / "written.rttm"
    with pytest.raises(ValueError, match=message):
        write_rttm(path, [recording])
    assert not path.exists()
