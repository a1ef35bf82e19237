"""What the Hugging Face libraries do with the stand-in for the Hub: push, pull, stream."""

import io
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import av
import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from corpora_fixtures import SAMPLING_RATE, speech_utterances, write_librispeech, write_voxceleb2
from loopback_clients import run_client
from loopback_hub import LoopbackHub
from test_loopback_hub import digest

pytestmark = pytest.mark.hub

FOOTER = 1 << 16  # pyarrow reads the last 64 KiB of a Parquet file first


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpora")
    utterances = speech_utterances()
    librispeech = write_librispeech(directory / "user/librispeech", utterances, row_group_size=8, num_shards=2)
    voxceleb2 = write_voxceleb2(directory / "user/voxceleb2", utterances, num_shards=3)
    return SimpleNamespace(directory=directory, utterances=utterances, librispeech=librispeech, voxceleb2=voxceleb2)


@pytest.fixture
def corpora_hub(corpora):
    with LoopbackHub() as hub:
        hub.add_repository("user/librispeech", corpora.directory / "user/librispeech")
        hub.add_repository("user/voxceleb2", corpora.directory / "user/voxceleb2")
        yield hub


REFUSED_PUSHES = """
import json
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

api = HfApi()
api.create_repo("model")

def push(path):
    try:
        api.upload_file(path_or_fileobj=b"content of " + path.encode(), path_in_repo=path, repo_id="tester/model")
        return None
    except HfHubHTTPError as error:
        return error.response.status_code
    except RuntimeError as error:  # how a failed LFS upload is reported
        return error.__cause__.response.status_code

print(json.dumps([push("notes.txt"), push("notes.txt"), push("model.safetensors"), push("model.safetensors")]))
"""


def test_refused_pushes_leave_the_repository_as_it_was(hub):
    hub.faults.add("*/commit/*", "refuse")
    hub.faults.add("/lfs/tester/model/*", "refuse", code=507)
    client = run_client(REFUSED_PUSHES, hub)
    assert json.loads(client.stdout) == [403, None, 507, None]
    assert hub.files("tester/model") == {
        "notes.txt": b"content of notes.txt",
        "model.safetensors": b"content of model.safetensors",
    }
    assert len(hub.repositories["model", "tester/model"].commits) == 3


HUB_API = """
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

api = HfApi()
folder = Path("folder")
(folder / "sub").mkdir(parents=True)
(folder / "large.bin").write_bytes(bytes(range(256)) * 80_000)  # 20 MB, by LFS
(folder / "sub" / "small.json").write_text("{}")
api.create_repo("tester/files")
first = api.upload_folder(folder_path=folder, repo_id="tester/files").oid
again = api.upload_folder(folder_path=folder, repo_id="tester/files").oid
api.delete_file("sub/small.json", repo_id="tester/files")
old = Path(snapshot_download("tester/files", revision=first))

def missing(path, repo_id="tester/files"):
    try:
        api.hf_hub_download(repo_id, path)
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        return type(error).__name__

print(json.dumps({
    "unchanged": first == again,
    "old": {str(p.relative_to(old)): hashlib.sha256(p.read_bytes()).hexdigest() for p in old.rglob("*") if p.is_file()},
    "tree": [[type(e).__name__, e.path] for e in api.list_repo_tree("tester/files", revision=first, recursive=True)],
    "now": api.list_repo_files("tester/files"),
    "sha": api.repo_info("tester/files").sha,
    "missing": [missing("nothing"), missing("nothing", "tester/nothing")],
}))
"""


def test_huggingface_hub_pushes_and_pulls(hub):
    seen = json.loads(run_client(HUB_API, hub).stdout)
    large = digest(bytes(range(256)) * 80_000)
    assert seen["unchanged"]
    assert seen["old"] == {"large.bin": large, "sub/small.json": digest(b"{}")}
    assert seen["tree"] == [["RepoFile", "large.bin"], ["RepoFolder", "sub"], ["RepoFile", "sub/small.json"]]
    assert seen["now"] == ["large.bin"]
    assert seen["sha"] == hub.repositories["model", "tester/files"].head.oid
    assert [name.removeprefix("Remote") for name in seen["missing"]] == [
        "EntryNotFoundError",
        "RepositoryNotFoundError",
    ]
    uploads = hub.requests("/lfs/tester/files/*", method="PUT")
    assert len(uploads) == 1, "the large file is sent once, by LFS"


TINY_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class TinyConfig(PretrainedConfig):
    model_type = "tiny-loopback"

    def __init__(self, size=3, **kwargs):
        super().__init__(**kwargs)
        self.size = size

class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = torch.nn.Linear(config.size, config.size)
        self.post_init()

    def forward(self, x, labels=None):
        y = self.linear(x)
        return {"loss": y.square().mean(), "logits": y}

TinyConfig.register_for_auto_class()
TinyModel.register_for_auto_class("AutoModel")
"""

MODEL_ROUNDTRIP = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from tiny_loopback import TinyConfig, TinyModel
from transformers import AutoModel, Trainer, TrainingArguments

model = TinyModel(TinyConfig(size=4))
model.push_to_hub("tester/tiny")
pulled = AutoModel.from_pretrained("tester/tiny", trust_remote_code=True)
x = torch.ones(1, 4)
same = torch.equal(model(x)["logits"], pulled(x)["logits"])

arguments = TrainingArguments(
    "tester-run", hub_model_id="tester/run", push_to_hub=True, hub_strategy="every_save", max_steps=1, save_steps=1,
    report_to="none", use_cpu=True, disable_tqdm=True,
)
trainer = Trainer(model, arguments, train_dataset=[{"x": torch.ones(4), "labels": 0}] * 8)
trainer.train()
trainer.push_to_hub()
trained = AutoModel.from_pretrained("tester/run", trust_remote_code=True)
same_trained = torch.equal(model(x)["logits"], trained(x)["logits"])
print(json.dumps([type(pulled).__module__.split(".")[0], same, same_trained]))
"""


def test_models_with_code_of_their_own_and_trainer_pushes_come_back_equal(hub, tmp_path):
    (tmp_path / "tiny_loopback.py").write_text(TINY_CODE)
    client = run_client(MODEL_ROUNDTRIP, hub, str(tmp_path))
    assert json.loads(client.stdout.splitlines()[-1]) == ["transformers_modules", True, True]
    assert {"config.json", "model.safetensors", "tiny_loopback.py"} <= hub.files("tester/tiny").keys()
    assert {"model.safetensors", "training_args.bin", "README.md"} <= hub.files("tester/run").keys()


# Streaming

STREAMING = """
import hashlib, json
from datasets import Audio, Dataset, load_dataset

def digest(row, audio):
    return {**row, audio: hashlib.sha256(row[audio]).hexdigest()}

seen = {}
for config, split in [("clean", "train.100"), ("clean", "validation"), ("all", "test.clean")]:
    stream = load_dataset("user/librispeech", config, split=split, streaming=True)
    dtypes = {name: feature.dtype for name, feature in stream.features.items() if name != "audio"}
    rows = stream.cast_column("audio", Audio(decode=False))
    rows = [digest({**row, "path": row["audio"]["path"], "audio": row["audio"]["bytes"]}, "audio") for row in rows]
    seen[split] = {"rows": rows, "shards": stream.num_shards, "dtypes": dtypes}
stream = load_dataset("user/voxceleb2", split="train", streaming=True)
seen["voxceleb2"] = [digest(row, "m4a") for row in stream]
seen["third tar"] = [row["__key__"] for row in stream.shard(num_shards=stream.num_shards, index=2)]
parquet = load_dataset("user/librispeech", "clean", split="train.100", streaming=True)
seen["resharded"] = (parquet.reshard() if hasattr(parquet, "reshard") else parquet).num_shards  # datasets 4.0 has none
Dataset.from_dict({"id": ["a", "b"], "n": [1, 2]}).push_to_hub("tester/rows", split="train")
seen["pushed"] = list(load_dataset("tester/rows", split="train", streaming=True))
print(json.dumps(seen))
"""


def test_datasets_streams_parquet_and_webdataset_and_pushes(corpora_hub, corpora):
    seen = json.loads(run_client(STREAMING, corpora_hub).stdout)
    for split, part, shards in [("train.100", "train", 2), ("validation", "validation", 1), ("test.clean", "test", 1)]:
        audio = [row["audio"] for row in corpora.librispeech[part]]
        expected = [
            {**row, "audio": digest(a["bytes"]), "path": a["path"]}
            for row, a in zip(corpora.librispeech[part], audio, strict=True)
        ]
        assert seen[split]["rows"] == expected
        assert seen[split]["shards"] == shards
        assert seen[split]["dtypes"] == {
            "file": "string", "text": "string", "speaker_id": "int64", "chapter_id": "int64", "id": "string"
        }  # fmt: skip
    revision = corpora_hub.repositories["dataset", "user/voxceleb2"].head.oid
    per_tar = len(corpora.voxceleb2) // 3
    assert seen["voxceleb2"] == [
        {
            "__key__": row["__key__"],
            "__url__": f"hf://datasets/user/voxceleb2@{revision}/voxceleb2-dev-{i // per_tar:04d}.tar",
            "cls": row["cls"],
            "m4a": digest(row["m4a"]),
        }
        for i, row in enumerate(corpora.voxceleb2)
    ]
    assert seen["third tar"] == [row["__key__"] for row in corpora.voxceleb2[2 * per_tar :]]
    assert seen["pushed"] == [{"id": "a", "n": 1}, {"id": "b", "n": 2}]
    files = [*(corpora.directory / "user/librispeech/clean").glob("train.100-*.parquet")]
    row_groups = sum(pq.read_metadata(file).num_row_groups for file in files)
    assert len(files) == 2 < row_groups
    by_row_group = int(datasets.__version__.split(".")[0]) >= 5
    assert seen["resharded"] == (row_groups if by_row_group else len(files)), "datasets 5 shards by row group"


ROW_GROUPS = """
import json
import fsspec
import pyarrow.parquet as pq

files, path = fsspec.url_to_fs("hf://datasets/user/librispeech/all/train.clean.100-00001-of-00002.parquet")
with files.open(path, cache_type="none") as file:
    parquet = pq.ParquetFile(file, pre_buffer=True)
    print(json.dumps([parquet.read_row_group(i, columns=["id"])["id"].to_pylist() for i in (2, 0)]))
    parquet.read_row_group(1)
"""


def test_a_row_group_is_read_alone(corpora_hub, corpora):
    name = "all/train.clean.100-00001-of-00002.parquet"
    metadata = pq.read_metadata(corpora.directory / "user/librispeech" / name)
    stored = corpora.librispeech["train"][20:]
    read = json.loads(run_client(ROW_GROUPS, corpora_hub).stdout)
    assert read == [[row["id"] for row in stored[16:]], [row["id"] for row in stored[:8]]]
    footer, *identifiers, whole = corpora_hub.requests(f"*/{name}", method="GET")
    assert footer.sent == FOOTER
    assert [request.sent for request in identifiers] == [
        metadata.row_group(i).column(metadata.num_columns - 1).total_compressed_size for i in (2, 0)
    ]
    columns = [metadata.row_group(1).column(i) for i in range(metadata.num_columns)]
    assert whole.sent == sum(column.total_compressed_size for column in columns)


# The corpora served in tests


def test_corpora_decode_to_the_speech_they_were_made_of(corpora):
    by_speaker = {}
    for utterance in corpora.utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    assert len(by_speaker) == 12 and {len(said) for said in by_speaker.values()} == {5}
    stored = [row for part in corpora.librispeech.values() for row in part]
    for utterance, flac, m4a in zip(corpora.utterances, stored, corpora.voxceleb2, strict=True):
        assert 0.003 < np.sqrt(np.mean(utterance.waveform**2)) < 0.5
        decoded, rate = soundfile.read(io.BytesIO(flac["audio"]["bytes"]), dtype="float32")
        assert rate == SAMPLING_RATE
        np.testing.assert_allclose(decoded, np.clip(utterance.waveform, -1, 1), atol=2**-15)
        with av.open(io.BytesIO(m4a["m4a"])) as container:
            assert container.streams.audio[0].codec_context.sample_rate == SAMPLING_RATE
            aac = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        primed = aac[1024 : 1024 + len(utterance.waveform)]  # an AAC encoder delays by one frame
        assert np.corrcoef(primed, utterance.waveform[: len(primed)])[0, 1] > 0.99
    speakers = {part: {row["speaker_id"] for row in rows} for part, rows in corpora.librispeech.items()}
    assert [len(speakers[part]) for part in ("train", "validation", "test")] == [8, 2, 2]
    assert len(set.union(*speakers.values())) == 12


def test_corpora_are_the_same_bytes_at_every_build(corpora, tmp_path):
    write_librispeech(tmp_path / "user/librispeech", corpora.utterances)
    write_voxceleb2(tmp_path / "user/voxceleb2", corpora.utterances)

    def files(directory: Path) -> dict[str, bytes]:
        return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.*")}

    assert files(tmp_path) == files(corpora.directory)


# By hand


def test_served_from_the_command_line(corpora):
    script = Path(__file__).parent / "loopback_hub.py"
    command = [sys.executable, str(script), "--serve", str(corpora.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            readme = urllib.request.urlopen(f"{url}/datasets/user/voxceleb2/resolve/main/README.md").read()
        finally:
            server.terminate()
    assert readme == (corpora.directory / "user/voxceleb2/README.md").read_bytes()


def test_an_empty_folder_is_not_served(tmp_path):
    script = Path(__file__).parent / "loopback_hub.py"
    command = [sys.executable, str(script), "--serve", str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"no repositories in {tmp_path}: lay it out as {tmp_path}/user/name/FILES" in refused.stderr
