"""Tar shards in the format of HaMeR's training data, written from its documentation, not with the code under test."""

import io
import pickle
import tarfile

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from fasthamer.camera import project_pixels
from fasthamer.hand.mano import load_hand
from fasthamer.hand.procedural import sample_pose
from fasthamer.types import ManoParams

K = np.array([[480.0, 0, 112], [0, 480, 112], [0, 0, 1]])


def hand_record(rng, hand=None, left=False, **changes):
    """One dictionary of a `.data.pyd` (float32, flags as 0-dimensional arrays, as in HaMeR)."""
    hand = hand or load_hand("embedded")
    pose = np.concatenate((Rotation.random(random_state=rng).as_rotvec()[None], sample_pose(rng).reshape(-1, 3)[-15:]))
    betas = rng.uniform(-1, 1, 10)
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()).float()[None]
    _, joints = hand(ManoParams(rotations[:, :1], rotations[:, 1:], torch.from_numpy(betas).float()[None]))
    joints = joints[0].numpy().astype(float)
    joints += np.array([0, 0, 0.6]) - joints.mean(0)  # all of it in the image
    if left:
        joints, pose = joints * [-1, 1, 1], pose * [1, -1, -1]
    pixels = project_pixels(joints, K)
    low, high = pixels.min(0), pixels.max(0)
    record = {
        "keypoints_2d": np.hstack((pixels, np.ones((21, 1)))).astype(np.float32),
        "keypoints_3d": np.hstack((joints, np.ones((21, 1)))).astype(np.float32),
        "center": ((low + high) / 2).astype(np.float32),
        "scale": (2 * (high - low) / 200).astype(np.float32),
        "hand_pose": pose.ravel().astype(np.float32),
        "betas": betas.astype(np.float32),
        "right": np.array(float(not left)),
        "has_hand_pose": np.array(1.0),
        "has_betas": np.array(1.0),
        "extra_info": {"fitting_loss": np.array({"reprojection_loss": 120.0}, dtype=object)},
    }
    return record | changes


def image(record, seed=0):
    """A 224-pixel JPEG with a white spot on the first hand's middle knuckle."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 120, (14, 14, 3), dtype=np.uint8), (224, 224), interpolation=cv2.INTER_CUBIC)
    centre = np.rint(record["keypoints_2d"][9, :2] * 16).astype(int).tolist()
    cv2.circle(image, centre, 4 * 16, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def write_tar(path, files):
    """An archive of (name, content) pairs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def write_shards(root, shards=4, samples=6, seed=0, prefix="freihand-train/rgb/", left_every=3):
    """HaMeR's layout: NNNNNN.tar of `key.data.pyd` and `key.jpg`; returns the keys of each shard."""
    rng, hand = np.random.default_rng(seed), load_hand("embedded")
    keys = []
    for shard in range(shards):
        files = []
        for number in range(samples):
            key = f"{prefix}{shard * samples + number:08d}"
            record = hand_record(rng, hand, left=number % left_every == left_every - 1)
            files += [(f"{key}.data.pyd", pickle.dumps([record])), (f"{key}.jpg", image(record, number))]
        write_tar(root / f"{shard:06d}.tar", files)
        keys.append([name.removesuffix(".jpg") for name, _ in files if name.endswith(".jpg")])
    return keys


def header_offsets(path):
    """Where the headers of an archive's members begin, by name."""
    with tarfile.open(path) as archive:
        return {member.name: member.offset for member in archive}
