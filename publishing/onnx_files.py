"""The work of export.py: a model's ONNX files, each checked against torch on speech.

int8 is for CPUs: it is calibrated on training speech, and the DER it costs is measured on unseen speakers. fp16 is for
GPUs. Both compute the log-mel spectrogram in float32.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from common.output import OutputError, make_directory
from data.corpora import CorpusError, open_corpus
from data.decoding import decode
from data.streaming import ConversationStream, StreamConfig
from diarization.backends import ModelError, load_weights, of_run
from evaluation.window_scores import WindowScores
from modeling import FastDiarizationFeatureExtractor, FastDiarizationForAudioFrameClassification
from modeling.task_fast_diarization import Task
from publishing.onnx_export import OPSET, export_onnx

TOLERANCE = 1e-4
LENGTHS = (0.5, 3.0, 10.0, 60.0)
FP16_TOLERANCE = 0.02
"""Largest difference of a probability; half precision has 11 significant bits."""
INT8_DER_POINTS = 0.5
CALIBRATION_BATCHES, SCORED_BATCHES = 2, 10
KEPT_FLOAT = "log_mel"
"""Part of the names of nodes whose values need the range of float32."""


def export_model(
    source: str, output: str | None = None, int8: bool = False, fp16: bool = False, dataset: str = "demo"
) -> None:
    """Write `model.onnx`, and `model_int8.onnx` and `model_fp16.onnx` if asked for, with `export.json` beside them.

    Args:
        source: model directory or Hub id.
        output: directory; that of the model by default.
        dataset: corpus to calibrate and score int8 on: any that train.py accepts.

    Raises:
        SystemExit: there is no such model, nothing can be written there, or a file differs too much from torch.
    """
    source = of_run(source)
    directory = Path(output or source)
    try:
        model = load_weights(source)
        if not (output or directory.is_dir()):
            raise OutputError(f"model {source} is not a directory to write to; name one with --output")
        make_directory(directory, "--output")
    except (ModelError, OutputError) as error:
        raise SystemExit(f"error: {error}") from None
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        file = Path(temporary) / "model.onnx"
        export_onnx(model, file)
        difference, scale = compare(model, file)
        if not difference <= TOLERANCE * max(1.0, scale / 10):
            raise SystemExit(
                f"error: logits of ONNX and torch differ by {difference:.1e} (largest logit {scale:.0f}); not written"
            )
        shutil.move(file, directory / "model.onnx")
    if directory != Path(source):
        model.config.save_pretrained(directory)
        FastDiarizationFeatureExtractor().save_pretrained(directory)
    print(f"{directory / 'model.onnx'}: logits within {difference:.1e} of torch at {LENGTHS} s, batch 1 and 8")
    report = {"opset": OPSET, "difference": difference}
    if int8:
        report["int8"] = quantize(directory, dataset, model.config.num_speakers)
    if fp16:
        report["fp16"] = halve(directory)
    (directory / "export.json").write_text(json.dumps(report, indent=2))


def compare(model: FastDiarizationForAudioFrameClassification, file: Path) -> tuple[float, float]:
    """Largest difference between the logits of torch and ONNX Runtime, on speech of several lengths and batch sizes.

    Returns:
        the difference, and the largest logit, to which rounding errors of float32 are proportional.
    """
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    speech = np.concatenate([decode(row.audio) for row in open_corpus("demo", "validation").read(0)])
    differences, scales = [], []
    for seconds in LENGTHS:
        for batch in (1, 8):
            length = int(seconds * 16_000)
            waveforms = np.stack([np.resize(np.roll(speech, -4_000 * i), length) for i in range(batch)])
            with torch.no_grad():
                expected = model(torch.from_numpy(waveforms)).logits.numpy()
            logits = session.run(["logits"], {"input_values": waveforms})[0]
            differences.append(np.abs(expected - logits).max())
            scales.append(np.abs(expected).max())
    return float(np.max(differences)), float(np.max(scales))  # unlike max(), NaN if one is


class Windows(CalibrationDataReader):
    """Windows of training speakers for calibration, one at a time."""

    def __init__(self, dataset: str, num_speakers: int):
        batches = batches_of(dataset, "train", CALIBRATION_BATCHES, num_speakers)
        self.batches = (batch["input_values"] for batch in batches)
        self.windows = ({"input_values": window[None]} for batch in self.batches for window in batch)

    def get_next(self) -> dict | None:
        return next(self.windows, None)


def batches_of(dataset: str, split: str, count: int, num_speakers: int) -> Iterator[dict]:
    """
    Raises:
        SystemExit: the corpus cannot be used.
    """
    try:
        config = StreamConfig(num_speakers=num_speakers, seed=1, speeds=(1.0,))
        yield from islice(ConversationStream(open_corpus(dataset, split), config), count)
    except CorpusError as error:
        raise SystemExit(f"error: {error}") from None


def quantize(output: Path, dataset: str, num_speakers: int = Task.num_speakers) -> dict:
    """Write `model_int8.onnx`: convolutions and matrix products in int8, with one scale per weight channel.

    Weights use 7 bits, because CPUs without VNNI instructions add up products of 8 bits in 16 bits, which saturates.
    ONNX Runtime has no int8 GRU: GRUs compute in float32 from weights that are stored in int8.

    Raises:
        SystemExit: int8 costs more than `INT8_DER_POINTS` of DER.
    """
    file = output / "model_int8.onnx"
    with tempfile.TemporaryDirectory(dir=output) as temporary:
        prepared, quantized = Path(temporary) / "prepared.onnx", Path(temporary) / "quantized.onnx"
        quant_pre_process(output / "model.onnx", prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        weights = {array.name for array in graph.initializer}
        weighted = [n.name for n in graph.node if n.op_type in ("Conv", "MatMul") and weights & set(n.input)]
        quantize_static(
            prepared,
            quantized,
            Windows(dataset, num_speakers),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[name for name in weighted if KEPT_FLOAT not in name],
        )
        store_recurrent_weights_in_int8(quantized)
        files = {"float32": output / "model.onnx", "int8": quantized}
        sessions = {k: onnxruntime.InferenceSession(f, providers=["CPUExecutionProvider"]) for k, f in files.items()}
        scores = {name: WindowScores(num_speakers) for name in sessions}
        windows = 0
        for batch in batches_of(dataset, "validation", SCORED_BATCHES, num_speakers):
            windows += len(batch["labels"])
            for name, session in sessions.items():
                logits = session.run(["logits"], {"input_values": batch["input_values"]})[0]
                scores[name].add(logits > 0, batch["labels"] > 0.5)
        der = {name: 100 * score.result()["all_windows"]["diarization_error_rate"] for name, score in scores.items()}
        points = der["int8"] - der["float32"]
        if not points <= INT8_DER_POINTS:
            raise SystemExit(
                f"error: int8 costs {points:.2f} points of DER, more than {INT8_DER_POINTS}; it is not written"
            )
        shutil.move(quantized, file)
    print(f"{file}: DER {points:+.2f} points on {windows} windows of unseen speakers ({dataset})")
    return {"file": file.name, "bytes": file.stat().st_size, "der_points": points} | {
        "dataset": dataset,
        "windows": windows,
    }


def store_recurrent_weights_in_int8(file: Path) -> None:
    """Store the weights of GRUs as int8 with one scale per unit, in front of a DequantizeLinear."""
    model = onnx.load(file)
    recurrent = {weight for node in model.graph.node if node.op_type == "GRU" for weight in node.input[1:3]}
    for array in [array for array in model.graph.initializer if array.name in recurrent]:
        values = onnx.numpy_helper.to_array(array)
        scale = np.maximum(np.abs(values).max(axis=(0, 2)), 1e-9) / 127
        integers = np.round(values / scale[:, None]).astype(np.int8)
        stored = {f"{array.name}_int8": integers, f"{array.name}_scale": scale.astype(np.float32)}
        model.graph.initializer.remove(array)
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in stored.items())
        model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", list(stored), [array.name], axis=1))
    onnx.save(model, file)


def halve(output: Path) -> dict:
    """Write `model_fp16.onnx`: half precision inside, float32 in and out.

    Raises:
        SystemExit: the probability of a speaker in a frame differs by more than `FP16_TOLERANCE`.
    """
    model, file = onnx.load(output / "model.onnx"), output / "model_fp16.onnx"
    mel = [name for node in model.graph.node if KEPT_FLOAT in node.name for name in node.output][-1]
    # The rest is converted as a graph of its own, for the converter would put casts around single nodes.
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    front = extractor.extract_model(["input_values"], [mel])
    front = onnx.compose.add_prefix(front, "float/").graph
    back = extractor.extract_model(["input_values", mel], ["logits", "speaker_embeddings"])
    back = convert_float_to_float16(back, keep_io_types=True, disable_shape_infer=True).graph
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for part in ("node", "initializer", "value_info"):
        half.graph.ClearField(part)
    half.graph.node.append(onnx.helper.make_node("Identity", ["input_values"], [front.input[0].name]))
    half.graph.node.extend(front.node)
    half.graph.node.append(onnx.helper.make_node("Identity", [front.output[0].name], [mel]))
    half.graph.node.extend(back.node)
    half.graph.initializer.extend([*front.initializer, *back.initializer])
    speech = np.stack([np.resize(decode(row.audio), 48_000) for row in open_corpus("demo", "validation").read(0)][:8])
    probabilities = []
    for graph in (output / "model.onnx", half.SerializeToString()):
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {"input_values": speech})[0]
        probabilities.append(1 / (1 + np.exp(-logits)))
    difference = float(np.abs(probabilities[0] - probabilities[1]).max())
    if not difference <= FP16_TOLERANCE:
        raise SystemExit(
            f"error: fp16 changes a probability by {difference:.3f}, more than {FP16_TOLERANCE}; it is not written"
        )
    onnx.save(half, file)
    print(f"{file}: probabilities within {difference:.1e} of float32, on the CPU")
    return {"file": file.name, "bytes": file.stat().st_size, "difference": difference}
