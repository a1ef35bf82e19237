"""Encoders: what sees the whole window at 80 ms, by the name that `encoder_type` of a configuration gives it.

A new one is a class and a line of `ENCODERS`. It is made from the configuration and maps (batch, frames, hidden_size)
and a mask (batch, frames) of real frames, or `None`, to states of the same shape.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from .configuration_fast_diarization import FastDiarizationConfig


class Conv(nn.Module):
    """Convolution over time, batch norm, ReLU, on (batch, channels, 1, time).

    Two dimensions, one of them 1, because ONNX Runtime's fast convolution layout exists for those only. With
    `residual` the input is added before the ReLU, which ONNX Runtime fuses into the convolution as well; `bias`, of
    shape (batch, outputs), is added there too.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride=1, dilation=1, residual=False):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(
            inputs, outputs, (1, kernel), (1, stride), (0, padding), dilation=(1, dilation), bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.residual = residual

    def forward(
        self, states: torch.Tensor, mask: torch.Tensor | None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        output = self.norm(self.conv(states))
        if self.residual:
            output = output + states
        if bias is not None:
            output = output + bias[:, :, None, None]
        output = F.relu(output)
        return output if mask is None else output * mask[:, None, None]


class ConvContext(nn.Module):
    """Dilated residual convolutions at 80 ms that see 2.5 s to either side."""

    def __init__(self, config: "FastDiarizationConfig"):
        super().__init__()
        size = config.hidden_size
        self.layers = nn.ModuleList(Conv(size, size, 3, dilation=d, residual=True) for d in (1, 4, 8, 16, 2))

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        states = states.transpose(1, 2).unsqueeze(2)
        for layer in self.layers:
            states = layer(states, mask)
        return states.squeeze(2).transpose(1, 2)


class AttentionLayer(nn.Module):
    """Pre-norm self-attention and feed-forward (Vaswani et al., 2017), with no positions: the GRU gives order."""

    def __init__(self, size: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_inner = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.inner = nn.Linear(size, inner)
        self.outer = nn.Linear(inner, size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, frames, size = states.shape
        qkv = self.query_key_value(self.norm_attention(states))
        query, key, value = qkv.reshape(batch, frames, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(size // self.heads)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None].bool(), torch.finfo(scores.dtype).min)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, frames, size)
        states = states + self.output(mixed)
        return states + self.outer(F.relu(self.inner(self.norm_inner(states))))


class AttentionGruContext(nn.Module):
    """Two bidirectional GRU layers, then two self-attention layers, at 80 ms."""

    def __init__(self, config: "FastDiarizationConfig"):
        super().__init__()
        size = config.hidden_size
        self.gru = nn.GRU(size, size, num_layers=2, batch_first=True, bidirectional=True)
        self.merge = nn.Linear(2 * size, size)
        self.attention = nn.ModuleList(AttentionLayer(size, heads=4, inner=3 * size + size // 5) for _ in range(2))

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is None:
            recurrent, _ = self.gru(states)
        else:
            lengths = mask.sum(-1).long().cpu()
            packed = nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
            recurrent, _ = nn.utils.rnn.pad_packed_sequence(
                self.gru(packed)[0], batch_first=True, total_length=states.shape[1]
            )
        states = states + self.merge(recurrent)
        for layer in self.attention:
            states = layer(states, mask)
        return states


ENCODERS: dict[str, type[nn.Module]] = {"lightweight-cnn": ConvContext, "attention-gru": AttentionGruContext}


def encoder_of(encoder_type: str) -> type[nn.Module]:
    """
    Raises:
        ValueError: no encoder has this name.
    """
    if encoder_type not in tuple(ENCODERS):  # which may be no name at all
        raise ValueError(f"encoder_type must be one of {', '.join(ENCODERS)}, got {encoder_type!r:.60}")
    return ENCODERS[encoder_type]
