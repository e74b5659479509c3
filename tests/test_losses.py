"""The losses by hand, and the reduction that keeps the papers' weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fasthamer.config import load_config
from fasthamer.distill.learner import LearnerOutput
from fasthamer.distill.losses import points_l1, rooted_l1, squared_error
from fasthamer.distill.objective import Objective
from fasthamer.types import Batch, HandOutput, ManoParams


def hand(size: int, seed: int) -> HandOutput:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=draw).requires_grad_()

    mano = ManoParams(normal(1, 3, 3), normal(15, 3, 3), normal(10))
    return HandOutput(normal(778, 3), normal(21, 3), normal(21, 2), normal(3), normal(5, 4, 4), mano)


def labels(size: int, seed: int, confidence: float = 1.0) -> Batch:
    truth, sure = hand(size, seed), torch.full((size, 21, 1), confidence)
    flag = torch.full((size,), confidence)
    assert truth.mano is not None
    parts = (
        torch.zeros(size, 3, 8, 8, dtype=torch.uint8),
        torch.cat([truth.keypoints_2d, sure], -1),
        torch.cat([truth.joints, sure], -1),
        truth.vertices,
        flag,
        *truth.mano[:2],
        truth.mano.betas,
        flag,
        flag,
        torch.zeros(size),
        torch.zeros(size, 2, 3),
        torch.arange(size),
    )
    return Batch(*(part.detach().clone() for part in parts))


def objective(*overrides: str) -> Objective:
    return Objective.of(load_config(None, overrides))


def learner_output(output: HandOutput, teacher: HandOutput) -> LearnerOutput:
    return LearnerOutput(output, output.features, teacher.features.detach())


def test_points_l1_sums_over_points_and_coordinates_weighted_by_confidence():
    predicted = torch.tensor([[[0.0, 0.0], [1.0, 2.0]], [[5.0, 5.0], [0.0, -1.0]]])
    target = torch.zeros(2, 2, 2)
    confidence = torch.tensor([[1.0, 0.5], [0.0, 2.0]])
    # sample 0: 1*0 + 0.5*(1+2) = 1.5; sample 1: 0*10 + 2*(0+1) = 2
    assert points_l1(predicted, target, confidence).tolist() == [1.5, 2.0]
    assert points_l1(predicted, target).tolist() == [3.0, 11.0]


def test_rooted_l1_does_not_see_a_translation():
    points = torch.randn(3, 21, 3, dtype=torch.float64)
    moved = points + torch.randn(3, 1, 3, dtype=torch.float64)
    error = rooted_l1(moved, points, (moved[:, 0], points[:, 0]))
    torch.testing.assert_close(error, torch.zeros(3, dtype=torch.float64))


def test_squared_error_of_opposite_rotations_is_a_sum_over_matrices():
    turned = torch.diag(torch.tensor([-1.0, -1.0, 1.0])).expand(2, 15, 3, 3)  # half a turn about z
    same = torch.eye(3).expand(2, 15, 3, 3)
    # each matrix differs by 2 in two entries: 15 * (4 + 4) = 120; the second sample has no label
    assert squared_error(turned, same, torch.tensor([1.0, 0.0])).tolist() == [120.0, 0.0]


def test_maps_of_different_shapes_are_refused():
    output = hand(2, seed=0)
    maps = LearnerOutput(output, torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\).*\(2, 1, 4, 4\).*Learner"):
        objective("KD.MODE", "feature")(maps, labels(2, seed=0), output)


def test_every_loss_is_zero_on_itself():
    output = hand(2, seed=0)
    truth = labels(2, seed=0)
    terms = objective("KD.MODE", "hybrid", "LOSS.VERTICES", "1", "KD.VERTICES", "1")(
        learner_output(output, output), truth, output
    )
    assert all(term.item() == 0 for term in terms.values())
    assert len(terms) == 14


def test_a_batch_without_labels_gives_zero_with_a_gradient():
    output = hand(2, seed=0)
    terms = objective("KD.MODE", "none", "LOSS.VERTICES", "1")(
        LearnerOutput(output), labels(2, 1, confidence=0.0), None
    )
    assert terms["total"].item() == 0
    terms["total"].backward()
    assert output.mano is not None
    for part in (output.joints, output.vertices, output.keypoints_2d, *output.mano):
        assert part.grad is not None
        assert part.grad.abs().max() == 0


def test_a_missing_label_switches_off_its_term_for_its_sample_only():
    output, truth = hand(2, seed=0), labels(2, seed=1)
    whole = objective("KD.MODE", "none")(LearnerOutput(output), truth, None)
    truth.has_pose[0] = 0
    partial = objective("KD.MODE", "none")(LearnerOutput(output), truth, None)
    assert output.mano is not None
    missing = 8 * 0.001 * (output.mano.hand_pose[0] - truth.hand_pose[0]).square().sum() / 2
    torch.testing.assert_close(whole["hand_pose"] - partial["hand_pose"], missing, atol=1e-5, rtol=1e-4)
    for same in ("keypoints_2d", "joints", "betas"):
        assert whole[same] == partial[same]


def test_without_the_wrist_no_joint_is_compared():
    output, truth = hand(2, seed=0), labels(2, seed=1)
    truth.joints[:, 0, 3] = 0
    assert objective("KD.MODE", "none")(LearnerOutput(output), truth, None)["joints"] == 0


def test_unlabelled_images_still_learn_from_the_teacher():
    output, teacher = hand(2, seed=0), hand(2, seed=1)
    terms = objective("KD.MODE", "hybrid")(learner_output(output, teacher), labels(2, 2, confidence=0.0), teacher)
    assert all(term > 0 for name, term in terms.items() if name.startswith("kd_"))
    assert all(term == 0 for name, term in terms.items() if not name.startswith("kd_") and name != "total")


def test_at_a_batch_of_eight_the_objective_is_the_papers_formula():
    output, teacher, truth = hand(8, seed=0), hand(8, seed=1), labels(8, seed=2)
    papers = ("KD.WEIGHT", "0.3", "KD.FEATURES", "6")
    terms = objective("KD.MODE", "hybrid", *papers)(learner_output(output, teacher), truth, teacher)

    def hamer(other_joints, other_points, other_orient, other_pose, other_betas):
        """HaMeR's terms: sums over the batch."""
        mano = output.mano
        relative = (output.joints - output.joints[:, :1]) - (other_joints - other_joints[:, :1])
        return (
            0.01 * (output.keypoints_2d - other_points).abs().sum()
            + 0.05 * relative.abs().sum()
            + 0.001 * ((mano.global_orient - other_orient) ** 2).sum()
            + 0.001 * ((mano.hand_pose - other_pose) ** 2).sum()
            + 0.0005 * ((mano.betas - other_betas) ** 2).sum()
        )

    ground_truth = hamer(
        truth.joints[..., :3], truth.keypoints_2d[..., :2], truth.global_orient, truth.hand_pose, truth.betas
    )
    output_kd = hamer(teacher.joints, teacher.keypoints_2d, *teacher.mano)
    feature_kd = 6 * ((output.features - teacher.features) ** 2).mean()  # Fast-HaMeR: a mean over everything
    torch.testing.assert_close(terms["total"], ground_truth + 0.3 * (output_kd + feature_kd))


@pytest.mark.parametrize("copies", [2, 5])
def test_the_objective_does_not_depend_on_the_batch_size(copies):
    output, teacher, truth = hand(3, seed=0), hand(3, seed=1), labels(3, seed=2)

    def repeat(part):
        return part.repeat(copies, *[1] * (part.ndim - 1))

    many, many_teacher = (
        each._replace(
            **{
                name: repeat(getattr(each, name))
                for name in ("vertices", "joints", "keypoints_2d", "camera", "features")
            },
            mano=ManoParams(*map(repeat, each.mano)),
        )
        for each in (output, teacher)
    )
    judge = objective("KD.MODE", "hybrid")
    once = judge(learner_output(output, teacher), truth, teacher)
    often = judge(learner_output(many, many_teacher), Batch(*map(repeat, truth)), many_teacher)
    torch.testing.assert_close(once, often)


def test_an_unknown_mode_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'hybrid'"):
        objective("KD.MODE", "hybird")


def test_a_gate_drops_the_teacher_where_its_keypoints_are_far_from_the_labels():
    batch, teacher, student = labels(4, seed=1), hand(4, seed=2), hand(4, seed=3)
    keypoints = batch.keypoints_2d[..., :2].clone()
    keypoints[0] += torch.tensor([0.03, 0.04])  # 0.05 from the labels: agrees
    keypoints[1] += torch.tensor([0.03, 0.05])  # farther
    keypoints[2, :10] += 9.0  # far, but where labels are sure it agrees
    keypoints[3] += 9.0  # far, but not labelled
    batch.keypoints_2d[2, :10, 2] = 0
    batch.keypoints_2d[3, :, 2] = 0
    teacher = teacher._replace(keypoints_2d=keypoints)
    output = learner_output(student, teacher)
    terms = objective("KD.MODE", "hybrid", "KD.GATE", "0.0501")(output, batch, teacher)
    plain = objective("KD.MODE", "hybrid")
    for name, term in terms.items():
        if name.startswith("kd_"):
            trusted = [0, 2, 3]
            alone = _part(plain, student, teacher, batch, trusted)[name] * 3 / 4  # means over 3 and over 4 samples
            torch.testing.assert_close(term, alone, msg=name)
    labels_alone = plain(output, batch, teacher)
    assert all(terms[name] == labels_alone[name] for name in terms if name != "total" and not name.startswith("kd_"))


def _part(target: Objective, student: HandOutput, teacher: HandOutput, batch: Batch, rows: list[int]) -> dict:
    student, teacher = (
        each._replace(
            **{name: part[rows] for name, part in each._asdict().items() if isinstance(part, Tensor)},
            mano=ManoParams(*(part[rows] for part in each.mano or ())),
        )
        for each in (student, teacher)
    )
    return target(learner_output(student, teacher), Batch(*(part[rows] for part in batch)), teacher)


def test_a_negative_gate_is_refused():
    with pytest.raises(ValueError, match=r"KD\.GATE is -0\.1"):
        objective("KD.GATE", "-0.1")
