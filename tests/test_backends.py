"""Opening of models: graphs and configurations that are not ours, weights that are no numbers, no torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from loopback_clients import run_client
from loopback_hub import LoopbackHub
from loopback_repository import Blob
from onnx import TensorProto, helper
from two_tones import write_model

from diarization.backends import load_weights, open_network
from diarization.onnx_graph import ModelError
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.pipeline_fast_diarization import torch_network
from modeling.settings_fast_diarization import LinkingSettings, SpeakerCount

ROOT = Path(__file__).resolve().parent.parent
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
FREE = ("batch", "samples")
WITHOUT = "import sys; sys.modules.update({{name: None for name in {absent}}})\n"
OPEN = """
from diarization.backends import open_network
try:
    network, settings = open_network({model!r})
    print("opened", settings.sliding_window_seconds)
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("weights")
    FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16)).save_pretrained(directory)
    return directory


def write_graph(directory: Path, shape=FREE, kind=FLOAT, frame=320, tracks=2, embedded=2, value=0.5) -> Path:
    """A network that answers `value` for every frame of so many samples and every track, whatever it hears."""
    constants = {
        "first": np.array([0]),
        "frame": np.array([frame]),
        "tracks": np.array([tracks]),
        "batch_axis": np.array([0]),
        "last_axis": np.array([len(shape) - 1]),
        "voices": np.array([embedded, 4]),
    }
    filled = {"value": helper.make_tensor("value", FLOAT, [1], [value])}
    nodes = [
        helper.make_node("Shape", ["input_values"], ["shape"]),
        helper.make_node("Gather", ["shape", "batch_axis"], ["batch"]),
        helper.make_node("Gather", ["shape", "last_axis"], ["samples"]),
        helper.make_node("Div", ["samples", "frame"], ["frames"]),
        helper.make_node("Concat", ["batch", "frames", "tracks"], ["logits_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["logits_shape"], ["logits"], **filled),
        helper.make_node("Concat", ["batch", "voices"], ["voices_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["voices_shape"], ["speaker_embeddings"], **filled),
    ]
    outputs = [helper.make_tensor_value_info(name, FLOAT, [None] * 3) for name in ("logits", "speaker_embeddings")]
    inputs = [helper.make_tensor_value_info("input_values", kind, shape)]
    stored = [onnx.numpy_helper.from_array(array.astype(np.int64), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "m.onnx")
    (directory / "config.json").write_text("{}")
    return directory / "m.onnx"


def test_a_graph_like_ours_is_taken(tmp_path):
    network, settings = open_network(str(write_graph(tmp_path)))
    logits, embeddings = network(np.zeros((3, 16_000), np.float32))
    assert (logits.shape, embeddings.shape, settings) == ((3, 50, 2), (3, 2, 4), LinkingSettings())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"kind": INT64}, r"has input_values of tensor\(int64\) and not of tensor\(float\)"),
        ({"kind": DOUBLE}, r"has input_values of tensor\(double\) and not of tensor\(float\)"),
        ({"shape": ("batch", 48_000)}, r"of shape \['batch', 48000\] only, and batch and samples must be free"),
        ({"shape": (1, "samples")}, r"of shape \[1, 'samples'\] only, and batch and samples must be free"),
        ({"shape": ("batch", 1, "samples")}, r"of shape \['batch', 1, 'samples'\] and not \(batch, samples\)"),
        ({"frame": 10**6}, r"gives logits of shape \(1, 0, 2\) and .* and not \(1, 5, speakers\)"),
        ({"frame": 160}, r"gives logits of shape \(1, 10, 2\) .* for 1 x 1600 samples, and not \(1, 5, speakers\)"),
        ({"tracks": 0, "embedded": 0}, r"gives logits of shape \(1, 5, 0\)"),
        ({"tracks": 9, "embedded": 9}, r"gives logits of shape \(1, 5, 9\)"),
        ({"embedded": 3}, r"speaker_embeddings of \(1, 3, 4\) for .* and \(1, speakers, dim\)"),
        ({"value": np.nan}, "the network's outputs are NaN or infinite: its weights are damaged or its training"),
        ({"value": np.inf}, "the network's outputs are NaN or infinite"),
    ],
)
def test_a_graph_that_is_not_ours_is_one_line(graph, message, tmp_path, capfd):
    file = write_graph(tmp_path, **graph)
    with pytest.raises(ModelError, match=f"^model {file}.*{message}") as refused:
        open_network(str(file))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


HOSTILE = {
    "text for a number": ({"onset": "loud"}, "onset must be a number from 0 to 1, got 'loud'"),
    "null": ({"hop_seconds": None}, "hop_seconds must be a number from 0 to 3600, got None"),
    "huge": ({"sliding_window_seconds": 1e300}, r"sliding_window_seconds must be a number from 0.5 to 60, got 1e\+300"),
    "NaN": ({"min_speaker_share": float("nan")}, "min_speaker_share must be a number from 0 to 1, got nan"),
    "a list": ([1, 2], "it holds a list, not a mapping"),
    "null alone": (None, "it holds a NoneType, not a mapping"),
    "nested": ("[" * 100_000, "recursion|Expecting"),
    "no JSON": ("{'onset': 1}", "Expecting property name"),
    "long digits": ('{"onset": ' + "9" * 5_000 + "}", "Exceeds the limit"),
    "long": (" " * 2**21, "more than 1048576 bytes"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_configuration_of_anything_is_one_line(kind, model, weights, tmp_path):
    content, message = HOSTILE[kind]
    for name, source in (("model.onnx", model), ("model.safetensors", weights)):
        directory = tmp_path / name.partition(".")[2]
        directory.mkdir()
        (directory / name).write_bytes((source / name).read_bytes())
        config = directory / "config.json"
        if isinstance(content, dict):
            content = json.loads((source / "config.json").read_text()) | content
        config.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(
            ModelError, match=rf"^model {directory} cannot be opened \(config.json: .*{message}"
        ) as refused:
            open_network(str(directory))
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"num_speakers": 10**9},
        {"num_speakers": None},
        {"hidden_size": 10**12},
        {"embedding_size": 10**12},
        {"num_mel_bins": "many"},
        {"window_seconds": 1e300},
        {"num_labels": 10**9, "id2label": None},
        {"id2label": "text"},
        {"auto_map": 3},
        {"architectures": 3},
        {"quantization_config": {"quant_method": "none"}},
        {"torch_dtype": "int12"},
        {"attn_implementation": "none"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_a_network_of_impossible_shape_is_one_line(fields, weights, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes())
    config = json.loads((weights / "config.json").read_text()) | fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    try:
        network, _ = open_network(str(tmp_path))
    except ModelError as error:
        assert str(error).startswith(f"model {tmp_path} ") and "\n" not in str(error)
    else:  # transformers takes no notice of it
        assert network(np.zeros((1, 16_000), np.float32))[0].shape == (1, 50, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, weights, tmp_path):
    network = load_weights(str(weights))
    with torch.no_grad():
        network.fast_diarization.up.weight[3, 5] = value
    network.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"^model {tmp_path} has NaN or infinite weights \(first in fast_.*up.weight"):
        load_weights(str(tmp_path))


def test_running_statistics_are_weights_too(weights, tmp_path):
    network = load_weights(str(weights))
    network.fast_diarization.input_norm.running_var[:] = float("nan")
    network.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="NaN or infinite weights .*running_var"):
        load_weights(str(tmp_path))


def test_outputs_that_are_no_numbers_are_no_silence(weights):
    network = load_weights(str(weights))
    network.classifier.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="the network's outputs are NaN or infinite"):
        torch_network(network)(np.zeros((1, 16_000), np.float32))


@pytest.mark.parametrize("value", ["two", float("inf"), float("nan"), 2.5, [2], True, 0, 10**30])
def test_a_number_of_speakers_that_is_none_is_one_line(value):
    with pytest.raises(ValueError, match="^num_speakers must be a whole number from 1 to 100, got "):
        SpeakerCount(num_speakers=value)


# Without torch


def said_without(absent: tuple[str, ...], model: str, hub: LoopbackHub | None = None) -> str:
    script = WITHOUT.format(absent=absent) + OPEN.format(model=model)
    if hub:
        done = run_client(script, hub)
    else:
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pretrained/lightweight-cmm", "model pretrained/lightweight-cmm: no such directory; train one"),
        ("/nowhere/model.safetensors", "model /nowhere/model.safetensors: no such directory; train one"),
        ("{weights}", "model {weights}: its weights need torch and transformers, which are not installed; pip install"),
    ],
)
def test_without_torch_the_path_is_looked_at_first(name, message, weights):
    said = said_without(("torch", "transformers", "huggingface_hub"), name.format(weights=weights))
    assert said.startswith(message.format(weights=weights))


@pytest.mark.process
def test_without_torch_a_hub_id_needs_huggingface_hub():
    said = said_without(("torch", "transformers", "huggingface_hub"), "user/name")
    assert said.startswith("model user/name: no such directory here, and huggingface_hub is not installed")


@pytest.mark.process
def test_without_torch_the_onnx_file_of_a_hub_id_is_taken(model, weights):
    with LoopbackHub() as hub:
        files = {name: (model / name).read_bytes() for name in ("model.onnx", "config.json")}
        hub.add_repository("user/both", files | {"model.safetensors": b"\0" * 1_000}, "model")
        hub.add_repository("user/weights", weights, "model")
        absent = ("torch", "transformers")
        assert said_without(absent, "user/both", hub) == "opened 3.0"
        assert not hub.requests("*model.safetensors*")
        assert "user/weights has no model.onnx on the Hub, and torch is not" in said_without(
            absent, "user/weights", hub
        )
        said = said_without(absent, "user/none", hub)
        assert said.startswith("model user/none: no such directory here, and it could not be fetched from the Hub (")
        assert "\n" not in said


@pytest.mark.process
def test_a_revision_is_kept_and_read_without_the_hub(model, tmp_path):
    files = {name: (model / name).read_bytes() for name in ("model.onnx", "config.json")}
    changed = json.loads(files["config.json"]) | {"sliding_window_seconds": 5.0}
    with LoopbackHub() as hub:
        hub.add_repository("user/name", files, "model")
        repository = hub.repositories["model", "user/name"]
        first = repository.head.oid
        repository.commit(repository.head.files | {"config.json": Blob(json.dumps(changed).encode())}, "changed")
        kept = {"HF_HOME": str(tmp_path / "cache")}

        def opened(revision: str | None, **environment: str) -> str:
            code = OPEN.replace("{model!r}", "'user/name', revision={revision!r}").format(revision=revision)
            code = WITHOUT.format(absent=("torch", "transformers")) + code
            return run_client(code, hub, env=kept | environment).stdout.strip()

        assert opened(first) == "opened 3.0"
        assert opened(None) == opened("main") == "opened 5.0"
        assert "no such directory here, and it could not be fetched from the Hub (" in opened("nowhere")
        hub.forget_requests()
        assert [opened(name, HF_HUB_OFFLINE="1") for name in (first, None)] == ["opened 3.0", "opened 5.0"]
        assert not hub.requests()
    assert [opened(name) for name in (first, None)] == ["opened 3.0", "opened 5.0"], "the Hub is gone"


def test_a_revision_of_a_directory_is_one_line(model):
    with pytest.raises(ModelError, match="is on this disk, and --revision is for a Hub id; leave it out"):
        open_network(str(model), revision="main")
