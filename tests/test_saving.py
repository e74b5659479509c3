"""Files of hands, read back by independent readers."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_predict import BOX, Finds, dark_with_a_spot

from fasthamer.predict import HandMesh, ManoArrays

OTHER = [20.0, 20.0, 90.0, 90.0]


@pytest.fixture(scope="module")
def hands():
    return HandMesh(Finds(), device="cpu")(dark_with_a_spot(160, 110), [BOX, OTHER], [True, False], camera=500.0)


def volume(vertices, faces):
    """Signed, in cubic metres; the wrist is open, so about the centroid."""
    a, b, c = (vertices - vertices.mean(0))[faces].swapaxes(0, 1)
    return (a * np.cross(b, c)).sum() / 6


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".GLB"])
def test_meshes_are_read_back_with_the_same_geometry_and_outward_faces(tmp_path, hands, suffix):
    trimesh = pytest.importorskip("trimesh")
    axes = [1, -1, -1] if suffix.lower() == ".glb" else [1, 1, 1]  # glTF: y up, z towards the viewer
    for number, hand in enumerate(hands):
        path = tmp_path / f"{number}{suffix}"
        hand.save(path)
        mesh = trimesh.load(path, process=False, force="mesh")
        np.testing.assert_allclose(mesh.vertices, hand.vertices_camera * axes, atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, hand.faces)
        assert volume(mesh.vertices, mesh.faces) == pytest.approx(volume(hand.vertices, hand.faces), rel=1e-3)
        assert volume(mesh.vertices, mesh.faces) > 5e-5
        colours = np.unique(mesh.visual.vertex_colors, axis=0)
        assert len(colours) == 1 and colours[0, 3] == 255
    hands.save(tmp_path / f"both{suffix}")
    both = trimesh.load(tmp_path / f"both{suffix}", process=False, force="mesh")
    found, expected = (np.sort(each, 0) for each in (both.vertices, hands.vertices_camera.reshape(-1, 3) * axes))
    np.testing.assert_allclose(found, expected, atol=1e-6)  # trimesh gives a file's meshes in an order of its own
    assert len(both.faces) == 2 * 1538
    assert len(np.unique(both.visual.vertex_colors, axis=0)) == 2  # one for each side


def test_a_glb_file_has_a_named_node_for_each_hand(tmp_path, hands):
    trimesh = pytest.importorskip("trimesh")
    hands.save(tmp_path / "hands.glb")
    found = trimesh.load(tmp_path / "hands.glb", process=False).geometry
    assert set(found) == {"hand_0_right", "hand_1_left"}
    np.testing.assert_allclose(found["hand_1_left"].vertices, hands.vertices_camera[1] * [1, -1, -1], atol=1e-6)


def test_json_has_every_field_in_documented_units(tmp_path, hands):
    hands.save(tmp_path / "hands.json")
    found = json.loads((tmp_path / "hands.json").read_text())
    arrays = hands.arrays()
    assert found["camera"] == [500, 500, 160, 120] and found["metric"] is True
    assert set(found["meaning"]) == {*arrays, "frames"}
    for number, record in enumerate(found["hands"]):
        assert set(record) == set(arrays) - {"camera", "metric"}
        for name, value in record.items():
            np.testing.assert_allclose(value, arrays[name][number], atol=1e-7)
    hands[1].save(tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text())["hands"] == found["hands"][1:]


def test_npz_has_the_same_arrays(tmp_path, hands):
    hands.save(tmp_path / "hands.NPZ")
    with np.load(tmp_path / "hands.NPZ") as found:
        assert set(found) == set(hands.arrays())
        for name, values in hands.arrays().items():
            np.testing.assert_array_equal(found[name], values)


def test_parameters_and_landmarks_are_saved_where_they_are_known(tmp_path, hands):
    mano = ManoArrays(*(np.ones((2, *shape)) for shape in ((3, 3), (15, 3, 3), (10,), (48,), (48,))))
    replace(hands, mano=mano, landmarks=np.zeros((2, 21, 2))).save(tmp_path / "hands.json")
    found = json.loads((tmp_path / "hands.json").read_text())
    assert np.shape(found["hands"][1]["mano_mean_relative"]) == (48,)
    assert np.shape(found["hands"][1]["landmarks"]) == (21, 2)
    assert {"mano_betas", "landmarks"} <= set(found["meaning"])


def test_no_hands_are_empty_lists_but_no_mesh(tmp_path):
    nothing = HandMesh(Finds(), device="cpu")(dark_with_a_spot(160, 110), [])
    nothing.save(tmp_path / "nothing.json")
    assert json.loads((tmp_path / "nothing.json").read_text())["hands"] == []
    nothing.save(tmp_path / "nothing.npz")
    with np.load(tmp_path / "nothing.npz") as found:
        assert found["vertices"].shape == (0, 778, 3) and found["faces"].shape == (0, 1538, 3)
    for suffix in (".obj", ".ply", ".glb"):
        with pytest.raises(ValueError, match=rf"no hands to save as nothing{suffix}"):
            nothing.save(tmp_path / f"nothing{suffix}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nothing.json", "nothing.npz"]


@pytest.mark.parametrize("name", ["hands.stl", "hands", "hands.json.gz"])
def test_another_suffix_is_an_error_with_the_known_ones(tmp_path, hands, name):
    with pytest.raises(ValueError, match=rf"'{name}': the suffixes are \.json, \.npz, \.obj, \.ply, \.glb"):
        hands.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_without_trimesh_the_error_names_the_command():
    code = (
        "import sys; sys.modules['trimesh'] = None\n"
        "from pathlib import Path; import numpy as np; from fasthamer.predict.saving import save_hands\n"
        "save_hands(Path('a.glb'), {'vertices': np.zeros((1, 778, 3))})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().endswith("ImportError: saving meshes needs trimesh: pip install 'fasthamer-kd[mesh]'")


def test_a_failed_write_leaves_the_old_file(tmp_path, hands):
    path = tmp_path / "hands.json"
    path.write_text("old")
    with pytest.raises(ValueError):
        replace(hands, translation=np.full((2, 3), np.nan)).save(path)
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["hands.json"]


# ------------------------------------------------------------------------------------------------------ joint orders


def test_each_order_has_the_joints_of_its_names(hands):
    for hand in hands:
        mediapipe, smplx, interhand, ho3d = (hand.to(name) for name in ("mediapipe", "smplx", "interhand", "ho3d"))
        np.testing.assert_array_equal(mediapipe.joints, hand.joints)
        np.testing.assert_allclose(mediapipe.keypoints_2d, hand.keypoints_2d, atol=1e-9)
        assert mediapipe.names[8] == "INDEX_FINGER_TIP" and mediapipe.names[17] == "PINKY_MCP"
        assert interhand.names[0] == "thumb4" and interhand.names[20] == "wrist" and ho3d.names[1] == "index1"
        np.testing.assert_array_equal(interhand.joints[0], hand.joints[4])
        np.testing.assert_array_equal(interhand.joints[16], hand.joints[20])  # the little finger's tip
        # SMPL-X: wrist, index, middle, pinky, ring and thumb from 1 to 3, then the tips from thumb to pinky.
        assert smplx.names[7:10] == tuple(f"{hand.side}_pinky{part}" for part in (1, 2, 3))
        assert smplx.names[16:] == tuple(f"{hand.side}_{tip}" for tip in ("thumb", "index", "middle", "ring", "pinky"))
        np.testing.assert_array_equal(smplx.joints[7:10], hand.joints[17:20])
        np.testing.assert_array_equal(smplx.joints[16:], hand.joints[4::4])
        np.testing.assert_allclose(smplx.joints_camera, smplx.joints + hand.translation)


def test_freihand_and_ho3d_have_their_own_fingertips(hands):
    hand = hands[0]
    freihand, ho3d = hand.to("freihand"), hand.to("ho3d")
    np.testing.assert_allclose(freihand.joints[16], hand.vertices[555])  # FreiHAND's utils/model.py
    np.testing.assert_allclose(ho3d.joints[17], hand.vertices[333])  # HO-3D's vis_HO3D.py
    keep = [joint for joint in range(21) if joint not in (4, 8, 12, 16, 20)]
    np.testing.assert_array_equal(freihand.joints[keep], hand.joints[keep])
    pixels = 500 * freihand.joints_camera[:, :2] / freihand.joints_camera[:, 2:] + [160, 120]
    np.testing.assert_allclose(freihand.keypoints_2d, pixels, atol=1e-9)
    with pytest.raises(ValueError, match=r"joint order.*'media-pipe'.*mediapipe"):
        hand.to("media-pipe")
