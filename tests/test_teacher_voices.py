"""Voices of a teacher: the table, the look-up by speaker number, and the loss that learns from it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save, save_file

from data.conversations import speaker_number
from data.corpora import CorpusError, open_corpus
from modeling.loss_fast_diarization import distillation_loss
from training.teacher_voices import TeacherVoices, teach


@pytest.fixture
def table(tmp_path):
    names = ["b", "a", "c"]
    voices = F.normalize(torch.randn(3, 192, generator=torch.Generator().manual_seed(0)), dim=1)
    file = tmp_path / "voices.safetensors"
    save_file({"speaker": torch.tensor([speaker_number(n) for n in names]), "voice": voices}, file)
    return file, dict(zip(names, voices))


def test_each_speaker_gets_his_own_voice_and_strangers_none(table):
    file, voices = table
    labels = torch.tensor([[speaker_number("a"), speaker_number("b")], [-1, speaker_number("stranger")]])
    teacher = TeacherVoices(str(file))
    rows = teacher.rows_of(labels)
    assert torch.equal(teacher.voices[rows[0]], torch.stack([voices["a"], voices["b"]]))
    assert rows[1].tolist() == [-1, -1]


def test_a_number_beyond_the_last_one_is_a_stranger(table):
    assert TeacherVoices(str(table[0])).rows_of(torch.tensor([[2**62]])).tolist() == [[-1]]


def test_a_file_that_is_no_table_is_named(tmp_path):
    for content in (b"", b"no safetensors", save({"speaker": torch.tensor([1])})):
        file = tmp_path / "broken"
        file.write_bytes(content)
        with pytest.raises(
            CorpusError, match=r"broken is not a table of speaker embeddings .*training\.teacher_voices"
        ):
            TeacherVoices(str(file))


def test_the_losses_are_means_over_voices_heard_alone_and_known():
    labels = torch.zeros(2, 150, 2)
    labels[0, :60, 0] = labels[0, 40:100, 1] = 1  # 40 frames alone each
    labels[1, :19, 0] = 1  # too short
    labels[1, 50:90, 1] = 1  # the teacher does not know this one
    generator = torch.Generator().manual_seed(1)
    embeddings = F.normalize(torch.randn(2, 2, 8, generator=generator), dim=-1)
    voices = F.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    rows = torch.tensor([[3, 0], [1, -1]])
    distance, confusion = distillation_loss(embeddings, rows, voices, labels)
    heard = [(embeddings[0, 0].numpy(), 3), (embeddings[0, 1].numpy(), 0)]
    cosines = [voices.numpy() @ voice for voice, _ in heard]
    assert float(distance) == pytest.approx(np.mean([1 - c[row] for c, (_, row) in zip(cosines, heard)]), abs=1e-6)
    expected = []
    for cosine, (_, row) in zip(cosines, heard):
        exponents = np.exp(20 * (cosine - 0.2 * (np.arange(5) == row)))
        expected.append(-np.log(exponents[row] / exponents.sum()))
    assert float(confusion) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_batch_of_strangers_teaches_nothing():
    embeddings = torch.ones(1, 2, 8, requires_grad=True)
    losses = distillation_loss(embeddings, torch.full((1, 2), -1), torch.eye(8), torch.ones(1, 150, 2))
    sum(losses).backward()
    assert [float(loss) for loss in losses] == [0, 0] and not embeddings.grad.any()


@pytest.mark.slow
def test_every_speaker_is_heard_at_every_speed_and_the_common_part_taken_away():
    def pitch_and_offset(waveform):
        spectrum = np.abs(np.fft.rfft(waveform[:32_000], 32_000))[:192]
        return torch.from_numpy(spectrum / np.linalg.norm(spectrum) + 5).float()

    voices = teach(pitch_and_offset, "demo", (0.9, 1.0))
    utterances = open_corpus("demo", "train")
    names = {row.speaker for unit in range(len(utterances)) for row in utterances.read(unit)}
    expected = {speaker_number(n) for n in names} | {speaker_number(f"{n}@0.9") for n in names}
    assert set(voices["speaker"].tolist()) == expected
    assert torch.allclose(voices["voice"].norm(dim=1), torch.ones(len(expected)))
    assert abs(float((voices["voice"] @ voices["voice"].T).mean())) < 0.1
