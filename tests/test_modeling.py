"""The network: sizes, shapes, padding, invariances, losses against plain loops, loading by the Auto classes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForAudioFrameClassification, pipeline

from data.corpora import open_corpus
from data.decoding import decode
from modeling import (
    FastDiarizationConfig,
    FastDiarizationFeatureExtractor,
    FastDiarizationForAudioFrameClassification,
    FastDiarizationModel,
)
from modeling.encoders_fast_diarization import ENCODERS

NAMES = ("lightweight-cnn", "attention-gru")
REAL = Path(__file__).parents[2] / "shared" / "speech"
few = settings(max_examples=10, deadline=None)


def a_minute_of_speech() -> np.ndarray:
    """A minute of real speech, or of the demo corpus where there is none."""
    utterances = open_corpus(str(REAL) if REAL.is_dir() else "demo", "validation")
    return np.concatenate([decode(row.audio) for row in list(utterances.read(0))[:20]])[: 60 * 16_000]


def windows_of(speech: np.ndarray, count: int, samples: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.resize(np.roll(speech, -77_777 * i), samples) for i in range(count)]))


def used_to_speech(encoder_type: str, speech: np.ndarray) -> FastDiarizationForAudioFrameClassification:
    """Default size, random weights, batch norm used to speech."""
    torch.manual_seed(0)
    model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(encoder_type=encoder_type))
    with torch.no_grad():
        model.fast_diarization.background.project.weight.normal_(std=0.1)
        for first in range(8):
            model.train()(windows_of(np.roll(speech, -33_333 * first), 4, 48_000))
    return model.eval()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return a_minute_of_speech()


@pytest.fixture(scope="module", params=NAMES)
def network(request, speech) -> FastDiarizationForAudioFrameClassification:
    return used_to_speech(request.param, speech)


def small(**config) -> FastDiarizationForAudioFrameClassification:
    torch.manual_seed(0)
    return FastDiarizationForAudioFrameClassification(FastDiarizationConfig(**{"hidden_size": 32, **config}))


@torch.no_grad()
def answer(model, waveforms, mask=None):
    return model(torch.as_tensor(waveforms), attention_mask=mask)


# Sizes and shapes


@pytest.mark.parametrize(("encoder", "millions"), [("lightweight-cnn", 2.3), ("attention-gru", 4.8)])
def test_parameters(encoder, millions):
    model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(encoder_type=encoder))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("encoder", NAMES)
@few
@given(samples=st.integers(1_600, 40_000), batch=st.integers(1, 3), speakers=st.integers(1, 4))
def test_any_length_and_batch(encoder, samples, batch, speakers):
    model = small(encoder_type=encoder, num_speakers=speakers).eval()
    output = answer(model, torch.randn(batch, samples))
    assert output.logits.shape == (batch, samples // 320, speakers)
    assert output.speaker_embeddings.shape == (batch, speakers, 192)
    assert torch.isfinite(output.logits).all()
    assert torch.allclose(output.speaker_embeddings.norm(dim=-1), torch.ones(batch, speakers), atol=1e-5)


def test_backbone_gives_40_and_80_ms(network, speech):
    output = answer(network.fast_diarization, windows_of(speech, 2, 48_000 + 320))
    assert output.last_hidden_state.shape == (2, 76, 256)
    assert output.speaker_states.shape == (2, 38, 256)
    assert output.affinity_states.shape == (2, 38, 128)


def test_a_tuple_on_request_and_the_same_answer_twice(network, speech):
    waveforms = windows_of(speech, 2, 20_000)
    with torch.no_grad():
        logits, embeddings = network(waveforms, return_dict=False)
    again = answer(network, waveforms)
    assert torch.equal(logits, again.logits) and torch.equal(embeddings, again.speaker_embeddings)


def test_silence_and_full_scale_are_finite(network):
    for waveform in (torch.zeros(1, 16_000), torch.ones(1, 16_000), torch.full((1, 16_000), 1e-20)):
        assert torch.isfinite(answer(network, waveform).logits).all()


# Padding


@few
@given(lengths=st.lists(st.integers(1_600, 50_000), min_size=2, max_size=4), extra=st.integers(0, 5_000))
def test_padding_changes_no_real_frame(network, speech, lengths, extra):
    waveforms = torch.zeros(len(lengths), max(lengths) + extra)
    mask = torch.zeros(waveforms.shape, dtype=torch.long)
    for row, length in enumerate(lengths):
        waveforms[row, :length] = windows_of(speech, row + 1, length)[row]
        waveforms[row, length:] = 0.3  # what lies in the padding is nobody's business
        mask[row, :length] = 1
    together = answer(network, waveforms, mask)
    for row, length in enumerate(lengths):
        alone = answer(network, waveforms[row : row + 1, :length])
        frames = length // 320
        assert (together.logits[row, :frames] - alone.logits[0]).abs().max() < 1e-4
        assert (together.speaker_embeddings[row] - alone.speaker_embeddings[0]).abs().max() < 1e-3


def test_a_mask_of_ones_is_no_mask(network, speech):
    waveforms = windows_of(speech, 2, 48_000)
    masked = answer(network, waveforms, torch.ones_like(waveforms))
    assert (masked.logits - answer(network, waveforms).logits).abs().max() < 1e-4


def test_padding_does_not_enter_the_loss(network, speech):
    waveforms = windows_of(speech, 1, 32_000)
    labels = (torch.rand(1, 100, 2, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    named = {"speaker_labels": torch.tensor([[3, 4]])}
    mask = torch.ones(1, 48_000)
    mask[:, 32_000:] = 0
    with torch.no_grad():
        alone = network(waveforms, labels=labels, **named).loss
        padded = network(F.pad(waveforms, (0, 16_000)), mask, labels=F.pad(labels, (0, 0, 0, 50)), **named).loss
    assert float(padded) == pytest.approx(float(alone), abs=1e-4)


# Invariances


@pytest.mark.parametrize("decibel", [-50, -20, 20])
def test_gain_changes_nothing(network, speech, decibel):
    waveforms = windows_of(speech, 2, 48_000)
    quiet = answer(network, waveforms * 10 ** (decibel / 20))
    assert (quiet.logits - answer(network, waveforms).logits).abs().max() < 5e-3


@pytest.mark.parametrize("offset", [-0.5, 0.01, 0.3])
def test_a_constant_offset_changes_nothing(network, speech, offset):
    waveforms = windows_of(speech, 2, 48_000)
    assert (answer(network, waveforms + offset).logits - answer(network, waveforms).logits).abs().max() < 5e-3


# What is wrong is said


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_values": torch.zeros(16_000)}, r"shape \(batch, samples\), got \(16000,\)"),
        ({"input_values": torch.zeros(1, 2, 16_000)}, r"shape \(batch, samples\), got \(1, 2, 16000\)"),
        ({"input_values": torch.zeros(1, 1_599)}, r"at least 1600 samples \(0.1 s\), got 1599"),
        (
            {"input_values": torch.zeros(2, 16_000), "labels": torch.zeros(2, 49, 2)},
            r"logits \(2, 50, 2\), got \(2, 49, 2\)",
        ),
        (
            {"input_values": torch.zeros(2, 16_000), "labels": torch.zeros(2, 50, 3)},
            r"logits \(2, 50, 2\), got \(2, 50, 3\)",
        ),
    ],
)
def test_wrong_inputs(inputs, message):
    with pytest.raises(ValueError, match=message):
        small()(**inputs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_speakers": 0}, "num_speakers must be a whole number from 1 to 8, got 0"),
        ({"num_speakers": 10**9}, "num_speakers must be a whole number from 1 to 8, got 1000000000"),
        ({"num_speakers": None}, "num_speakers must be a whole number from 1 to 8, got None"),
        ({"max_simultaneous": True}, "max_simultaneous must be a whole number from 1 to 8, got True"),
        ({"hidden_size": 100}, "hidden_size must be a multiple of 8, got 100"),
        ({"hidden_size": 0}, "hidden_size must be a whole number from 8 to 1024, got 0"),
        ({"hidden_size": 10**12}, "hidden_size must be a whole number from 8 to 1024, got 1000000000000"),
        ({"hidden_size": "wide" * 99}, "hidden_size must be a whole number from 8 to 1024, got 'widewide.{1,60}$"),
        ({"num_mel_bins": 10**9}, "num_mel_bins must be a whole number from 1 to 200, got 1000000000"),
        ({"embedding_size": -1}, "embedding_size must be a whole number from 1 to 1024, got -1"),
        ({"encoder_type": "lstm"}, "encoder_type must be one of lightweight-cnn, attention-gru, got 'lstm'"),
        ({"encoder_type": ["lstm"]}, r"encoder_type must be one of lightweight-cnn, attention-gru, got \['lstm'\]"),
        ({"dropout": -0.1}, "dropout must be a number from 0 to 0.99, got -0.1"),
        ({"dropout": 1}, "dropout must be a number from 0 to 0.99, got 1"),
        ({"window_seconds": 0.05}, "window_seconds must be a number from 0.1 to 60, got 0.05"),
        ({"window_seconds": 1e300}, r"window_seconds must be a number from 0.1 to 60, got 1e\+300"),
        ({"speaker_loss_weight": float("nan")}, "speaker_loss_weight must be a number from 0 to 1e.06, got nan"),
        ({"sliding_window_seconds": "3"}, "sliding_window_seconds must be a number from 0.5 to 60, got '3'"),
        ({"hop_seconds": {}}, "hop_seconds must be a number from 0 to 3600, got {}"),
        ({"sliding_window_seconds": 60.0, "hop_seconds": 0.02}, r"hop_seconds must be in \[0.4, sliding_window"),
        ({"min_duration_off": float("inf")}, "min_duration_off must be a number from 0 to 3600, got inf"),
        ({"min_speaker_share": [1]}, r"min_speaker_share must be a number from 0 to 1, got \[1\]"),
        ({"same_speaker_similarity": None}, "same_speaker_similarity must be a number from -1 to 1, got None"),
        ({"onset": 0.3, "offset": 0.5}, "got offset 0.5 and onset 0.3"),
    ],
)
def test_wrong_configurations(config, message):
    with pytest.raises(ValueError, match=message):
        FastDiarizationConfig(**config)


def test_an_encoder_of_another_name_is_never_taken_for_one_of_ours():
    config = FastDiarizationConfig(hidden_size=32)
    config.encoder_type = "lstm"
    for network in (FastDiarizationModel, FastDiarizationForAudioFrameClassification):
        with pytest.raises(ValueError, match="encoder_type must be one of lightweight-cnn, attention-gru, got 'lstm'"):
            network(config)


def test_a_new_encoder_is_a_class_and_a_line_of_the_registry(monkeypatch, tmp_path):
    class Nothing(torch.nn.Module):
        def __init__(self, config):
            super().__init__()

        def forward(self, states, mask):
            return states

    monkeypatch.setitem(ENCODERS, "nothing", Nothing)
    small(encoder_type="nothing").save_pretrained(tmp_path)
    model = FastDiarizationForAudioFrameClassification.from_pretrained(tmp_path)
    assert type(model.fast_diarization.context) is Nothing
    assert answer(model.eval(), torch.randn(1, 16_000)).logits.shape == (1, 50, 2)


def test_the_extractor_batches_pads_and_masks():
    batch = FastDiarizationFeatureExtractor()(
        [[0.1] * 1_600, np.ones(2_000)], sampling_rate=16_000, return_tensors="pt"
    )
    assert batch["input_values"].shape == batch["attention_mask"].shape == (2, 2_000)
    assert batch["input_values"].dtype == torch.float32
    assert batch["attention_mask"].sum(1).tolist() == [1_600, 2_000]
    assert not batch["input_values"][0, 1_600:].any()


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros(8_000), 8_000, "at 16000 Hz, got 8000 Hz"),
        (np.zeros((1, 2, 8_000)), 16_000, r"shape \(samples,\), got \(1, 2, 8000\)"),
        ([np.zeros((2, 8_000))], 16_000, r"shape \(samples,\), got \(2, 8000\)"),
    ],
)
def test_the_extractor_says_what_is_wrong(waveform, rate, message):
    with pytest.raises(ValueError, match=message):
        FastDiarizationFeatureExtractor()(waveform, sampling_rate=rate)


# Saving and loading


def test_auto_classes_know_the_network():
    config = FastDiarizationConfig(hidden_size=32)
    assert type(AutoModel.from_config(config)) is FastDiarizationModel
    assert type(AutoModelForAudioFrameClassification.from_config(config)) is FastDiarizationForAudioFrameClassification


def test_a_configuration_survives_its_file(tmp_path):
    config = FastDiarizationConfig(num_speakers=3, encoder_type="attention-gru", dropout=0.1, onset=0.6)
    config.save_pretrained(tmp_path)
    assert FastDiarizationConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()


def test_what_is_trained_from_a_model_on_the_hub_points_at_its_own_code():
    usual = FastDiarizationConfig()
    there = json.loads(
        usual.to_json_string().replace('"modeling_', '"user/a--modeling_').replace('"pipeline_', '"user/a--pipeline_')
    )
    assert "user/a--" in json.dumps(there)
    config = FastDiarizationConfig(**there)
    assert (config.auto_map, config.custom_pipelines) == (usual.auto_map, usual.custom_pipelines)


def test_the_backbone_of_a_classifier_can_be_taken(network, tmp_path, speech):
    network.save_pretrained(tmp_path)
    backbone = FastDiarizationModel.from_pretrained(tmp_path).eval()
    waveforms = windows_of(speech, 1, 16_000)
    expected = answer(network.fast_diarization, waveforms).last_hidden_state
    assert torch.allclose(answer(backbone, waveforms).last_hidden_state, expected, atol=1e-4)


@pytest.mark.process
@pytest.mark.parametrize("variable", [None, "TRANSFORMERS_5_PYTHON"])
def test_a_saved_directory_loads_where_this_repository_is_absent(network, speech, tmp_path, variable):
    """In a new process, an empty directory and, where the variable names its interpreter, another transformers."""
    interpreter = os.environ.get(variable, "") if variable else sys.executable
    if not interpreter:
        pytest.skip(f"{variable} is not set to the python of an environment with transformers 5")
    model, elsewhere = tmp_path / "model", tmp_path / "empty"
    elsewhere.mkdir()
    network.save_pretrained(model)
    FastDiarizationFeatureExtractor().save_pretrained(model)
    waveforms = windows_of(speech, 2, 10 * 16_000)
    np.save(tmp_path / "waveforms.npy", waveforms)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    script = Path(__file__).with_name("load_elsewhere.py")
    command = [interpreter, "-I", script, model, tmp_path / "waveforms.npy", tmp_path / "answers.npz"]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(tmp_path / "answers.npz")
    if variable:
        assert str(found["version"]).startswith("5.")
    expected = answer(network, waveforms)
    for way in ("usual", "meta"):
        assert np.abs(found[f"{way}_logits"] - expected.logits.numpy()).max() < 1e-4
        assert np.abs(found[f"{way}_embeddings"] - expected.speaker_embeddings.numpy()).max() < 1e-4
    hidden = answer(network.fast_diarization, waveforms).last_hidden_state
    assert np.abs(found["hidden"] - hidden.numpy()).max() < 1e-4
    diarizer = pipeline("speaker-diarization", model=str(model), trust_remote_code=True)
    segments = diarizer({"array": waveforms[0].numpy(), "sampling_rate": 16_000})
    assert json.loads(str(found["segments"])) == segments
    (turn,) = json.loads(str(found["turns"]))
    assert turn["text"] == "Hello" and (turn["speaker"] is None) == (not segments)
    assert json.loads(str(found["config"]))["encoder_type"] == network.config.encoder_type
