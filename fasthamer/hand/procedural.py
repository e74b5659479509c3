"""The embedded hand: our own licence-free mesh under MANO's keys, and samplers for its poses and shapes.

How it is made: tools/assets/make_hand.py and docs/embedded_hand.md.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from fasthamer.hand import gestures, pose_sampling
from fasthamer.hand.collision import Capsules

ASSET = Path(__file__).resolve().parent.parent / "assets" / "procedural_hand.npz"
TIP_VERTICES = (320, 443, 671, 554, 744)  # index, middle, pinky, ring, thumb


@cache
def _load() -> dict[str, np.ndarray]:
    with np.load(ASSET, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def embedded_arrays() -> dict[str, np.ndarray]:
    """The embedded hand's arrays under MANO's keys (metres), floats as float32.

    Beside MANO's arrays: `region` (778,) uint8 with 0 back, 1 palm side, 2 nail; `flexion_axes` and `dorsal_axes`
    (15, 3), the unit axes of each joint's flexion and abduction.
    """
    return {
        key: value.astype(np.float32) if value.dtype == np.float16 else value.copy() for key, value in _load().items()
    }


@cache
def _anatomy() -> tuple[gestures.Axes, Capsules]:
    arrays = _load()
    axes = gestures.Axes(arrays["flexion_axes"].astype(float), arrays["dorsal_axes"].astype(float))
    return axes, Capsules(arrays["J"].astype(float), arrays["v_template"][list(TIP_VERTICES)].astype(float))


def sample_pose(rng: np.random.Generator, gesture: bool = False) -> np.ndarray:
    """A random natural pose: absolute axis-angle rotations (15, 3) of MANO's hand joints, in MANO's frame."""
    return pose_sampling.sample(rng, *_anatomy(), gesture)


def sample_betas(rng: np.random.Generator) -> np.ndarray:
    """Random shape (10,): betas of adult hands are standard normal; kept within 2.5 deviations."""
    return np.clip(rng.standard_normal(10), -2.5, 2.5)


@cache
def presets() -> dict[str, np.ndarray]:
    """Named poses, axis-angle (15, 3): rest, relaxed, fist, pointing, pinch, spread."""
    return {name: gestures.to_axis_angle(pose, _anatomy()[0]) for name, pose in gestures.PRESETS.items()}
