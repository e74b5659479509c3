"""The embedded hand: MANO's layout, a sound mesh, human proportions, natural poses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from scipy.optimize import least_squares
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fasthamer.hand.collision import Capsules, segment_distances
from fasthamer.hand.conventions import MANO_PARENTS
from fasthamer.hand.gestures import HIGHEST, LOWEST, PRESETS, REST, Axes, to_axis_angle
from fasthamer.hand.procedural import ASSET, embedded_arrays, presets, sample_betas, sample_pose
from fasthamer.tools.assets.hand import shapes, skeleton

DATA = Path(os.environ.get("FASTHAMER_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
# MANO joint of the last bone -> vertices that datasets take for the fingertip, HaMeR's first
TIPS = {15: (744, 745), 3: (320, 317, 333), 6: (443, 444, 445), 12: (554, 555, 556), 9: (671, 672, 673)}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return embedded_arrays()


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory):
    """smplx's own MANO layer on the shipped file, read the way smplx reads files."""
    path = tmp_path_factory.mktemp("hand") / "MANO_RIGHT.npz"
    path.write_bytes(ASSET.read_bytes())
    return smplx.MANOLayer(str(path), is_rhand=True, ext="npz", use_pca=False)


def pose_mesh(layer, pose: np.ndarray, betas: np.ndarray | None = None) -> np.ndarray:
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()).float()[None]
    shape = torch.zeros(1, 10) if betas is None else torch.from_numpy(betas).float()[None]
    with torch.no_grad():
        return layer(global_orient=torch.eye(3)[None, None], hand_pose=rotations, betas=shape).vertices[0].numpy()


def undirected_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    every = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(every, 1), axis=0, return_counts=True)


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Litres, the wrist closed by a fan from the boundary's mean."""
    edges, count = undirected_edges(faces)
    loop = np.unique(edges[count == 1])
    a, b, c = (vertices[faces[:, k]] - vertices[loop].mean(0) for k in range(3))
    return 1000 * np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def crossing_faces(v: np.ndarray, f: np.ndarray) -> int:
    """How many edges of a face pass through a face that shares no vertex with it."""
    centre = v[f].mean(1)
    radius = np.linalg.norm(v[f] - centre[:, None], axis=2).max()
    pairs = cKDTree(centre).query_pairs(2 * radius, output_type="ndarray")
    pairs = pairs[~(f[pairs[:, 0]][:, :, None] == f[pairs[:, 1]][:, None, :]).any((1, 2))]
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    a, b, c = (v[f[pairs[:, 1], k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    hits = 0
    for k in range(3):
        p, q = v[f[pairs[:, 0], k]], v[f[pairs[:, 0], (k + 1) % 3]]
        below, above = ((p - a) * normal).sum(1), ((q - a) * normal).sum(1)
        through = below * above < 0
        x = p + (below / np.where(through, below - above, 1.0))[:, None] * (q - p)
        for start, end in ((a, b), (b, c), (c, a)):
            through &= (np.cross(end - start, x - start) * normal).sum(1) > 0
        hits += int(through.sum())
    return hits


def test_the_arrays_have_manos_keys_and_shapes_in_a_small_file(arrays):
    wanted = {
        "hands_components": (45, 45),
        "hands_mean": (45,),
        "J_regressor": (16, 778),
        "J": (16, 3),
        "weights": (778, 16),
        "posedirs": (778, 3, 135),
        "v_template": (778, 3),
        "shapedirs": (778, 3, 10),
        "f": (1538, 3),
        "kintree_table": (2, 16),
    }
    assert {key: arrays[key].shape for key in wanted} == wanted
    assert arrays["hands_coeffs"].shape[1] == 45
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert ASSET.stat().st_size < 1.5e6
    assert tuple(arrays["kintree_table"][0].astype(np.int32)) == MANO_PARENTS


def test_whoever_changes_the_returned_arrays_changes_only_his_own():
    embedded_arrays()["v_template"][:] = 0
    assert np.abs(embedded_arrays()["v_template"]).max() > 0.05


def test_the_mesh_is_a_disk_with_one_boundary_of_sixteen_edges(arrays):
    faces = arrays["f"].astype(int)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed), "two faces run along an edge in the same direction"
    edges, count = undirected_edges(faces)
    assert set(count) == {1, 2}
    assert len(np.unique(faces)) - len(edges) + len(faces) == 1  # Euler characteristic of a disk
    present = {(a, b) for a, b in directed.tolist()}
    follow = {a: b for a, b in present if (b, a) not in present}
    loop = [next(iter(follow))]
    while follow[loop[-1]] != loop[0]:
        loop.append(follow[loop[-1]])
    assert len(loop) == len(follow) == 16
    assert np.ptp(arrays["v_template"][loop, 0]) < 1e-5, "the wrist is cut by a plane"


def test_faces_look_outwards_and_the_rest_mesh_does_not_cross_itself(arrays):
    vertices, faces = arrays["v_template"].astype(float), arrays["f"].astype(int)
    assert 0.2 < volume(vertices, faces) < 0.5  # litres; a hand displaces about a third
    assert crossing_faces(vertices, faces) == 0


def test_the_frame_is_manos(arrays):
    joints, vertices = arrays["J"], arrays["v_template"]
    assert joints[0, 0] == pytest.approx(0.09, abs=0.01)
    assert (vertices[[320, 443, 671, 554], 0] < joints[[3, 6, 9, 12], 0]).all(), "fingers point to -x"
    assert vertices[744, 2] > joints[1, 2] > joints[4, 2] > joints[10, 2] > joints[7, 2], "the thumb's side is +z"
    palm_side, nails = vertices[arrays["region"] == 1], vertices[arrays["region"] == 2]
    assert palm_side[:, 1].mean() < vertices[arrays["region"] == 0, 1].mean(), "the palm looks to -y"
    assert len(nails) >= 15


def test_tip_vertices_of_every_convention_lie_at_the_end_of_their_finger(arrays):
    vertices, joints, owner = arrays["v_template"], arrays["J"], arrays["weights"].argmax(1)
    for bone, tips in TIPS.items():
        along = vertices[tips[0]] - joints[bone]
        along /= np.linalg.norm(along)
        reach = (vertices[owner == bone] - joints[bone]) @ along
        assert (owner[list(tips)] == bone).all()
        assert (vertices[tips[0]] - joints[bone]) @ along == pytest.approx(reach.max(), abs=1e-3)
        assert ((vertices[list(tips)] - joints[bone]) @ along > reach.max() - 0.006).all()
        assert np.linalg.norm(vertices[list(tips)] - vertices[tips[0]], axis=1).max() < 0.008


def test_weights_are_a_partition_among_at_most_four_bones_and_smooth(arrays):
    weights, faces = arrays["weights"], arrays["f"].astype(int)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert weights.min() >= 0
    assert (weights > 0).sum(1).max() <= 4
    edges, _ = undirected_edges(faces)
    length = np.linalg.norm(np.diff(arrays["v_template"][edges], axis=1)[:, 0], axis=1)
    step = np.abs(weights[edges[:, 0]] - weights[edges[:, 1]]).max(1)
    assert (step / length).max() < 150  # no more than 15 % a millimetre


def test_the_joint_regressor_gives_the_joints_and_follows_the_shape(arrays):
    regressor = arrays["J_regressor"]
    np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-6)
    assert regressor.min() >= 0
    np.testing.assert_allclose(regressor @ arrays["v_template"], arrays["J"], atol=1e-6)
    bones = skeleton.build()
    np.testing.assert_allclose(arrays["J"], bones.joints / 1000, atol=1e-5)
    # a hand longer by 5 % everywhere: regressed joints against the skeleton's own
    change = {"size": 0.05, "fingers": 0.03, "palm_width": 0.04}
    vertices, joints = shapes.deform(arrays["v_template"] * 1000.0, arrays["weights"], bones, change)
    assert np.linalg.norm(regressor @ vertices - joints, axis=1).max() < 1.0  # mm


def test_the_shipped_shape_directions_are_what_the_generator_computes(arrays):
    bones = skeleton.build()
    again, _, share = shapes.directions(arrays["v_template"] * 1000.0, arrays["weights"].astype(float), bones)
    np.testing.assert_allclose(arrays["shapedirs"], again / 1000, atol=2e-5)
    flat = arrays["shapedirs"].reshape(-1, 10).astype(float)
    product = flat.T @ flat
    assert np.abs(product - np.diag(np.diag(product))).max() < 1e-6 * product.max(), "directions are orthogonal"
    assert share.sum() > 0.98


def test_smplx_loads_the_file_and_rests_at_the_template(arrays, layer):
    np.testing.assert_allclose(pose_mesh(layer, np.zeros((15, 3))), arrays["v_template"], atol=1e-6)


def test_skinning_moves_the_fingertips_where_forward_kinematics_says(arrays, layer):
    pose = presets()["fist"]
    posed = pose_mesh(layer, pose)
    tips = [320, 443, 671, 554, 744]
    capsules = Capsules(arrays["J"].astype(float), arrays["v_template"][tips].astype(float))
    _, ends = capsules.posed(pose)
    np.testing.assert_allclose(posed[tips], ends[[3, 6, 9, 12, 15]], atol=2e-3)  # correctives may move them a little


def test_correctives_keep_the_volume_of_a_fist(arrays, layer):
    faces = arrays["f"].astype(int)
    rest = volume(arrays["v_template"], faces)
    plain = {**arrays, "posedirs": np.zeros_like(arrays["posedirs"])}
    bare = smplx.MANOLayer("", is_rhand=True, data_struct=smplx.utils.Struct(**plain), use_pca=False)
    with_them, without = (volume(pose_mesh(each, presets()["fist"]), faces) / rest for each in (layer, bare))
    assert 0.93 < with_them < 1.05
    assert without < with_them - 0.03


def test_bones_are_as_long_as_adults_have_them(arrays):
    joints, vertices = arrays["J"], arrays["v_template"]
    # mm: wrist to knuckle, proximal, middle, distal with soft tissue; ranges cover adult men and women
    human = {1: ((80, 100), (34, 46), (19, 28), (18, 28)), 4: ((80, 100), (38, 50), (22, 32), (19, 29))}
    human |= {10: ((74, 95), (35, 47), (21, 31), (19, 29)), 7: ((70, 90), (27, 39), (15, 24), (16, 25))}
    human |= {13: ((28, 42), (32, 48), (26, 38), (22, 36))}
    for first, ranges in human.items():
        chain = [joints[0], *joints[first : first + 3], vertices[TIPS[first + 2][0]]]
        lengths = 1000 * np.linalg.norm(np.diff(chain, axis=0), axis=1)
        for length, (low, high) in zip(lengths, ranges, strict=True):
            assert low <= length <= high, (first, lengths)


def test_betas_span_adult_hands(arrays):
    rng = np.random.default_rng(0)
    lengths = []
    for _ in range(400):
        vertices = arrays["v_template"] + arrays["shapedirs"] @ sample_betas(rng)
        chain = np.concatenate([(arrays["J_regressor"] @ vertices)[[0, 4, 5, 6]], vertices[443:444]])
        lengths.append(1000 * np.linalg.norm(np.diff(chain, axis=0), axis=1).sum())
    assert 8 < np.std(lengths) < 12
    assert 150 < np.min(lengths) < np.max(lengths) < 220


def test_extreme_shapes_and_open_poses_do_not_cross_themselves(arrays, layer):
    faces = arrays["f"].astype(int)
    for sign in (-2.0, 2.0):
        betas = np.array([sign, 0, sign, 0, sign, 0, 0, 0, 0, 0])
        assert crossing_faces(pose_mesh(layer, presets()["rest"], betas).astype(float), faces) == 0
    for name in ("relaxed", "spread"):
        assert crossing_faces(pose_mesh(layer, presets()[name]).astype(float), faces) == 0


def anatomical(pose: np.ndarray, axes: Axes) -> np.ndarray:
    """Degrees (5, 4) that a MANO pose (15, 3) stands for: the inverse of `to_axis_angle`, by searching."""
    start = np.zeros((5, 4)) + 10
    found = least_squares(lambda x: (to_axis_angle(x.reshape(5, 4), axes) - pose).ravel(), start.ravel())
    assert found.cost < 1e-10
    return found.x.reshape(5, 4)


def test_sampled_poses_keep_to_anatomical_limits(arrays):
    axes = Axes(arrays["flexion_axes"].astype(float), arrays["dorsal_axes"].astype(float))
    rng = np.random.default_rng(1)
    for _ in range(12):
        angles = anatomical(sample_pose(rng), axes)
        assert (angles >= LOWEST - 0.01).all()
        assert (angles <= HIGHEST + 0.01).all()


def test_sampled_poses_are_varied_free_of_deep_collisions_and_repeat_with_the_seed(arrays):
    first = [sample_pose(np.random.default_rng(seed)) for seed in range(150)]
    again = [sample_pose(np.random.default_rng(seed)) for seed in range(150)]
    np.testing.assert_array_equal(first, again)
    tips = arrays["v_template"][[320, 443, 671, 554, 744]].astype(float)
    capsules = Capsules(arrays["J"].astype(float), tips)
    depth = np.array([capsules.depth(pose) for pose in first])
    assert np.mean(depth > 0.0025) < 0.02
    bend = np.stack(first)[:, [1, 4, 10, 7], 2]  # middle joints of the four fingers about z, radians
    assert (np.mean(bend > 1.2, axis=0) > 0.15).all() and (np.mean(bend < 0.3, axis=0) > 0.15).all()


def test_a_preset_at_rest_turns_nothing_and_a_fist_curls_towards_the_palm(arrays):
    assert np.abs(presets()["rest"]).max() < 1e-12
    np.testing.assert_array_equal(PRESETS["rest"], REST)
    assert (presets()["fist"][[0, 1, 3, 4, 6, 7, 9, 10], 2] > 0.8).all()  # about +z: from -x towards -y


def test_a_colliding_pose_is_distinguished_from_a_free_one(arrays):
    capsules = Capsules(arrays["J"].astype(float), arrays["v_template"][[320, 443, 671, 554, 744]].astype(float))
    assert capsules.depth(presets()["spread"]) < 0
    crossed = presets()["rest"].copy()
    crossed[0, 1] -= 0.5  # the index swings through the middle finger
    crossed[3, 1] += 0.3
    assert capsules.depth(crossed) > 0.006


def test_segment_distances_agree_with_a_fine_search():
    rng = np.random.default_rng(3)
    a, b, c, d = rng.normal(size=(4, 30, 3))
    s = np.linspace(0, 1, 201)[None, :, None]
    one, other = a[:, None] + s * (b - a)[:, None], c[:, None] + s * (d - c)[:, None]
    searched = np.linalg.norm(one[:, :, None] - other[:, None], axis=-1).min((1, 2))
    np.testing.assert_allclose(segment_distances(a, b, c, d), searched, atol=0.02)


def test_pose_components_are_orthonormal_and_the_mean_is_the_relaxed_hand(arrays):
    np.testing.assert_allclose(arrays["hands_components"] @ arrays["hands_components"].T, np.eye(45), atol=1e-5)
    np.testing.assert_allclose(arrays["hands_mean"], presets()["relaxed"].reshape(-1), atol=1e-6)


def test_sampled_poses_cover_real_gestures(arrays):
    annotations = DATA / "realhand" / "training_xyz.json"
    if not annotations.exists():
        pytest.skip(f"real gestures not found at {annotations}; set FASTHAMER_TEST_DATA")
    real = np.array(json.loads(annotations.read_text()))[::8]
    capsules = Capsules(arrays["J"].astype(float), arrays["v_template"][[320, 443, 671, 554, 744]].astype(float))
    rng = np.random.default_rng(0)
    joints = []
    for _ in range(1000):
        start, end = capsules.posed(sample_pose(rng))
        joints.append([start[0], *(p for b in (13, 1, 4, 10, 7) for p in (*start[b : b + 3], end[b + 2]))])
    x = np.array(joints) - np.mean(joints, axis=1, keepdims=True)
    best = []
    for y in real - real.mean(1, keepdims=True):
        u, s, vt = np.linalg.svd(x.transpose(0, 2, 1) @ y)
        s[:, 2] *= (sign := np.sign(np.linalg.det(u @ vt)))
        u[:, :, 2] *= sign[:, None]
        scale = s.sum(1) / (x**2).sum((1, 2))
        best.append(np.linalg.norm(scale[:, None, None] * x @ u @ vt - y, axis=-1).mean(1).min())
    assert 1000 * np.median(best) < 10.0  # mm, 8.8 when written
