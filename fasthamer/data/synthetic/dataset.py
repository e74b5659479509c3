"""A dataset of synthetic images of hands, rendered on demand, with exact labels."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from fasthamer.data import augment
from fasthamer.data.articulation import Articulation
from fasthamer.data.crop import BOX_FACTOR, box_side, turn_matrix, upright_rotation
from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.data.synthetic.background import random_background
from fasthamer.data.synthetic.camera_effects import apply_camera_effects
from fasthamer.data.synthetic.distribution import DISTRIBUTIONS, Distribution
from fasthamer.data.synthetic.forearm import boundary_loop
from fasthamer.data.synthetic.occluders import add_black_border, add_occluder
from fasthamer.data.synthetic.painting import HandTexture, paint
from fasthamer.data.synthetic.scene import build_scene
from fasthamer.data.synthetic.skin import make_skin_maps, map_coordinates
from fasthamer.data.synthetic.viewpoints import Crop, random_orientation, random_translation
from fasthamer.hand.mano import Hand
from fasthamer.hand.posing import Poser
from fasthamer.hand.procedural import sample_betas, sample_pose
from fasthamer.registry import unknown
from fasthamer.render.raster import vertex_normals
from fasthamer.types import Batch, ManoParams

LARGEST = 512  # pixels
VIRTUAL_FOCAL = 1000.0  # pixels; focal length of the full image, which is never rendered: only ratios matter
_TEXTURES: dict[str, HandTexture] = {}  # by the hand's fingerprint: a second to make, and a run has several datasets
THUMB_NAIL = np.array([0.25, 0.62, 0.74])  # direction of the thumb's nail in the rest pose


class PlacedHand(NamedTuple):
    """A sampled hand before a camera; metres in the camera's frame."""

    mano: ManoParams  # without batch axis
    vertices: NDArray[np.float32]  # (778, 3)
    joints: NDArray[np.float32]  # (21, 3)
    rng: np.random.Generator  # of the remaining random choices: scene, light, camera effects


class SyntheticDataset(HandDataset):
    """`ds[(epoch, index)]` is a pure function of (seed, epoch, index), the same in every process.

    Hand, scene and light depend on the index only; the epoch changes the crop, as augmentation does for real images.

    Vertices, joints and orientation are in the axes of the full image's camera, as FreiHAND's labels are: the crop
    is a part of that image and is not rotated towards the hand (HaMeR ignores the difference too).

    Args:
        hand: the hand model to render; its arrays are copied, so the dataset can be sent to worker processes.
        size: samples per epoch.
        seed: of all random choices.
        image_size: side of the crops, pixels.
        scale: the crop's side varies by up to this fraction, as in HaMeR's augmentation.
        shift: standard deviation of the crop's centre in crop widths, clipped at one standard deviation.
        shape: of the boxes, one of `fasthamer.data.crop.BOX_SHAPES`. With upright the hand is turned about the optical
            axis before it is rendered, which is the same as turning its crop; the background stays.
        rotation, rotation_probability: augmentation of upright crops, see `fasthamer.data.augment.Strength`. Crops of
            other shapes are not turned: the orientations of their hands are random anyway.
        distribution: one of `DISTRIBUTIONS`.

    Raises:
        KeyError: no such distribution.
        ValueError: `image_size` or `size` out of range.
    """

    info = DatasetInfo("SyntheticHands", meshes=True, poses=True)

    def __init__(
        self,
        hand: Hand,
        size: int,
        seed: int = 0,
        image_size: int = 256,
        scale: float = 0.3,
        shift: float = 0.02,
        shape: str = "hamer",
        rotation: float = 0.0,
        rotation_probability: float = 0.0,
        distribution: str = "hard",
    ) -> None:
        if not 16 <= image_size <= LARGEST:
            raise ValueError(f"image_size is {image_size}, synthetic hands are rendered at 16 to {LARGEST} pixels")
        if size < 1:
            raise ValueError(f"a synthetic dataset has at least one sample, size is {size}")
        if distribution not in DISTRIBUTIONS:
            raise KeyError(unknown("distribution of synthetic hands", distribution, DISTRIBUTIONS))
        self.distribution, self.shares = distribution, DISTRIBUTIONS[distribution]
        self.size, self.seed, self.image_size = size, seed, image_size
        self.scale, self.shift, self.shape = scale, shift, shape
        self.jitter = augment.Strength(0.0, rotation, rotation_probability, 0.0, 0.0)
        self.fingerprint = hand.fingerprint
        self.faces = np.asarray(hand.faces, np.int64)
        self.loop = boundary_loop(self.faces)
        self.poser = Poser.of(hand)
        if hand.fingerprint not in _TEXTURES:
            _TEXTURES[hand.fingerprint] = _hand_texture(self.poser, self.faces)
        self.texture = _TEXTURES[hand.fingerprint]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        hand = self.hand(index)
        # A spawn key, because the seeds (seed, index, 0) and (seed, index) give the same numbers.
        framing = np.random.default_rng(np.random.SeedSequence((self.seed, index), spawn_key=(epoch,)))
        crop = self.frame(framing, hand.joints)
        if self.shape == "upright":
            rotation = augment.draw(framing, self.jitter).rotation
            hand, crop = _turned(hand, rotation), crop.turned(rotation, self.image_size)
        image = self.draw(hand, crop)

        size = self.image_size
        keypoints = np.column_stack([crop.project(hand.joints) / size - 0.5, np.ones(21)])
        one = torch.tensor(1.0)
        return Batch(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            keypoints_2d=torch.from_numpy(keypoints.astype(np.float32)),
            joints=torch.from_numpy(np.column_stack([hand.joints, np.ones(21, np.float32)])),
            vertices=torch.from_numpy(hand.vertices),
            has_vertices=one,
            global_orient=hand.mano.global_orient,
            hand_pose=hand.mano.hand_pose,
            betas=hand.mano.betas,
            has_pose=one,
            has_betas=one,
            mirrored=torch.tensor(0.0),
            crop=torch.eye(3)[:2],
            index=torch.tensor(index),
        )

    def hand(self, index: int) -> PlacedHand:
        """Hand `index` in the camera's frame, before rendering; turned upright if the boxes are."""
        if not 0 <= index < self.size:
            raise IndexError(f"sample {index} of {self.size}")
        rng = np.random.default_rng((self.seed, index))
        mano = _sample_hand(rng, self.shares)
        vertices, joints = self.poser(np.concatenate([mano.global_orient, mano.hand_pose]), mano.betas.numpy())
        translation = random_translation(rng, joints).astype(np.float32)
        hand = PlacedHand(mano, vertices + translation, joints + translation, rng)
        if self.shape != "upright":
            return hand
        pixels = hand.joints[:, :2] / hand.joints[:, 2:]
        return _turned(hand, upright_rotation(np.column_stack([pixels, np.ones(21)])))

    def articulation(self, index: int) -> Articulation:
        """The pose and shape of hand `index`."""
        mano = _sample_hand(np.random.default_rng((self.seed, index)), self.shares)
        return Articulation(mano.hand_pose.numpy(), mano.betas.numpy())

    def draw(self, hand: PlacedHand, crop: Crop) -> NDArray[np.uint8]:
        """(image_size, image_size, 3) RGB: a crop of the hand's image; draws numbers from `hand.rng`."""
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # one core per worker
        scene = build_scene(hand.rng, hand.vertices, hand.joints, self.faces, self.loop)
        image = paint(hand.rng, scene, crop, self.texture, random_background(hand.rng, self.image_size))
        keypoints = crop.project(hand.joints)
        image = apply_camera_effects(hand.rng, add_occluder(hand.rng, image, keypoints, self.shares))
        return add_black_border(hand.rng, image, keypoints, self.shares)

    def frame(self, rng: np.random.Generator, joints: NDArray) -> Crop:
        """HaMeR's box around the keypoints with its augmentation, without rotation."""
        pixels = joints[:, :2] / joints[:, 2:] * VIRTUAL_FOCAL
        low, high = pixels.min(0), pixels.max(0)
        side = box_side((high - low) * BOX_FACTOR, self.shape) * (
            1 + self.scale * np.clip(rng.standard_normal(), -1, 1)
        )
        middle = (low + high) / 2 + side * self.shift * np.clip(rng.standard_normal(2), -1, 1)
        zoom = self.image_size / side
        return Crop(VIRTUAL_FOCAL * zoom, self.image_size / 2 - middle * zoom)


def _turned(hand: PlacedHand, rotation: float) -> PlacedHand:
    """The hand as a crop shows it whose box is turned by `rotation` degrees."""
    turn = turn_matrix(rotation).astype(np.float32)
    mano = hand.mano._replace(global_orient=torch.from_numpy(turn) @ hand.mano.global_orient)
    return hand._replace(mano=mano, vertices=hand.vertices @ turn.T, joints=hand.joints @ turn.T)


def _sample_hand(rng: np.random.Generator, shares: Distribution) -> ManoParams:
    gesture = shares.gestures > 0 and rng.random() < shares.gestures
    rotations = np.stack([cv2.Rodrigues(angle)[0] for angle in sample_pose(rng, gesture)])
    return ManoParams(
        torch.from_numpy(random_orientation(rng, shares)[None].astype(np.float32)),
        torch.from_numpy(rotations.astype(np.float32)),
        torch.from_numpy(np.asarray(sample_betas(rng), np.float32)),
    )


def _hand_texture(poser: Poser, faces: NDArray) -> HandTexture:
    """Skin maps and texture coordinates of the flat rest hand, for any mesh with MANO's topology and frame."""
    vertices, joints = poser(np.tile(np.eye(3), (16, 1, 1)), np.zeros(10))
    normals = vertex_normals(vertices, faces)
    thumb = poser.weights[:, 13:].sum(1)[:, None]
    outward = np.array([0.0, 1.0, 0.0]) * (1 - thumb) + THUMB_NAIL * thumb
    dorsal = 0.5 + 0.5 * (normals * outward).sum(1)
    return HandTexture(make_skin_maps(joints), map_coordinates(vertices, joints[0]), dorsal.astype(np.float32))
