"""What a codebook says of its own health: perplexity, dead codes, and a collapse with what to change."""

from __future__ import annotations

import pytest
import torch
from codebooks import begun, drawn

from fasthamer.students.tokenhand.codebook import SETTLED, Codebook, perplexity


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_perplexity_is_that_of_the_closed_forms(dtype):
    def of(*counts: int) -> float:
        return perplexity(torch.tensor(counts, dtype=dtype)).item()

    assert of(3, 3, 3, 3) == pytest.approx(4)
    assert of(7, 0, 0, 0) == pytest.approx(1)
    assert of(5, 5, 0, 0) == pytest.approx(2)
    assert of(1, 3) == pytest.approx(4 / 3**0.75)  # exp(1/4 ln 4 + 3/4 ln 4/3)
    assert of(0, 0, 0) == 0
    halves = [2**-k for k in range(1, 20)]
    assert perplexity(torch.tensor([*halves, 2**-19])).item() == pytest.approx(2 ** (2 - 2**-18), rel=1e-5)


def trained(tokens, size: int = 64, dead_below: float = 0.0, steps: int = SETTLED) -> Codebook:
    codebook = Codebook(size, 4, 0.99, dead_below)
    for step in range(steps):
        codebook(tokens(step))
    return codebook


def test_a_codebook_trained_on_constant_tokens_is_reported_as_collapsed():
    constant = torch.ones(4, 16, 4)
    health = trained(lambda step: constant).health()
    assert health.perplexity == pytest.approx(1)
    assert health.dead == 63
    assert health.advice.startswith("the codebook has collapsed: perplexity 1.0 of 64, 63 codes dead; ")
    for key in ("RESET_BELOW to 0.1", "TRAIN.LR", "TOKENIZER.COMMITMENT", "TOKENIZER.DECAY", "TOKENIZER.CODES"):
        assert key in health.advice
    assert "\n" not in health.advice


def test_moving_dead_codes_about_does_not_hide_a_collapse():
    two = torch.ones(4, 16, 4) * torch.tensor([1.0, -1.0]).repeat(8)[None, :, None]
    health = trained(lambda step: two, dead_below=0.5).health()
    assert health.perplexity == pytest.approx(2, rel=0.2)
    assert "collapsed" in health.advice
    assert "RESET_BELOW" not in health.advice  # they do move: it must be something else


def test_a_codebook_of_many_different_tokens_is_healthy():
    codebook = trained(lambda step: drawn(step, 4, 16, 4), dead_below=0.1)
    health = codebook.health()
    assert health.perplexity > 32
    assert health.dead < 3
    assert health.advice == ""


def test_no_codebook_is_called_collapsed_before_it_could_settle():
    constant = torch.ones(4, 16, 4)
    assert trained(lambda step: constant, steps=SETTLED - 1).health().advice == ""
    fresh = Codebook(64, 4, 0.99, 0.0).health()
    assert (fresh.perplexity, fresh.dead, fresh.advice) == (0.0, 64, "")


def test_an_evaluations_counts_are_judged_by_what_they_could_show():
    codebook = begun(size=512)
    codebook.steps.fill_(SETTLED)
    few = torch.zeros(512, dtype=torch.int64)
    few[:24] = 2  # one hand of 48 tokens cannot choose more than 48 codes
    health = codebook.health(few)
    assert health.perplexity == pytest.approx(24)
    assert (health.dead, health.advice) == (488, "")
    assert "perplexity 24.0 of 512, 488 codes dead" in codebook.health(1000 * few).advice


def test_a_code_that_was_chosen_once_and_never_again_counts_as_dead_later():
    codebook = begun(size=4, decay=0.9)
    codebook.chosen.copy_(torch.tensor([5.0, 5.0, 0.1, 0.0]))  # the third: one token, just now
    assert codebook.health().dead == 1
    codebook.chosen[2] *= 0.9 ** (SETTLED + 1)
    assert codebook.health().dead == 2
