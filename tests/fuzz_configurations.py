"""Configurations of models, and flags and files of flags of `train.py`, with values of every wrong kind."""

import json
import shutil
import sys
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from transformers import logging

from diarization.backends import open_network
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.linking_fast_diarization import diarize
from training.arguments import Arguments, Training, parse

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "pretrained" / "lightweight-cnn" / "model.onnx"
VALUES = (
    *(None, True, False, "", "text", "text" * 1_000, "1", "nan", "\n", "\0", "é"),
    *(0, 1, -1, 2, 3, 7, 10**9, 2**63, -(10**30), 10**4_000),
    *(0.0, 0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")),
    *([], [1], ["text"] * 5, [[[]]], {}, {"a": 1}, {"0": "A", "1": "B"}),
)
YAML = (
    *("[" * 5_000, "{a: " * 500, "&a [*a]", "*a", "0x" + "f" * 9_000, "9" * 5_000, "!!binary x", "!!set {a}"),
    *("2026-99-99", "1:2:3", "- - - -", "'", '"\\x', "? [a]", "<<: *a", "%TAG ! x", "\t", "!!python/name:os.system"),
)
NO_CASE = {"help", "help_all", "config"}
"""Flags that end the program rightly."""
LONGEST = 1_000
"""Characters of a message."""


@dataclass
class Start:
    directory: Path
    config: dict


def prepare(directory: Path) -> Start:
    warnings.simplefilter("ignore")  # of flags that are deprecated or of no use here
    logging.set_verbosity_error()
    network = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16))
    network.save_pretrained(directory / "weights")
    config = json.loads((directory / "weights" / "config.json").read_text())
    (directory / "onnx").mkdir(exist_ok=True)
    shutil.copy(MODEL, directory / "onnx")
    return Start(directory, config | json.loads(MODEL.with_name("config.json").read_text()) | config)


def run(rng: np.random.Generator, start: Start) -> str | None:
    kind = rng.choice(["onnx", "weights", "flags", "file"])
    try:
        if kind in ("onnx", "weights"):
            return try_model(rng, start, start.directory / kind)
        return try_flags(rng, start, kind == "file")
    except ValueError as error:  # UsageError and ModelError are such
        said = str(error)
        return None if "\n" not in said and len(said) <= LONGEST else f"{len(said)} characters: {said!r:.200}"


def value_of(rng: np.random.Generator):
    return VALUES[rng.integers(len(VALUES))]


def try_model(rng: np.random.Generator, start: Start, directory: Path) -> str | None:
    config = dict(start.config)
    for _ in range(rng.integers(1, 4)):
        names = [*config, "num_labels", "quantization_config", "dtype", "attn_implementation", "new"]
        config[names[rng.integers(len(names))]] = value_of(rng)
    sys.set_int_max_str_digits(0)
    text = json.dumps(config)
    sys.set_int_max_str_digits(4_300)
    if rng.random() < 0.2:
        at = rng.integers(len(text))
        text = text[:at] + str(rng.choice(["{", "[", '"', "}", ":", "null", "[" * 5_000])) + text[at + 1 :]
    (directory / "config.json").write_text(text, errors="surrogateescape")
    network, settings = open_network(str(directory))
    noise = rng.standard_normal(10 * 16_000).astype(np.float32)
    diarize(network, [noise], settings)
    return None


def try_flags(rng: np.random.Generator, start: Start, in_a_file: bool) -> str | None:
    names = sorted({field.name for part in (Arguments, Training) for field in fields(part)} - NO_CASE)
    chosen = {str(rng.choice(names)): value_of(rng) for _ in range(rng.integers(1, 4))}
    flags = ["--output_dir", str(start.directory / "run")]
    sys.set_int_max_str_digits(0)
    written = {name: str(value).replace("\0", "") for name, value in chosen.items()}
    sys.set_int_max_str_digits(4_300)
    if in_a_file:
        lines = [f"{name}: {value}" for name, value in written.items()]
        if rng.random() < 0.6:
            lines.insert(rng.integers(len(lines) + 1), f"{rng.choice(names)}: {YAML[rng.integers(len(YAML))]}")
        file = start.directory / "flags.yaml"
        file.write_text("\n".join(lines), errors="surrogateescape")
        flags += ["--config", str(file)]
    else:
        flags += [f"--{name}={value}" for name, value in written.items()]
    parse("", flags)
    return None
