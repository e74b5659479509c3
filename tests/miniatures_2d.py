"""Small datasets in the layouts of HInt, InterHand2.6M, COCO and folders, with rendered hands; for several test files.

As in `miniatures_capture`, everything is written from the datasets' documentation, not with the code under test.
"""

import csv
import json

import numpy as np
from miniatures_capture import OPENPOSE, draw, left_arrays, mano, natural_hand, posed, project, save
from scipy.spatial.transform import Rotation

from fasthamer.data.readers.labelled_files import LabelledHand, write_about, write_part
from fasthamer.hand.mano_files import read_hand_arrays

TIPS = [744, 320, 443, 554, 671]  # HaMeR's
K = np.array([[520.0, 0, 170], [0, 515, 118], [0, 0, 1]])
SIZE = (320, 240)  # width, height
TO_INTERHAND = [4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17, 0]  # our index of each joint


def drawn_hands(count, seed=0, sides=("right", "left"), off_centre=0.03):
    """Images (240, 320, 3), masks, joints (21, 3) in metres before the camera `K`, and sides, in turn."""
    right, rng = read_hand_arrays("embedded"), np.random.default_rng(seed)
    models = {"right": right, "left": left_arrays(right, fixed=True)}
    layers = {side: mano(model, side == "right") for side, model in models.items()}
    for number in range(count):
        side = sides[number % len(sides)]
        pose, betas = natural_hand(rng)
        pose = (pose.reshape(16, 3) * ([1, -1, -1] if side == "left" else [1, 1, 1])).ravel()
        vertices, joints = posed(layers[side], pose, betas)
        joints = np.concatenate((joints, vertices[TIPS]))[OPENPOSE]
        shift = [*rng.uniform(-off_centre, off_centre, 2), 0.6] - joints[9]
        image, mask = draw(vertices + shift, models[side]["f"], K, *SIZE)
        yield image, mask, joints + shift, side


def write_hint(root, count=3, names=("TEST_newdays_img", "TRAIN_epick_img"), seed=0, off_centre=0.15):
    """HInt: one image and one JSON per hand; some hands extend beyond the image.

    Returns:
        the keypoints (21, 2) of each hand by its path without ending.
    """
    truth = {}
    for folder in names:
        rng = np.random.default_rng(seed)
        for number, (image, _, joints, side) in enumerate(drawn_hands(count, seed, off_centre=off_centre)):
            path = root / folder / f"ND_video{number}_frame{number:06d}_{side[0]}"
            points = project(joints, K)
            low, high = points.min(0) - 6, points.max(0) + 6
            hand = {
                "keypoints": points.tolist(),
                "occlusion": rng.integers(0, 2, 21).tolist(),
                "bbox": [[*low.tolist(), *high.tolist()]],
            }
            save(path.with_suffix(".jpg"), image)
            path.with_suffix(".json").write_text(json.dumps([hand]))
            truth[path] = points
    return truth


def write_hamer_list(root, folder="TEST_newdays_img"):
    """HaMeR's three lists of a folder that `write_hint` wrote: all, visible and occluded keypoints."""
    paths = sorted((root / folder).glob("*.json"))
    hands = [json.loads(path.read_text())[0] for path in paths]
    points = np.array([hand["keypoints"] for hand in hands])
    inside = ((points >= 0) & (points < SIZE)).all(-1)
    hidden = np.array([hand["occlusion"] for hand in hands]) == 1
    corners = np.array([hand["bbox"][0] for hand in hands])
    for kind, counts in (("all", inside), ("vis", inside & ~hidden), ("occ", inside & hidden)):
        np.savez(
            root / f"{folder}_{kind}.npz",
            imgname=np.array([f"{path.stem}.jpg" for path in paths]),
            center=(corners[:, :2] + corners[:, 2:]) / 2,
            scale=corners[:, 2:] - corners[:, :2],
            right=np.array([int(path.stem.endswith("_r")) for path in paths]),
            hand_keypoints_2d=np.concatenate((points, counts[..., None]), -1),
        )


def write_interhand(root, count=4, split="train", seed=0):
    """InterHand2.6M: an even number of single hands, right and left in turn, and an image with one of each.

    Returns:
        the joints (21, 3) in metres before the camera, in OpenPose order, of each sample by image and side.
    """
    rng = np.random.default_rng(seed)
    images, annotations, truth = [], [], {}
    cameras = {"0": {"campos": {}, "camrot": {}, "focal": {}, "princpt": {}}}
    world = {"0": {}}
    *hands, last = drawn_hands(count + 1, seed)
    for number, group in enumerate([*([hand] for hand in hands), [last, hands[1]]]):
        camera, frame = f"4000{number:02d}", 100 + 7 * number
        name = f"Capture0/ROM01/cam{camera}/image{frame}.jpg"
        rotation, position = Rotation.random(random_state=rng).as_matrix(), rng.normal(0, 500, 3)
        cameras["0"]["campos"][camera], cameras["0"]["camrot"][camera] = position.tolist(), rotation.tolist()
        cameras["0"]["focal"][camera] = [K[0, 0], K[1, 1]]
        cameras["0"]["princpt"][camera] = [K[0, 2], K[1, 2]]
        joints, valid, image = np.ones((42, 3)), np.zeros((42, 1), int), group[0][0].copy()
        for layer, mask, points, side in group:
            image[mask] = layer[mask]
            part = slice(21, 42) if side == "left" else slice(0, 21)
            joints[part] = (1000 * points @ rotation + position)[TO_INTERHAND]
            valid[part] = 1
            truth[name, side] = points
        save(root / "images" / split / name, image)
        kind = group[0][3] if len(group) == 1 else "interacting"
        about = {"capture": 0, "subject": 1, "seq_name": "ROM01", "camera": camera, "frame_idx": frame}
        images.append({"id": 900 + number, "file_name": name, "width": SIZE[0], "height": SIZE[1], **about})
        annotations.append(
            {"id": number, "image_id": 900 + number, "bbox": [0.0, 0.0, 50.0, 50.0], "joint_valid": valid.tolist()}
            | {"hand_type": kind, "hand_type_valid": 1}
        )
        world["0"][str(frame)] = {
            "world_coord": joints.tolist(),
            "joint_valid": valid.astype(bool).tolist(),
            "hand_type": kind,
            "hand_type_valid": True,
        }
    folder = root / "annotations" / split
    folder.mkdir(parents=True)
    files = {"data": {"images": images, "annotations": annotations}, "camera": cameras, "joint_3d": world}
    for kind, content in files.items():
        (folder / f"InterHand2.6M_{split}_{kind}.json").write_text(json.dumps(content))
    return truth


def write_coco(root, count=3, name="annotations/hands_train.json", seed=0, whole_body=False):
    """COCO: one image per hand with 21 keypoints; or COCO-WholeBody's format, one person per image.

    Returns:
        the keypoints (21, 2) of each image.
    """
    images, annotations, truth = [], [], {}
    for number, (image, _, joints, side) in enumerate(drawn_hands(count, seed)):
        points = project(joints, K)
        flat = np.column_stack((points, np.full(21, 2))).ravel().tolist()
        low, high = points.min(0), points.max(0)
        box = [*low.tolist(), *(high - low).tolist()]
        file = f"{number:012d}.jpg"
        save(root / "images" / file, image)
        images.append({"id": 70 - number, "file_name": file, "width": SIZE[0], "height": SIZE[1]})
        about = {"id": number, "image_id": 70 - number, "category_id": 1, "iscrowd": 0}
        if whole_body:
            other = "left" if side == "right" else "right"
            its = {f"{side}hand_kpts": flat, f"{side}hand_box": box, f"{side}hand_valid": True}
            not_its = {f"{other}hand_kpts": [0.0] * 63, f"{other}hand_box": [0.0] * 4, f"{other}hand_valid": False}
            annotations.append(about | {"keypoints": [0] * 51, "bbox": [0, 0, *SIZE]} | its | not_its)
        else:
            annotations.append(about | {"keypoints": flat, "bbox": box, "hand_type": side})
        truth[file] = points
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    category = {"id": 1, "name": "person" if whole_body else "hand"}
    about = {"info": {"description": "generated"}, "licenses": ""}
    path.write_text(json.dumps(about | {"annotations": annotations, "images": images, "categories": [category]}))
    return truth


def write_folder(root, count=3, seed=0, form="csv"):
    """Images without labels in a folder and its subfolder, and boxes.csv or boxes.json."""
    rows = []
    for number, (image, mask, _, side) in enumerate(drawn_hands(count, seed)):
        name = f"{'more/' if number % 2 else ''}image {number}.{'png' if number % 2 else 'jpg'}"
        y, x = np.nonzero(mask)
        save(root / name, image)
        box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
        rows.append((name, box, side))
    if form == "json":
        records = [{"path": name, "box": box, "side": side} for name, box, side in rows]
        (root / "boxes.json").write_text(json.dumps(records))
        return rows
    with open(root / "boxes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "x", "y", "width", "height", "side"])
        writer.writerows([name, *box, side] for name, box, side in rows)
    return rows


def write_labelled(root, count=4):
    """Points of a teacher of points, and their images; every second one is for evaluation."""
    hands = []
    for number, (image, _, joints, side) in enumerate(drawn_hands(count)):
        save(root / "images" / f"{number}.jpg", image)
        points, certain = project(joints, K), np.ones(21)
        box = np.concatenate((points.min(0), points.max(0)))
        labels = np.column_stack((points, certain)), np.column_stack((joints - joints[0], certain))
        hands.append(LabelledHand(f"{number}.jpg", number % 2 == 1, side == "right", 0.9, box, *labels))
    write_part(root / "000000.npz", hands)
    about = {"images": ["images"], "settings": {"teacher": "points", "hand": None}, "complete": True}
    write_about(root, about | {"parts": {"000000.npz": {"hands": count, "left_out": []}}})
