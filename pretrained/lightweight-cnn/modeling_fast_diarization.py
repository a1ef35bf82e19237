"""The Fast Diarization network: 16 kHz waveform in, who speaks in every 20 ms frame and as whom out.

The journey inside: log-mel (10 ms) -> stem, told what the whole window has in common (40 ms) -> local convolutions
(40, then 80 ms) -> affinity pooling over frames that sound like the same speaker -> context (80 ms) -> back to 40 ms
with a skip connection -> head with two outputs per 40 ms. Most of the parameters work at 80 ms, which is what makes a
window cheap.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_fast_diarization import FastDiarizationConfig
from .encoders_fast_diarization import Conv, encoder_of
from .loss_fast_diarization import total_loss, training_losses

SAMPLING_RATE = 16_000
FRAME_SAMPLES = 320
MIN_SAMPLES = 1_600


@dataclass
class FastDiarizationModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, ceil(frames / 2), hidden_size)`):
            segmentation features, one every 40 ms.
        speaker_states (`torch.FloatTensor` of shape `(batch, ceil(frames / 4), hidden_size)`):
            local speaker features, one every 80 ms.
        affinity_states (`torch.FloatTensor` of shape `(batch, ceil(frames / 4), hidden_size // 2)`):
            unit vectors, near for frames of one speaker and far for frames of two.
    """

    last_hidden_state: torch.FloatTensor | None = None
    speaker_states: torch.FloatTensor | None = None
    affinity_states: torch.FloatTensor | None = None


@dataclass
class FastDiarizationOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, returned when `labels` are given): the training loss.
        logits (`torch.FloatTensor` of shape `(batch, frames, num_speakers)`): log-odds that a speaker is active
            in a 20 ms frame; `sigmoid(logits) > 0.5` is the hypothesis.
        speaker_embeddings (`torch.FloatTensor` of shape `(batch, num_speakers, embedding_size)`): unit vectors
            pooled over each speaker's non-overlapped frames.
        losses (`dict[str, torch.FloatTensor]`, returned when `labels` are given): the terms of the loss by name,
            before their weights.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    speaker_embeddings: torch.FloatTensor | None = None
    losses: dict[str, torch.FloatTensor] | None = None


class LogMel(nn.Module):
    """Log-mel energies every 10 ms from windows of 25 ms, invariant to the gain and the DC offset of its input.

    A frame is folded about its centre, which halves the Fourier matrices, and framing is a reshape, so that the
    whole front end is three matrix products that any runtime does well at any batch and length.
    """

    window, hop = 400, 160

    def __init__(self, num_mel_bins: int):
        super().__init__()
        self.num_mel_bins = num_mel_bins
        bins = self.window // 2
        # float32 in a network of half precision too: sounds differ by more than that can tell.
        self.register_buffer("cosine", torch.empty(bins, bins, dtype=torch.float32), persistent=False)
        self.register_buffer("sine", torch.empty(bins, bins, dtype=torch.float32), persistent=False)
        self.register_buffer("mel", torch.empty(bins, num_mel_bins, dtype=torch.float32), persistent=False)
        self.fill_buffers()

    @torch.no_grad()
    def fill_buffers(self):
        """Compute the constants; also after loading on the meta device, where they come back undefined."""
        half = self.window // 2
        time = torch.arange(half, dtype=torch.float64) - (self.window - 1) / 2
        frequency = torch.arange(1, half + 1, dtype=torch.float64) * SAMPLING_RATE / self.window
        phase = 2 * math.pi * time[:, None] * frequency[None] / SAMPLING_RATE
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * (torch.arange(half, dtype=torch.float64) + 0.5) / self.window)
        scale = hann[:, None] / math.sqrt(self.window)
        self.cosine.copy_(scale * torch.cos(phase))
        self.sine.copy_(scale * torch.sin(phase))

        def to_mel(hertz):
            return 2595 * torch.log10(1 + torch.as_tensor(hertz, dtype=torch.float64) / 700)

        edges = torch.linspace(to_mel(50.0), to_mel(7_600.0), self.num_mel_bins + 2, dtype=torch.float64)
        edges = 700 * (10 ** (edges / 2595) - 1)
        # A band is never narrower than the resolution of the transform, or low bands would be empty.
        centre = edges[1:-1]
        resolution = SAMPLING_RATE / self.window
        low, high = torch.minimum(edges[:-2], centre - resolution), torch.maximum(edges[2:], centre + resolution)
        rise = (frequency[:, None] - low) / (centre - low)
        fall = (high - frequency[:, None]) / (high - centre)
        self.mel.copy_(torch.minimum(rise, fall).clamp(min=0))

    def mean(self, waveform: torch.Tensor) -> torch.Tensor:
        """Mean of (batch, samples) in two stages, because a float32 sum of a million samples loses digits."""
        return waveform.reshape(waveform.shape[0], -1, FRAME_SAMPLES).mean(-1).mean(-1, keepdim=True)

    def forward(self, waveform: torch.Tensor, sample_mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, samples), a multiple of 320 samples -> (batch, samples // 160, num_mel_bins)."""
        if sample_mask is None:
            waveform = waveform - self.mean(waveform)
            power = self.mean(waveform.square())
        else:
            share = self.mean(sample_mask).clamp(min=1e-9)
            waveform = (waveform - self.mean(waveform * sample_mask) / share) * sample_mask
            power = self.mean(waveform.square()) / share
        waveform = waveform * torch.rsqrt(power + 1e-12)
        margin = (self.window - self.hop) // 2
        waveform = F.pad(waveform, (margin, 2 * self.hop - margin))
        hops = waveform.reshape(waveform.shape[0], -1, self.hop)
        left = torch.cat([hops[:, :-2], hops[:, 1:-1, : self.hop // 4]], -1)
        right = torch.cat([hops[:, 1:-1, self.hop // 4 :], hops[:, 2:, : self.hop // 2]], -1).flip(-1)
        spectrum = ((left + right) @ self.cosine).square() + ((left - right) @ self.sine).square()
        return torch.log(spectrum @ self.mel + 1e-5)


class Background(nn.Module):
    """What a whole window has in common, its room, microphone and noise, as a bias of the stem.

    Mean and deviation of every mel band over the window, projected: with it the stem can do what normalisation by
    cepstral mean and variance does (Furui, 1981), and leave it where loudness tells more.
    """

    def __init__(self, num_mel_bins: int, channels: int):
        super().__init__()
        self.project = nn.Linear(2 * num_mel_bins, channels)

    def forward(self, mel: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, num_mel_bins, 1, time) -> (batch, channels)."""
        mel = mel.squeeze(2)
        if mask is None:
            mean, power = mel.mean(-1), mel.square().mean(-1)
        else:
            weights = (mask / mask.sum(-1, keepdim=True).clamp(min=1))[:, None]
            mean, power = (mel * weights).sum(-1), (mel.square() * weights).sum(-1)
        deviation = (power - mean.square()).clamp(min=1e-4).sqrt()
        return self.project(torch.cat([mean, deviation], -1))


class AffinityPooling(nn.Module):
    """Every frame sees the mean of the frames that sound like the same speaker.

    Self-attention whose queries and keys are one unit vector a frame, trained directly by the affinity loss, so
    that a speaker who comes back later in the window is recognised.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.project = nn.Linear(channels, channels // 2)
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.value = nn.Linear(channels, channels)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = F.normalize(self.project(states), dim=-1, eps=1e-6)  # which float16 does not round to 0
        scores = self.scale * (vectors @ vectors.transpose(1, 2))
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None].bool(), torch.finfo(scores.dtype).min)
        return states + self.value(scores.softmax(-1) @ states), vectors


def _check_shape(input_values: torch.Tensor) -> None:
    if input_values.dim() != 2:
        raise ValueError(f"input_values must have shape (batch, samples), got {tuple(input_values.shape)}")
    if input_values.shape[1] < MIN_SAMPLES:
        raise ValueError(f"input_values must hold at least {MIN_SAMPLES} samples (0.1 s), got {input_values.shape[1]}")


def _repeat_frames(states: torch.Tensor, times: int, frames: int) -> torch.Tensor:
    """Repeat every frame of (batch, time, channels) `times` times and keep the first `frames`."""
    batch, time, channels = states.shape
    states = states.unsqueeze(2).expand(batch, time, times, channels).reshape(batch, time * times, channels)
    return states[:, :frames]


class FastDiarizationPreTrainedModel(PreTrainedModel):
    config_class = FastDiarizationConfig
    base_model_prefix = "fast_diarization"
    main_input_name = "input_values"
    input_modalities = "audio"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, (LogMel, FastDiarizationForAudioFrameClassification)):
            module.fill_buffers()
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GRU):
            for name, parameter in module.named_parameters():
                if "weight" in name:
                    nn.init.orthogonal_(parameter)
                else:
                    nn.init.zeros_(parameter)
        elif isinstance(module, Background):
            nn.init.zeros_(module.project.weight)
        elif isinstance(module, AffinityPooling):
            nn.init.constant_(module.scale, 8.0)
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()


class FastDiarizationModel(FastDiarizationPreTrainedModel):
    """The backbone: log-mel, encoder, and the features the head and the embeddings are read from."""

    def __init__(self, config: FastDiarizationConfig):
        super().__init__(config)
        size = config.hidden_size
        self.log_mel = LogMel(config.num_mel_bins)
        self.input_norm = nn.BatchNorm2d(config.num_mel_bins)
        self.background = Background(config.num_mel_bins, size // 2)
        self.stem = nn.ModuleList([Conv(config.num_mel_bins, size // 2, 5, stride=2), Conv(size // 2, size, 5, 2)])
        self.local = nn.ModuleList(Conv(size, size, 3, residual=True) for _ in range(2))
        self.down = nn.ModuleList([Conv(size, size, 3, stride=2), Conv(size, size, 3, dilation=2, residual=True)])
        self.affinity = AffinityPooling(size)
        self.context = encoder_of(config.encoder_type)(config)
        self.up = nn.Linear(size, size)
        self.fuse = Conv(size, size, 1, residual=True)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FastDiarizationModelOutput | tuple:
        """
        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)`): 16 kHz waveforms of 0.1 s or more.
            attention_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for samples, 0 for the
                padding on the right. Padding changes no real frame's output.

        Raises:
            ValueError: input of another shape, or shorter than 0.1 s.
        """
        if not torch.jit.is_tracing():
            _check_shape(input_values)
        frames = input_values.shape[1] // FRAME_SAMPLES
        sample_mask = frame_mask = None
        masks = [None] * 4
        if attention_mask is not None:
            count = attention_mask.sum(-1, keepdim=True) // FRAME_SAMPLES
            frame_mask = (torch.arange(frames, device=input_values.device) < count).to(self.up.weight.dtype)
            sample_mask = frame_mask.repeat_interleave(FRAME_SAMPLES, -1).float()
            masks = [frame_mask.repeat_interleave(2, -1), frame_mask, frame_mask[:, ::2], frame_mask[:, ::4]]
        with torch.autocast(input_values.device.type, enabled=False):
            mel = self.log_mel(input_values[:, : frames * FRAME_SAMPLES].float(), sample_mask)
        states = self.input_norm(mel.to(self.up.weight.dtype).transpose(1, 2).unsqueeze(2))
        background = self.background(states, masks[0])
        if frame_mask is not None:
            states = states * masks[0][:, None, None]
        states = self.stem[0](states, masks[1], background)
        states = self.stem[1](states, masks[2])
        for layer in self.local:
            states = layer(states, masks[2])
        skip = states
        for layer in self.down:
            states = layer(states, masks[3])
        speaker_states = states.squeeze(2).transpose(1, 2)
        states, affinity_states = self.affinity(self.dropout(speaker_states), masks[3])
        if masks[3] is not None:
            states = states * masks[3][..., None]
        states = self.up(self.context(states, masks[3]))
        states = _repeat_frames(states, 2, skip.shape[-1]).transpose(1, 2).unsqueeze(2) + skip
        states = self.fuse(states, masks[2]).squeeze(2).transpose(1, 2)
        output = FastDiarizationModelOutput(self.dropout(states), speaker_states, affinity_states)
        return output if return_dict is not False else output.to_tuple()


class FastDiarizationForAudioFrameClassification(FastDiarizationPreTrainedModel):
    """Who speaks in every 20 ms frame, and one embedding a speaker, from one forward pass.

    The head scores every set of at most `max_simultaneous` speakers (powerset, Plaquet and Bredin, Interspeech
    2023) and gives each speaker's log-odds: the log-sum-exp of the sets with the speaker minus that of the sets
    without.

    Example:

    ```python
    >>> import torch
    >>> from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
    >>> model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig()).eval()
    >>> with torch.no_grad():
    ...     output = model(torch.randn(1, 48_000))
    >>> output.logits.shape, output.speaker_embeddings.shape
    (torch.Size([1, 150, 2]), torch.Size([1, 2, 192]))
    ```
    """

    def __init__(self, config: FastDiarizationConfig):
        super().__init__(config)
        speakers = range(config.num_speakers)
        self.speaker_sets = [s for n in range(config.max_simultaneous + 1) for s in combinations(speakers, n)]
        membership = torch.empty(config.num_speakers, len(self.speaker_sets), dtype=torch.float32)
        self.register_buffer("membership", membership, persistent=False)
        self.register_buffer("excluded", torch.empty(2, *membership.shape, dtype=torch.float32), persistent=False)
        self.fill_buffers()
        self.fast_diarization = FastDiarizationModel(config)
        self.classifier = nn.Linear(config.hidden_size, 2 * len(self.speaker_sets))
        self.speaker_projection = nn.Linear(2 * config.hidden_size, config.embedding_size)
        self.post_init()

    @torch.no_grad()
    def fill_buffers(self):
        for column, members in enumerate(self.speaker_sets):
            for speaker in range(self.config.num_speakers):
                self.membership[speaker, column] = float(speaker in members)
        self.excluded.copy_(1e4 * torch.stack([1 - self.membership, self.membership]))

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        speaker_labels: torch.Tensor | None = None,
        recording_labels: torch.Tensor | None = None,
        voice_labels: torch.Tensor | None = None,
        voices: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FastDiarizationOutput | tuple:
        """
        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)`): 16 kHz waveforms of 0.1 s or more.
            attention_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for samples, 0 for padding.
            labels (`torch.Tensor` of shape `(batch, frames, num_speakers)`, *optional*): 1 where a speaker is
                active; the order of speakers does not matter. With labels a loss is returned.
            speaker_labels (`torch.LongTensor` of shape `(batch, num_speakers)`, *optional*): any integer that
                stands for the person on a track of `labels`, -1 for nobody. With it the embeddings are trained.
            recording_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): any integer that stands for the
                recording in which the people of a window have their names, -1 for names that hold everywhere.
            voice_labels (`torch.LongTensor` of shape `(batch, num_speakers)`, *optional*): the row of `voices` that
                is the person on a track of `labels`, -1 where none is.
            voices (`torch.FloatTensor` of shape `(voices, embedding_size)`, *optional*): a teacher's embeddings of
                people, for the embeddings to learn from.
        """
        features = self.fast_diarization(input_values, attention_mask)
        frames = input_values.shape[1] // FRAME_SAMPLES
        with torch.autocast(input_values.device.type, enabled=False):
            scores, logits = self._classify(features.last_hidden_state, frames)
            frame_mask = None
            if attention_mask is not None:
                frame_mask = attention_mask[:, FRAME_SAMPLES - 1 :: FRAME_SAMPLES][:, :frames].to(logits.dtype)

            if labels is not None and labels.shape != logits.shape:
                raise ValueError(
                    f"labels must have the shape of the logits {tuple(logits.shape)}, got {tuple(labels.shape)}"
                )
            activity = torch.sigmoid(logits) if labels is None else labels.to(logits.dtype)
            embeddings = self.embed(features.speaker_states.float(), activity, frame_mask)
            loss = losses = None
            if labels is not None:
                losses = training_losses(
                    *(self.config, scores, self.membership, features.affinity_states.float(), embeddings),
                    *(activity, frame_mask, speaker_labels, recording_labels, voice_labels, voices),
                )
                loss = total_loss(self.config, losses)
        output = FastDiarizationOutput(loss, logits, embeddings, losses)
        return output if return_dict is not False else output.to_tuple()

    def _classify(self, states: torch.Tensor, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of the sets (batch, frames, sets), and each speaker's log-odds (batch, frames, num_speakers)."""
        scores = self.classifier(states.to(self.classifier.weight.dtype)).float()
        scores = scores.reshape(states.shape[0], -1, len(self.speaker_sets))[:, :frames]
        present, absent = torch.logsumexp(scores[..., None, None, :] - self.excluded, -1).unbind(-2)
        return scores, present - absent

    def embed(
        self, speaker_states: torch.Tensor, activity: torch.Tensor, frame_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Pool mean and deviation of the speaker features over each speaker's non-overlapped frames.

        Args:
            speaker_states (`torch.FloatTensor` of shape `(batch, ceil(frames / 4), hidden_size)`)
            activity (`torch.FloatTensor` of shape `(batch, frames, num_speakers)`): probabilities or labels.
            frame_mask (`torch.FloatTensor` of shape `(batch, frames)`, *optional*)

        Returns:
            `torch.FloatTensor` of shape `(batch, num_speakers, embedding_size)`, unit vectors.
        """
        total = activity.sum(-1, keepdim=True)
        solo = activity * (1 - (total - activity).clamp(0, 1))
        weights = solo.transpose(1, 2) + 1e-6
        if frame_mask is not None:
            weights = weights * frame_mask[:, None]
        weights = weights / weights.sum(-1, keepdim=True)
        states = _repeat_frames(speaker_states, 4, activity.shape[1])
        mean = weights @ states
        deviation = ((weights @ states.square()) - mean.square()).clamp(min=1e-6).sqrt()
        pooled = torch.cat([mean, deviation], -1).to(self.speaker_projection.weight.dtype)
        return F.normalize(self.speaker_projection(pooled).float(), dim=-1)
