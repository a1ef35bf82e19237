"""Publishing halves the files of a model and leaves its answers as they were."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from diarization.backends import ModelError
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.modeling_fast_diarization import Conv
from publishing.publish import (
    absorb_norms,
    average,
    copy_code,
    describe,
    main,
    portable,
    publish,
    round_weights,
    speech_by_corpus,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


def sound(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 48_000, generator=generator) * torch.rand(count, 48_000, generator=generator).round()


PUBLISHED = sorted(path.parent for path in (ROOT / "pretrained").glob("*/config.json"))
LOAD = """
import sys
from transformers import AutoFeatureExtractor, AutoModelForAudioFrameClassification, pipeline
directory, repository = sys.argv[1:]
extractor = AutoFeatureExtractor.from_pretrained(directory, trust_remote_code=True)
model = AutoModelForAudioFrameClassification.from_pretrained(directory, trust_remote_code=True).eval()
print(tuple(model(**extractor([0.1] * 48_000, sampling_rate=16_000, return_tensors="pt")).logits.shape))
pipeline("speaker-diarization", model=directory, trust_remote_code=True)
files = [str(getattr(module, "__file__", "")) for module in sys.modules.values()]
ours = [file for file in files if file.startswith(repository + "/") and not file.startswith(sys.prefix + "/")]
assert not ours, ours
"""


@pytest.mark.parametrize("directory", PUBLISHED, ids=lambda path: path.name)
def test_a_published_model_carries_the_code_of_modeling(directory):
    ours = {file.name: file.read_bytes() for file in (ROOT / "modeling").glob("*_fast_diarization.py")}
    theirs = {file.name: file.read_bytes() for file in directory.glob("*_fast_diarization.py")}
    assert theirs.keys() == ours.keys()
    differing = [name for name in ours if theirs[name] != ours[name]]
    assert not differing, f"run python -m publishing.publish --code {directory}"


@pytest.mark.parametrize("directory", PUBLISHED, ids=lambda path: path.name)
def test_a_published_model_loads_offline_without_this_repository(directory, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", LOAD, directory, ROOT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[0] == "(1, 150, 2)"


@pytest.fixture(scope="module", params=["lightweight-cnn", "attention-gru"])
def trained(request):
    """A small network whose norms have seen something, with some of their scales negative.

    None is nearly 0, for a batch norm keeps its epsilon whatever its scale, and absorbing that is not exact.
    """
    torch.manual_seed(0)
    model = FastDiarizationForAudioFrameClassification(
        FastDiarizationConfig(hidden_size=64, encoder_type=request.param, dropout=0.0)
    )
    model.train()
    for _ in range(20):
        model(sound())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Conv):
                sign = torch.randint_like(module.norm.weight, 2) * 2 - 1
                module.norm.weight.uniform_(0.3, 1.5).mul_(sign)
    return model.eval()


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    source, target = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("published")
    trained.save_pretrained(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["publish", str(source), str(target)])
        main()
    return source, target


def test_the_mean_of_two_networks_is_half_of_each():
    torch.manual_seed(0)
    one, other, wide = (
        FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=size)) for size in (16, 16, 32)
    )
    expected = {name: (tensor + other.state_dict()[name]) / 2 for name, tensor in one.state_dict().items()}
    average(one, other)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor.float(), expected[name].float())
    with pytest.raises(ModelError, match="differ in shape"):
        average(one, wide)


def test_absorbed_norms_change_no_answer_and_no_training(trained):
    copy = FastDiarizationForAudioFrameClassification(trained.config)
    copy.load_state_dict(trained.state_dict())
    absorb_norms(copy)
    for module in copy.modules():
        if isinstance(module, Conv):
            norm = module.norm
            assert torch.equal(norm.weight, torch.sqrt(norm.running_var + norm.eps))
    for mode in (False, True):
        with torch.no_grad():
            expected = trained.train(mode)(sound()).logits
            found = copy.train(mode)(sound()).logits
        assert torch.allclose(found, expected, atol=2e-4), mode
    trained.eval()


def test_weights_are_half_the_size_and_load_as_float32(trained, published):
    source, target = published
    sizes = [(directory / "model.safetensors").stat().st_size for directory in (source, target)]
    assert sizes[1] < 0.6 * sizes[0]
    stored = load_file(target / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.dim() > 1 and t.numel() >= 1024} == {torch.float16}
    loaded = FastDiarizationForAudioFrameClassification.from_pretrained(target)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    expected = FastDiarizationForAudioFrameClassification.from_pretrained(source)
    absorb_norms(expected)
    round_weights(expected)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(sound()).logits, expected.eval()(sound()).logits)
        assert (loaded(sound()).logits - trained(sound()).logits).abs().max() < 0.1


def test_onnx_is_half_the_size_and_answers_as_torch_does(published):
    source, target = published
    file = target / "model.onnx"
    matrices = [t for t in onnx.load(file).graph.initializer if np.prod(t.dims) >= 1024 and t.data_type == 1]
    constants = 64 * 200 + 2 * 200 * 200  # the front end, computed and not learnt
    assert sum(np.prod(t.dims) for t in matrices) <= constants
    assert file.stat().st_size < 0.6 * (source / "model.safetensors").stat().st_size + 4 * constants
    loaded = FastDiarizationForAudioFrameClassification.from_pretrained(target).eval()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    logits, embeddings = session.run(["logits", "speaker_embeddings"], {"input_values": sound().numpy()})
    with torch.no_grad():
        expected = loaded(sound())
    assert np.abs(logits - expected.logits.numpy()).max() < 1e-4
    assert np.abs(embeddings - expected.speaker_embeddings.numpy()).max() < 1e-4


def test_the_directory_is_complete(published):
    _, target = published
    names = {file.name for file in target.iterdir()}
    assert {"config.json", "preprocessor_config.json", "README.md", "modeling_fast_diarization.py"} <= names


def test_scores_of_one_network_are_not_those_of_the_mean(trained, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    trained.save_pretrained(source)
    for name in ("windows", "evaluation", "latency"):
        (source / f"{name}.json").write_text("{}")
    monkeypatch.setattr(subprocess, "run", lambda command: SimpleNamespace(returncode=0))
    publish(source, target, before=source)
    assert not (target / "windows.json").exists() and not (target / "evaluation.json").exists()
    publish(source, target)
    assert (target / "windows.json").exists() and (target / "evaluation.json").exists()


def test_what_is_no_model_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["publish", str(tmp_path), str(tmp_path / "target")])
    with pytest.raises(SystemExit, match="error: model .*; give a model that train.py"):
        main()


def test_no_place_of_this_machine_is_published():
    command = "accelerate launch train.py --dataset ../shared/speech --noise=/data/noise --start_from /x/runs/one/model"
    assert portable(command) == (
        "accelerate launch train.py --dataset path/to/speech --noise=path/to/noise --start_from runs/one/model"
    )
    assert portable("configs/demo.yaml and/or runs/demo, 1/2") == "configs/demo.yaml and/or runs/demo, 1/2"


def test_corpora_trained_on_are_named_with_their_hours(tmp_path):
    (tmp_path / "train").mkdir()
    for number, seconds in enumerate((1800.0, 5400.0)):
        columns = {"corpus": ["vctk", "librispeech"], "seconds": [seconds, 360.0], "speaker_id": [f"p{number}", "l"]}
        rows = pa.table(columns | {"audio": ["", ""]})
        pq.write_table(rows, tmp_path / f"train/train-{number}.parquet")
    expected = {"librispeech": {"hours": 0.2, "speakers": 1}, "vctk": {"hours": 2.0, "speakers": 2}}
    assert speech_by_corpus(tmp_path) == expected
    training = {"name": "run", "dataset": str(tmp_path), "command": f"train.py --dataset {tmp_path}"}
    before = {"steps": 863, "hours": 0.2, "learning_rate": 1e-3, "command": "train.py --bf16 true"}
    described = describe(training, "lightweight-cnn", tmp_path, before)
    assert str(tmp_path) not in str(described) and described["name"] == "lightweight-cnn"
    first = {"steps": 863, "hours": 0.2, "learning_rate": 1e-3, "what": "bfloat16"}
    assert described["earlier"] == [first]
    then = before | {"steps": 9, "command": "train.py", "earlier": [first]}
    assert describe(training, "x", None, then)["earlier"] == [first, first | {"steps": 9, "what": ""}]
    with pytest.raises(SystemExit, match="no train"):
        speech_by_corpus(tmp_path / "train")


def test_code_is_copied_to_published_models_alone(tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "gone_fast_diarization.py").touch()
    (model / "README.md").write_text("card")
    monkeypatch.setattr(sys, "argv", ["publish", "--code", str(model)])
    main()
    ours = {file.name: file.read_bytes() for file in (ROOT / "modeling").glob("*_fast_diarization.py")}
    assert {file.name: file.read_bytes() for file in model.glob("*_fast_diarization.py")} == ours
    assert (model / "README.md").read_text() == "card" and str(model) in capsys.readouterr().out
    with pytest.raises(SystemExit, match="has no config.json; give published models"):
        copy_code(tmp_path)


def test_earlier_training_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["publish", "x", str(tmp_path), "--earlier", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit, match="error: --earlier .*none.json cannot be read: .*No such file"):
        main()
