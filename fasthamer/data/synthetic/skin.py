"""Skin: tones, and procedural texture maps of creases, redness, mottling and nails for a hand mesh."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.textures import texture_bank

# sRGB of skin in sunlight from very light to very dark, evenly spaced in melanin.
TONES = np.array(
    [
        [243, 212, 196],
        [234, 192, 168],
        [222, 172, 141],
        [202, 146, 112],
        [168, 112, 80],
        [122, 78, 56],
        [84, 54, 42],
    ],
    np.float32,
)
PALM = np.array([236, 184, 164], np.float32)  # palms of every tone are blended towards this
NAIL = np.array([240, 186, 176], np.float32)
MILLIMETRES = 0.8  # side of a map pixel
FINGER_SIDE, ARM_SIDE = 0.21, 0.20  # metres that the map extends from the wrist
WIDTH, HEIGHT = 512, 256  # pixels
VARIANTS = 6  # number of different maps
CREASE, REDNESS, MOTTLE, NAILS = range(4)  # channels; redness and mottle: 128 is neutral


class SkinMaps(NamedTuple):
    """Texture maps of the palm's and the back's side of the flat hand; coordinates from `map_coordinates`."""

    palm: NDArray[np.uint8]  # (VARIANTS, HEIGHT, WIDTH, 4)
    back: NDArray[np.uint8]  # (VARIANTS, HEIGHT, WIDTH, 4)


def skin_tone(rng: np.random.Generator) -> float:
    """Random tone, 0 = very light, 1 = very dark; light to medium tones are more frequent, as in hand datasets."""
    return float(rng.beta(1.1, 1.9))


def skin_colour(rng: np.random.Generator, tone: float | None = None) -> NDArray[np.float32]:
    """(3,) sRGB 0..255 for a tone (None: a random one), with random redness and yellowness."""
    position = (skin_tone(rng) if tone is None else tone) * (len(TONES) - 1)
    base = np.array([np.interp(position, np.arange(len(TONES)), TONES[:, c]) for c in range(3)], np.float32)
    blood, yellow = rng.normal(0.012, 0.03), rng.normal(0, 0.03)
    return np.clip(base * (1 + np.array([blood, -0.7 * blood, -0.4 * blood - yellow])), 0, 255).astype(np.float32)


def map_coordinates(points: NDArray, wrist: NDArray) -> NDArray[np.float32]:
    """Rest-pose points (N, 3) in MANO's frame (fingers -x, thumb +z, palm -y) to map pixels (N, 2)."""
    along = (wrist[0] - points[:, 0] + ARM_SIDE) / (MILLIMETRES * 1e-3)
    across = (points[:, 2] - wrist[2]) / (MILLIMETRES * 1e-3) + HEIGHT / 2
    return np.stack([along, across], axis=1).astype(np.float32)


def make_skin_maps(joints: NDArray) -> SkinMaps:
    """The texture maps for a hand; the same in every process.

    Args:
        joints: (21, 3) of the rest pose in OpenPose order, MANO's frame.
    """
    points = map_coordinates(joints, joints[0])
    maps = [_make_maps(np.random.default_rng((11, variant)), points) for variant in range(VARIANTS)]
    return SkinMaps(np.stack([palm for palm, _ in maps]), np.stack([back for _, back in maps]))


def _make_maps(rng: np.random.Generator, points: NDArray) -> tuple[NDArray, NDArray]:
    palm, back = (np.zeros((HEIGHT, WIDTH, 4), np.uint8) for _ in range(2))
    for side in (palm, back):
        side[..., REDNESS] = _noise(rng, 0.35)
        side[..., MOTTLE] = _noise(rng, 0.6)
    red_palm, red_back = (np.zeros((HEIGHT, WIDTH), np.float32) for _ in range(2))
    for finger in range(5):
        chain = points[1 + 4 * finger : 5 + 4 * finger]
        width = (12.0, 10.5, 11.0, 10.5, 9.0)[finger] / MILLIMETRES  # half of a finger, with its sides
        for joint in (1, 2):
            axis = _unit(chain[joint + 1] - chain[joint - 1])
            lines = (2, 1)[joint - 1]
            for line in range(lines):
                _crease(rng, palm, chain[joint] + axis * (line - (lines - 1) / 2) * 3, axis, width, 1.0)
            for line in range(5 - joint):
                offset = axis * (line - (4 - joint) / 2) * rng.uniform(2.2, 3.4)
                _crease(rng, back, chain[joint] + offset, axis, width * 0.7, 0.55)
            _blob(red_back, chain[joint], 9 / MILLIMETRES, rng.uniform(20, 60))
        if finger:
            axis = _unit(chain[1] - chain[0])
            _crease(rng, palm, chain[0] + 0.5 * (chain[1] - chain[0]), axis, width, 1.0)
            _blob(red_back, chain[0], 10 / MILLIMETRES, rng.uniform(10, 50))
        _blob(red_palm, chain[3], 11 / MILLIMETRES, rng.uniform(15, 55))
        _blob(red_palm, chain[0], 13 / MILLIMETRES, rng.uniform(10, 35))
        _nail(back, chain, finger)
    _palm_lines(rng, palm, points)
    _veins(rng, back, points)
    palm[..., REDNESS] = np.clip(palm[..., REDNESS] + red_palm, 0, 255)
    back[..., REDNESS] = np.clip(back[..., REDNESS] + red_back, 0, 255)
    for side in (palm, back):
        side[..., CREASE] = cv2.GaussianBlur(side[..., CREASE], (0, 0), 0.7)
    return palm, back


def _crease(
    rng: np.random.Generator, side: NDArray, centre: NDArray, axis: NDArray, half: float, strength: float
) -> None:
    """Draws a slightly curved line across a finger."""
    t = np.linspace(-1, 1, 7)[:, None]
    across = np.array([-axis[1], axis[0]])
    bow = axis * rng.uniform(-1.5, 1.5) * (t**2) + axis * rng.normal(0, 0.35, (7, 1))
    _line(side, centre + across * half * t + bow, strength * rng.uniform(90, 200))


def _palm_lines(rng: np.random.Generator, palm: NDArray, points: NDArray) -> None:
    """Draws the three main lines of the palm, fine lines, and the lines of the wrist."""
    wrist, thumb, index, middle, pinky = points[0], points[1], points[5], points[9], points[17]

    def at(along: float, across: float) -> NDArray:
        """(0, 0) = wrist; along 1 = the knuckles; across 0 = index, 1 = little finger."""
        knuckle = index + (pinky - index) * across
        spot = wrist + (knuckle - wrist) * along + (pinky - index) * (across - 0.5) * (1 - along) * 0.7
        return spot + rng.normal(0, 1.5, 2)

    lines = [
        [at(0.75, 1.1), at(0.86, 0.8), at(0.92, 0.5), at(1.0, 0.3)],
        [at(0.82, -0.1), at(0.74, 0.3), at(0.62, 0.65), at(0.5, 0.95)],
        [at(0.8, -0.1), at(0.68, 0.25), at(0.42, 0.42), at(0.12, 0.38)],
    ]
    for line in lines:
        _line(palm, _smooth(np.array(line)), rng.uniform(120, 230))
    for _ in range(rng.integers(4, 14)):  # fine lines
        start = at(rng.uniform(0.2, 0.9), rng.uniform(0.1, 0.9))
        _line(palm, np.stack([start, start + rng.normal(0, 14, 2)]), rng.uniform(25, 80))
    for shift in (-4, 2):
        ends = [wrist + np.array([shift, -32.0]), wrist + np.array([shift - 3, 0.0]), wrist + np.array([shift, 32.0])]
        _line(palm, _smooth(np.array([*ends, ends[-1]])), rng.uniform(60, 140))
    red = np.zeros((HEIGHT, WIDTH), np.float32)
    _blob(red, (thumb + middle) / 2 * 0.5 + wrist * 0.5, 20, rng.uniform(0, 30))
    palm[..., REDNESS] = np.clip(palm[..., REDNESS] + red, 0, 255)


def _veins(rng: np.random.Generator, back: NDArray, points: NDArray) -> None:
    """Draws bluish, darker bands from the wrist to between the knuckles."""
    layer: NDArray = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.integers(2, 6)):
        finger = 5 + 4 * int(rng.integers(0, 3))
        end = points[finger] + (points[finger + 4] - points[finger]) * rng.uniform(0.3, 0.7)
        start = points[0] + np.array([-rng.uniform(0, 90), rng.uniform(-20, 20)])
        middle = (start + end) / 2 + rng.normal(0, 7, 2)
        near_end = 0.25 * start + 0.75 * end + rng.normal(0, 4, 2)
        path = _smooth(np.array([start, middle, near_end, end])).astype(np.int32)
        cv2.polylines(layer, [path], False, int(rng.integers(10, 36)), 3, cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), 2.0)
    back[..., REDNESS] = cv2.subtract(back[..., REDNESS], layer)
    back[..., MOTTLE] = cv2.subtract(back[..., MOTTLE], layer // 2)


def _nail(back: NDArray, chain: NDArray, finger: int) -> None:
    """Draws a finger's nail and its rim."""
    axis = _unit(chain[3] - chain[2])
    half = np.array((6.8, 5.6, 5.9, 5.6, 4.6))[finger] / MILLIMETRES
    centre = chain[3] - axis * half * 0.85
    angle = float(np.degrees(np.arctan2(axis[1], axis[0])))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    centre_fixed = (int(centre[0] * 16), int(centre[1] * 16))
    axes = (int(half * 16), int(half * 0.82 * 16))
    cv2.ellipse(mask, centre_fixed, axes, angle, 0, 360, 255, -1, cv2.LINE_AA, shift=4)
    back[..., NAILS] = np.maximum(back[..., NAILS], mask)
    rim = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    back[..., CREASE] = np.maximum(back[..., CREASE], rim // 3)


def _noise(rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """(HEIGHT, WIDTH) coarse and fine noise with mean 128."""
    bank = texture_bank()
    coarse, fine = bank[int(rng.integers(2, 5))][:HEIGHT, :WIDTH], bank[int(rng.integers(0, 2))][:HEIGHT, :WIDTH]
    mixed = 0.6 * np.roll(coarse, rng.integers(512), 1) + 0.4 * np.roll(fine, rng.integers(512), 1)
    return np.clip((mixed - 128) * strength + 128, 0, 255).astype(np.uint8)


def _line(side: NDArray, path: NDArray, darkness: float) -> None:
    layer = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.polylines(layer, [(path * 16).astype(np.int32)], False, int(darkness), 1, cv2.LINE_AA, shift=4)
    side[..., CREASE] = np.maximum(side[..., CREASE], layer)


def _blob(layer: NDArray, centre: NDArray, radius: float, amount: float) -> None:
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    layer += amount * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (radius / 2) ** 2))


def _smooth(control: NDArray) -> NDArray:
    """A cubic Bezier curve through the first and last of four points: (12, 2)."""
    t = np.linspace(0, 1, 12)[:, None]
    a, b, c, d = control
    return a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3


def _unit(v: NDArray) -> NDArray:
    return v / max(float(np.linalg.norm(v)), 1e-9)
