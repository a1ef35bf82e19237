"""Export a trained model to ONNX through Optimum, checked against torch on real sound.

    python export.py --model runs/demo/model
    python export.py --model user/name --output runs/onnx

`ORTModelForAudioFrameClassification.from_pretrained(output)` loads the result as it is.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.base import OnnxConfig
from optimum.utils import DummyAudioInputGenerator, NormalizedConfig
from transformers import HfArgumentParser

from data.corpora import open_corpus
from data.decoding import decode
from modeling import FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification

TOLERANCE = 1e-4
LENGTHS = (0.5, 3.0, 10.0, 60.0)


@dataclass
class Arguments:
    """What to export where."""

    model: str = field(metadata={"help": "Model directory or Hub id."})
    output: str | None = field(default=None, metadata={"help": "Directory to write to; by default the model's own."})


class WaveformInputGenerator(DummyAudioInputGenerator):
    """Two waveforms of a window: with a batch of one a tracer may freeze the batch."""

    def generate(self, input_name: str, framework: str = "pt", int_dtype: str = "int64", float_dtype: str = "fp32"):
        return self.random_float_tensor([2, 48_000], framework=framework, dtype=float_dtype)


class FastDiarizationOnnxConfig(OnnxConfig):
    """Waveform in, log-odds and embeddings out; batch and time are free."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (WaveformInputGenerator,)
    DEFAULT_ONNX_OPSET = 17

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {"input_values": {0: "batch_size", 1: "sequence_length"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        # The name of an output axis is a formula of the input, which Optimum evaluates to allocate output buffers.
        return {"logits": {0: "batch_size", 1: "sequence_length // 320"}, "speaker_embeddings": {0: "batch_size"}}


def main(arguments: Arguments) -> None:
    try:
        model = FastDiarizationForAudioFrameClassification.from_pretrained(arguments.model).eval()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SystemExit(f"error: {arguments.model!r} is no Fast Diarization model: {reason}") from None
    output = Path(arguments.output or arguments.model)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as temporary:
        file = Path(temporary) / "model.onnx"
        config = FastDiarizationOnnxConfig(model.config, task="audio-frame-classification")
        export(model, config, file, opset=17, do_constant_folding=True)
        difference, scale = compare(model.eval(), file)
        if difference > TOLERANCE * max(1.0, scale / 10):
            raise SystemExit(
                f"error: ONNX differs from torch by {difference:.1e} on logits of up to {scale:.0f}; not kept"
            )
        shutil.move(file, output / "model.onnx")
    if output != Path(arguments.model):
        model.config.save_pretrained(output)
        FastDiarizationFeatureExtractor().save_pretrained(output)
    (output / "export.json").write_text(json.dumps({"opset": 17, "difference": difference}, indent=2))
    print(f"{output / 'model.onnx'}: logits within {difference:.1e} of torch at {LENGTHS} s, batch 1 and 8")


def compare(model: FastDiarizationForAudioFrameClassification, file: Path) -> tuple[float, float]:
    """Largest difference of the logits of torch and ONNX Runtime on speech at several lengths and batches.

    Returns:
        the difference, and the largest logit, which float32 rounding is proportional to.
    """
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    speech = np.concatenate([decode(row.audio) for row in open_corpus("demo", "validation").read(0)])
    worst = scale = 0.0
    for seconds in LENGTHS:
        for batch in (1, 8):
            length = int(seconds * 16_000)
            waveforms = np.stack([np.resize(np.roll(speech, -4_000 * i), length) for i in range(batch)])
            with torch.no_grad():
                expected = model(torch.from_numpy(waveforms)).logits.numpy()
            logits = session.run(["logits"], {"input_values": waveforms})[0]
            worst = max(worst, float(np.abs(expected - logits).max()))
            scale = max(scale, float(np.abs(expected).max()))
    return worst, scale


if __name__ == "__main__":
    main(*HfArgumentParser(Arguments, description=__doc__).parse_args_into_dataclasses())
