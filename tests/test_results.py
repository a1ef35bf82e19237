"""Scoring of systems on directories, Hub data sets, frozen sets and voices, by answers that are known beforehand."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from loopback_clients import run_client
from loopback_hub import LoopbackHub
from oracle_network import OracleNetwork
from pyannote.core import Annotation, Segment
from pyannote.metrics.binary_classification import det_curve

from common.output import OwnFiles
from data.corpora import CorpusError, open_corpus
from data.rttm import read_rttm, write_rttm
from evaluation import voices
from evaluation.__main__ import main
from evaluation.scoring import best_tracks, score_recordings, score_windows, windows_of
from evaluation.sources import Reference, SourceError, from_directory
from evaluation.systems import Ours, Segmentation3, nearest
from evaluation.tables import by_group, result_tables
from evaluation.voices import equal_error_rate, pieces, score_voices
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.settings_fast_diarization import LinkingSettings
from modeling.task_fast_diarization import Task

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "evaluation" / "sets" / "demo.json"
TURNS = [(0.5, 4.0, "a"), (4.4, 9.0, "b"), (8.6, 13.0, "a"), (13.5, 19.0, "b")]


def annotation(turns=TURNS, uri="call") -> Annotation:
    result = Annotation(uri=uri)
    for number, (start, end, speaker) in enumerate(turns):
        result[Segment(start, end), number] = speaker
    return result


def oracle(turns=TURNS, seconds=20.0, name="oracle") -> Ours:
    system = Ours.__new__(Ours)
    system.name, system.network, system.settings = name, OracleNetwork(turns, seconds), LinkingSettings()
    return system


class Replay:
    """A system that answers what it is told, whatever it hears."""

    def __init__(self, name, answer):
        self.name, self.answer = name, answer

    def activity(self, windows, frames):
        return np.broadcast_to(self.answer[:, :frames], (len(windows), frames, self.answer.shape[2]))


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Two recordings of noise, their turns in one RTTM file."""
    rng = np.random.default_rng(0)
    for name in ("first call", "second"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(80_000), 16_000)
    write_rttm(tmp_path / "all.rttm", [annotation(TURNS[:1], "first_call"), annotation(TURNS[:2], "second")])
    return tmp_path


# Windows


def test_the_nearest_frame_is_the_one_whose_centre_is_nearest():
    fine = np.arange(300)[None, :, None]
    assert nearest(fine, 0.01, 0.005, 3.0, 300)[0, :, 0].tolist() == list(range(300))
    coarse = np.arange(3)[None, :, None]
    assert nearest(coarse, 1.0, 0.5, 3.0, 6)[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_best_tracks_are_those_with_the_fewest_errors_in_each_window():
    rng = np.random.default_rng(0)
    references = rng.random((4, 50, 2)) > 0.5
    noise = rng.random((4, 50, 1)) > 0.5
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        predictions = np.concatenate([references, noise], axis=2)[..., order]
        found = best_tracks(predictions, references, 2)
        assert found.shape == references.shape
        assert (np.sort(found, axis=2) == np.sort(references, axis=2)).all()


def test_a_perfect_system_has_no_errors_and_silence_misses_everything():
    (windows, references), *_ = windows_of(np.zeros(16_000 * 20, np.float32), annotation(), 1.0)
    assert windows.shape == (18, 48_000) and references.shape == (18, 300, 2)
    silent, right = Replay("silent", np.zeros((1, 300, 2), bool)), Replay("right", references)
    result = score_windows([silent, right], [(windows, references, "call")])
    assert result["silent"]["groups"]["all_windows"]["missed_speech"] == 1
    assert result["right"]["groups"]["all_windows"]["diarization_error_rate"] == 0
    assert result["right"]["groups"]["all_windows"]["frame_accuracy"] == 1
    assert result["right"]["by_origin"]["call"] == result["right"]["groups"]["all_windows"]
    speech = sum(band["speech"] for band in result["right"]["by_overlap"].values())
    assert speech == result["right"]["groups"]["all_windows"]["speech"]


def three_speakers() -> np.ndarray:
    """A window in which three people speak one after the other, and overlap."""
    references = np.zeros((1, 300, 3), bool)
    references[0, :120, 0] = references[0, 100:220, 1] = references[0, 200:, 2] = True
    return references


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_perfect_system_of_three_tracks_has_no_errors_on_windows_of_three_speakers(order):
    references, windows = three_speakers(), np.zeros((1, 48_000), np.float32)
    perfect = Replay("three", references[..., list(order)])
    for speakers, rate in ((3, 0.0), (2, 100 / 340)):
        result = score_windows([perfect], [(windows, references, "call")], Task(speakers))["three"]["groups"]
        group = "three_speaker_windows" if speakers == 3 else "more_speaker_windows"
        assert result[group]["diarization_error_rate"] == pytest.approx(rate)
        assert result["all_windows"] == result[group]
    both = np.zeros((1, 300, 3), bool)
    both[..., :2] = references[..., :2]
    result = score_windows([perfect], [(windows, both, "call")])["three"]["groups"]
    assert result["two_speaker_windows"]["false_alarm"] == 0, "of two speakers the best two tracks are scored"


def test_recordings_are_scored_for_as_many_speakers_as_our_models_tell_apart():
    turns = [(0.0, 2.0, "a"), (1.5, 3.2, "b"), (3.0, 5.0, "c"), (4.5, 8.0, "a"), (7.0, 9.5, "b"), (9.0, 12.0, "c")]
    system = oracle(turns, 12.0)
    system.network = OracleNetwork(turns, 12.0, tracks=3)
    reference = Reference("call", system.network.waveform(), annotation(turns))
    result, _ = score_recordings([system], [reference])
    groups = result["oracle"]["windows"]["groups"]
    assert groups["three_speaker_windows"]["diarization_error_rate"] < 0.02
    assert "| three speakers |" in by_group({"oracle": result["oracle"]["windows"]})
    system = oracle(turns, 12.0)
    groups = score_recordings([system], [reference])[0]["oracle"]["windows"]["groups"]
    assert groups["more_speaker_windows"]["missed_speech"] > 0.1


def test_windows_of_a_recording_know_who_speaks_at_the_centre_of_every_10_ms():
    turns = annotation([(0.0, 1.5, "a"), (1.0, 2.0, "b")])
    ((_, references),) = windows_of(np.zeros(48_000, np.float32), turns, 1.0)
    assert references[0].sum(axis=0).tolist() == [150, 100]
    assert (references[0].sum(axis=1) == 2).sum() == 50


# Recordings


def test_an_oracle_makes_no_errors_on_whole_recordings(tmp_path):
    system = oracle()
    reference = Reference("call", system.network.waveform(), annotation())
    result, failed = score_recordings([system], [reference], ["unknown", "known"], output=OwnFiles(tmp_path, "a test"))
    assert not failed
    for count in ("unknown", "known"):
        whole = result["oracle"]["whole"][count]
        assert whole["total"]["diarization_error_rate"] < 0.01
        assert whole["count_right"] == 1
        hypothesis = read_rttm(tmp_path / "oracle" / count / "call.rttm")["call"]
        assert len(hypothesis.labels()) == 2
        assert (tmp_path / "oracle" / count / "call.png").read_bytes()[:4] == b"\x89PNG"
    one, _ = score_recordings([system], [reference], [1])
    assert one["oracle"]["whole"]["1"]["total"]["confusion"] > 0.3
    assert result["oracle"]["windows"]["groups"]["all_windows"]["diarization_error_rate"] < 0.01


def test_a_directory_gives_every_recording_its_turns(recordings):
    found = {reference.name: reference for reference in from_directory(recordings)}
    assert set(found) == {"first_call", "second"}
    assert found["second"].turns.uri == "second" and len(found["second"].turns) == 2
    assert found["first_call"].waveform().shape == (80_000,)


def test_an_rttm_file_of_one_recording_belongs_to_the_audio_of_its_name(tmp_path):
    soundfile.write(tmp_path / "meeting.flac", np.zeros(32_000), 16_000)
    write_rttm(tmp_path / "meeting.rttm", [annotation(uri="another_name")])
    (reference,) = from_directory(tmp_path)
    assert reference.turns.uri == "meeting" and len(reference.turns) == len(TURNS)


def test_missing_references_and_audio_are_named(recordings):
    soundfile.write(recordings / "third.wav", np.zeros(32_000), 16_000)
    with pytest.raises(SourceError, match="third.wav has no reference"):
        from_directory(recordings)
    (recordings / "third.wav").unlink()
    (recordings / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no audio or video file"):
        from_directory(recordings / "empty")
    (recordings / "empty" / "second.mp3").touch()
    with pytest.raises(SourceError, match="both recording 'second'"):
        from_directory(recordings)


def test_an_answer_among_references_is_no_reference(recordings):
    answers = recordings / "results"
    answers.mkdir()
    write_rttm(answers / "second.rttm", [annotation(uri="second")])
    with pytest.raises(SourceError, match="second.wav has more than one reference: .*results/second.rttm"):
        from_directory(recordings)


def test_a_reference_without_audio_is_warned_of(recordings):
    write_rttm(recordings / "unheard.rttm", [annotation(uri="unheard")])
    with pytest.warns(UserWarning, match="a reference of 'unheard' and no audio or video file of it"):
        assert len(from_directory(recordings)) == 2


def test_a_recording_that_cannot_be_read_does_not_stop_the_others(recordings, capsys):
    (recordings / "second.wav").write_text("no audio")
    result, failed = score_recordings([oracle()], from_directory(recordings), hop_seconds=3.0)
    assert failed == ["second"] and list(result["oracle"]["whole"]["unknown"]["recordings"]) == ["first_call"]
    assert "second.wav" in capsys.readouterr().err
    (recordings / "first call.wav").write_text("no audio")
    with pytest.raises(SourceError, match="none of the recordings"):
        score_recordings([oracle()], from_directory(recordings))


# The peer


@pytest.fixture
def peer(tmp_path) -> str:
    """An ONNX file shaped like segmentation-3.0 that always says set 5: speakers one and three."""
    frames, sets = 175, 7
    answer = np.zeros((1, frames, sets), np.float32)
    answer[..., 5] = 1
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceMean", ["waveform"], ["mean"], axes=[1, 2], keepdims=1),
            onnx.helper.make_node("Mul", ["mean", "zero"], ["none"]),
            onnx.helper.make_node("Add", ["none", "answer"], ["logits"]),
        ],
        "peer",
        [onnx.helper.make_tensor_value_info("waveform", 1, ["batch", 1, "samples"])],
        [onnx.helper.make_tensor_value_info("logits", 1, ["batch", frames, sets])],
        [onnx.numpy_helper.from_array(answer, "answer"), onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "segmentation-3.0.onnx")
    return str(tmp_path / "segmentation-3.0.onnx")


def test_the_peer_answers_with_the_speakers_of_the_likeliest_set(peer):
    activity = Segmentation3(peer).activity(np.zeros((2, 48_000), np.float32), 150)
    assert activity.shape == (2, 150, 3)
    assert activity.all(axis=(0, 1)).tolist() == [True, False, True]


# Voices


@pytest.mark.parametrize("seed", range(5))
def test_equal_error_rate_is_that_of_pyannote_metrics(seed):
    rng = np.random.default_rng(seed)
    same, other = rng.normal(1, 1, 60), rng.normal(0, 1, 200)
    *_, expected = det_curve(np.r_[np.ones(60), np.zeros(200)], np.r_[same, other])
    assert equal_error_rate(same, other) == pytest.approx(expected, abs=1 / 60)


def test_equal_error_rate_by_hand():
    assert equal_error_rate(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 0
    assert equal_error_rate(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1
    assert equal_error_rate(np.array([0.9, 0.8, 0.7, 0.1]), np.array([0.0, 0.0, 0.0, 0.75])) == 0.25
    rng = np.random.default_rng(0)
    assert equal_error_rate(rng.random(20_000), rng.random(20_000)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
def test_pieces_are_3_s_of_one_speaker_and_the_same_every_time():
    corpus = open_corpus("demo", "validation")
    waveforms, speakers = pieces(corpus, 0)
    assert waveforms.shape[1] == 48_000 and len(set(speakers)) > 2
    assert np.bincount(speakers).max() <= 6
    assert np.array_equal(pieces(corpus, 0)[0], waveforms)
    assert not np.array_equal(pieces(corpus, 1)[0], waveforms)


@pytest.mark.slow
def test_voices_without_a_pair_of_one_speaker_are_refused(monkeypatch):
    monkeypatch.setattr(voices, "MOST_PIECES", 1)
    with pytest.raises(CorpusError, match="speakers with 3 s of speech and 0 more such pieces of them"):
        pieces(open_corpus("demo", "validation"), 0)


@pytest.mark.slow
def test_a_network_that_knows_every_voice_has_no_equal_error(monkeypatch):
    corpus = open_corpus("demo", "validation")
    waveforms, speakers = pieces(corpus, 0)
    who = {waveform.tobytes(): speaker for waveform, speaker in zip(waveforms, speakers)}

    def network(windows):
        voices = np.zeros((len(windows), 2, 64), np.float32)
        for number, window in enumerate(windows):
            voices[number, 1, who[window.tobytes()]] = 1
        return np.tile([[-9.0, 9.0]], (len(windows), 150, 1)), voices

    system = oracle()
    system.network = network
    result = score_voices([system], corpus)["oracle"]
    assert result["equal_error_rate"] == 0
    assert result["same_pairs"] + result["other_pairs"] == len(speakers) * (len(speakers) - 1) // 2


# The command


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("model")
    FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16)).save_pretrained(directory)
    return str(directory)


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluation", *arguments])
    return main()


@pytest.mark.slow
def test_a_directory_is_scored_beside_the_peer_and_all_is_kept(recordings, model, peer, tmp_path, monkeypatch, capsys):
    output = tmp_path / "scores"
    told = ["--num_speakers", "known", "2", "2", "--collar", "0.5", "--hop", "2"]
    assert run(monkeypatch, str(recordings), "--model", model, "--peer", peer, "--output", str(output), *told) == 0
    printed = capsys.readouterr().out
    assert (output / "scores.md").read_text() == printed
    assert "Collar 0.5 s in total (0.25 s on each side), overlap scored." in printed and "first_call" in printed
    result = json.loads((output / "scores.json").read_text())
    assert result_tables(result) + "\n" == printed
    scores = result["parts"]["all recordings"]
    assert set(scores[Path(model).name]["whole"]) == {"known", "2"} and scores["segmentation-3.0"]["whole"] == {}
    assert scores["segmentation-3.0"]["windows"]["groups"]["all_windows"]["windows"] == 4
    assert len(list(output.rglob("second.rttm"))) == len(list(output.rglob("second.png"))) == 2


def test_an_unreadable_recording_is_told_by_the_exit_code(recordings, model, monkeypatch, capsys):
    (recordings / "second.wav").write_text("no audio")
    assert run(monkeypatch, str(recordings), "--model", model) == 1
    assert "Could not be read: second." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "is not a directory"),
        (["voices", "--model", "nowhere/at/all"], "no such directory"),
        (["voices", "--dataset", "./nowhere"], "is not a directory"),
        (["voices", "--peer", str(ROOT / "README.md")], "give segmentation-3.0 as an ONNX file"),
        (["voices", "--output", "README.md"], "--output README.md: File exists; name a directory that can be written"),
        ([str(DEMO), "--noise", "nowhere"], "noise directory 'nowhere' does not exist"),
        ([str(DEMO), "--split", "nonsense"], "set 'demo' is not frozen on split 'nonsense', only: validation; python"),
        ([str(DEMO), "--hop", "2"], "--hop does not apply to a frozen set, which"),
        (["voices", "--num_speakers", "2"], "--num_speakers does not apply to voices, which 'voices' is; leave it out"),
        ([str(ROOT / "tests"), "--limit", "1"], "--limit does not apply to a directory, which"),
        (["nowhere.json"], "set 'nowhere.json' cannot be read (No such file or directory); there are some in"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, model, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert run(monkeypatch, *arguments, *(() if "--model" in arguments else ("--model", model))) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hop", "0"], "--hop: '0' is not a number of seconds of at least 0.02, one frame"),
        (["--limit", "-1"], "--limit: '-1' is not a number of at least 1"),
        (["--num_speakers", "0"], "--num_speakers: '0' is neither unknown, known nor a number of at least 1"),
    ],
)
def test_a_number_out_of_range_is_named(flags, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "user/calls", *flags)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.hub
def test_a_hub_data_set_is_streamed(tmp_path, model):
    """The schema of diarizers-community's sets, on loopback."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(3):
        file = io.BytesIO()
        soundfile.write(file, 0.1 * rng.standard_normal(80_000), 16_000, format="WAV")
        rows.append(
            {
                "audio": {"bytes": file.getvalue(), "path": f"call {number}.wav"},
                "timestamps_start": [0.5, 2.0],
                "timestamps_end": [2.2, 4.0],
                "speakers": ["A", "B"],
            }
        )
    rows[1]["audio"]["bytes"] = b"no audio"
    rows.append(rows[0] | {"audio": None})
    text, times = pa.string(), pa.list_(pa.float64())
    audio = pa.struct({"bytes": pa.binary(), "path": text})
    schema = pa.schema(
        {"audio": audio, "timestamps_start": times, "timestamps_end": times, "speakers": pa.list_(text)},
        metadata={"huggingface": json.dumps({"info": {"features": {
            "audio": {"sampling_rate": 16_000, "_type": "Audio"},
            "timestamps_start": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "Sequence"},
            "timestamps_end": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "Sequence"},
            "speakers": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
        }}})},
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "data/test-00000-of-00001.parquet")
    with LoopbackHub() as hub:
        hub.add_repository("user/calls", tmp_path)
        output = tmp_path / "scores"
        code = "import sys; sys.argv[0] = 'evaluation'; from evaluation.__main__ import main; sys.exit(main())"
        options = ["--split", "test", "--model", model, "--output", str(output)]
        done = run_client(code, hub, "user/calls", *options, check=False)
        assert done.returncode == 1, done.stderr
        result = json.loads((output / "scores.json").read_text())
        assert result["failed"] == ["0001_call_1", "0003_audio"] and result["title"] == "user/calls, test"
        (scores,) = result["parts"]["all recordings"].values()
        recordings = scores["whole"]["unknown"]["recordings"]
        assert list(recordings) == ["0000_call_0", "0002_call_2"]
        assert recordings["0000_call_0"]["speech"] == pytest.approx(3.7)
        done = run_client(code, hub, "user/calls", *options, "--limit", "1", check=False)
        assert done.returncode == 0, done.stderr
        assert len(list(output.rglob("*.rttm"))) == 2
