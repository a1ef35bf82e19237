"""Publish a trained model: weights and ONNX at half their size, with unchanged outputs.

    python -m publishing.publish runs/last/model pretrained/lightweight-cnn --average runs/mine/model --quantize int8
    python -m publishing.publish --code pretrained/*      # only copy the code of modeling/ into published models

Weight matrices are rounded once to half precision (float16) and stored in it; transformers loads them as float32. ONNX
files are exported from the same rounded weights; matrices that half precision represents exactly are stored in it, in
front of a Cast that ONNX Runtime computes once when it loads the file. Nothing more is lost, and torch and ONNX still
agree. To that end batch norms are first folded into the convolutions before them, as an exporter would do later with
weights that are no longer rounded.
"""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from common.program import end_quietly
from publishing.flags import of_publish

if __name__ == "__main__":
    end_quietly()
    of_publish(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np
import onnx
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import nn

from common.errors import first_line
from diarization.backends import ModelError, load_weights
from modeling import FastDiarizationFeatureExtractor
from modeling.modeling_fast_diarization import Conv
from publishing.card import stages, write_card

ROOT = Path(__file__).parent.parent
CODE = "*_fast_diarization.py"
SCORES = ("windows.json", "evaluation.json")
KEPT = (*SCORES, "latency.json", "curves.png")
SMALLEST = 1024
"""Arrays with fewer elements are stored as they are."""


@torch.no_grad()
def absorb_norms(model: nn.Module) -> None:
    """Fold the scale of batch norms into the convolutions before them, so that the norms can still be trained.

    The scale of a norm becomes exactly 1: its weight is the deviation it divides by. The network computes the same
    up to rounding, in training too.
    """
    for module in model.modules():
        if isinstance(module, Conv):
            conv, norm = module.conv, module.norm
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            conv.weight *= scale[:, None, None, None]
            norm.running_mean *= scale
            norm.running_var *= scale.square()
            norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round every matrix to half precision; vectors, which take no space, stay as they are."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.copy_(parameter.half())


@torch.no_grad()
def average(model: nn.Module, other: nn.Module) -> None:
    """Replace the weights of the first network by the mean of both.

    If one was trained further from the other, the mean is often better than both (Wortsman et al., Robust fine-tuning
    of zero-shot models, CVPR 2022).

    Raises:
        ModelError: the networks differ in shape.
    """
    mine, theirs = model.state_dict(), other.state_dict()
    if {name: tensor.shape for name, tensor in mine.items()} != {name: t.shape for name, t in theirs.items()}:
        raise ModelError("the two models to average differ in shape; give the one that the first was trained from")
    for name, tensor in mine.items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name], 0.5)


def save_weights(model: nn.Module, file: Path) -> None:
    """Write safetensors, storing in half precision what it represents exactly."""
    state = {name: _halved(tensor) for name, tensor in model.state_dict().items()}
    save_file(state, file, metadata={"format": "pt"})


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    exact = tensor.is_floating_point() and tensor.numel() >= SMALLEST and torch.equal(tensor.half().float(), tensor)
    return (tensor.half() if exact else tensor).contiguous()


def halve_onnx(file: Path) -> None:
    """Store float32 arrays of an ONNX file in half precision, in front of a Cast, where that is exact."""
    model = onnx.load(file)
    casts = []
    for stored in model.graph.initializer:
        if stored.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(stored)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size >= SMALLEST and np.array_equal(half.astype(np.float32), values):
            name = stored.name
            stored.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def describe(training: dict, name: str, speech: Path | None, earlier: dict | None) -> dict:
    """The training.json of a published model: without local paths, with its corpora and earlier runs.

    Args:
        earlier: training.json of the model that the run started from.
    """
    described = training | {"name": name, "command": portable(training["command"])}
    if speech:
        described["dataset"] = portable(str(speech.resolve()))
        described["corpora"] = speech_by_corpus(speech)
    return described | ({"earlier": stages(earlier)} if earlier else {})


def portable(text: str) -> str:
    """Replace local paths by `path/to/NAME`, and those of runs by `runs/...`."""

    def place(found: re.Match) -> str:
        path = found[0].rstrip("/")
        return f"runs/{path.split('/runs/')[1]}" if "/runs/" in path else f"path/to/{Path(path).name}"

    return re.sub(r"(?<![\w.])(?:\.\./|/)\S+", place, text)


def speech_by_corpus(speech: Path) -> dict[str, dict]:
    """`hours` and `speakers` of the training split, by corpus.

    Args:
        speech: directory of Parquet files with the columns `corpus`, `seconds` and `speaker_id`.

    Raises:
        SystemExit: there are no such files.
    """
    columns = ["corpus", "seconds", "speaker_id"]
    seconds, speakers = Counter(), defaultdict(set)
    for file in sorted(speech.glob("train/*.parquet")):
        if not set(columns) <= set(pq.read_schema(file).names):
            continue
        for row in pq.read_table(file, columns=columns).to_pylist():
            seconds[row["corpus"]] += row["seconds"]
            speakers[row["corpus"]].add(row["speaker_id"])
    if not seconds:
        raise SystemExit(f"error: {speech} has no train/*.parquet with the columns {', '.join(columns)}")
    return {
        corpus: {"hours": round(total / 3600, 2), "speakers": len(speakers[corpus])}
        for corpus, total in sorted(seconds.items())
    }


def copy_code(target: Path) -> None:
    """Replace the code of a published model by that of modeling/, which it must equal.

    Raises:
        SystemExit: `target` is not a model directory.
    """
    if not (target / "config.json").is_file():
        raise SystemExit(f"error: {target} has no config.json; give published models, such as pretrained/*")
    for old in target.glob(CODE):
        old.unlink()
    for file in (ROOT / "modeling").glob(CODE):
        shutil.copy(file, target)


def publish(
    source: Path,
    target: Path,
    speech: Path | None = None,
    earlier: dict | None = None,
    before: Path | None = None,
    export_flags: list[str] = (),
) -> None:
    """Write everything of a published model from a trained one.

    Args:
        speech: the training corpus, if its Parquet files name several corpora.
        earlier: training.json of the model that `source` was trained from.
        before: the model to average `source` with; see [`average`].
        export_flags: passed on to export.py.

    Raises:
        SystemExit: `source` is not a model, or it cannot be exported.
    """
    try:
        model = load_weights(str(source))
        if before:
            average(model, load_weights(str(before)))
    except ModelError as error:
        raise SystemExit(f"error: {error}") from None
    absorb_norms(model)
    round_weights(model)
    model.config.dtype = "float32"  # transformers 5 would load weights stored in half precision as half precision
    model.save_pretrained(target)
    save_weights(model, target / "model.safetensors")
    FastDiarizationFeatureExtractor().save_pretrained(target)
    if subprocess.run([sys.executable, ROOT / "export.py", "--model", target, *export_flags]).returncode:
        raise SystemExit(f"error: the export of {target} failed; the reason is above")
    for file in target.glob("*.onnx"):
        halve_onnx(file)
    for name in KEPT:
        if before and name in SCORES:  # scores of one of the two networks
            continue
        if (source / name).is_file() and source.resolve() != target.resolve():
            shutil.copy(source / name, target / name)
    if (source / "training.json").is_file():
        training = describe(json.loads((source / "training.json").read_text()), target.resolve().name, speech, earlier)
        training["averaged"] = before is not None
        (target / "training.json").write_text(json.dumps(training, indent=2) + "\n")
    write_card(target)


def main() -> None:
    arguments = of_publish(__doc__)
    if arguments.code:
        for directory in arguments.code:
            copy_code(directory)
            print(directory)
        return
    try:
        earlier = json.loads(arguments.earlier.read_text()) if arguments.earlier else None
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: --earlier {arguments.earlier} cannot be read: {first_line(error)}") from None
    export_flags = ["--quantize", arguments.quantize, "--dataset", arguments.dataset] if arguments.quantize else []
    publish(arguments.source, arguments.target, arguments.speech, earlier, arguments.average, export_flags)
    files = sorted(file for file in arguments.target.iterdir() if file.is_file())
    for file in files:
        print(f"{file.stat().st_size / 1e6:7.2f} MB  {file.name}")
    print(f"{sum(file.stat().st_size for file in files) / 1e6:7.2f} MB  total")


if __name__ == "__main__":
    main()
