"""Parameters of a mesh: found exactly where there are some, sane where the mesh is noisy, honest about the rest."""

import numpy as np
import pytest
import torch
from miniatures_capture import left_arrays, mano
from scipy.spatial.transform import Rotation

from fasthamer.data.crop import mirror_points
from fasthamer.hand.fit import MeshFitter, fit_mano, mirror_fit
from fasthamer.hand.left import left_hand
from fasthamer.hand.mano import load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.hand.posing import Poser
from fasthamer.hand.procedural import sample_pose
from fasthamer.predict import Camera, Hands
from fasthamer.types import ManoParams


@pytest.fixture(scope="module")
def arrays():
    return read_hand_arrays("embedded")


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def other(arrays, tmp_path_factory):
    """A MANO-like file: longer, thinner, with other shapes, weights, mean pose, and six components as in HaMeR's."""
    rng = np.random.default_rng(5)
    weights = arrays["weights"] ** 0.7
    changed = arrays | {
        "v_template": arrays["v_template"] * [1.15, 0.95, 0.9] + [0.02, 0.01, 0.1],
        "shapedirs": arrays["shapedirs"] @ np.linalg.qr(rng.normal(size=(10, 10)))[0],
        "weights": weights / weights.sum(1, keepdims=True),
        "hands_mean": arrays["hands_mean"] + rng.normal(0, 0.2, 45),
        "hands_components": arrays["hands_components"][:6],
    }
    path = tmp_path_factory.mktemp("other") / "MANO_RIGHT.npz"
    np.savez(path, **changed)
    return load_hand(path)


def parameters(count, seed=0):
    """Natural poses facing anywhere, betas of adult hands, places up to metres away."""
    rng = np.random.default_rng(seed)
    orient = Rotation.random(count, random_state=seed).as_matrix()[:, None]
    pose = Rotation.from_rotvec(np.concatenate([sample_pose(rng) for _ in range(count)])).as_matrix()
    params = orient, pose.reshape(count, 15, 3, 3), rng.normal(size=(count, 10))
    return ManoParams(*(torch.from_numpy(each).float() for each in params)), torch.from_numpy(
        rng.normal(size=(count, 1, 3))
    ).float()


def noise(count, size, spread=None):
    """(count, 778, 3) metres, `size` millimetres long on average; `spread` (778, 778) hands it on to neighbours."""
    drawn = torch.randn(count, 778, 3, generator=torch.Generator().manual_seed(0))
    drawn = drawn if spread is None else spread @ drawn
    return drawn * size / 1000 / drawn.norm(dim=-1).mean()


def degrees(one, another):
    relative = (one.mT @ another).reshape(-1, 3, 3).double().numpy()
    return np.degrees(Rotation.from_matrix(relative).magnitude())


def millimetres(one, another):
    return 1000 * (one - another).norm(dim=-1)


@pytest.mark.parametrize("name", ["hand", "other"])
def test_a_mesh_of_known_parameters_gives_them_back_wherever_it_is_and_faces(name, request):
    model = request.getfixturevalue(name)
    params, place = parameters(12)
    vertices, joints = (points + place for points in model(params))
    found = fit_mano(vertices, model)
    again, again_joints = (points + found.translation[:, None] for points in model(found.mano))
    assert millimetres(again, vertices).max() < 0.05
    assert millimetres(again_joints, joints).max() < 0.05
    assert found.residual_mm.max() < 0.02
    assert degrees(found.mano.global_orient, params.global_orient).max() < 0.2
    assert degrees(found.mano.hand_pose, params.hand_pose).max() < 0.5
    assert (found.mano.betas - params.betas).abs().max() < 0.05
    assert millimetres(found.translation, place[:, 0]).max() < 0.05


def test_extreme_shapes_and_poses_are_found_too(hand):
    rng = np.random.default_rng(1)
    params, _ = parameters(8)
    bent = Rotation.from_rotvec(rng.normal(0, 0.8, (8 * 15, 3))).as_matrix().reshape(8, 15, 3, 3)
    betas = torch.tensor([[3.0, -3, 3, -3, 3, -3, 3, -3, 3, -3]]) * torch.from_numpy(rng.choice([-1.0, 1], (8, 10)))
    params = params._replace(hand_pose=torch.from_numpy(bent).float(), betas=betas.float())
    found = fit_mano(hand(params)[0], hand)
    assert found.residual_mm.max() < 0.05
    assert (found.mano.betas - params.betas).abs().max() < 0.2


def test_what_comes_back_are_rotations(hand):
    params, _ = parameters(3)
    found = fit_mano(hand(params)[0] + noise(3, 10), hand)
    for matrices in (found.mano.global_orient, found.mano.hand_pose):
        torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand_as(matrices), atol=1e-5, rtol=0)
        assert (torch.linalg.det(matrices) > 0).all()


def test_on_a_noisy_mesh_the_residual_is_the_noise_and_the_hand_is_closer_to_the_truth(hand):
    params, _ = parameters(12)
    vertices, joints = hand(params)
    found = fit_mano(vertices + noise(12, 3), hand)
    again, again_joints = (points + found.translation[:, None] for points in hand(found.mano))
    assert found.residual_mm.mean() == pytest.approx(3.0, abs=0.1)
    assert millimetres(again, vertices).mean() < 1.0
    assert millimetres(again_joints, joints).mean(1).max() < 1.5


def test_where_whole_regions_err_the_priors_keep_the_parameters_sane(hand):
    params, _ = parameters(12)
    faces = torch.from_numpy(hand.faces)
    neighbours = torch.eye(778)
    neighbours[faces, faces.roll(1, 1)] = neighbours[faces.roll(1, 1), faces] = 1
    neighbours /= neighbours.sum(1, keepdim=True)
    found = fit_mano(hand(params)[0] + noise(12, 6, torch.linalg.matrix_power(neighbours, 5)), hand)
    assert found.mano.betas.abs().max() < 3.0  # by vertices alone they reach 20
    assert np.percentile(degrees(found.mano.hand_pose, params.hand_pose), 95) < 35  # 45


def test_the_residual_says_how_far_the_hands_mesh_is_from_the_given_one(hand):
    params, place = parameters(3)
    given = (hand(params)[0] + place) * torch.tensor([1.0, 1.0, 1.3])  # no hand of the model is stretched so
    found = fit_mano(given, hand)
    again = (hand(found.mano)[0] + found.translation[:, None]).numpy()
    np.testing.assert_allclose(
        found.residual_mm, 1000 * np.linalg.norm(again - given.numpy(), axis=2).mean(1), rtol=1e-4
    )
    assert found.residual_mm.min() > 1.0


def test_a_batch_is_its_hands_one_by_one_and_the_same_every_time(hand):
    params, place = parameters(10)  # more than are worked on at once
    vertices = hand(params)[0] + place + noise(10, 2)
    together, again = fit_mano(vertices, hand), fit_mano(vertices, hand)
    for one, other in zip((*together.mano, *together[1:]), (*again.mano, *again[1:]), strict=True):
        assert torch.equal(one, other)
    for index in (0, 7, 8, 9):
        alone = fit_mano(vertices[index : index + 1], hand)
        for one, other in zip((*together.mano, *together[1:]), (*alone.mano, *alone[1:]), strict=True):
            torch.testing.assert_close(one[index : index + 1], other, atol=2e-3, rtol=0)
    assert [len(each) for each in fit_mano(vertices[:0], hand).mano] == [0, 0, 0]


def test_the_derivatives_are_those_of_skinning(arrays, hand):
    params, _ = parameters(1)
    local, betas = torch.cat((params.global_orient, params.hand_pose), 1), params.betas
    chain, poser = MeshFitter(hand), Poser(arrays)
    posed = chain.pose(local, betas)
    before = posed.before[0].double().numpy()

    def mesh(change):
        turn = Rotation.from_rotvec(change[:48].reshape(16, 3)).as_matrix()
        turned = before.transpose(0, 2, 1) @ turn @ before @ local[0].double().numpy()
        return poser(turned, betas[0].double().numpy() + change[48:])[0]

    np.testing.assert_allclose(posed.vertices[0].T, mesh(np.zeros(58)), atol=2e-6)
    jacobian = chain.jacobian(posed)[0]
    for column, step in enumerate(0.01 * np.eye(58)):
        difference = (mesh(step) - mesh(-step)) / 0.02
        np.testing.assert_allclose(jacobian[column].T, difference, atol=5e-5, err_msg=str(column))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[0], r"shape \(778, 3\); expected \(B, 778, 3\)"),
        (lambda v: v[:, :21], r"shape \(2, 21, 3\)"),
        (
            lambda v: torch.where(torch.arange(778)[:, None] == 5, v * torch.tensor([[[1.0]], [[torch.nan]]]), v),
            "hand 1",
        ),
        (lambda v: v / 0, "not finite"),
        (lambda v: 1000 * v, r"hand 0 spans \d+\.?\d* metres: .* in metres"),
    ],
)
def test_a_mesh_that_cannot_be_fitted_is_refused(hand, change, message):
    vertices = hand(parameters(2)[0])[0]
    with pytest.raises(ValueError, match=message):
        fit_mano(change(vertices), hand)


def prediction(vertices, faces, right):
    """What HandMesh gives, from right hands' vertices."""
    right = np.asarray(right)
    vertices = np.where(right[:, None, None], vertices, mirror_points(vertices))
    nothing = np.zeros((len(right), 21, 3))
    boxes, score = np.zeros((len(right), 4)), np.ones(len(right))
    camera = Camera(500.0, 500.0, 0.0, 0.0, metric=True)
    return Hands(vertices, nothing, nothing[..., :2], nothing[:, 0], right, boxes, score, camera, faces)


def smplx_mesh(layer, fit, index):
    to_vector = lambda m: torch.from_numpy(Rotation.from_matrix(m.double().numpy()).as_rotvec().reshape(1, -1))  # noqa: E731
    out = layer(
        global_orient=to_vector(fit.mano.global_orient[index]),
        hand_pose=to_vector(fit.mano.hand_pose[index]),
        betas=fit.mano.betas[index : index + 1].double(),
        transl=fit.translation[index : index + 1].double(),
    )
    return out.vertices[0].numpy()


def test_a_predictions_parameters_pose_smplx_models_of_the_right_and_the_left_hand(arrays, hand):
    params, place = parameters(3)
    found = prediction((hand(params)[0] + place).numpy(), hand.faces, [True, False, True])
    fit = found.fit_mano("embedded")
    assert fit.residual_mm.max() < 0.02
    right, left = mano(arrays), mano(left_arrays(arrays, fixed=True), right=False)
    for index, layer in enumerate((right, left, right)):
        np.testing.assert_allclose(smplx_mesh(layer, fit, index), found.vertices[index], atol=5e-5)
    back = mirror_fit(fit, torch.tensor([False, True, False]))
    torch.testing.assert_close(back.mano.hand_pose, params.hand_pose, atol=0.01, rtol=0)
    everywhere = mirror_fit(mirror_fit(fit))
    torch.testing.assert_close(everywhere.translation, fit.translation)


def test_mano_left_as_released_is_fitted_through_its_own_shapes(arrays, hand):
    released = mano(left_arrays(arrays), right=False)
    rng = np.random.default_rng(2)
    pose = torch.from_numpy(np.concatenate((rng.normal(size=(1, 3)), -sample_pose(rng) * [-1, 1, 1])))
    with torch.no_grad():
        mesh = released(
            global_orient=pose[:1], hand_pose=pose[1:].reshape(1, 45), betas=torch.ones(1, 10).double()
        ).vertices
    mirrored = torch.from_numpy(mirror_points(mesh.numpy()))
    fit = mirror_fit(fit_mano(mirrored, left_hand(hand, shape="released")))
    np.testing.assert_allclose(smplx_mesh(released, fit, 0), mesh[0], atol=5e-5)
    assert (fit.mano.betas - 1).abs().max() < 0.05


def test_a_prediction_is_fitted_with_its_own_hand_only(arrays, hand):
    found = prediction(hand(parameters(1)[0])[0].numpy(), hand.faces[::-1], [True])
    with pytest.raises(ValueError, match="give the hand that the model was trained with"):
        found.fit_mano(hand)
    with pytest.raises(FileNotFoundError):
        found.fit_mano("nowhere/MANO_RIGHT.pkl")
    nobody = prediction(np.zeros((0, 778, 3), np.float32), hand.faces, np.zeros(0, bool)).fit_mano(hand)
    assert nobody.mano.betas.shape == (0, 10) and nobody.residual_mm.shape == (0,)
