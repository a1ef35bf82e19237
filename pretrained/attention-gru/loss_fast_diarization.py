"""Losses of the Fast Diarization network: who is active, which frames share a speaker, who the speakers are.

A new term is a function here, a line of `training_losses`, and its weight in the configuration.
"""

from itertools import permutations
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from .configuration_fast_diarization import FastDiarizationConfig


def training_losses(
    config: "FastDiarizationConfig",
    scores: torch.Tensor,
    membership: torch.Tensor,
    affinity_states: torch.Tensor,
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    frame_mask: torch.Tensor | None = None,
    speaker_labels: torch.Tensor | None = None,
    recording_labels: torch.Tensor | None = None,
    voice_labels: torch.Tensor | None = None,
    voices: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The terms of the loss by name, each a scalar before its weight `NAME_loss_weight`; none whose weight is 0.

    `"segmentation"`, of weight 1, is [`permutation_invariant_loss`], `"affinity"` [`affinity_loss`], `"speaker"`
    [`contrastive_speaker_loss`] if there are speaker labels, `"distillation"` and `"teacher"` the two of
    [`distillation_loss`] if there are a teacher's voices. Shapes are those of these functions.
    """
    losses = {"segmentation": permutation_invariant_loss(scores, labels, membership, frame_mask)}
    if config.affinity_loss_weight:
        losses["affinity"] = affinity_loss(affinity_states, labels, frame_mask)
    if speaker_labels is not None and config.speaker_loss_weight:
        losses["speaker"] = contrastive_speaker_loss(embeddings, speaker_labels, labels, recording_labels)
    if voice_labels is not None:
        distance, confusion = distillation_loss(embeddings, voice_labels, voices, labels)
        terms = {"distillation": distance, "teacher": confusion}
        losses |= {name: term for name, term in terms.items() if getattr(config, f"{name}_loss_weight")}
    return losses


def total_loss(config: "FastDiarizationConfig", losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """The weighted sum of `training_losses`."""
    loss = losses["segmentation"]
    for name, term in losses.items():
        if name != "segmentation":
            loss = loss + getattr(config, f"{name}_loss_weight") * term
    return loss


def permutation_invariant_loss(
    scores: torch.Tensor, labels: torch.Tensor, membership: torch.Tensor, frame_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Powerset cross-entropy under each window's best order of speakers.

    Permutation-invariant training after Yu et al. (ICASSP 2017) and Fujita et al. (Interspeech 2019), on the
    powerset classes of Plaquet and Bredin (Interspeech 2023). A frame with more simultaneous speakers than the
    powerset holds is given the class that shares most speakers with it.

    Args:
        scores: (batch, frames, sets), unnormalised.
        labels: (batch, frames, num_speakers), 0 or 1.
        membership: (num_speakers, sets), 1 where the speaker is in the set.
        frame_mask: (batch, frames), 1 for frames that count.
    """
    log_probability = scores.log_softmax(-1)
    orders = list(permutations(range(len(membership))))
    # Made of rows on the device: a list of numbers would have to be copied there, which waits for it.
    against = 1 - 2 * membership
    against = torch.stack([against[i] for order in orders for i in order]).unflatten(0, (len(orders), -1))
    against = against.transpose(1, 2).flatten(0, 1)
    wrong = F.linear(labels, against, membership.sum(0).repeat(len(orders)))
    targets = wrong.unflatten(-1, (len(orders), -1)).argmin(-1)
    likelihoods = log_probability.gather(-1, targets)
    if frame_mask is None:
        return -likelihoods.mean(1).amax(-1).mean()
    likelihoods = (likelihoods * frame_mask[..., None]).sum(1) / frame_mask.sum(-1, keepdim=True).clamp(min=1)
    return -likelihoods.amax(-1).mean()


def affinity_loss(vectors: torch.Tensor, labels: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Within a window, frames of one speaker near, frames of two apart; only frames of one speaker alone count.

    Binary cross-entropy on scaled cosines of all pairs, same and different pairs weighing the same, in the
    spirit of deep clustering (Hershey et al., ICASSP 2016).

    Args:
        vectors: (batch, ceil(frames / 4), dim), unit vectors.
        labels: (batch, frames, num_speakers), 0 or 1.
        frame_mask: (batch, frames), 1 for frames that count.
    """
    if frame_mask is not None:
        labels = labels * frame_mask[..., None]
    padding = 4 * vectors.shape[1] - labels.shape[1]
    groups = F.pad(labels, (0, 0, 0, padding)).unflatten(1, (-1, 4))
    solo = groups.amin(2) * (groups.amax(2).sum(-1, keepdim=True) == 1)
    alone = solo.sum(-1)
    same = solo @ solo.transpose(1, 2)
    pairs = alone[:, :, None] * alone[:, None]
    logits = 10 * (vectors @ vectors.transpose(1, 2) - 0.5)
    losses = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
    kinds = torch.stack([same, pairs - same])
    means = (losses * kinds).sum((1, 2, 3)) / kinds.sum((1, 2, 3)).clamp(min=1)
    return means.mean()


def contrastive_speaker_loss(
    embeddings: torch.Tensor,
    speaker_labels: torch.Tensor,
    labels: torch.Tensor,
    recording_labels: torch.Tensor | None = None,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Supervised contrastive loss over the voices of a batch (Khosla et al., NeurIPS 2020).

    It needs no list of speakers: any integer names a person. Voices with less than 0.4 s alone are left out.

    Args:
        embeddings: (batch, num_speakers, dim), unit vectors.
        speaker_labels: (batch, num_speakers) integers, -1 for nobody.
        labels: (batch, frames, num_speakers), 0 or 1.
        recording_labels: (batch,) integers that stand for the recording in which the names of a window hold, -1 for
            names that hold everywhere. People of two recordings may be one or two, so they are not compared.
        temperature: of the softmax over cosines.
    """
    heard = ((speaker_labels >= 0) & has_solo_speech(labels)).flatten()
    names = speaker_labels.flatten()
    embeddings = embeddings.flatten(0, 1)
    others = heard[:, None] & heard[None] & ~torch.eye(len(names), dtype=torch.bool, device=names.device)
    if recording_labels is not None:
        recordings = recording_labels.repeat_interleave(labels.shape[-1])
        local = recordings >= 0
        others &= ~(local[:, None] & local[None]) | (recordings[:, None] == recordings[None])
    positive = (others & (names[:, None] == names[None])).to(embeddings.dtype)
    cosines = (embeddings @ embeddings.T / temperature).masked_fill(~others, -1e4)
    log_probability = cosines.log_softmax(-1)
    count = positive.sum(-1)
    per_speaker = -(positive * log_probability).sum(-1) / count.clamp(min=1)
    return per_speaker.sum() / (count > 0).sum().clamp(min=1)


def distillation_loss(
    embeddings: torch.Tensor,
    voice_labels: torch.Tensor,
    voices: torch.Tensor,
    labels: torch.Tensor,
    scale: float = 20.0,
    margin: float = 0.2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each embedding is from a teacher's of the same person, and from being told from all the others.

    The second is a softmax over all voices of the teacher with an additive margin (Wang et al., Additive Margin
    Softmax for Face Verification, 2018), whose class centres are given and not learned.

    Args:
        embeddings: (batch, num_speakers, dim), unit vectors.
        voice_labels: (batch, num_speakers) rows of `voices`, -1 for people the teacher does not know.
        voices: (voices, dim), unit vectors, one for each person.
        labels: (batch, frames, num_speakers), 0 or 1. Voices with less than 0.4 s alone are left out.
        scale, margin: of the cosines in the softmax.

    Returns:
        means over the voices heard: 1 - cosine, and cross-entropy.
    """
    known = (voice_labels >= 0) & has_solo_speech(labels)
    rows = voice_labels.clamp(min=0)[..., None]
    cosines = embeddings @ voices.T
    own = cosines.gather(-1, rows)
    logits = scale * cosines.scatter(-1, rows, own - margin)
    confusion = logits.logsumexp(-1) - scale * (own - margin).squeeze(-1)
    count = known.sum().clamp(min=1)
    return ((1 - own.squeeze(-1)) * known).sum() / count, (confusion * known).sum() / count


def has_solo_speech(labels: torch.Tensor) -> torch.Tensor:
    """(batch, num_speakers) whether each speaker is alone for 0.4 s or more."""
    return (labels * (labels.sum(-1, keepdim=True) == 1)).sum(1) >= 20
