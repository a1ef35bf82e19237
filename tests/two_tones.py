"""A network and a recording whose right answer is known: a low tone is one speaker, a high tone the other."""

import json
from pathlib import Path

import numpy as np
import soundfile
import torch

FRAME_SAMPLES, SAMPLING_RATE = 320, 16_000
TONES = (300.0, 2000.0)
TURNS = ((0.0, 4.0, 0), (5.0, 9.0, 1), (10.0, 14.0, 0))
SECONDS = 15.0


class TwoTones(torch.nn.Module):
    """Same inputs and outputs as the exported Fast Diarization network."""

    def __init__(self):
        super().__init__()
        time = torch.arange(FRAME_SAMPLES) / SAMPLING_RATE
        phase = 2 * torch.pi * time[:, None] * torch.tensor(TONES)
        self.register_buffer("cosine", torch.cos(phase) / FRAME_SAMPLES)
        self.register_buffer("sine", torch.sin(phase) / FRAME_SAMPLES)

    def forward(self, input_values):
        frames = input_values.reshape(input_values.shape[0], -1, FRAME_SAMPLES)
        amplitude = (frames @ self.cosine).square() + (frames @ self.sine).square()
        one_each = torch.eye(2).expand(input_values.shape[0], 2, 2)
        return torch.where(amplitude > 1e-3, 8.0, -8.0), one_each


def write_model(directory: Path) -> Path:
    """`model.onnx` and `config.json`."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        TwoTones(),
        (torch.zeros(2, 48_000),),
        directory / "model.onnx",
        input_names=["input_values"],
        output_names=["logits", "speaker_embeddings"],
        dynamic_axes={"input_values": {0: "batch", 1: "samples"}},
        opset_version=17,
        dynamo=False,
    )
    (directory / "config.json").write_text(json.dumps({"model_type": "fast-diarization", "num_speakers": 2}))
    return directory


def write_recording(file: Path, sampling_rate: int = SAMPLING_RATE) -> Path:
    time = np.arange(int(SECONDS * sampling_rate)) / sampling_rate
    waveform = np.zeros(len(time), np.float32)
    for start, end, speaker in TURNS:
        talking = (start <= time) & (time < end)
        waveform[talking] = 0.5 * np.sin(2 * np.pi * TONES[speaker] * time[talking])
    soundfile.write(file, waveform, sampling_rate)
    return file
