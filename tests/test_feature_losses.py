"""The losses of feature maps against NumPy, SciPy and closed forms; the settings that choose them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from tiny_trainings import lines, train_student
from torch.nn.functional import conv2d

from fasthamer.config import load_config
from fasthamer.distill.feature_losses import FEATURE_LOSSES, cwd, map_mse, pkd, vkd
from fasthamer.distill.learner import OrthogonalProjection
from fasthamer.distill.objective import Objective


def maps(seed: int = 0, shape: tuple[int, ...] = (4, 5, 3, 2)) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw), 3 * torch.randn(shape, generator=draw) + 1


def test_map_mse_is_a_mean_over_the_map():
    student, teacher = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    teacher[1] = 2.0
    assert map_mse(student, teacher).tolist() == [0.0, 4.0]


def test_pkd_is_one_minus_the_correlation_of_each_channel():
    student, teacher = maps()
    channels = [each.numpy().transpose(1, 0, 2, 3).reshape(5, -1) for each in (student, teacher)]
    expected = np.mean([1 - np.corrcoef(one, other)[0, 1] for one, other in zip(*channels, strict=True)])
    assert pkd(student, teacher).mean().item() == pytest.approx(expected, abs=1e-5)


def test_pkd_and_vkd_do_not_see_the_teachers_scale_and_offset():
    student, teacher = maps()
    moved = teacher * torch.tensor([1.0, 2, 5, 10, 0.5])[:, None, None] + torch.arange(5.0)[:, None, None]
    for loss in (pkd, vkd):
        torch.testing.assert_close(loss(student, moved), loss(student, teacher), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pkd(2 * student - 1, teacher), pkd(student, teacher), atol=1e-4, rtol=1e-4)


def test_cwd_is_the_divergence_of_where_channels_are_active():
    student, teacher = (each.double().numpy().reshape(4, 5, 6) / 4 for each in maps())
    predicted, wanted = softmax(student, axis=-1), softmax(teacher, axis=-1)
    expected = 16 * rel_entr(wanted, predicted).sum(-1).mean(-1)
    np.testing.assert_allclose(cwd(*maps()).numpy(), expected, rtol=1e-4)


def test_vkd_is_zero_for_the_standardised_teacher():
    _, teacher = maps(shape=(8, 3, 4, 4))
    flat = teacher.double().numpy()
    wanted = (flat - flat.mean((0, 2, 3), keepdims=True)) / flat.std((0, 2, 3), keepdims=True)
    assert vkd(torch.from_numpy(wanted).float(), teacher).max() < 1e-6


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_a_channel_that_does_not_vary_gives_finite_gradients(name):
    student, teacher = torch.zeros(2, 3, 4, 4, requires_grad=True), torch.ones(2, 3, 4, 4)
    FEATURE_LOSSES[name](student, teacher).sum().backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 4), (4, 6), (5, 5)])
def test_an_orthogonal_projection_stays_orthogonal_while_it_trains(inputs, outputs):
    torch.manual_seed(0)
    projection = OrthogonalProjection(inputs, outputs)
    optimizer = torch.optim.SGD(projection.parameters(), lr=1.0)
    features = torch.randn(2, inputs, 3, 3)
    for _ in range(3):
        optimizer.zero_grad()
        projection(features).square()[:, 0].mean().backward()
        optimizer.step()
    weight = projection.linear.weight.detach()
    square = weight @ weight.T if outputs <= inputs else weight.T @ weight
    torch.testing.assert_close(square, torch.eye(min(inputs, outputs)), atol=1e-5, rtol=0)
    torch.testing.assert_close(projection(features).detach(), conv2d(features, weight[..., None, None]))


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_every_loss_trains_a_student(tmp_path, name):
    options = ("KD.FEATURE_LOSS", name, "TRAIN.STEPS", "2", "TRAIN.LOG_EVERY", "1")
    train_student(tmp_path, "KD.MODE", "feature", *options)
    assert all(line["kd_features"] > 0 for line in lines(tmp_path))


def test_a_linear_schedule_lets_the_teachers_terms_fall_to_nothing(tmp_path):
    options = ("KD.MODE", "output", "TRAIN.STEPS", "4", "TRAIN.LOG_EVERY", "1", "TRAIN.LR", "0")
    train_student(tmp_path / "linear", *options, "KD.SCHEDULE", "linear")
    train_student(tmp_path / "constant", *options)
    falling, constant = lines(tmp_path / "linear"), lines(tmp_path / "constant")
    shares = [one["kd_joints"] / other["kd_joints"] for one, other in zip(falling, constant, strict=True)]
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25], rel=1e-3)
    assert falling[-1]["joints"] == pytest.approx(constant[-1]["joints"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["KD.FEATURE_LOSS", "pkdd"], "did you mean 'pkd'"),
        (["KD.SCHEDULE", "linaer"], "did you mean 'linear'"),
        (["KD.MODE", "output", "KD.ALIGNMENT", "streched"], "did you mean 'stretch'"),
        (["KD.MODE", "none", "KD.DIRECTION", "student_to_techer"], "did you mean 'student_to_teacher'"),
        (["KD.FEATURE_LOSS", "vkd", "KD.DIRECTION", "teacher_to_student"], "KD.DIRECTION student_to_teacher"),
    ],
)
def test_a_choice_of_no_use_is_refused(options, message):
    with pytest.raises((KeyError, ValueError), match=message):
        Objective.of(load_config(None, options))
