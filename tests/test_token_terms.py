"""What tokens add to the loss: by definition, masked, and under their own weights."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import pearsonr
from tiny_tokenizers import meshes, tiny_tokenizer

from fasthamer.config import load_config
from fasthamer.distill.learner import LearnerOutput
from fasthamer.distill.losses import token_cross_entropy, token_divergence, token_relations
from fasthamer.distill.objective import Objective
from fasthamer.distill.token_targets import TokenTargetEncoder
from fasthamer.hand.mano import load_hand
from fasthamer.types import Batch, HandOutput

SAMPLES, TOKENS, CODES = 4, 6, 16
TERMS = ("tokens", "token_soft", "token_relations")
PRESENT = torch.tensor([1.0, 0.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def encoder(hand):
    return TokenTargetEncoder(tiny_tokenizer(hand).requires_grad_(False), 0.1)


@pytest.fixture(scope="module")
def posed(hand):
    return meshes(hand, SAMPLES)


@pytest.fixture
def logits():
    return torch.randn(SAMPLES, TOKENS, CODES, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def target():
    return (2 * torch.randn(SAMPLES, TOKENS, CODES, generator=torch.Generator().manual_seed(1))).softmax(-1)


def hand_output(logits, hand, posed) -> HandOutput:
    vertices, joints = (each.clone().requires_grad_() for each in posed)
    return HandOutput(vertices, joints, joints[..., :2], torch.ones(len(joints), 3), logits, logits=logits)


def labelled(posed, present: torch.Tensor) -> Batch:
    """A batch with meshes where `present` says so, zeros elsewhere, and no other label."""
    vertices, number = posed[0] * present[:, None, None], len(present)
    none, rotation = torch.zeros(number), torch.zeros(number, 1, 3, 3)
    return Batch(
        torch.zeros(number, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(number, 21, 3),
        torch.zeros(number, 21, 4),
        vertices,
        present,
        rotation,
        rotation.expand(-1, 15, 3, 3),
        torch.zeros(number, 10),
        none,
        none,
        none,
        torch.zeros(number, 2, 3),
        torch.arange(number),
    )


def objective(encoder, *overrides: str) -> Objective:
    return Objective.of(load_config(None, overrides))._replace(token_targets=encoder)


# --- the losses


def test_cross_entropy_is_minus_the_log_probability_of_the_label(logits):
    labels = torch.randint(CODES, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(2))
    scores = log_softmax(logits.detach().double().numpy(), axis=-1)
    expected = [-np.mean([scores[b, m, labels[b, m]] for m in range(TOKENS)]) for b in range(SAMPLES)]
    np.testing.assert_allclose(token_cross_entropy(logits, labels).detach(), expected, rtol=1e-5)


def test_divergence_is_kullback_leiblers_from_the_soft_labels(logits, target):
    predicted = softmax(logits.detach().double().numpy(), axis=-1)
    expected = rel_entr(target.double().numpy(), predicted).sum(-1).mean(1)
    np.testing.assert_allclose(token_divergence(logits, target).detach(), expected, rtol=1e-4)
    same = token_divergence(target.log(), target)
    torch.testing.assert_close(same, torch.zeros(SAMPLES), atol=1e-6, rtol=0)
    sure = torch.nn.functional.one_hot(target.argmax(-1), CODES).float()  # 0 log 0 is 0
    torch.testing.assert_close(token_divergence(logits, sure), token_cross_entropy(logits, target.argmax(-1)))


def test_relations_are_one_minus_pearsons_over_codes_and_over_samples(logits, target):
    predicted, truth = softmax(logits.detach().double().numpy(), axis=-1), target.double().numpy()
    within = [np.mean([pearsonr(predicted[b, m], truth[b, m])[0] for m in range(TOKENS)]) for b in range(SAMPLES)]
    across = np.mean([pearsonr(predicted[:, m, k], truth[:, m, k])[0] for m in range(TOKENS) for k in range(CODES)])
    expected = 1 - np.array(within) + 1 - across
    np.testing.assert_allclose(token_relations(logits, target).detach(), expected, rtol=1e-3, atol=1e-6)


def test_relations_of_the_same_are_zero_and_of_one_sample_finite(logits, target):
    torch.testing.assert_close(token_relations(target.log(), target), torch.zeros(SAMPLES), atol=1e-3, rtol=0)
    alone = token_relations(logits[:1], target[:1])
    assert alone.isfinite().all()
    flat = torch.full_like(target, 1 / CODES)
    torch.testing.assert_close(token_relations(logits, flat), torch.full((SAMPLES,), 2.0))


@pytest.mark.parametrize("loss", [token_cross_entropy, token_divergence, token_relations])
def test_a_step_against_the_gradient_makes_a_term_smaller(logits, target, loss):
    labels = target.argmax(-1) if loss is token_cross_entropy else target
    before = loss(logits, labels).sum()
    before.backward()
    assert loss(logits.detach() - 0.1 * logits.grad, labels).sum() < before


# --- what a mesh says


def test_soft_labels_are_those_of_the_distances_to_the_codes(encoder, posed):
    targets = encoder(posed[0])
    tokens, codes = encoder.tokenizer.encode(posed[0]).tokens.double().numpy(), encoder.tokenizer.codebook.codes.numpy()
    distances = ((tokens[:, :, None] - codes) ** 2).sum(-1)  # (B, M, K)
    assert (targets.labels.numpy() == distances.argmin(-1)).all()
    np.testing.assert_allclose(targets.soft, softmax(-distances / (8 * 0.1), axis=-1), atol=1e-5)
    assert (targets.soft.argmax(-1) == targets.labels).all()
    assert not targets.soft.requires_grad
    warm = TokenTargetEncoder(encoder.tokenizer, 10.0)(posed[0]).soft
    assert warm.amax(-1).mean() < targets.soft.amax(-1).mean()


def test_half_precision_changes_no_label(encoder, posed):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = encoder(posed[0])
    assert torch.equal(targets.labels, encoder(posed[0]).labels)
    assert targets.soft.dtype == torch.float32


def test_a_mesh_that_is_not_finite_gets_labels_that_show_it(encoder, posed):
    broken = posed[0].clone()
    broken[2, 300, 1] = float("nan")
    soft, whole = encoder(broken).soft, encoder(posed[0]).soft
    assert soft[2].isnan().all() and torch.equal(soft[:2], whole[:2])


# --- the objective


def test_weights_reach_each_term_under_its_name(encoder, hand, posed, logits):
    settings = [f"{section}.{name.upper()}" for section in ("LOSS", "KD") for name in TERMS]
    weights = {name: str(number + 1) for number, name in enumerate(settings)}
    pairs = [text for pair in weights.items() for text in pair]
    loss = objective(encoder, "KD.MODE", "output", "KD.WEIGHT", "0.5", *pairs)
    mesh, teachers = posed[0], meshes(hand, SAMPLES, seed=9)
    teacher = hand_output(None, hand, teachers)
    output = LearnerOutput(hand_output(logits, hand, posed))
    terms = loss(output, labelled(posed, PRESENT), teacher)
    losses = (token_cross_entropy, token_divergence, token_relations)
    rows = PRESENT.bool()
    targets, from_teacher = encoder(mesh[rows]), encoder(teachers[0])
    for number, (name, loss) in enumerate(zip(TERMS, losses, strict=True)):
        truth, target = ((each.labels if name == "tokens" else each.soft) for each in (targets, from_teacher))
        expected = (number + 1) * 8 * loss(logits[rows], truth).sum() / SAMPLES
        torch.testing.assert_close(terms[name], expected)
        torch.testing.assert_close(terms[f"kd_{name}"], 0.5 * (number + 4) * 8 * loss(logits, target).mean())
    total = sum(value for name, value in terms.items() if name != "total")
    torch.testing.assert_close(terms["total"], total)


def test_without_a_labelled_mesh_every_term_is_zero_with_a_gradient(encoder, hand, posed, logits):
    loss = objective(encoder, "KD.MODE", "none", *(text for name in TERMS for text in (f"LOSS.{name.upper()}", "1")))
    terms = loss(LearnerOutput(hand_output(logits, hand, posed)), labelled(posed, torch.zeros(SAMPLES)), None)
    sum(terms[name] for name in TERMS).backward()
    assert [float(terms[name].detach()) for name in TERMS] == [0, 0, 0]
    assert logits.grad is not None and not logits.grad.any()


def test_only_labelled_meshes_are_encoded(encoder, hand, posed, logits):
    broken = posed[0].clone()
    broken[PRESENT == 0] = float("nan")
    batch = labelled((broken, posed[1]), torch.ones(SAMPLES))._replace(has_vertices=PRESENT)
    terms = objective(encoder, "KD.MODE", "none")(LearnerOutput(hand_output(logits, hand, posed)), batch, None)
    whole = objective(encoder, "KD.MODE", "none")(
        LearnerOutput(hand_output(logits, hand, posed)), labelled(posed, PRESENT), None
    )
    torch.testing.assert_close(terms["tokens"], whole["tokens"])


def test_the_teachers_mesh_gives_token_targets_where_the_batch_has_no_label(encoder, hand, posed, logits):
    teacher = hand_output(None, hand, meshes(hand, SAMPLES, seed=9))
    loss = objective(encoder, "KD.MODE", "output")
    terms = loss(LearnerOutput(hand_output(logits, hand, posed)), labelled(posed, torch.zeros(SAMPLES)), teacher)
    assert terms["tokens"] == 0
    assert terms["kd_tokens"] > 0 and terms["kd_token_soft"] > 0
    terms["total"].backward()
    assert logits.grad.abs().max() > 0


def test_a_mesh_in_tokens_is_what_the_logits_learn(encoder, hand, posed):
    """Gradient descent on the terms alone ends at the mesh's own codes."""
    logits = torch.zeros(SAMPLES, TOKENS, CODES, requires_grad=True)
    loss = objective(encoder, "KD.MODE", "none")
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(40):
        terms = loss(LearnerOutput(hand_output(logits, hand, posed)), labelled(posed, torch.ones(SAMPLES)), None)
        optimizer.zero_grad()
        terms["tokens"].backward()
        optimizer.step()
    assert torch.equal(logits.argmax(-1), encoder(posed[0]).labels)


def test_without_a_tokenizer_or_without_logits_there_is_no_token_term(encoder, hand, posed, logits):
    batch = labelled(posed, torch.ones(SAMPLES))
    silent = objective(None, "KD.MODE", "none")(LearnerOutput(hand_output(logits, hand, posed)), batch, None)
    without_logits = objective(encoder, "KD.MODE", "none")(LearnerOutput(hand_output(None, hand, posed)), batch, None)
    assert not {*silent, *without_logits} & set(TERMS)
    never = encoder._replace(tokenizer=None)  # fails if asked
    off = objective(never, "KD.MODE", "none", "LOSS.TOKENS", "0")
    assert not set(off(LearnerOutput(hand_output(logits, hand, posed)), batch, None)) & set(TERMS)
