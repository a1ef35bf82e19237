"""Loads a saved model by the Auto classes alone and keeps its answers: run where this repository cannot be imported.

python load_elsewhere.py MODEL_DIRECTORY WAVEFORMS.npy ANSWERS.npz
"""

import json
import sys

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioFrameClassification, pipeline

if __name__ == "__main__":
    directory, waveforms, answers = sys.argv[1:]
    extractor = AutoFeatureExtractor.from_pretrained(directory, trust_remote_code=True)
    inputs = extractor(list(np.load(waveforms)), sampling_rate=16_000, return_tensors="pt")
    found = {"version": transformers.__version__}
    with torch.no_grad():
        for name, options in {"usual": {}, "meta": {"low_cpu_mem_usage": True}}.items():
            model = AutoModelForAudioFrameClassification.from_pretrained(directory, trust_remote_code=True, **options)
            output = model.eval()(**inputs)
            found |= {f"{name}_logits": output.logits, f"{name}_embeddings": output.speaker_embeddings}
        backbone = AutoModel.from_pretrained(directory, trust_remote_code=True).eval()
        found["hidden"] = backbone(**inputs).last_hidden_state
    diarizer = pipeline("speaker-diarization", model=directory, trust_remote_code=True)
    recording = {"array": np.load(waveforms)[0], "sampling_rate": 16_000}
    found["segments"] = json.dumps(diarizer(recording))
    asr = [{"word": "Hello", "start": 1.0, "end": 1.5}]
    found["turns"] = json.dumps(diarizer(recording, words=asr, exclusive=True))
    config = AutoConfig.from_pretrained(directory, trust_remote_code=True)
    assert not any("modeling." in name for name in sys.modules if name.startswith("modeling"))
    np.savez(answers, config=config.to_json_string(), **found)
