"""From windows to whole recordings, offline and live: known answers, parity of runtimes, bounds on time and memory."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_network import OracleNetwork, equally_loud
from pyannote.core import Annotation
from pyannote.core import Segment as Interval

import evaluation.live
from data.corpora import open_corpus
from data.simulated_recordings import SimulatedRecordings
from diarization.backends import open_network
from diarization.formats import to_annotation, to_rttm
from evaluation.recording_scores import score_recording
from modeling import FastDiarizationConfig, FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification
from modeling.linking_fast_diarization import Linker, diarize
from modeling.segments_fast_diarization import join_segments
from modeling.settings_fast_diarization import FRAME_SAMPLES, LinkingSettings, SpeakerCount
from modeling.streaming_fast_diarization import StreamingDiarizer
from modeling.windows_fast_diarization import sliding_windows
from publishing.onnx_files import export_model

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT / "../shared/eval/recordings"
SETTINGS = LinkingSettings()


def conversation(seconds: float, speakers: int, seed: int = 0) -> list[tuple[float, float, str]]:
    """Turns of 2 to 6 s in frames, some overlapping the one before, some after a pause."""
    rng = np.random.default_rng(seed)
    turns, at, speaker = [], 0.5, 0
    while at < seconds - 8:
        length = rng.integers(100, 300) * 0.02
        turns.append((round(at, 2), round(at + length, 2), f"person{speaker}"))
        at += length + rng.integers(-25, 50) * 0.02
        speaker = (speaker + rng.integers(1, speakers)) % speakers
    return turns


def error_rate(turns, segments) -> dict:
    reference = Annotation(uri="call")
    for number, (start, end, speaker) in enumerate(turns):
        reference[Interval(start, end), number] = speaker
    return score_recording(reference, to_annotation("call", segments))


@pytest.mark.slow
@pytest.mark.parametrize("speakers", [2, 3, 5])
def test_a_network_that_knows_the_answer_gives_it_for_the_whole_recording(speakers):
    turns = conversation(180, speakers)
    oracle = OracleNetwork(turns, 180, noise=0.3)
    segments = diarize(oracle, [oracle.waveform()], SETTINGS)
    scores = error_rate(turns, segments)
    assert scores["speaker_count_error"] == 0
    assert scores["diarization_error_rate"] < 0.03
    assert list(dict.fromkeys(s.speaker for s in segments)) == [f"SPEAKER_{i:02d}" for i in range(speakers)]
    for count in (SpeakerCount(num_speakers=speakers), SpeakerCount(min_speakers=speakers, max_speakers=9)):
        assert error_rate(turns, diarize(oracle, [oracle.waveform()], SETTINGS, count))["speaker_count_error"] == 0


@pytest.mark.slow
def test_fewer_and_more_speakers_than_there_are():
    turns = conversation(120, 3)
    oracle = OracleNetwork(turns, 120, noise=0.3)
    for asked, found in ((1, 1), (2, 2), (4, 4)):
        segments = diarize(oracle, [oracle.waveform()], SETTINGS, SpeakerCount(num_speakers=asked))
        assert len({s.speaker for s in segments}) <= found
    assert diarize(oracle, [oracle.waveform()[:900]], SETTINGS, SpeakerCount(num_speakers=100)) == []


@given(sizes=st.lists(st.integers(1, 200_000), max_size=8), samples=st.integers(0, 400_000))
@settings(deadline=None, max_examples=50)
def test_where_blocks_are_cut_changes_no_window(sizes, samples):
    waveform = np.arange(samples, dtype=np.float32)
    whole = [(s, w) for starts, windows in sliding_windows([waveform], SETTINGS) for s, w in zip(starts, windows)]
    blocks = np.split(waveform, np.cumsum(sizes).clip(max=samples))
    parts = [(s, w) for starts, windows in sliding_windows(blocks, SETTINGS) for s, w in zip(starts, windows)]
    assert [s for s, _ in whole] == [s for s, _ in parts]
    for (start, a), (_, b) in zip(whole, parts):
        assert a[0] == start * FRAME_SAMPLES
        np.testing.assert_array_equal(a, b)
    if samples >= 1_600:
        seen = np.zeros(samples // FRAME_SAMPLES, bool)
        for start, window in whole:
            seen[start : start + len(window) // FRAME_SAMPLES] = True
        assert seen.all()


@pytest.mark.slow
def test_hours_with_thousands_of_tracklets_have_as_many_speakers_as_minutes():
    rng = np.random.default_rng(0)
    logits = np.full((1, 50, 2), -6.0, np.float32)
    logits[0, :, 0] = 6
    linker = Linker(LinkingSettings(sliding_window_seconds=1.0, hop_seconds=1.0, min_solo_seconds=0.5))
    speaker = rng.integers(5, size=8_000)
    for window, voice in enumerate(np.eye(32)[speaker]):
        voice = voice + 0.1 * rng.standard_normal(32) / np.sqrt(32)
        linker.add([50 * window], logits, np.stack([voice, voice])[None] / np.linalg.norm(voice))
    assert len(linker.tracklets.sums) <= 1_001
    segments = linker.segments()
    named = {name: number for number, name in enumerate(dict.fromkeys(s.speaker for s in segments))}
    found = np.full(8_000, -1)
    for segment in segments:
        found[round(segment.start) : round(segment.end)] = named[segment.speaker]
    assert len(np.unique(np.stack([speaker, found]), axis=1).T) == 5


# Live


def live(network, waveform, chunk: int, **options) -> list[tuple[float, object]]:
    """Segments with the second of the stream at which they came out."""
    diarizer = StreamingDiarizer(network, SETTINGS, **options)
    came = []
    for at in range(0, len(waveform), chunk):
        heard = min(at + chunk, len(waveform)) / 16_000
        came += [(heard, s) for s in diarizer.push(waveform[at : at + chunk])]
    return came + [(len(waveform) / 16_000, s) for s in diarizer.flush()]


@pytest.fixture(scope="module")
def three():
    turns = conversation(60, 3, seed=4)
    return turns, OracleNetwork(turns, 60.3, noise=0.3)


@pytest.mark.slow
def test_chunks_of_any_size_give_the_same_live_result(three):
    _, oracle = three
    waveform = oracle.waveform()[:-100]
    expected = [s for _, s in live(oracle, waveform, len(waveform))]
    assert len(expected) > 20
    for chunk in (160, 1_600, 48_000, 7_919):
        assert [s for _, s in live(oracle, waveform, chunk)] == expected


@pytest.mark.parametrize("latency", [0.5, 1.0, 2.0])
def test_no_piece_comes_later_than_the_latency(three, latency):
    turns, oracle = three
    came = live(oracle, oracle.waveform(), 160, latency_seconds=latency)
    assert max(heard - s.end for heard, s in came) <= latency + 1e-6
    assert max(heard - s.start for heard, s in came) <= latency + 1e-6
    assert min(heard - s.end for heard, s in came) >= -1e-6


def test_live_is_near_offline(three):
    turns, oracle = three
    segments = join_segments(s for _, s in live(oracle, oracle.waveform(), 1_600))
    assert error_rate(turns, segments)["speaker_count_error"] == 0
    assert error_rate(turns, segments)["diarization_error_rate"] < 0.15
    assert [s.speaker for s in segments if s.speaker == "SPEAKER_00"]


@given(
    runs=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=5, max_size=20),
    latency=st.sampled_from([1.0, 2.0]),
)
@settings(deadline=None, max_examples=25)
def test_live_fills_short_pauses_and_drops_short_turns(runs, latency):
    turns, at = [(0.0, 4.0, "a")], 4.0
    for pause, speech in runs:
        turns.append((round(at + pause * 0.02, 2), round(at + (pause + speech) * 0.02, 2), "a"))
        at = turns[-1][1]
    expected = []
    for start, end, _ in turns:
        if expected and start - expected[-1][1] < SETTINGS.min_duration_off - 1e-6:
            start, _ = expected.pop()
        expected.append((start, end))
    expected = [(start, end) for start, end in expected if end - start >= SETTINGS.min_duration_on - 1e-6]
    oracle = OracleNetwork(turns, round(at + 1, 2))
    segments = join_segments(s for _, s in live(oracle, oracle.waveform(), 1_600, latency_seconds=latency))
    assert [(s.start, s.end) for s in segments] == expected


def test_two_names_of_one_voice_become_one_once_more_of_it_is_heard():
    away, voice, between = np.eye(3, 32, dtype=np.float32)
    unlike = np.sqrt(0.5) * (voice + between)  # neither the other's voice, nor quite this one's
    # Somebody else, the voice, the voice as it sounds in another room, then both together in one stretch.
    heard = [away, voice, unlike, (voice + unlike) / np.linalg.norm(voice + unlike)]

    def network(windows):
        frames = windows.shape[1] // FRAME_SAMPLES
        now = int(windows[0, -1])
        logits = np.full((1, frames, 2), -6, np.float32)
        logits[0, windows[0, ::FRAME_SAMPLES] == now, 0] = 6
        return logits, np.stack([heard[now], away])[None]

    settings = LinkingSettings(same_speaker_similarity=0.95)
    diarizer = StreamingDiarizer(network, settings)
    waveform = equally_loud(np.repeat([0, 1, 2, 3, 3, 3, 1, 2], 8 * 16_000).astype(np.float32))
    segments = join_segments(diarizer.push(waveform) + diarizer.flush())

    def named(second):
        return {s.speaker for s in segments if s.start <= second < s.end}

    assert len(named(6) | named(14) | named(22)) == 3
    assert named(54) == named(62) != named(6)


@pytest.mark.slow
def test_live_memory_does_not_grow_in_half_an_hour():
    pattern = np.full((2, 150, 2), -6, np.float32)
    pattern[0, :, 0] = pattern[1, :, 1] = 6
    embeddings = np.eye(2, 192, dtype=np.float32)[None]

    def network(windows):
        frames = windows.shape[1] // FRAME_SAMPLES
        return pattern[int(windows[0, 0]) % 2, None, :frames], embeddings

    diarizer = StreamingDiarizer(network, SETTINGS)
    minute = equally_loud(np.repeat(np.arange(60, dtype=np.float32) // 10, 16_000))
    held, pieces = [], 0
    for _ in range(30):
        pieces += len(diarizer.push(minute))
        state = {name: value for name, value in vars(diarizer).items() if name != "network"}
        held.append(len(pickle.dumps(state)))
    assert pieces > 3_000
    assert max(held[15:]) - max(held[5:15]) < 5_000


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 160), np.float32), "shape"),
        (np.zeros(160, np.int16), "float samples"),
    ],
)
def test_live_refuses_what_is_no_waveform(samples, message):
    diarizer = StreamingDiarizer(lambda windows: None, SETTINGS)
    with pytest.raises(ValueError, match=message):
        diarizer.push(samples)
    assert diarizer.flush() == []
    with pytest.raises(ValueError, match="flush has ended this stream"):
        diarizer.push(np.zeros(160, np.float32))
    with pytest.raises(ValueError, match="latency_seconds must be at least 0.5, got 0.2"):
        StreamingDiarizer(lambda windows: None, SETTINGS, latency_seconds=0.2)


# The real network, small and untrained but calibrated, on torch and ONNX


@pytest.fixture(scope="module")
def simulated():
    return SimulatedRecordings(open_corpus("demo", "validation"), seed=3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory, simulated) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=32))
    windows = simulated.make(0, 96, 3).waveform.reshape(-1, 48_000)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    loud = torch.from_numpy(np.abs(windows).reshape(len(windows), 150, 320).mean(2))
    labels = torch.stack([loud > loud.median(), loud > 2 * loud.median()], 2).float()
    for _ in range(20):
        model(torch.from_numpy(windows), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(directory)
    FastDiarizationFeatureExtractor().save_pretrained(directory)
    export_model(str(directory))
    return directory


@pytest.mark.slow
def test_torch_and_onnx_give_identical_rttm(directory, simulated):
    on_torch, on_onnx = (open_network(str(directory / file)) for file in ("model.safetensors", "model.onnx"))
    waveforms = [simulated.make(i, 120, i).waveform for i in (1, 2, 3)]
    waveforms += [soundfile.read(file, dtype="float32")[0] for file in sorted(REAL.glob("*.flac"))]
    found = 0
    for waveform in waveforms:
        texts = [to_rttm("call", diarize(network, [waveform], linking)) for network, linking in (on_torch, on_onnx)]
        assert texts[0] == texts[1]
        found += texts[0].count("\n")
    assert found > 20


@pytest.mark.slow
def test_distance_of_live_from_offline_is_a_command(directory, monkeypatch, capsys):
    arguments = ["--model", str(directory), "--recordings", "1", "--minutes", "0.5", "--latency", "1"]
    monkeypatch.setattr(sys, "argv", ["evaluation.live", *arguments])
    evaluation.live.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == ["offline", "live, 1 s", "live, 1 s, relabelled"]
    assert float(rows[0][5]) == 0


@pytest.mark.process
def test_pipeline_from_a_saved_directory_alone(directory, simulated, tmp_path):
    waveform = simulated.make(2, 10, 2).waveform
    soundfile.write(tmp_path / "call.wav", waveform, 16_000, subtype="FLOAT")
    code = """
import sys, numpy as np, soundfile
from scipy.signal import resample_poly
from transformers import pipeline

diarizer = pipeline("speaker-diarization", model=sys.argv[1], trust_remote_code=True)
waveform, rate = soundfile.read("call.wav", dtype="float32")
answer = diarizer("call.wav")
assert answer and set(answer[0]) == {"start", "end", "speaker", "confidence"}, answer
assert answer[0]["speaker"] == "SPEAKER_00"
assert answer == diarizer(open("call.wav", "rb").read()) == diarizer(waveform)
assert answer == diarizer({"array": waveform, "sampling_rate": rate}, batch_size=3)
assert answer == diarizer({"array": np.stack([waveform] * 3), "sampling_rate": rate})
assert [answer, answer] == diarizer(["call.wav", {"path": "call.wav"}])
assert len({s["speaker"] for s in diarizer("call.wav", num_speakers=1)}) == 1
other = diarizer({"array": resample_poly(waveform, 3, 1)[:, None], "sampling_rate": 48_000})
assert abs(sum(s["end"] - s["start"] for s in other) / sum(s["end"] - s["start"] for s in answer) - 1) < 0.2
live = diarizer.stream()
pieces = live.push(waveform) + live.flush()
assert pieces
for bad in ("absent.wav", b"text"):
    try:
        diarizer(bad)
        raise SystemExit("accepted")
    except ValueError as error:
        assert "\\n" not in str(error), error
"""
    command = [sys.executable, "-c", code, str(directory)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr


def environment(home: Path) -> dict[str, str]:
    """No repository on the path, no cache of an earlier run."""
    return {"HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(home)}
