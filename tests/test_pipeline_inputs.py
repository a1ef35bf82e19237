"""Every form in which people hold a recording, in this process and in workers; one line for every other."""

import io
import pickle
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import soundfile
import torch
from audio_files import RATE, speech_like, wav
from transformers.pipelines.pt_utils import KeyDataset

from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.audio_fast_diarization import AudioError, AudioWarning
from modeling.inputs_fast_diarization import to_recording
from modeling.pipeline_fast_diarization import FastDiarizationPipeline

SOUND = speech_like(4)
WAV = wav(SOUND)


@pytest.fixture(scope="module")
def pipe() -> FastDiarizationPipeline:
    """An untrained network that takes nearly everything for speech."""
    torch.manual_seed(0)
    config = FastDiarizationConfig(hidden_size=32, onset=0.2, offset=0.1)
    return FastDiarizationPipeline(model=FastDiarizationForAudioFrameClassification(config))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("recording") / "call.wav"
    file.write_bytes(WAV)
    return file


@pytest.fixture(scope="module")
def expected(pipe, file) -> list[dict]:
    segments = pipe(str(file))
    assert segments
    return segments


class Decoder:
    """What datasets gives where torchcodec decodes."""

    def get_all_samples(self) -> SimpleNamespace:
        return SimpleNamespace(data=torch.from_numpy(read())[None], sample_rate=RATE)


def read() -> np.ndarray:
    return soundfile.read(io.BytesIO(WAV), dtype="float32")[0]


FORMS = {
    "path": lambda file: file,
    "bytes": lambda file: WAV,
    "bytearray": lambda file: bytearray(WAV),
    "memoryview": lambda file: memoryview(WAV),
    "open file": lambda file: io.BytesIO(WAV),
    "array": lambda file: read(),
    "columns": lambda file: read()[:, None],
    "float64": lambda file: read().astype(np.float64),
    "int16": lambda file: soundfile.read(file, dtype="int16")[0],
    "tensor": lambda file: torch.from_numpy(read()),
    "needs a gradient": lambda file: torch.nn.Parameter(torch.from_numpy(read())[None]),
    "array and rate": lambda file: {"array": read(), "sampling_rate": RATE},
    "list and rate": lambda file: {"array": read().tolist(), "sampling_rate": RATE},
    "decoded row of datasets 3": lambda file: {"path": "gone.wav", "array": read(), "sampling_rate": RATE},
    "undecoded row of datasets": lambda file: {"path": None, "bytes": WAV},
    "raw": lambda file: {"raw": read(), "sampling_rate": RATE},
    "pyannote": lambda file: {"waveform": torch.from_numpy(read())[None], "sample_rate": RATE},
    "pyannote's path": lambda file: {"uri": "call", "audio": str(file)},
    "row": lambda file: {"audio": {"array": read(), "sampling_rate": RATE}, "speaker": 3},
    "gradio": lambda file: (RATE, soundfile.read(file, dtype="int16")[0]),
    "soundfile": lambda file: soundfile.read(file),
    "torchaudio": lambda file: (torch.from_numpy(read())[None], RATE),
    "AudioDecoder": lambda file: Decoder(),
    "AudioSamples": lambda file: Decoder().get_all_samples(),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_one_recording(pipe, file, expected, name):
    assert pipe(FORMS[name](file)) == expected
    pickle.dumps(pipe.preprocess(FORMS[name](file))) if name != "open file" else None


@pytest.mark.process
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_lists_in_worker_processes(pipe, file, expected, workers):
    wanted = [FORMS[name](file) for name in ("path", "bytes", "open file", "tensor", "AudioDecoder")]
    assert pipe(wanted, num_workers=workers) == [expected] * len(wanted)


@pytest.mark.slow
def test_columns_and_streams(pipe, file, expected):
    rows = {"audio": [{"path": None, "bytes": WAV}] * 2}
    table = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    assert pipe(table["audio"], num_workers=1) == [expected] * 2
    assert list(pipe(KeyDataset(table, "audio"), num_workers=1)) == [expected] * 2
    assert list(pipe(recording for recording in (file, WAV))) == [expected] * 2
    assert list(pipe(map(str, (file, file)))) == [expected] * 2
    assert list(pipe(table.to_iterable_dataset().map(lambda row: row))) == [expected] * 2


def test_a_sampling_rate_for_waveforms_that_have_none(pipe, file):
    slow = SOUND[::2]
    assert pipe(slow, sampling_rate=8_000) == pipe({"array": slow, "sampling_rate": 8_000})
    assert pipe([slow], sampling_rate=8_000) == [pipe({"array": slow, "sampling_rate": 8_000})]


def test_the_pipeline_can_be_pickled(pipe, file, expected):
    assert pickle.loads(pickle.dumps(pipe))(file) == expected


@pytest.mark.parametrize(
    "bad",
    [3, None, {}, {"speaker": 1}, {"array": SOUND}, ("a", "b"), ("a", "b", "c"), np.array(["a"]), np.zeros((2, 2, 2))]
    + [(0, SOUND), (RATE + 0.5, SOUND), torch.zeros(0), io.StringIO("text"), "absent.wav", b"text"],
    ids=lambda bad: re.sub(" at 0x.*", "", str(bad)),
)
def test_what_is_no_recording_is_one_line(pipe, bad):
    with pytest.raises(AudioError) as error:
        pipe(bad)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"speakers": 2}, "unknown keyword speakers; known are num_speakers, min_speakers, max_speakers"),
        ({"on_error": "ignore"}, "on_error must be raise or skip, got 'ignore'"),
        ({"channels": "left"}, "channels must be mix, separate or the number of a channel"),
        ({"channels": 0}, "channels must be mix, separate or the number of a channel"),
        ({"track": 1.5}, "track must be the number of an audio track"),
        ({"channels": "separate", "num_speakers": 2}, "one speaker a channel; give no number of speakers"),
        ({"channels": "separate"}, "has one channel, so its speakers cannot be kept separate"),
        ({"batch_size": -1}, "batch_size must be a number of windows"),
        ({"num_speakers": 0}, "num_speakers must be a whole number from 1"),
    ],
)
def test_keywords_that_cannot_be_are_one_line(pipe, file, keywords, message):
    with pytest.raises(ValueError, match=message) as error:
        pipe(file, **keywords)
    assert "\n" not in str(error.value)


@pytest.mark.process
@pytest.mark.parametrize("workers", [0, 1])
def test_one_bad_file_among_good_ones_is_a_choice(pipe, file, expected, workers):
    recordings = [file, b"no recording", "absent.wav", WAV]
    with pytest.raises(AudioError, match=r"number 2 of 4 recordings; on_error='skip' goes on") as error:
        pipe(recordings, num_workers=workers)
    assert "\n" not in str(error.value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pipe(recordings, num_workers=workers, on_error="skip") == [expected, None, None, expected]
    skipped = [str(warning.message) for warning in caught if warning.category is AudioWarning]
    assert len(skipped) == 2 and "absent.wav: No such file" in skipped[1] and "skipped" in skipped[1]


def test_channels_of_a_recording(pipe, expected):
    both = wav(np.stack([SOUND, speech_like(4, seed=1)]))
    assert pipe(both, channels=1) == expected
    assert {segment["speaker"] for segment in pipe(both, channels="separate")} == {"SPEAKER_00", "SPEAKER_01"}
    assert to_recording(np.stack([SOUND, SOUND]), channels="separate").shape == (2, len(SOUND))
