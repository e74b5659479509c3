"""The codebook, held against vector-quantize-pytorch, a loop from the definition, and itself in two processes."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from codebooks import begun, drawn
from joint_codebook import STEPS, hands, train_autoencoder, train_codebook, train_in_two

from fasthamer.students.tokenhand.codebook import NEW, SMOOTHING, Codebook


def oracle_of(codebook: Codebook):
    """vector-quantize-pytorch with the same state: plain straight-through instead of its rotation trick."""
    package = pytest.importorskip("vector_quantize_pytorch", reason="needs the extra [dev]")
    size, width = codebook.codes.shape
    oracle = package.VectorQuantize(
        dim=width,
        codebook_size=size,
        decay=codebook.decay,
        eps=SMOOTHING,
        threshold_ema_dead_code=codebook.dead_below,
        rotation_trick=False,
    )
    inner = oracle._codebook
    inner.reset_cluster_size = NEW * codebook.dead_below  # theirs begins at the threshold itself
    inner.embed.copy_(codebook.codes[None])
    inner.cluster_size.copy_(codebook.counts[None])
    inner.embed_avg.copy_(codebook.sums[None])
    return oracle


def assert_same_state(codebook: Codebook, oracle) -> None:
    inner = oracle._codebook
    torch.testing.assert_close(codebook.counts, inner.cluster_size[0])
    torch.testing.assert_close(codebook.sums, inner.embed_avg[0])
    torch.testing.assert_close(codebook.codes, inner.embed[0], rtol=1e-5, atol=1e-5)


def test_assignments_codes_and_counts_are_those_of_vector_quantize_pytorch():
    codebook = begun()
    oracle = oracle_of(codebook)
    for step in range(20):
        tokens = drawn(step + 1, 5, 8, 6) + 0.05 * step
        ours, (_, indices, _) = codebook(tokens), oracle(tokens)
        assert torch.equal(ours.indices, indices)
        assert_same_state(codebook, oracle)
    assert len(ours.indices.unique()) > 4


def test_codes_that_die_are_reset_as_vector_quantize_pytorch_resets_them():
    codebook = begun(dead_below=0.7)
    oracle = oracle_of(codebook)
    # Theirs draws with torch's own generator: it is handed our draw, once ours has been made.
    oracle._codebook.replace_sample_fn = lambda samples, number: codebook.random_tokens(samples[0], number)[None]
    resets = 0
    for step in range(20):
        tokens = drawn(step + 1, 5, 8, 6) + 0.3 * step
        before = codebook.counts.clone()
        ours, (_, indices, _) = codebook(tokens), oracle(tokens)
        assert torch.equal(ours.indices, indices)
        assert_same_state(codebook, oracle)
        followed = torch.lerp(before, torch.bincount(indices.flatten(), minlength=16).float(), 0.2)
        resets += int((followed < 0.7).sum())
    assert resets > 16


def test_gradient_and_commitment_are_those_of_vector_quantize_pytorch():
    codebook = begun()
    oracle = oracle_of(codebook)
    ours, theirs = (drawn(1, 3, 7, 6).requires_grad_() for _ in range(2))
    weights = drawn(2, 3, 7, 6)
    quantised, (tokens, _, commitment) = codebook(ours), oracle(theirs)
    torch.testing.assert_close(quantised.tokens, tokens)
    torch.testing.assert_close(quantised.commitment.mean(), commitment.squeeze())
    ((quantised.tokens * weights).sum() + 0.25 * quantised.commitment.mean()).backward()
    ((tokens * weights).sum() + 0.25 * commitment.sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_gradient_goes_straight_through_and_commitment_is_a_mean_of_each_sample():
    codebook = begun().eval()
    tokens = drawn(1, 2, 3, 6).requires_grad_()
    quantised = codebook(tokens)
    assert quantised.commitment.shape == (2,)
    (gradient,) = torch.autograd.grad((quantised.tokens * drawn(2, 2, 3, 6)).sum(), tokens, retain_graph=True)
    assert torch.equal(gradient, drawn(2, 2, 3, 6))
    nearest = codebook.codes[quantised.indices]
    torch.testing.assert_close(quantised.tokens, nearest)
    for sample in range(2):
        by_hand = sum(((tokens[sample, m] - nearest[sample, m]) ** 2).sum() for m in range(3)) / (3 * 6)
        torch.testing.assert_close(quantised.commitment[sample], by_hand)
    (gradient,) = torch.autograd.grad(quantised.commitment[0], tokens)
    torch.testing.assert_close(gradient[0], 2 * (tokens - nearest)[0].detach() / 18)
    assert not gradient[1].any()


def test_codes_follow_the_definition():
    """van den Oord 2017, eq. 6 to 8 of appendix A.1, with PCT's smoothing (c + e) / (n + K e) n, in loops."""
    codebook = begun(size=7, width=3, decay=0.9)
    codes, counts, sums = (each.double().numpy().copy() for each in (codebook.codes, codebook.counts, codebook.sums))
    for step in range(6):
        tokens = drawn(step, 4, 5, 3)
        codebook(tokens)
        number, total = np.zeros(7), np.zeros((7, 3))
        for token in tokens.reshape(-1, 3).double().numpy():
            nearest = min(range(7), key=lambda k: ((token - codes[k]) ** 2).sum())
            number[nearest] += 1
            total[nearest] += token
        for k in range(7):
            counts[k] = 0.9 * counts[k] + 0.1 * number[k]
            sums[k] = 0.9 * sums[k] + 0.1 * total[k]
        for k in range(7):
            codes[k] = sums[k] / ((counts[k] + 1e-5) / (counts.sum() + 7 * 1e-5) * counts.sum())
        np.testing.assert_allclose(codebook.counts, counts, rtol=1e-5)
        np.testing.assert_allclose(codebook.codes, codes, rtol=1e-4, atol=1e-5)


def test_distances_are_squared_and_as_exact_under_autocast():
    codebook = begun(size=32, width=64)
    codebook.codes.mul_(0.01).add_(3)  # near each other, far from the origin: 8 bits could not tell them apart
    tokens = codebook.codes[None, [3, 1, 4, 1, 5]] + 0.001 * drawn(1, 1, 5, 64)
    exact = torch.cdist(tokens.double(), codebook.codes.double()[None]).square()
    torch.testing.assert_close(codebook.distances(tokens).double(), exact, rtol=0, atol=2e-3)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(codebook.distances(tokens).double(), exact, rtol=0, atol=2e-3)
        quantised = codebook(tokens)
    assert quantised.indices.tolist() == [[3, 1, 4, 1, 5]]
    assert quantised.tokens.dtype == quantised.commitment.dtype == torch.float32


def test_tokens_of_16_bits_are_quantised_in_32():
    half = drawn(1, 4, 8, 6).bfloat16().requires_grad_()
    ours, theirs = begun(), begun()
    quantised, expected = ours(half), theirs(half.detach().float())
    assert torch.equal(quantised.indices, expected.indices)
    assert torch.equal(ours.codes, theirs.codes)
    quantised.commitment.sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_distances_are_never_negative():
    codebook = begun(size=64, width=48)
    distances = codebook.distances(codebook.codes)
    assert distances.min() >= 0
    assert distances.argmin(1).tolist() == list(range(64))


def test_eval_mode_moves_nothing():
    codebook = begun(dead_below=0.5).eval()
    before = copy.deepcopy(codebook.state_dict())
    quantised = codebook(drawn(1, 4, 8, 6))
    torch.testing.assert_close(codebook.state_dict(), before, rtol=0, atol=0)
    _, indices, _ = oracle_of(codebook).eval()(drawn(1, 4, 8, 6))
    assert torch.equal(quantised.indices, indices)


def test_the_first_codes_are_tokens_of_the_first_batch_and_none_dies_of_being_new():
    codebook = Codebook(16, 6, 0.99, dead_below=2.0)  # the average code gets 4 of 64 tokens
    tokens = drawn(1, 8, 8, 6)
    flat = tokens.flatten(0, 1)
    codebook.start(flat)
    started = codebook.codes.clone()
    where = torch.cdist(started, flat).argmin(1)
    assert torch.equal(started, flat[where])
    assert len(where.unique()) == 16
    codebook(tokens)
    assert (codebook.counts >= 2.0).all()
    assert not torch.equal(codebook.counts, torch.full((16,), NEW * 2.0))  # nobody was moved


def test_a_first_batch_of_fewer_tokens_than_codes_gives_each_of_them_a_code():
    codebook = Codebook(20, 6, 0.9, dead_below=0.0)
    tokens = drawn(1, 2, 4, 6)
    commitment = codebook(tokens).commitment
    torch.testing.assert_close(commitment, torch.zeros(2), rtol=0, atol=1e-10)
    assert torch.isfinite(codebook.codes).all()
    moving = Codebook(20, 6, 0.5, dead_below=0.2)
    for step in range(20):  # those that began twice in one place die, and find another
        moving(drawn(step, 2, 4, 6))
    assert len(moving.codes.unique(dim=0)) == 20


def test_dead_codes_and_only_they_move_onto_tokens_of_the_batch():
    codebook = begun(dead_below=0.5)
    still = begun(dead_below=0.0)
    codebook.counts[[2, 9, 11]] = still.counts[[2, 9, 11]] = 0.1
    codebook.codes[[2, 9, 11]] += 50  # nobody chooses them
    codebook.sums.copy_(codebook.codes * codebook.counts[:, None])
    still.codes.copy_(codebook.codes)
    still.sums.copy_(codebook.sums)
    tokens = drawn(1, 20, 8, 6)
    codebook(tokens)
    still(tokens)
    dead = still.counts < 0.5
    assert dead.nonzero().flatten().tolist() == [2, 9, 11]
    assert torch.equal(codebook.codes[~dead], still.codes[~dead])
    assert torch.equal(codebook.counts[~dead], still.counts[~dead])
    chosen = [(tokens.flatten(0, 1) == code).all(1).nonzero().item() for code in codebook.codes[dead]]
    assert len(set(chosen)) == 3
    assert codebook.counts[dead].tolist() == [NEW * 0.5] * 3
    torch.testing.assert_close(codebook.sums[dead] / codebook.counts[dead, None], codebook.codes[dead])
    assert torch.equal(codebook.chosen, still.chosen)  # that they moved is not that they were chosen


def test_a_code_that_nobody_chooses_waits_and_then_comes_back_towards_the_origin():
    codebook = begun(size=8, dead_below=0.0)
    codebook.codes[0] = codebook.sums[0] = 100.0
    for _ in range(30):
        codebook(drawn(1, 4, 8, 6))
    torch.testing.assert_close(codebook.codes[0], torch.full((6,), 100.0), rtol=0.02, atol=0)
    for _ in range(600):  # 0.8 ** 600 is no 32-bit number any more
        codebook(drawn(1, 4, 8, 6))
    assert torch.isfinite(codebook.codes).all()
    assert codebook.codes[0].abs().max() < 5


def test_two_processes_learn_the_codebook_of_the_joint_batch(tmp_path):
    first, second = train_in_two(tmp_path)
    everyone = slice(0, 8)
    joint, learnt = train_codebook(everyone), train_autoencoder(everyone)
    for way, alone in (("uneven", joint), ("broadcast", learnt), ("apart", learnt)):
        for name, value in first[way].items():
            assert torch.equal(value, second[way][name]), f"{way}: the processes differ in {name}"
            torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_codes_die_in_what_two_processes_train():
    """Or the test above would say nothing of resets."""
    moving, never = train_codebook(slice(0, 8)), Codebook(12, 4, 0.9, 0.0)
    for step in range(STEPS):
        never(hands(step, 4))
    assert (never.counts < 1.0).any()
    assert (moving["counts"] >= 1.0).all()


def test_a_loaded_codebook_goes_on_identically():
    codebook = Codebook(16, 6, 0.8, dead_below=0.7)
    for step in range(5):
        codebook(drawn(step, 4, 8, 6) + 0.3 * step)
    torch.manual_seed(99)
    other = Codebook(16, 6, 0.8, dead_below=0.7)
    other.load_state_dict(codebook.state_dict())
    for step in range(5, 12):
        tokens = drawn(step, 4, 8, 6) + 0.3 * step
        assert torch.equal(codebook(tokens).indices, other(tokens).indices)
    torch.testing.assert_close(other.state_dict(), codebook.state_dict(), rtol=0, atol=0)


def test_tokens_that_are_not_finite_show_in_the_commitment():
    tokens = drawn(1, 3, 8, 6)
    tokens[1, 2, 3] = math.nan
    commitment = begun().eval()(tokens).commitment
    assert torch.isfinite(commitment).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("decay", "dead_below", "key"), [(1.0, 0.0, "DECAY"), (-0.1, 0.0, "DECAY"), (0.9, -1.0, "RESET_BELOW")]
)
def test_settings_that_make_no_average_are_refused(decay, dead_below, key):
    with pytest.raises(ValueError, match=f"TOKENIZER.{key} is .*not {decay if key == 'DECAY' else dead_below}"):
        Codebook(4, 4, decay, dead_below)
