"""Small datasets in the official layouts of FreiHAND, DexYCB and HO-3D, with rendered hands; for several test files.

Everything is written from the datasets' own documentation, not with the code under test: MANO by `smplx.MANO`, left
hands with a left model, files with the same names, types and conventions as the official ones.
"""

import contextlib
import functools
import io
import json
import os
import pickle

import cv2
import numpy as np
import smplx
import torch
from scipy.spatial.transform import Rotation
from smplx.utils import Struct

from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.hand.procedural import sample_pose
from fasthamer.render.raster import rasterize

OPENPOSE = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]  # of MANO's 16 joints and 5 tips
FREIHAND_TIPS, HO3D_TIPS = [744, 320, 443, 555, 672], [744, 333, 444, 555, 672]
DEXYCB_TIPS = {"right": [745, 317, 444, 556, 673], "left": [745, 317, 445, 556, 673]}
SERIALS = (
    *("836212060125", "839512060362", "840412060917", "841412060263"),
    *("932122060857", "932122060861", "932122061900", "932122062010"),
)
DATES = ("20200709", "20200813", "20200820", "20200903", "20200908")
DATES += ("20200918", "20200928", "20201002", "20201015", "20201022")
SUBJECTS = [f"{date}-subject-{i:02d}" for i, date in enumerate(DATES, 1)]
OPENGL = np.diag([1.0, -1.0, -1.0])
FREIHAND_K = np.array([[480.0, 0, 112], [0, 470, 112], [0, 0, 1]])
HO3D_K = np.array([[617.343, 0, 312.42], [0, 617.343, 241.42], [0, 0, 1]])


def left_arrays(right, fixed=False):
    """MANO_LEFT as released: mirrored except for the shape directions; `fixed` mirrors those too."""
    left = {key: value.copy() for key, value in right.items()}
    flip, turns = np.array([-1.0, 1, 1]), np.array([1.0, -1, -1])
    left["v_template"] = right["v_template"] * flip
    if fixed:
        left["shapedirs"] = right["shapedirs"] * flip[:, None]
    signs = np.tile(np.outer(flip, flip).ravel(), 15)  # of the elements of 15 rotation matrices
    left["posedirs"] = right["posedirs"] * flip[:, None] * signs
    left["f"] = right["f"][:, ::-1].copy()
    left["hands_mean"] = (right["hands_mean"].reshape(15, 3) * turns).ravel()
    left["hands_components"] = (right["hands_components"].reshape(-1, 15, 3) * turns).reshape(-1, 45)
    return left


def mano(arrays, right=True):
    """smplx's own MANO layer, for absolute poses."""
    with contextlib.redirect_stdout(io.StringIO()):
        options = {"use_pca": False, "flat_hand_mean": True, "create_body_pose": False, "batch_size": 1}
        return smplx.MANO("", is_rhand=right, data_struct=Struct(**arrays), dtype=torch.float64, **options)


def posed(layer, pose, betas, trans=(0, 0, 0)):
    """Vertices (778, 3) and MANO's 16 joints (16, 3) of absolute axis-angles (48,)."""
    one = lambda values: torch.tensor(np.asarray(values, float)).reshape(1, -1)  # noqa: E731
    with torch.no_grad():
        out = layer(global_orient=one(pose[:3]), hand_pose=one(pose[3:]), betas=one(betas), transl=one(trans))
    return out.vertices[0].numpy(), out.joints[0, :16].numpy()


def natural_hand(rng):
    """A pose (48,) of a right hand with random orientation, and betas (10,)."""
    return np.concatenate((Rotation.random(random_state=rng).as_rotvec(), sample_pose(rng).ravel())), rng.normal(
        0, 0.7, 10
    )


@functools.cache
def plain(width, height, colour=(30, 30, 60)):
    return np.tile(np.array(colour, np.uint8), (height, width, 1))


def draw(vertices, faces, K, width, height, background=(30, 30, 60)):
    """(height, width, 3) uint8 RGB: a hand (red above 100) on a plain background (red below); and the hand's mask."""
    seen = rasterize(vertices, faces, (K[0, 0], K[1, 1]), (K[0, 2], K[1, 2]), width, height)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    light = 0.65 + 0.35 * np.abs(normals[:, 2]) / np.linalg.norm(normals, axis=1)
    mask = seen.face >= 0
    image = plain(width, height, background).copy()
    image[mask] = (light[seen.face[mask], None] * [230, 180, 150]).astype(np.uint8)
    return image, mask


def project(points, K):
    image = points @ K.T
    return image[:, :2] / image[:, 2:]


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), image[..., ::-1], options)


def write_freihand(root, arrays=None, count=3, evaluation=2, seed=0):
    """FreiHAND v2: `count` hands before four backgrounds, and the evaluation set with its labels.

    Args:
        arrays: of the hand, MANO's keys; None is the embedded one.
    """
    arrays = read_hand_arrays("embedded") if arrays is None else arrays
    layer, rng = mano(arrays), np.random.default_rng(seed)
    for split, hands, backgrounds in (("training", count, 4), ("evaluation", evaluation, 1)):
        labels = {name: [] for name in ("K", "mano", "scale", "verts", "xyz")}
        for i in range(hands):
            pose, betas = natural_hand(rng)
            vertices, _ = posed(layer, pose, betas)
            joints = np.concatenate((arrays["J_regressor"] @ vertices, vertices[FREIHAND_TIPS]))[OPENPOSE]
            shift = [*rng.uniform(-0.02, 0.02, 2), 0.7] - joints[9]
            vertices, joints = vertices + shift, joints + shift
            scale = np.linalg.norm(joints[9] - joints[10])
            relative = pose - [0, 0, 0, *arrays["hands_mean"]]
            row = [*relative, *betas, *project(joints[9:10], FREIHAND_K)[0], scale]
            for name, value in zip(labels, (FREIHAND_K, [row], scale, vertices, joints), strict=True):
                labels[name].append(np.asarray(value).tolist())
            for k in range(backgrounds):
                image, mask = draw(vertices, arrays["f"], FREIHAND_K, 224, 224, (20, 60 * k, 90))
                save(root / split / "rgb" / f"{i + k * hands:08d}.jpg", image)
            save(root / split / "mask" / f"{i:08d}.jpg", np.repeat(255 * mask[..., None].astype(np.uint8), 3, 2))
        for name, values in labels.items():
            (root / f"{split}_{name}.json").write_text(json.dumps(values))
    return root


DEXYCB_HANDS = {  # (subject, sequence) -> side: s0 has train, val and test with both hands
    (0, 0): "right", (0, 1): "left", (0, 4): "right", (0, 9): "left", (2, 4): "left", (2, 9): "right",
}  # fmt: skip


def write_dexycb(root, arrays=None, hands=None, frames=2, images=True, seed=0):
    """DexYCB: ten subjects of a hundred sequences, of which those in `hands` show a hand in all frames but the first.

    Only those sequences have images and labels; the others show no hand and are not read.

    Args:
        arrays: of the right hand; None is the embedded one. Left hands use the left model as released.
        hands: (subject, sequence), from 0, to side; None is DEXYCB_HANDS.
        frames: of each sequence.
        images: False leaves out all frames: enough for the index.
    """
    right = read_hand_arrays("embedded") if arrays is None else arrays
    models = {"right": right, "left": left_arrays(right)}
    layers = {side: mano(model, side == "right") for side, model in models.items()}
    hands, rng = DEXYCB_HANDS if hands is None else hands, np.random.default_rng(seed)
    cameras = _write_calibration(root, rng)
    empty = root / SUBJECTS[0] / "empty"
    empty.parent.mkdir()
    np.savez(empty, pose_y=_no_objects(frames), pose_m=np.zeros((frames, 1, 51), np.float32))
    for subject, number in np.ndindex(len(SUBJECTS), 100):
        sequence = root / SUBJECTS[subject] / f"{DATES[subject]}_{100000 + 37 * number}"
        sequence.mkdir(parents=True)
        side = hands.get((subject, number))
        if side is None:
            os.link(empty.with_suffix(".npz"), sequence / "pose.npz")
            (sequence / "meta.yml").write_text(_meta(frames, "right", subject))
            continue
        (sequence / "meta.yml").write_text(_meta(frames, side, subject))
        poses = np.zeros((frames, 1, 51), np.float32)
        for frame in range(1, frames):
            poses[frame, 0] = _dexycb_pose(rng, models[side], side)
        np.savez(sequence / "pose.npz", pose_y=_no_objects(frames), pose_m=poses)
        for serial, camera in cameras.items() if images else ():
            for frame in range(frames):
                hand = models[side], layers[side], side, subject_betas(subject)
                _write_frame(sequence / serial, frame, poses[frame, 0], hand, camera)
    empty.with_suffix(".npz").unlink()
    return root


def _no_objects(frames):
    return np.tile(np.array([0, 0, 0, 1, 0, 0, 0], np.float32), (frames, 1, 1))


def subject_betas(subject):
    return np.round(np.random.default_rng(subject).normal(0, 0.7, 10), 6)


def _meta(frames, side, subject):
    serials = "\n".join(f"- '{serial}'" for serial in SERIALS)
    return (
        f"serials:\n{serials}\nnum_frames: {frames}\nextrinsics: '20200702_151821'\nycb_ids:\n- 2\n- 5\n"
        f"ycb_grasp_ind: 0\nmano_sides:\n- {side}\nmano_calib:\n- {SUBJECTS[subject]}_{side}\n"
    )


def _write_calibration(root, rng):
    """Writes the files; returns serial -> K, rotation and position (3,) of the camera in the world."""
    folder = root / "calibration"
    (folder / "intrinsics").mkdir(parents=True)
    lines, cameras = ["extrinsics:"], {}
    for i, serial in enumerate(SERIALS):
        f, x, y = 614 + rng.uniform(-4, 4), 320 + rng.uniform(-8, 8), 240 + rng.uniform(-8, 8)
        values = {"fx": round(f, 3), "fy": round(f + 0.2, 3), "ppx": round(x, 3), "ppy": round(y, 3)}
        text = "".join(
            f"{kind}:\n" + "".join(f"  {k}: {v}\n" for k, v in values.items()) for kind in ("color", "depth")
        )
        (folder / "intrinsics" / f"{serial}_640x480.yml").write_text(text)
        K = np.array([[values["fx"], 0, values["ppx"]], [0, values["fy"], values["ppy"]], [0, 0, 1]])
        turn = Rotation.from_euler("yx", [45 * i, 20], degrees=True)  # cameras in a ring, directed inwards
        pose = np.round(np.column_stack((turn.as_matrix(), turn.apply([0, 0, -0.9]))), 7)
        cameras[serial] = K, pose[:, :3], pose[:, 3]
        lines += _tuple(f"'{serial}'", pose)
    lines += [*_tuple("apriltag", np.eye(4)[:3]), f"master: '{SERIALS[3]}'", ""]
    (folder / "extrinsics_20200702_151821").mkdir()
    (folder / "extrinsics_20200702_151821" / "extrinsics.yml").write_text("\n".join(lines))
    for subject, name in enumerate(SUBJECTS):
        for side in ("left", "right"):
            (folder / f"mano_{name}_{side}").mkdir()
            text = "betas:\n" + "".join(f"- {value}\n" for value in subject_betas(subject))
            (folder / f"mano_{name}_{side}" / "mano.yml").write_text(text)
    return cameras


def _tuple(key, pose):
    return [f"  {key}: !!python/tuple", *(f"  - {value}" for value in pose.ravel())]


def _dexycb_pose(rng, model, side):
    """(51,) in the world: axis-angle, 45 components about the mean, translation."""
    pose, _ = natural_hand(rng)
    absolute = pose.reshape(16, 3) * ([1, -1, -1] if side == "left" else [1, 1, 1])
    components = (absolute[1:].ravel() - model["hands_mean"]) @ np.linalg.inv(model["hands_components"])
    return np.concatenate((absolute[0], components, rng.uniform(-0.03, 0.03, 3)))


def _write_frame(folder, frame, pose, hand, camera):
    (model, layer, side, betas), (K, rotation, place) = hand, camera
    folder.mkdir(exist_ok=True)
    label = {
        "seg": np.zeros((480, 640), np.uint8),
        "pose_y": np.zeros((2, 3, 4), np.float32),
        "pose_m": np.zeros((1, 51), np.float32),
        "joint_3d": np.full((1, 21, 3), -1, np.float32),
        "joint_2d": np.full((1, 21, 2), -1, np.float32),
    }
    image = plain(640, 480)
    if pose.any():
        absolute = np.concatenate((pose[:3], model["hands_mean"] + pose[3:48] @ model["hands_components"]))
        _, at_rest = posed(layer, np.zeros(48), betas)
        turned = Rotation.from_matrix(rotation.T) * Rotation.from_rotvec(pose[:3])
        absolute[:3] = turned.as_rotvec()
        trans = rotation.T @ (at_rest[0] + pose[48:] - place) - at_rest[0]
        vertices, joints = posed(layer, absolute, betas, trans)
        joints = np.concatenate((joints, vertices[DEXYCB_TIPS[side]]))[OPENPOSE]
        image, mask = draw(vertices, model["f"], K, 640, 480)
        label["seg"][mask] = 255
        label["pose_m"][0] = [*absolute[:3], *pose[3:48], *trans]
        label["joint_3d"][0], label["joint_2d"][0] = joints, project(joints, K)
    save(folder / f"color_{frame:06d}.jpg", image)
    np.savez_compressed(folder / f"labels_{frame:06d}.npz", **label)


def write_ho3d(root, version="v2", arrays=None, truth=True, seed=0):
    """HO-3D: one training sequence of three frames, the second without annotation, and one for evaluation of two.

    Args:
        version: v2 has png images, v3 jpg.
        arrays: of the hand; None is the embedded one.
        truth: whether the evaluation labels, released later, are there.
    """
    arrays = read_hand_arrays("embedded") if arrays is None else arrays
    layer, rng = mano(arrays), np.random.default_rng(seed)
    joints_truth, vertices_truth = [], []
    for split, sequence, count in (("train", "ABF10", 3), ("evaluation", "SM1", 2)):
        folder = root / split / sequence
        for part in ("rgb", "depth", "meta"):
            (folder / part).mkdir(parents=True)
        for frame in range(count):
            pose, betas = natural_hand(rng)
            known = split == "evaluation" or frame != 1
            trans = np.array([*rng.uniform(-0.05, 0.05, 2), -0.6])
            vertices, joints = posed(layer, pose, betas, trans)  # OpenGL: the hand is at negative z
            joints = np.concatenate((joints, vertices[HO3D_TIPS]))
            image, mask = draw(vertices @ OPENGL, arrays["f"], HO3D_K, 640, 480)
            save(folder / "rgb" / f"{frame:04d}.{'png' if version == 'v2' else 'jpg'}", image)
            save(folder / "depth" / f"{frame:04d}.png", np.zeros((480, 640, 3), np.uint8))
            meta = dict.fromkeys(("objTrans", "objRot", "objName", "objLabel", "objCorners3D", "objCorners3DRest"))
            meta |= dict.fromkeys(("handJoints3D", "handPose", "handTrans", "handBeta"))
            meta["camMat"] = HO3D_K
            if known:
                corners = np.zeros((8, 3))
                meta |= {"objTrans": np.zeros(3), "objRot": np.zeros((3, 1)), "objName": "021_bleach_cleanser"}
                meta |= {"objLabel": 12, "objCorners3D": corners, "objCorners3DRest": corners}
            if known and split == "train":
                meta |= {"handJoints3D": joints, "handPose": pose, "handTrans": trans, "handBeta": betas}
            if split == "evaluation":
                y, x = np.nonzero(mask)
                meta = {key: value for key, value in meta.items() if not key.startswith("hand")}
                meta |= {"handBoundingBox": [int(v) for v in (x.min(), y.min(), x.max(), y.max())]}
                meta |= {"handJoints3D": joints[0]}
                joints_truth.append(joints.tolist())
                vertices_truth.append(vertices.tolist())
            write_python2_pickle(folder / "meta" / f"{frame:04d}.pkl", meta)
        (root / f"{split}.txt").write_text("".join(f"{sequence}/{frame:04d}\n" for frame in range(count)))
    if truth:
        (root / "evaluation_xyz.json").write_text(json.dumps(joints_truth))
        (root / "evaluation_verts.json").write_text(json.dumps(vertices_truth))
    return root


def write_python2_pickle(path, content):
    """A pickle of protocol 2 with the module names of NumPy 1."""
    raw = pickle.dumps(content, protocol=2)
    path.write_bytes(raw.replace(b"cnumpy._core.", b"cnumpy.core."))


@contextlib.contextmanager
def unreadable(path):
    """The file with meaningless content of the same size and modification time, within the `with` block."""
    about = path.stat()
    with replaced(path, b"\xff" * about.st_size):
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        yield
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


@contextlib.contextmanager
def replaced(path, content):
    """The file with other content (None: no file) within the `with` block."""
    before = path.read_bytes()
    try:
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(before)


def npz_bytes(path, **changes):
    """A changed copy of an archive: arrays replaced, or left out where None."""
    with np.load(path) as archive:
        content = {key: value for key, value in (dict(archive) | changes).items() if value is not None}
    target = io.BytesIO()
    np.savez_compressed(target, **content)
    return target.getvalue()
