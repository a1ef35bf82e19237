"""Publish a trained model in a small directory: weights and ONNX at half their size, their answers unchanged.

    python -m publishing.publish runs/last/model pretrained/lightweight-cnn --average runs/mine/model --quantize int8

Weight matrices are rounded once to half precision (float16) and stored so; transformers loads them as float32. ONNX
files are exported from those same rounded weights, and every matrix in them that half precision holds exactly is stored
so, in front of a Cast that ONNX Runtime computes once when it loads the file: nothing more is lost, and torch and ONNX
still give the same answers. For that, batch norms are first absorbed by the convolutions before them, as an exporter
would do later with weights that are no longer round. Other flags are handed on to export.py.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import nn

from diarization.backends import ModelError, load_weights
from modeling import FastDiarizationFeatureExtractor
from modeling.modeling_fast_diarization import Conv
from publishing.card import write_card

SCORES = ("windows.json", "evaluation.json")
KEPT = (*SCORES, "latency.json", "curves.png")
SMALLEST = 1024
"""Arrays with fewer elements are stored as they are."""


@torch.no_grad()
def absorb_norms(model: nn.Module) -> None:
    """Scale convolutions by the batch norms after them, which then neither scale nor, while training, forget how to.

    A norm's scale becomes 1 exactly: its weight is the deviation it divides by. What the network computes is the same
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
    """Round every matrix to half precision; vectors, which cost nothing, stay as they are."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.copy_(parameter.half())


@torch.no_grad()
def average(model: nn.Module, other: nn.Module) -> None:
    """Put the mean of both networks' weights into the first.

    Where one was trained on from the other, on other windows, it is often better than both (Wortsman et al., Robust
    fine-tuning of zero-shot models, CVPR 2022).

    Raises:
        ModelError: the networks differ in shape.
    """
    mine, theirs = model.state_dict(), other.state_dict()
    if {name: tensor.shape for name, tensor in mine.items()} != {name: t.shape for name, t in theirs.items()}:
        raise ModelError("the two models to average differ in shape; give the one that the first was trained on from")
    for name, tensor in mine.items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name], 0.5)


def save_weights(model: nn.Module, file: Path) -> None:
    """Write safetensors in which what is exact in half precision takes half the room."""
    state = {name: _halved(tensor) for name, tensor in model.state_dict().items()}
    save_file(state, file, metadata={"format": "pt"})


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    exact = tensor.is_floating_point() and tensor.numel() >= SMALLEST and torch.equal(tensor.half().float(), tensor)
    return (tensor.half() if exact else tensor).contiguous()


def halve_onnx(file: Path) -> None:
    """Store the float32 arrays of an ONNX file that half precision holds exactly as such, each before a Cast."""
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


def describe(training: dict, name: str, speech: Path | None, earlier: str | None) -> dict:
    """What a published model says of its training: no path of this machine, the corpora by name, earlier runs."""
    described = training | {"name": name, "command": portable(training["command"])}
    if speech:
        described["dataset"] = portable(str(speech.resolve()))
        described["corpora"] = hours_by_corpus(speech)
    return described | ({"earlier": portable(earlier)} if earlier else {})


def portable(text: str) -> str:
    """Places of this machine as `path/to/NAME`, those of runs as `runs/...`."""

    def place(found: re.Match) -> str:
        path = found[0].rstrip("/")
        return f"runs/{path.split('/runs/')[1]}" if "/runs/" in path else f"path/to/{Path(path).name}"

    return re.sub(r"(?<![\w.])(?:\.\./|/)\S+", place, text)


def hours_by_corpus(speech: Path) -> dict[str, float]:
    """Hours of the training split of Parquet files with the columns `corpus` and `seconds`, by corpus.

    Raises:
        SystemExit: there are no such files.
    """
    hours = Counter()
    for file in sorted(speech.glob("train/*.parquet")):
        columns = pq.read_table(file, columns=["corpus", "seconds"]).to_pydict()
        for corpus, seconds in zip(columns["corpus"], columns["seconds"]):
            hours[corpus] += seconds / 3600
    if not hours:
        raise SystemExit(f"error: {speech} has no train/*.parquet with the columns corpus and seconds")
    return {corpus: round(number, 2) for corpus, number in sorted(hours.items())}


def publish(
    source: Path,
    target: Path,
    speech: Path | None = None,
    earlier: str | None = None,
    before: Path | None = None,
    export_flags: list[str] = (),
) -> None:
    """Everything of a published model from a trained one.

    Args:
        speech: the corpus trained on, if its Parquet files name several corpora.
        earlier: what was trained before the run of `source`, in words.
        before: the model that `source` was trained on from, to be averaged with it; see [`average`].
        export_flags: handed on to export.py.

    Raises:
        SystemExit: `source` is no model, or it cannot be exported.
    """
    try:
        model = load_weights(str(source))
        if before:
            average(model, load_weights(str(before)))
    except ModelError as error:
        raise SystemExit(f"error: {error}") from None
    absorb_norms(model)
    round_weights(model)
    model.config.dtype = "float32"  # transformers 5 would load what is stored as half precision as such
    model.save_pretrained(target)
    save_weights(model, target / "model.safetensors")
    FastDiarizationFeatureExtractor().save_pretrained(target)
    export = Path(__file__).parent.parent / "export.py"
    if subprocess.run([sys.executable, export, "--model", target, *export_flags]).returncode:
        raise SystemExit(f"error: the export of {target} failed (see above)")
    for file in target.glob("*.onnx"):
        halve_onnx(file)
    for name in KEPT:
        if before and name in SCORES:  # those of one of the two alone
            continue
        if (source / name).is_file() and source.resolve() != target.resolve():
            shutil.copy(source / name, target / name)
    if (source / "training.json").is_file():
        training = describe(json.loads((source / "training.json").read_text()), target.resolve().name, speech, earlier)
        training["averaged"] = before is not None
        (target / "training.json").write_text(json.dumps(training, indent=2) + "\n")
    write_card(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="model directory that train.py wrote")
    parser.add_argument("target", type=Path, help="directory to publish in, such as pretrained/lightweight-cnn")
    parser.add_argument("--speech", type=Path, help="the corpus trained on, to name its parts and their licences")
    parser.add_argument("--earlier", help="what was trained before this run, in words: steps, hours, command")
    parser.add_argument("--average", type=Path, help="the model that the first was trained on from: both weigh half")
    arguments, export_flags = parser.parse_known_args()
    publish(arguments.source, arguments.target, arguments.speech, arguments.earlier, arguments.average, export_flags)
    files = sorted(file for file in arguments.target.iterdir() if file.is_file())
    for file in files:
        print(f"{file.stat().st_size / 1e6:7.2f} MB  {file.name}")
    print(f"{sum(file.stat().st_size for file in files) / 1e6:7.2f} MB  together")


if __name__ == "__main__":
    main()
