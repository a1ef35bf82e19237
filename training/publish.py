"""Publish a trained model in a small directory: weights and ONNX at half their size, their answers unchanged.

    python -m training.publish runs/mine/model pretrained/lightweight-cnn

Weight matrices are rounded once to half precision (float16) and stored so; transformers loads them as float32. ONNX
files are exported from those same rounded weights, and every matrix in them that half precision holds exactly is stored
so, in front of a Cast that ONNX Runtime computes once when it loads the file: nothing more is lost, and torch and ONNX
still give the same answers. For that, batch norms are first absorbed by the convolutions before them, as an exporter
would do later with weights that are no longer round.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import nn

from modeling import FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification
from modeling.modeling_fast_diarization import Conv
from training.card import write_card

KEPT = ("training.json", "windows.json", "evaluation.json", "latency.json", "curves.png")
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


def publish(source: Path, target: Path) -> None:
    """Everything of a published model from a trained one.

    Raises:
        SystemExit: `source` is no model, or it cannot be exported.
    """
    try:
        model = FastDiarizationForAudioFrameClassification.from_pretrained(source).eval()
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {str(source)!r} is no Fast Diarization model: {str(error).splitlines()[0]}") from None
    absorb_norms(model)
    round_weights(model)
    model.config.dtype = "float32"  # transformers 5 would load what is stored as half precision as such
    model.save_pretrained(target)
    save_weights(model, target / "model.safetensors")
    FastDiarizationFeatureExtractor().save_pretrained(target)
    export = Path(__file__).parent.parent / "export.py"
    if subprocess.run([sys.executable, export, "--model", target]).returncode:
        raise SystemExit(f"error: the export of {target} failed (see above)")
    for file in target.glob("*.onnx"):
        halve_onnx(file)
    for name in KEPT:
        if (source / name).is_file() and source.resolve() != target.resolve():
            shutil.copy(source / name, target / name)
    write_card(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="model directory that train.py wrote")
    parser.add_argument("target", type=Path, help="directory to publish in, such as pretrained/lightweight-cnn")
    arguments = parser.parse_args()
    publish(arguments.source, arguments.target)
    files = sorted(file for file in arguments.target.iterdir() if file.is_file())
    for file in files:
        print(f"{file.stat().st_size / 1e6:7.2f} MB  {file.name}")
    print(f"{sum(file.stat().st_size for file in files) / 1e6:7.2f} MB  together")


if __name__ == "__main__":
    main()
