"""Several hand models as one teacher: the mean of their answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fasthamer.hand.mano import load_hand
from fasthamer.hand.rotation import nearest_rotation
from fasthamer.predict import open_model
from fasthamer.students import build_student
from fasthamer.teachers import build_teacher, resolve_teacher
from fasthamer.teachers.ensemble import Ensemble

TWO = "embedded+mobilenetv3_l"


def crops() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 192, 192), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_the_nearest_rotation_of_a_mean_is_scipys():
    turns = Rotation.random(6, np.random.default_rng(0))
    mean = torch.from_numpy(turns.as_matrix().mean(0))
    np.testing.assert_allclose(nearest_rotation(mean).numpy(), turns.mean().as_matrix(), atol=1e-12)


def test_the_nearest_rotation_is_never_a_reflection():
    found = nearest_rotation(torch.diag(torch.tensor([1.0, 1.0, -0.5])))
    assert torch.linalg.det(found) == pytest.approx(1)


def test_an_ensemble_answers_with_the_mean_of_its_members():
    image = crops()
    found = build_teacher(TWO)(image)
    members = [build_teacher(name)(image) for name in TWO.split("+")]
    torch.testing.assert_close(found.keypoints_2d, sum(each.keypoints_2d for each in members) / 2)
    torch.testing.assert_close(found.mano.betas, sum(each.mano.betas for each in members) / 2)
    for place in range(15):
        both = [Rotation.from_matrix(each.mano.hand_pose[0, place].double().numpy()) for each in members]
        wanted = Rotation.concatenate(both).mean().as_matrix()
        np.testing.assert_allclose(found.mano.hand_pose[0, place].numpy(), wanted, atol=1e-5)


def test_its_mesh_is_that_of_its_parameters():
    found = build_teacher(TWO)(crops())
    vertices, joints = load_hand("embedded")(found.mano)
    torch.testing.assert_close(found.vertices, vertices)
    torch.testing.assert_close(found.joints, joints)


def test_it_opens_by_name_as_any_model():
    image = crops()
    torch.testing.assert_close(open_model(TWO)(image).vertices, build_teacher(TWO)(image).vertices)


def test_a_path_with_a_plus_sign_is_one_teacher(tmp_path):
    folder = tmp_path / "mine+yours"
    folder.mkdir()
    (folder / "student.safetensors").touch()
    assert resolve_teacher(str(folder))[0] == str(folder / "student.safetensors")


def test_an_unknown_member_is_named():
    with pytest.raises(KeyError, match=r"'embeded'.*did you mean 'embedded'"):
        resolve_teacher("embeded+mobilenetv3_l")


def test_members_of_other_crops_or_without_parameters_are_refused():
    first, hand = build_teacher("embedded").model, load_hand("embedded")
    options = {"pretrained": False, "hand": hand}
    with pytest.raises(ValueError, match="see the same crops, not upright and square"):
        Ensemble([first, build_student("mobilenetv3_s", "mano", "tiny", 96, box_shape="square", **options)])
    tokens = open_model("mobilenetv3_l_token")
    with pytest.raises(ValueError, match="does not predict"):
        Ensemble([first, tokens])
