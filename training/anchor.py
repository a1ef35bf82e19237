"""Embeddings held to those of the weights that a training starts from, so that it does not forget other people.

Fine-tuned on the few people of a few recordings, a network hears better when somebody speaks and tells strangers apart
worse. So the embeddings of all windows, simulated ones too, are drawn to those that the network had for them at the
start (Li and Hoiem, Learning without Forgetting, ECCV 2016), or the layers that they come from are not trained at all.
"""

import hashlib
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from modeling import FastDiarizationForAudioFrameClassification
from modeling.loss_fast_diarization import has_solo_speech


def freeze_embeddings(model: FastDiarizationForAudioFrameClassification) -> None:
    """Train only what comes after the embeddings: of the same frames of a speaker they stay the same, to the bit."""
    network = model.fast_diarization
    for layer in (network.input_norm, network.background, network.stem, network.local, network.down):
        layer.requires_grad_(False)
    model.speaker_projection.requires_grad_(False)


class EmbeddingAnchor:
    """
    Args:
        model: the network at the start, not trained any more.
        weight: of the distance in the loss.
    """

    def __init__(self, model: nn.Module, weight: float):
        self.model, self.weight = model.eval().requires_grad_(False), weight

    @cached_property
    def digest(self) -> str:
        """Of the network's weights."""
        weights = [tensor.cpu().numpy().tobytes() for tensor in self.model.state_dict().values()]
        return hashlib.sha256(b"".join(weights)).hexdigest()[:12]

    def distance(self, embeddings: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean of 1 - cosine to the embeddings at the start, over the speakers with 0.4 s of non-overlapped speech.

        Args:
            embeddings: (batch, num_speakers, dim), unit vectors.
            inputs: the batch, `input_values` and `labels`.
        """
        labels = inputs["labels"]
        with torch.no_grad():
            states = self.model.fast_diarization(inputs["input_values"]).speaker_states
            with torch.autocast(labels.device.type, enabled=False):
                before = self.model.embed(states.float(), labels, None)
        heard = has_solo_speech(labels)
        return ((1 - F.cosine_similarity(embeddings, before, dim=-1)) * heard).sum() / heard.sum().clamp(min=1)
