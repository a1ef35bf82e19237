"""Losses against plain loops, and what they teach."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings
from test_modeling import NAMES, a_minute_of_speech, answer, small, used_to_speech, windows_of
from transformers import Trainer, TrainingArguments

from modeling import (
    FastDiarizationConfig,
    FastDiarizationForAudioFrameClassification,
)
from modeling.loss_fast_diarization import affinity_loss, contrastive_speaker_loss, permutation_invariant_loss

few = settings(max_examples=10, deadline=None)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return a_minute_of_speech()


@pytest.fixture(scope="module", params=NAMES)
def network(request, speech) -> FastDiarizationForAudioFrameClassification:
    return used_to_speech(request.param, speech)


def random_labels(seed: int, batch=3, frames=37, speakers=2) -> torch.Tensor:
    """Runs of 5 frames or so, with silence, solo speech and overlap."""
    drawn = torch.rand(batch, -(-frames // 5), speakers, generator=torch.Generator().manual_seed(seed)) > 0.5
    return drawn.repeat_interleave(5, 1)[:, :frames].float()


@pytest.mark.parametrize(("speakers", "most"), [(2, 2), (3, 2), (3, 3), (1, 1)])
def test_logits_are_the_log_odds_of_the_powerset(speech, speakers, most):
    model = small(num_speakers=speakers, max_simultaneous=most).eval()
    model.classifier.weight.data *= 0.01
    seen = []
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = answer(model, windows_of(speech, 1, 3_200)).logits[0]
    sets = [s for n in range(most + 1) for s in combinations(range(speakers), n)]
    probabilities = seen[0].reshape(-1, len(sets)).double().softmax(-1)[: len(logits)]
    for frame, speaker in np.ndindex(*logits.shape):
        present, absent = (
            sum(float(probabilities[frame, i]) for i, s in enumerate(sets) if (speaker in s) == wanted)
            for wanted in (True, False)
        )
        expected = math.log(present / absent)
        assert float(logits[frame, speaker]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("speakers", "most", "masked"), [(2, 2, False), (2, 2, True), (3, 2, True), (3, 3, False), (4, 2, True)]
)
def test_permutation_invariant_loss_against_loops(speakers, most, masked):
    sets = [s for n in range(most + 1) for s in combinations(range(speakers), n)]
    membership = torch.tensor([[float(speaker in s) for s in sets] for speaker in range(speakers)])
    labels = random_labels(1, speakers=speakers)
    scores = torch.randn(3, 37, len(sets), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(3, 37)
    if masked:
        mask[0, 20:] = mask[2, 5:] = 0
    expected = []
    for window in range(3):
        losses = []
        for order in permutations(range(speakers)):
            total = 0.0
            for frame in np.flatnonzero(mask[window]):
                active = {place for place, s in enumerate(order) if labels[window, frame, s]}
                target = min(range(len(sets)), key=lambda i: len(active ^ set(sets[i])))
                total -= float(scores[window, frame].double().log_softmax(-1)[target])
            losses.append(total / float(mask[window].sum()))
        expected.append(min(losses))
    loss = permutation_invariant_loss(scores, labels, membership, mask if masked else None)
    assert float(loss) == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_affinity_loss_against_loops(masked):
    labels = random_labels(3)
    labels[2] = 0
    vectors = F.normalize(torch.randn(3, 10, 8, generator=torch.Generator().manual_seed(4)), dim=-1)
    mask = torch.ones(3, 37)
    if masked:
        mask[0, 20:] = 0
    owners = np.full((3, 10), -1)
    for window, group in np.ndindex(3, 9):  # the tenth group has one frame only
        frames = labels[window, 4 * group : 4 * group + 4] * mask[window, 4 * group : 4 * group + 4, None]
        for speaker in range(2):
            if frames[:, speaker].all() and not frames[:, 1 - speaker].any():
                owners[window, group] = speaker
    losses = {True: [], False: []}
    for window, i, j in np.ndindex(3, 10, 10):
        if min(owners[window, i], owners[window, j]) >= 0:
            same = owners[window, i] == owners[window, j]
            logit = 10 * (float(vectors[window, i] @ vectors[window, j]) - 0.5)
            losses[same].append(math.log1p(math.exp(-logit if same else logit)))
    assert losses[True] and losses[False]
    expected = np.mean(losses[True]) / 2 + np.mean(losses[False]) / 2
    assert float(affinity_loss(vectors, labels, mask if masked else None)) == pytest.approx(expected, abs=1e-5)


def test_contrastive_loss_against_loops():
    labels = torch.zeros(4, 60, 2)
    labels[:, :30, 0] = labels[:, 25:55, 1] = 1
    labels[3, 19:, 1] = 0  # the last voice has no 0.4 s alone
    names = torch.tensor([[7, 8], [8, 9], [7, -1], [9, 7]])
    embeddings = F.normalize(torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(5)), dim=-1)
    voices = [
        (int(names[i, s]), embeddings[i, s].double()) for i, s in np.ndindex(4, 2) if (i, s) not in [(2, 1), (3, 1)]
    ]
    losses = []
    for i, (name, voice) in enumerate(voices):
        others = [(n, math.exp(float(voice @ v) / 0.1)) for j, (n, v) in enumerate(voices) if j != i]
        positive = [math.log(e / sum(e for _, e in others)) for n, e in others if n == name]
        if positive:
            losses.append(-np.mean(positive))
    assert len(losses) == 6
    loss = contrastive_speaker_loss(embeddings, names, labels)
    assert float(loss) == pytest.approx(np.mean(losses), abs=1e-5)


def test_every_term_of_the_loss_is_returned_and_has_a_weight_of_its_own(speech):
    waveforms, labels = windows_of(speech, 4, 48_000), random_labels(9, 4, 150)
    names = torch.tensor([[1, 2], [2, 3], [3, 1], [1, 2]])
    voices = F.normalize(torch.randn(5, 192, generator=torch.Generator().manual_seed(6)), dim=-1)
    inputs = {"labels": labels, "speaker_labels": names, "voice_labels": names, "voices": voices}
    weights = {"affinity": 0.7, "speaker": 0.2, "distillation": 1.5, "teacher": 0.4}
    terms = {}
    for off in (None, *weights):
        kept = {f"{name}_loss_weight": 0.0 if name == off else weight for name, weight in weights.items()}
        with torch.no_grad():
            output = small(dropout=0.0, **kept).eval()(waveforms, **inputs)
        terms = terms or {name: float(term) for name, term in output.losses.items()}
        assert list(output.losses) == [name for name in ("segmentation", *weights) if name != off]
        expected = terms["segmentation"] + sum(w * terms[name] for name, w in weights.items() if name != off)
        assert float(output.loss) == pytest.approx(expected, rel=1e-5), off


def test_a_configuration_from_when_one_weight_stood_for_both_keeps_it_for_both():
    saved = FastDiarizationConfig(speaker_loss_weight=0.1).to_dict()
    assert saved.pop("teacher_loss_weight") == 0.3
    assert FastDiarizationConfig.from_dict(saved).teacher_loss_weight == 0.1
    assert FastDiarizationConfig.from_dict(saved | {"teacher_loss_weight": 0.2}).teacher_loss_weight == 0.2
    assert FastDiarizationConfig.from_dict({"model_type": "fast-diarization"}).teacher_loss_weight == 0.3


def test_the_trainer_of_transformers_evaluates_it(speech, tmp_path):
    """Outputs of batches are put together; the terms of the loss are left out of that."""
    rows = [
        {"input_values": window, "labels": labels, "speaker_labels": torch.tensor([1, 2])}
        for window, labels in zip(windows_of(speech, 5, 16_000), random_labels(10, 5, 50))
    ]
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_eval_batch_size=2,
        label_names=["labels", "speaker_labels"],
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(small(), arguments, eval_dataset=rows)
    predicted = trainer.predict(rows)
    logits, embeddings = predicted.predictions
    assert logits.shape == (5, 50, 2) and embeddings.shape == (5, 2, 192)
    assert predicted.metrics["test_loss"] > 0


def test_losses_of_nobody_are_finite():
    nobody = torch.zeros(2, 40, 2)
    vectors = F.normalize(torch.randn(2, 10, 8), dim=-1).requires_grad_()
    embeddings = F.normalize(torch.randn(2, 2, 8), dim=-1).requires_grad_()
    for loss, leaf in (
        (affinity_loss(vectors, nobody), vectors),
        (contrastive_speaker_loss(embeddings, torch.full((2, 2), -1), nobody), embeddings),
    ):
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert float(loss.detach()) == 0 and torch.isfinite(gradient).all()


def test_the_order_of_speakers_does_not_matter(network, speech):
    waveforms, labels = windows_of(speech, 4, 48_000), random_labels(6, 4, 150)
    names = torch.tensor([[1, 2], [2, 3], [3, 1], [1, -1]])
    labels[3, :, 1] = 0
    order = torch.tensor([[0, 1], [1, 0], [1, 0], [1, 0]])
    with torch.no_grad():
        loss = network(waveforms, labels=labels, speaker_labels=names).loss
        swapped = torch.stack([window[:, o] for window, o in zip(labels, order)])
        again = network(waveforms, labels=swapped, speaker_labels=names.gather(1, order)).loss
    assert float(again) == pytest.approx(float(loss), abs=1e-5)


def test_every_parameter_learns(network, speech):
    network.zero_grad()
    names = torch.tensor([[1, 2], [2, 3], [3, 1], [1, 2]])
    network(windows_of(speech, 4, 48_000), labels=random_labels(7, 4, 150), speaker_labels=names).loss.backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    network.zero_grad()


@pytest.mark.parametrize("encoder", NAMES)
def test_overlap_can_be_learnt(speech, encoder):
    model = small(encoder_type=encoder, hidden_size=64, dropout=0.0).train()
    waveform = windows_of(speech, 1, 48_000)
    labels = torch.zeros(1, 150, 2)
    labels[0, 20:100, 0] = labels[0, 60:140, 1] = 1
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(200):
        output = model(waveform, labels=labels)
        predicted = output.logits > 0
        if any(torch.equal(predicted, labels[..., order] > 0) for order in ([0, 1], [1, 0])):
            return
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    pytest.fail(f"after 200 steps {int((predicted.sum(-1) == 2).sum())} of 40 frames overlap")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_in_half_precision(network, speech, dtype):
    inputs = {
        "input_values": windows_of(speech, 4, 48_000),
        "labels": random_labels(8, 4, 150),
        "speaker_labels": torch.tensor([[1, 2], [2, 3], [3, 1], [1, 2]]),
    }
    expected = float(network(**inputs).loss.detach())
    with torch.autocast("cpu", dtype=dtype):
        output = network(**inputs)
    output.loss.backward()
    assert output.logits.dtype == torch.float32
    assert float(output.loss.detach()) == pytest.approx(expected, rel=0.03)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    network.zero_grad()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variable", [None, "attention_mask"])
def test_weights_of_half_precision_answer_alike(network, speech, dtype, variable, tmp_path):
    network.save_pretrained(tmp_path)
    half = type(network).from_pretrained(tmp_path, dtype=dtype).eval()
    inputs = {"input_values": windows_of(speech, 2, 48_000)}
    if variable:
        inputs[variable] = (torch.arange(48_000) < torch.tensor([[48_000], [32_000]])).long()
    with torch.no_grad():
        expected, output = network.eval()(**inputs), half(**inputs)
    assert half.classifier.weight.dtype == dtype and output.logits.dtype == torch.float32
    assert half.fast_diarization.log_mel.mel.dtype == torch.float32
    difference = (torch.sigmoid(output.logits) - torch.sigmoid(expected.logits)).abs()
    assert difference.mean() < 0.02
    assert torch.cosine_similarity(output.speaker_embeddings, expected.speaker_embeddings, dim=-1).min() > 0.99
