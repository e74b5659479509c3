"""HaMeR's adversarial prior: who moves whom, and the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fasthamer.distill.adversarial import AdversarialLoss, Discriminator, mocap_sampler, procedural_sampler
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.training.accelerator import accelerator_for
from fasthamer.types import ManoParams


def mano(size: int = 4, seed: int = 0) -> ManoParams:
    draw = torch.Generator().manual_seed(seed)
    rotations = axis_angle_to_matrix(torch.randn(size, 16, 3, generator=draw))
    return ManoParams(rotations[:, :1], rotations[:, 1:].requires_grad_(), torch.randn(size, 10).requires_grad_())


def flat(random: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Real hands are flat and average here."""
    return torch.eye(3).expand(n, 15, 3, 3), torch.zeros(n, 10)


@pytest.fixture
def prior() -> AdversarialLoss:
    torch.manual_seed(0)
    accelerator: Accelerator = accelerator_for("cpu", "fp32", 1)
    return AdversarialLoss(0.5, 3e-3, 0.0, flat, accelerator)


def test_the_discriminator_gives_one_score_a_joint_one_for_the_pose_and_one_for_the_shape():
    scores = Discriminator()(*mano()[1:])
    assert scores.shape == (4, 17)
    other = mano()
    with torch.no_grad():
        other.hand_pose[:, 3] = torch.eye(3)
    torch.manual_seed(1)
    judge = Discriminator()
    before, after = judge(*mano()[1:2], other.betas), judge(other.hand_pose, other.betas)
    changed = ((before - after).abs() > 1e-6).any(0).nonzero().flatten().tolist()
    assert set(changed) <= {3, 16}  # joint 3's own score, and that of all joints
    assert 3 in changed


def test_fooling_moves_the_student_only_and_is_a_mean_over_the_batch(prior):
    hands = mano()
    loss = prior.generator_loss(hands)
    scores = prior.discriminator(hands.hand_pose, hands.betas)
    torch.testing.assert_close(loss, 0.5 * ((scores - 1) ** 2).sum() / 4)  # HaMeR: the sum over the batch, by its size
    loss.backward()
    assert hands.hand_pose.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in prior.discriminator.parameters())


def test_learning_moves_the_discriminator_only_until_it_tells_them_apart(prior):
    hands, random = mano(16), np.random.default_rng(0)
    losses = [prior.discriminator_step(hands, random).item() for _ in range(30)]
    assert hands.hand_pose.grad is None
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    real = flat(random, 16)
    with torch.no_grad():
        assert prior.discriminator(*real).mean() > prior.discriminator(*hands[1:]).mean() + 0.3


def test_mocap_hands_lose_their_wrist(tmp_path):
    pose = np.zeros((2, 48))
    pose[:, :3], pose[:, 3] = 9.0, np.pi  # the wrist turns wildly; the first finger joint half a turn about x
    np.savez(tmp_path / "mocap.npz", hand_pose=pose, betas=np.full((2, 10), 3.0))
    rotations, betas = mocap_sampler(tmp_path / "mocap.npz")(np.random.default_rng(0), 5)
    assert rotations.shape == (5, 15, 3, 3)
    torch.testing.assert_close(
        rotations[:, 0], torch.diag(torch.tensor([1.0, -1, -1])).expand(5, 3, 3), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(rotations[:, 1:], torch.eye(3).expand(5, 14, 3, 3))
    assert (betas == 3).all()


def test_a_mocap_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"LOSS\.MOCAP"):
        mocap_sampler(tmp_path / "none.npz")
    np.savez(tmp_path / "short.npz", hand_pose=np.zeros((2, 12)), betas=np.zeros((2, 10)))
    with pytest.raises(ValueError, match=r"hand_pose \(2, 12\) has 12 numbers a hand; principal components"):
        mocap_sampler(tmp_path / "short.npz")
    np.savez(tmp_path / "other.npz", pose=np.zeros((2, 48)))
    with pytest.raises(ValueError, match=r"an \.npz with hand_pose"):
        mocap_sampler(tmp_path / "other.npz")
    np.savez(tmp_path / "shapeless.npz", hand_pose=np.zeros((2, 48)))
    with pytest.raises(ValueError, match="has no betas"):
        mocap_sampler(tmp_path / "shapeless.npz")
    np.savez(tmp_path / "pickled.npz", hand_pose=np.array([{}], dtype=object), betas=np.zeros((1, 10)))
    with pytest.raises(ValueError, match=r"an \.npz with hand_pose"):
        mocap_sampler(tmp_path / "pickled.npz")


def test_the_hands_own_sampler_gives_rotations():
    rotations, betas = procedural_sampler(np.random.default_rng(0), 3)
    assert betas.shape == (3, 10)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(3, 15, 3, 3), atol=1e-5, rtol=0)
    assert rotations.dtype == betas.dtype == torch.float32
