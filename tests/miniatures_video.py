"""A clip of two synthetic hands, rendered frame by frame, with exact labels; and files made of it."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fasthamer.data.crop import mirror_points
from fasthamer.data.synthetic.background import random_background
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.data.synthetic.painting import paint
from fasthamer.data.synthetic.scene import build_scene
from fasthamer.data.synthetic.viewpoints import Crop
from fasthamer.hand.mano import load_hand
from fasthamer.hand.procedural import presets

WIDTH, HEIGHT, FOCAL = 320, 240, 330.0
CENTRE = np.array([WIDTH / 2, HEIGHT / 2])
TO_CAMERA = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # rest pose: fingers -x, palm -y -> fingers up, palm at us


class RenderedHand(NamedTuple):
    """A hand of one frame; metres in the camera's frame."""

    right: bool
    vertices: NDArray  # (778, 3)
    joints: NDArray  # (21, 3)

    @property
    def keypoints(self) -> NDArray:
        """(21, 2) pixels."""
        return self.joints[:, :2] / self.joints[:, 2:] * FOCAL + CENTRE


class Studio:
    """Renders hands in one scene: background, skin and light are the same in each image."""

    def __init__(self, seed: int = 3) -> None:
        self.dataset = SyntheticDataset(load_hand("embedded"), 1, distribution="life")
        self.seed = seed
        square = random_background(np.random.default_rng(seed), WIDTH)
        self.background = square[(WIDTH - HEIGHT) // 2 :][:HEIGHT].copy()

    def hand(
        self, right: bool, place: tuple[float, float, float], roll: float = 0.0, curl: float = 0.0
    ) -> RenderedHand:
        """An open hand, palm to the camera: `place` metres, `roll` degrees clockwise, `curl` 0 open to 1 relaxed."""
        pose = (1 - curl) * presets()["spread"] + curl * presets()["relaxed"]
        turn = cv2.Rodrigues(np.array([0, 0, np.radians(roll if right else -roll)]))[0] @ TO_CAMERA
        rotations = np.stack([turn, *(cv2.Rodrigues(angle)[0] for angle in pose)])
        vertices, joints = self.dataset.poser(rotations, np.zeros(10))
        middle = (joints.max(0) + joints.min(0)) / 2
        vertices, joints = vertices - middle, joints - middle
        if not right:
            vertices, joints = mirror_points(vertices), mirror_points(joints)
        return RenderedHand(right, vertices + np.array(place), joints + np.array(place))

    def image(self, hands: list[RenderedHand]) -> NDArray[np.uint8]:
        """(HEIGHT, WIDTH, 3) RGB, the far hands first."""
        margin = (WIDTH - HEIGHT) // 2
        square = np.pad(self.background, ((margin, margin), (0, 0), (0, 0)))
        for hand in sorted(hands, key=lambda each: -each.joints[:, 2].mean()):
            square = self._painted(square, hand)
        return square[margin : margin + HEIGHT].copy()

    def _painted(self, square: NDArray[np.uint8], hand: RenderedHand) -> NDArray[np.uint8]:
        rng = np.random.default_rng(self.seed)
        data = self.dataset
        vertices, joints = (hand.vertices, hand.joints) if hand.right else map(mirror_points, hand[1:])
        scene = build_scene(rng, vertices, joints, data.faces, data.loop)
        crop = Crop(FOCAL, np.array([WIDTH / 2, WIDTH / 2]))
        shown = square if hand.right else square[:, ::-1]
        painted = paint(rng, scene, crop, data.texture, np.ascontiguousarray(shown))
        return painted if hand.right else painted[:, ::-1]


def crossing_hands(studio: Studio, frames: int = 120) -> list[tuple[float, list[RenderedHand]]]:
    """Times and hands: both open, they pass each other twice, the near right one before the far left one, and leave.

    The left hand leaves on the left in the last sixth, the right hand on the right a little later.
    """
    clip = []
    for number in range(frames):
        part = number / frames
        swing = np.cos(2 * np.pi * part / 0.8) * 0.12 if part < 0.8 else 0.12 + (part - 0.8) * 1.6
        late = np.cos(2 * np.pi * part / 0.8) * 0.11 if part < 0.85 else 0.10 + (part - 0.85) * 2.4
        lift = 0.02 * np.sin(2 * np.pi * part * 3)
        right = studio.hand(True, (late, 0.03 + lift, 0.42), 12 * np.sin(9 * part), 0.5 - 0.5 * np.cos(15 * part))
        left = studio.hand(False, (-swing, 0.01 - lift, 0.52), -10 * np.sin(7 * part), 0.5 - 0.5 * np.cos(11 * part))
        clip.append((number / 30, [right, left]))
    return clip


@cache
def shipped_student() -> nn.Module:
    """The student of the package, opened once."""
    from fasthamer.predict import open_model

    torch.set_num_threads(1)
    return open_model("mobilenetv3_l")


@cache
def short_clip() -> list[NDArray[np.uint8]]:
    """12 frames of two hands that move."""
    studio = Studio(4)
    return [studio.image(hands) for _, hands in crossing_hands(studio)[36:60:2]]


def write_clip(
    path: Path,
    images: list[NDArray[np.uint8]],
    ticks: list[int] | None = None,
    sound: str | None = None,
    rotation: float = 0.0,
) -> Path:
    """A lossless video of 30 frames a second, or at `ticks` milliseconds; with a tone of a codec, if one is named."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv444p", Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        tone = file.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(number * 1000 / 30) if ticks is None else ticks[number]
            frame.time_base = Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if tone:
            wave = (np.sin(np.arange(48000 * len(images) // 30) / 20) * 8000).astype(np.int16)
            for start in range(0, len(wave) - 1023, 1024):
                part = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
                part.pts, part.sample_rate, part.time_base = start, 48000, Fraction(1, 48000)
                file.mux(tone.encode(part))
            file.mux(tone.encode())
    return path
