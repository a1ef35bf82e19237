"""Batch normalisation at the end of a training: statistics measured over many pools, then frozen.

The windows of a batch come from one pool and may share a microphone or a codec. Running averages therefore follow the
most recent pools, and the network is used with other statistics than it was trained with. Measuring the statistics once
over many pools and training on with them removes both problems (precise and frozen statistics: Wu and Johnson,
Rethinking "Batch" in BatchNorm, 2021).
"""

from collections.abc import Iterator

import torch
from torch import nn
from tqdm import tqdm

from data.streaming import LanedStream

BATCHES = 100


def norms_of(model: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def measure_norms(model: nn.Module, stream: LanedStream, batches: int = BATCHES) -> None:
    """Set the running statistics of the layers to be trained to their means over `batches` batches from many pools.

    Each utterance is used for one window only, so that a pool fills few batches. Dropout is off.
    """
    device = next(model.parameters()).device
    many_pools = stream.afresh(windows_per_utterance=1)
    model.eval()
    norms = [norm for norm in norms_of(model) if norm.weight.requires_grad]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for _, batch in zip(tqdm(range(batches), "measuring normalisation", disable=None), many_pools):
            model(input_values=torch.from_numpy(batch["input_values"]).to(device))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def frozen_norms(model: nn.Module, trained: bool) -> list[nn.BatchNorm2d]:
    """Those that normalise by the running statistics: of layers that are not trained, and if `trained` of all."""
    return [norm for norm in norms_of(model) if trained or not norm.weight.requires_grad]
