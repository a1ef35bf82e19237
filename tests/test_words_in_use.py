"""Words with speakers where people use them: diarize.py, the pipeline and the guide."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from audio_files import speech_like, wav
from two_tones import write_model, write_recording

import diarize
from diarization.words import find_words
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.audio_fast_diarization import AudioWarning
from modeling.pipeline_fast_diarization import FastDiarizationPipeline
from modeling.transcripts_fast_diarization import WordsError

ROOT = Path(__file__).resolve().parent.parent
# The tones of the recording are active from 0 to 4, 5 to 9 and 10 to 14 s: A, B, A.
SAID = [("Good", 1.0, 1.5), ("morning.", 1.5, 2.0), ("Hello!", 6.0, 6.5), ("Well,", 9.2, 9.5), ("goodbye.", 12.0, 13.0)]
ASR = {"text": "", "chunks": [{"text": f" {text}", "timestamp": times} for text, *times in SAID]}
TRANSCRIPT = (
    "[0:01] SPEAKER_00: Good morning.\n\n[0:06] SPEAKER_01: Hello!\n\n"
    "[0:09] SPEAKER_01: Well,\n\n[0:12] SPEAKER_00: goodbye.\n"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def call(tmp_path, monkeypatch, model):
    """Runs diarize.py with the two-tone model in a directory that holds `call.wav` and `asr.json`."""
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "call.wav")
    Path("asr.json").write_text(json.dumps(ASR))
    return lambda *arguments: diarize.main([*map(str, arguments), "--model", str(model)])


def test_who_said_what(call, capsys):
    assert call("call.wav", "--words", "asr.json") == 0
    assert Path("results/call.txt").read_text() == TRANSCRIPT
    assert TRANSCRIPT in capsys.readouterr().out
    assert call("call.wav", "--words", "asr.json", "--format", "rttm,json,srt,vtt") == 0
    assert "SPEAKER_01: Hello!" in Path("results/call.srt").read_text()
    assert "<v SPEAKER_01>Hello!" in Path("results/call.vtt").read_text()
    told = json.loads(Path("results/call.json").read_text())
    assert [word["speaker"][-1] for word in told["words"]] == list("00110") and len(told["segments"]) == 3


def test_subtitles_are_taken_too_and_segments_split(call):
    Path("call.srt").write_text("1\n00:00:01,000 --> 00:00:08,000\nI am the low one and I am the high one.\n")
    assert call("call.wav", "--words", "call.srt") == 0
    text = "[0:01] SPEAKER_00: I am the low one and\n\n[0:05] SPEAKER_01: I am the high one.\n"
    assert Path("results/call.txt").read_text() == text


def test_a_directory_has_a_file_for_each_recording(call, capsys):
    for name in ("b.wav", "c.wav", "d.wav"):
        Path(name).write_bytes(Path("call.wav").read_bytes())
    Path("asr").mkdir()
    for name in ("call.json", "b.wav.json", "c.words.json"):
        Path("asr", name).write_text(json.dumps(ASR))
    for name in ("call.srt", "d.vtt"):
        Path("asr", name).write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nOther\n")
    assert call("call.wav", "b.wav", "c.wav", "d.wav", "--words", "asr") == 0
    assert [Path(f"results/{name}.txt").read_text() == TRANSCRIPT for name in ("call", "b", "c", "d")] == [1, 1, 1, 0]
    assert "SPEAKER_00: Other" in Path("results/d.txt").read_text()
    Path("e.wav").write_bytes(Path("call.wav").read_bytes())
    assert call("call.wav", "e.wav", "--words", "asr") == 2
    assert capsys.readouterr().err == "error: --words asr has no file for e; expected e.json, .vtt or .srt\n"
    assert call("call.wav", "e.wav", "--words", "asr.json") == 2
    assert "--words asr.json is one file for 2 recordings; give a directory of files" in capsys.readouterr().err
    assert find_words(None, {"call": "call.wav"}) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--words", "absent.json"], "--words absent.json: No such file or directory"),
        (["--words", "call.wav"], "call.wav: not UTF-8 text"),
        (["--words", "/dev/null"], "/dev/null: empty; accepted are JSON of whisper"),
        (["--words", "bad.json"], "bad.json: an object of 'text', without words that have times"),
        (["--words", "call.json", "--format", "json", "--output", "."], "would replace the file of words call.json"),
    ],
)
def test_words_that_cannot_be_used_are_told_before_the_work(call, arguments, message, capsys):
    Path("bad.json").write_text('{"text": "Hello"}')
    Path("call.json").write_text(json.dumps(ASR))
    before = sorted(Path().rglob("*"))
    assert call("call.wav", *arguments, "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(path for path in Path().rglob("*") if path.name != "results") == before


def test_words_of_another_recording_and_of_silence_are_warned_of(call, capsys):
    late = {"chunks": [{"text": "late", "timestamp": (3600.0, 3601.0)}]}
    Path("late.json").write_text(json.dumps(late))
    assert call("call.wav", "--words", "late.json") == 0
    assert capsys.readouterr().err == "warning: late.json: words up to 1:00:00, but the recording ends at 0:15\n"
    Path("silence.wav").write_bytes(wav(0 * speech_like(2)))
    assert call("silence.wav", "--words", "asr.json") == 0
    assert "asr.json: the recording has no speech, so its 5 words have no speaker" in capsys.readouterr().err
    assert Path("results/silence.txt").read_text().startswith("[0:01] Good morning.\n")


def test_an_exclusive_timeline_has_nobody_at_the_same_time(call, monkeypatch):
    from modeling.counting_fast_diarization import CountEstimate, Diarization
    from modeling.linking_fast_diarization import Linker
    from modeling.segments_fast_diarization import Segment

    overlapping = [Segment(0.0, 4.0, "SPEAKER_00", 0.9), Segment(3.0, 6.0, "SPEAKER_01", 0.8)]
    monkeypatch.setattr(
        Linker, "diarization", lambda linker, count: Diarization(overlapping, {}, CountEstimate(2, 2, 2))
    )
    assert call("call.wav", "--exclusive", "--format", "csv") == 0
    assert Path("results/call.csv").read_text().splitlines()[1:] == [
        "0.000,4.000,SPEAKER_00,0.9000",
        "4.000,6.000,SPEAKER_01,0.8000",
    ]


# The pipeline


@pytest.fixture(scope="module")
def pipe() -> FastDiarizationPipeline:
    """An untrained network that takes nearly everything for speech, of several speakers at once."""
    torch.manual_seed(0)
    config = FastDiarizationConfig(hidden_size=32, onset=0.2, offset=0.1)
    return FastDiarizationPipeline(model=FastDiarizationForAudioFrameClassification(config))


def test_the_pipeline_gives_words_to_speakers(pipe, tmp_path):
    sound = speech_like(4)
    (tmp_path / "asr.json").write_text(json.dumps(ASR))
    turns = pipe(sound, words=ASR)
    assert {turn["speaker"] for turn in turns} <= {segment["speaker"] for segment in pipe(sound)}
    assert [word["word"] for turn in turns for word in turn["words"]] == [text for text, *_ in SAID]
    assert turns[0].keys() == {"start", "end", "speaker", "text", "words"}
    assert pipe(sound, words=tmp_path / "asr.json") == turns
    assert pipe([sound, sound], words=[ASR, []]) == [turns, []]
    with pytest.warns(AudioWarning):
        assert pipe([sound, b"none"], words=[ASR, ASR], on_error="skip") == [turns, None]
    for wrong in ([sound, sound], (one for one in [sound])):
        with pytest.raises(WordsError, match="as long as the list of recordings"):
            pipe(wrong, words=[ASR])
    with pytest.raises(WordsError, match="accepted are JSON"):
        pipe(sound, words={"text": "Hello"})


def test_the_pipeline_has_an_exclusive_timeline(pipe):
    sound = speech_like(4)
    segments = pipe(sound, exclusive=True)
    assert all(before["end"] <= after["start"] for before, after in zip(segments, segments[1:]))
    assert segments and pipe([sound], exclusive=True) == [segments]


# The guide


def test_the_guide_runs_with_stand_ins_for_the_recognisers(pipe, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/WORDS.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "call.wav")

    def pipeline(task: str, **_):
        return {"speaker-diarization": pipe, "automatic-speech-recognition": lambda file, return_timestamps: ASR}[task]

    segments = [SimpleNamespace(start=1.0, end=2.0, text=" Good morning.", words=None)]
    faster = SimpleNamespace(transcribe=lambda file, word_timestamps: (iter(segments), None))
    aligned = {"segments": [{"start": 1.0, "end": 2.0, "text": "Good morning.", "words": [{"word": "Good"}]}]}
    whisperx = SimpleNamespace(
        load_audio=lambda file: None,
        load_model=lambda *_, **__: SimpleNamespace(transcribe=lambda audio: {"segments": [], "language": "en"}),
        load_align_model=lambda **_: (None, None),
        align=lambda *_: aligned,
    )
    monkeypatch.setattr(sys.modules["transformers"], "pipeline", pipeline)
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=lambda name: faster))
    monkeypatch.setitem(sys.modules, "whisperx", whisperx)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/WORDS.md", "exec"), names)
    out = capsys.readouterr().out
    assert "Good morning." in out and "goodbye." in out and "SPEAKER_0" in out
