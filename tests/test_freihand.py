"""FreiHAND's layout, complete and partial, generated and real; and the errors for wrong or damaged files."""

import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from miniatures_capture import replaced, write_freihand
from outlines import off_the_hand, outline_error
from scipy.spatial.transform import Rotation
from torch.utils.data import default_collate

from fasthamer.camera import project_pixels
from fasthamer.config import load_config
from fasthamer.data.augment import Strength
from fasthamer.data.build import build_dataset
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.files.images import read_image
from fasthamer.types import ManoParams

K = np.array([[480.0, 0, 112], [0, 470, 112], [0, 0, 1]])


def write_set(root, hand, count=3, backgrounds=2, split="training"):
    """A small set in the official layout, with every label, poses relative to the mean as FreiHAND has them."""
    rng = np.random.default_rng(0)
    relative, betas = rng.normal(0, 0.2, (count, 16, 3)), rng.normal(size=(count, 10))
    absolute = relative.copy()
    absolute[:, 1:] += hand.hands_mean.reshape(15, 3)
    rotations = Rotation.from_rotvec(absolute.reshape(-1, 3)).as_matrix().reshape(count, 16, 3, 3)
    rotations = torch.from_numpy(rotations).float()
    vertices, joints = hand(ManoParams(rotations[:, :1], rotations[:, 1:], torch.from_numpy(betas).float()))
    shift = torch.tensor([0.0, 0.0, 0.7]) - joints[:, 9:10]
    labels = {
        "K": np.repeat(K[None], count, 0),
        "xyz": (joints + shift).numpy(),
        "verts": (vertices + shift).numpy(),
        "mano": np.concatenate((relative.reshape(count, 48), betas, np.zeros((count, 3))), 1)[:, None],
    }
    folder = root / split / "rgb"
    folder.mkdir(parents=True)
    for name, values in labels.items():
        (root / f"{split}_{name}.json").write_text(json.dumps(values.tolist()))
    (root / f"{split}_scale.json").write_text(json.dumps([0.03] * count))
    for i in range(count * backgrounds):
        image = np.full((224, 224, 3), (10 * i, 0, 200), np.uint8)  # blue, green, red as OpenCV writes them
        cv2.imwrite(str(folder / f"{i:08d}.jpg"), image)
    return root


@pytest.fixture
def root(tmp_path, mano):
    return write_set(tmp_path / "set", mano)


def test_every_background_shares_the_annotation_of_its_hand(root, mano):
    dataset = FreiHAND(root, "training", mano)
    assert len(dataset) == 6
    first, again = dataset[(0, 1)], dataset[(0, 4)]
    assert torch.equal(first.joints, again.joints) and not torch.equal(first.image, again.image)
    assert (first.index, again.index) == (1, 4)
    assert first.image[:, 128, 128].tolist() == pytest.approx([200, 0, 10], abs=3)  # RGB


def test_labels_equal_those_in_the_files(root, mano):
    item = FreiHAND(root, "training", mano)[(0, 2)]
    xyz = np.array(json.loads((root / "training_xyz.json").read_text()))[2]
    verts = np.array(json.loads((root / "training_verts.json").read_text()))[2]
    np.testing.assert_allclose(item.joints[:, :3], xyz, atol=1e-6)
    np.testing.assert_allclose(item.vertices, verts, atol=1e-6)
    back = np.linalg.inv(np.vstack((item.crop.double(), [0, 0, 1])))
    pixels = np.column_stack(((item.keypoints_2d[:, :2] + 0.5) * 256, np.ones(21))) @ back.T
    np.testing.assert_allclose(pixels[:, :2], project_pixels(xyz, K), atol=1e-3)
    low, high = item.keypoints_2d[:, :2].min(0).values, item.keypoints_2d[:, :2].max(0).values
    assert torch.allclose((low + high) / 2, torch.zeros(2), atol=1e-5) and (high - low).max() <= 0.5 + 1e-5


def test_poses_become_absolute_so_that_the_parameters_give_the_labelled_mesh(root, mano):
    for strength in (None, Strength()):
        item = FreiHAND(root, "training", mano, strength=strength)[(5, 1)]
        assert item.has_pose == item.has_betas == item.has_vertices == 1
        vertices, joints = mano(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
        torch.testing.assert_close(vertices[0] - joints[0, 0], item.vertices - item.joints[0, :3], atol=3e-6, rtol=0)


def test_with_the_embedded_hand_only_joints_and_keypoints_are_labels(root, embedded):
    item = FreiHAND(root, "training", embedded)[(0, 1)]
    assert item.has_pose == item.has_betas == item.has_vertices == 0 and item.vertices.abs().sum() == 0
    assert item.joints[:, 3].sum() == item.keypoints_2d[:, 2].sum() == 21


def test_an_item_is_a_function_of_seed_epoch_and_index(root, embedded):
    one, two = (FreiHAND(root, "training", embedded, strength=Strength(), seed=4) for _ in range(2))
    other = FreiHAND(root, "training", embedded, strength=Strength(), seed=5)
    two = pickle.loads(pickle.dumps(two))  # as a worker process gets it
    [two[(0, i)] for i in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(one[(3, 2)], two[(3, 2)], strict=True))
    assert not torch.equal(one[(3, 2)].crop, one[(4, 2)].crop)
    assert not torch.equal(one[(3, 2)].crop, other[(3, 2)].crop)


def test_items_collate_into_a_batch(root, mano):
    dataset = FreiHAND(root, "training", mano)
    batch = default_collate([dataset[(0, i)] for i in range(6)])
    assert batch.image.shape == (6, 3, 256, 256) and batch.hand_pose.shape == (6, 15, 3, 3)
    assert batch.index.tolist() == list(range(6))


def test_evaluation_images_without_labels_are_cropped_whole(root, mano):
    shutil.copytree(root / "training", root / "evaluation")
    shutil.copy(root / "training_K.json", root / "evaluation_K.json")
    item = FreiHAND(root, "evaluation", mano)[(0, 0)]
    assert item.joints.abs().sum() == item.keypoints_2d.abs().sum() == item.has_pose == 0
    assert item.image[0, 128, 40] > 150 and item.image[0, 128, 20] == 0  # the image spans columns 32 to 224
    labelled = FreiHAND(root, "training", mano, box="image")[(0, 0)]
    assert torch.equal(labelled.crop, item.crop)


def edit(root, name, change):
    path = root / f"training_{name}.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_missing_root_says_what_is_expected(tmp_path, embedded):
    with pytest.raises(FileNotFoundError, match=r"DATA\.ROOT.*FreiHAND"):
        FreiHAND(tmp_path / "nowhere", "training", embedded)


def test_missing_annotations_are_named(root, embedded):
    (root / "training_xyz.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"training_xyz\.json"):
        FreiHAND(root, "training", embedded)


def test_a_json_of_the_wrong_length_is_named_with_both_lengths(root, embedded):
    edit(root, "xyz", lambda values: values.pop())
    with pytest.raises(ValueError, match=r"training_K\.json 3, training_xyz\.json 2"):
        FreiHAND(root, "training", embedded)


def test_the_numbers_of_images_and_annotations_are_named_if_they_do_not_match(root, embedded):
    (root / "training" / "rgb" / "00000005.jpg").unlink()
    with pytest.raises(ValueError, match=r"5 images.* 3 annotations"):
        FreiHAND(root, "training", embedded)


def test_a_missing_image_is_the_fault_of_its_sample_only(root, embedded):
    (root / "training" / "rgb" / "00000001.jpg").unlink()
    dataset = FreiHAND(root, "training", embedded)
    assert len(dataset) == 6 and dataset[(0, 2)].image.shape == (3, 256, 256)
    with pytest.raises(FileNotFoundError, match=r"no image .*00000001\.jpg"):
        dataset[(0, 1)]


def test_a_truncated_json_is_distinguished_from_one_with_fewer_records(root, embedded):
    path = root / "training_xyz.json"
    path.write_text(path.read_text()[:-200])
    with pytest.raises(ValueError, match=r"training_xyz\.json: cut short"):
        FreiHAND(root, "training", embedded)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.6, 0.98])
def test_a_truncated_image_is_named_in_the_error(root, embedded, keep):
    path = root / "training" / "rgb" / "00000002.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    dataset = FreiHAND(root, "training", embedded)
    assert dataset[(0, 1)].image.any()
    with pytest.raises(ValueError, match=r"00000002\.jpg: damaged"):
        dataset[(0, 2)]


def test_a_nan_joint_is_an_error_that_names_file_and_record(root, embedded):
    edit(root, "xyz", lambda values: values[1][7].__setitem__(0, float("nan")))
    dataset = FreiHAND(root, "training", embedded)
    assert dataset[(0, 0)].joints.any()
    with pytest.raises(ValueError, match=r"training_xyz\.json: record 1 holds numbers that are not finite"):
        dataset[(0, 4)]


def test_a_record_with_a_missing_joint_is_an_error(root, embedded):
    edit(root, "xyz", lambda values: values[1].pop())
    with pytest.raises(ValueError, match="record 1 is 20x3, expected 21x3"):
        FreiHAND(root, "training", embedded)[(0, 1)]


def test_a_config_is_built_into_datasets(root, embedded, mano):
    write_set(root, mano, count=2, backgrounds=1, split="evaluation")
    config = load_config(None, ["DATA.ROOT", str(root), "DATA.LABELLED", "0.5", "DATA.MIX_SYNTHETIC", "0.5"])
    train, test = (build_dataset(config, embedded, train=train) for train in (True, False))
    assert len(train) == 12 and len(test) == 2 and isinstance(test, FreiHAND) and test.strength is None
    synthetic_item, images = train[(0, 8)], [train[(0, i)] for i in range(6)]
    assert synthetic_item.has_pose == 1 and sum(bool(item.joints[:, 3].any()) for item in images) == 3

    synthetic = load_config(None, ["DATA.SYNTHETIC_SIZE", "5", "DATA.SYNTHETIC_EVAL_SIZE", "3"])
    train, test = (build_dataset(synthetic, embedded, train=train) for train in (True, False))
    assert (len(train), len(test)) == (5, 3)
    assert not torch.equal(train[(0, 0)].joints, test[(0, 0)].joints)
    again = build_dataset(load_config(None, ["SEED", "9", "DATA.SYNTHETIC_EVAL_SIZE", "3"]), embedded, train=False)
    assert torch.equal(again[(0, 1)].image, test[(0, 1)].image)  # held-out hands do not depend on the run's seed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATA.NAME", "freihnad"], "did you mean 'freihand'"),
        (["DATA.NAME", "freihand"], "--data-root"),
        (["DATA.ROOT", ".", "DATA.BOX", "tight"], "keypoints, detector, image or one of"),
    ],
)
def test_the_error_for_an_unusable_config_names_the_remedy(embedded, overrides, message):
    with pytest.raises((KeyError, ValueError), match=message):
        build_dataset(load_config(None, overrides), embedded, train=True)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    return write_freihand(tmp_path_factory.mktemp("miniature"))


@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_projected_labels_lie_on_the_rendered_hand_on_every_background(miniature, mano, split):
    dataset = FreiHAND(miniature, split, mano)
    assert len(dataset) == (12 if split == "training" else 2)
    for index in range(len(dataset)):
        labels, image = dataset.labels(index), read_image(dataset.image_path(index))
        assert outline_error(labels.vertices, mano.faces, dataset.camera(index), image) <= 1
        assert off_the_hand(labels.keypoints[:, :2], image).max() < 1.5
        item = dataset[(0, index)]
        vertices, _ = mano(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
        root = vertices[0, 0]  # the joints on disk are regressed from the mesh: another wrist than the chain's
        torch.testing.assert_close(vertices[0] - root, item.vertices - item.vertices[0], atol=3e-6, rtol=0)
        crop = item.image.numpy().transpose(1, 2, 0)
        assert off_the_hand((item.keypoints_2d[:, :2].numpy() + 0.5) * 256, crop).max() < 2.5


def test_the_dataset_names_its_protocol_and_fingertips(miniature, mano, root, shared_data):
    dataset = FreiHAND(miniature, "evaluation", mano)
    assert (dataset.info.protocol, dataset.info.tips, dataset.sample_name(1)) == ("freihand", "freihand", "00000001")
    assert FreiHAND(shared_data("realhand"), "evaluation", mano).info.tips == "hamer"  # its own definition, no mesh


@pytest.mark.parametrize("given", [False, True])
def test_the_joints_of_the_secret_test_set_are_freihands(root, mano, given):
    write_set(root, mano, split="evaluation")
    for name in ("verts", "mano", *(() if given else ("xyz",))):
        (root / f"evaluation_{name}.json").unlink()
    assert FreiHAND(root, "evaluation", mano).info.tips == "freihand"


def test_meshes_are_read_only_if_requested(miniature, mano):
    dataset = FreiHAND(miniature, "training", mano, meshes=False)
    assert "verts" not in dataset.records and dataset[(0, 0)].has_vertices == 0 and dataset[(0, 0)].has_pose == 1
    config = load_config(None, ["DATA.ROOT", str(miniature), "LOSS.VERTICES", "1.0"])
    assert build_dataset(config, mano, train=True)[(0, 0)].has_vertices == 1


@pytest.mark.parametrize("loss", ["TOKENS", "TOKEN_SOFT", "TOKEN_RELATIONS"])
def test_meshes_are_read_for_the_token_losses_of_labels(miniature, mano, loss):
    losses = [each for name in ("TOKENS", "TOKEN_SOFT", "TOKEN_RELATIONS") for each in (f"LOSS.{name}", "0.0")]
    settings = ["DATA.ROOT", str(miniature), *losses, f"LOSS.{loss}", "0.1"]
    for decoder, meshes in (("token", 1), ("mano", 0)):
        config = load_config(None, [*settings, "STUDENT.DECODER", decoder])
        assert build_dataset(config, mano, train=True)[(0, 0)].has_vertices == meshes


def changed_xyz(root, change):
    return json.dumps(change(np.array(json.loads((root / "training_xyz.json").read_text()))).tolist()).encode()


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        ([1000, 1000, 1000], "record 0: .*are these millimetres"),
        ([1, -1, -1], "record 0: a joint is at depth -.*OpenGL"),
        ([3, 3, 3], "record 0: wrist to middle knuckle is"),
    ],
)
def test_wrong_units_and_axes_are_detected_from_the_joints(root, embedded, factor, message):
    with replaced(root / "training_xyz.json", changed_xyz(root, lambda xyz: xyz * factor)):
        dataset = FreiHAND(root, "training", embedded)
        with pytest.raises(ValueError, match=rf"training_xyz\.json: {message}"):
            dataset[(0, 0)]


def test_a_dataset_of_left_hands_is_detected(shared_data, tmp_path, embedded):
    folder = shared_data("realhand")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "rgb").symlink_to(folder / "evaluation" / "rgb")
    shutil.copy(folder / "evaluation_K.json", tmp_path)
    shutil.copy(folder / "evaluation_xyz.json", tmp_path)
    assert len(FreiHAND(tmp_path, "evaluation", embedded)) == 80
    xyz = np.array(json.loads((folder / "evaluation_xyz.json").read_text())) * [-1, 1, 1]
    (tmp_path / "evaluation_xyz.json").write_text(json.dumps(xyz.tolist()))
    with pytest.raises(ValueError, match=r"32 of 32 hands bend like the other hand"):
        FreiHAND(tmp_path, "evaluation", embedded)


def test_real_images_contain_their_joints(shared_data, embedded):
    for split, count in (("training", 400), ("evaluation", 80)):
        dataset = FreiHAND(shared_data("realhand"), split, embedded)
        assert len(dataset) == count
        for i in range(0, count, 7):
            labels = dataset.labels(i)
            assert labels.keypoints[:, :2].min() > 0 and labels.keypoints[:, :2].max() < 256
            assert 0.05 < np.linalg.norm(labels.joints[9, :3] - labels.joints[0, :3]) < 0.11
            assert labels.vertices is None and labels.pose is None
        # the wrist and the hand's centre show skin: redder than they are blue
        item = dataset[(0, 0)]
        x, y = ((item.keypoints_2d[9, :2] + 0.5) * 256).long().tolist()
        assert item.image[0, y, x] > item.image[2, y, x]


def test_real_freihand_vertices_project_into_their_images(shared_data, mano):
    dataset = FreiHAND(shared_data("freihand_mini"), "training", mano)
    assert len(dataset) == 3
    for i in range(3):
        item, labels = dataset[(0, i)], dataset.labels(i)
        assert item.has_vertices == 1 and item.has_pose == item.has_betas == 0
        pixels = project_pixels(labels.vertices, dataset.records["K"][i])
        assert pixels.min() > 0 and pixels.max() < 224
        np.testing.assert_allclose(  # the tips of FreiHAND's convention
            labels.joints[[4, 8, 12, 16, 20], :3], labels.vertices[[744, 320, 443, 555, 672]], atol=2e-3
        )
