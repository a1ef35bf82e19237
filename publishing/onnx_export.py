"""A network as one ONNX file: through Optimum where it is installed, and through torch, which it calls, where not.

Both use torch's exporter that traces: the newer one, by graph capture, cannot export a GRU with a dynamic batch size.
"""

import warnings
from pathlib import Path

import torch
from torch import nn

INPUT, OUTPUTS = "input_values", ("logits", "speaker_embeddings")
INPUT_AXES = {0: "batch_size", 1: "sequence_length"}
# Optimum evaluates the name of an output axis as a formula to allocate output buffers.
OUTPUT_AXES = {"logits": {0: "batch_size", 1: "sequence_length // 320"}, "speaker_embeddings": {0: "batch_size"}}
OPSET = 17
TRACED = (2, 48_000)
"""Shape of the example: two windows, for a tracer may freeze a batch of one."""


def export_onnx(model: nn.Module, file: Path) -> None:
    """Write a `FastDiarizationForAudioFrameClassification`; batch size and length are dynamic.

    Waveform in, of shape (batch, samples); log-odds (batch, frames, speakers) and speaker embeddings out.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)  # said of every slice left to ONNX Runtime
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            export_with_optimum(model, file)
        except ImportError:  # also where Optimum is there, and transformers newer than it knows
            export_with_torch(model, file)


def export_with_optimum(model: nn.Module, file: Path) -> None:
    from optimum.exporters.onnx import export
    from optimum.exporters.onnx.base import OnnxConfig
    from optimum.utils import DummyAudioInputGenerator, NormalizedConfig

    class Waveforms(DummyAudioInputGenerator):
        def generate(self, input_name: str, framework: str = "pt", int_dtype="int64", float_dtype="fp32"):
            return self.random_float_tensor(list(TRACED), framework=framework, dtype=float_dtype)

    class Config(OnnxConfig):
        NORMALIZED_CONFIG_CLASS = NormalizedConfig
        DUMMY_INPUT_GENERATOR_CLASSES = (Waveforms,)
        DEFAULT_ONNX_OPSET = OPSET
        inputs = {INPUT: INPUT_AXES}
        outputs = OUTPUT_AXES

    config = Config(model.config, task="audio-frame-classification")
    export(model, config, file, opset=OPSET, do_constant_folding=True)


def export_with_torch(model: nn.Module, file: Path) -> None:
    torch.onnx.export(
        _Outputs(model).eval(),
        (torch.zeros(TRACED),),
        file,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_axes={INPUT: INPUT_AXES, **OUTPUT_AXES},
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )


class _Outputs(nn.Module):
    """The outputs of a network that are exported, as a tuple."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, waveforms: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.network(waveforms)
        return tuple(outputs[name] for name in OUTPUTS)
