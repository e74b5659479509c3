"""Random natural hand poses: a mixture of gesture families with noise, rejecting fingers that intersect.

Angles are the anatomical degrees of `fasthamer.hand.gestures`. Fingers here are numbered in MANO's order: index 0,
middle 1, pinky 2, ring 3, thumb 4.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fasthamer.hand.collision import Capsules
from fasthamer.hand.gestures import HIGHEST, LOWEST, Axes, to_axis_angle

_TRIES = 12
_DEEPEST = 0.0025  # metres two capsules may share: skin gives way
_FAN = np.array([11.0, 1.0, -21.0, -9.0])  # abduction of spread fingers, degrees
_MIDDLE, _PINKY, _RING = 1, 2, 3

# thumb: swing across, swing out of the palm (negative: away from it), middle joint, last joint
_THUMB_OUT = (-18.0, -2.0, 5.0, 2.0)
_THUMB_UP = (-14.0, 14.0, 4.0, 0.0)  # beside the palm, as in thumbs-up
_THUMB_ALONG = (12.0, 10.0, 14.0, 8.0)  # against the index finger
_THUMB_ACROSS = (38.0, -4.0, 44.0, 30.0)  # over the palm, as in counting four
_THUMB_OVER = (35.0, -8.0, 42.0, 36.0)  # on the folded fingers
_THUMB_OPPOSED = (18.0, -24.0, 20.0, 18.0)

# finger and thumb when their pads touch: (round, flat) pinch for index, middle, pinky, ring
_PINCH = (
    (((47, 0, 62, 34), (24, -19, 22, 26)), ((52, 1, 44, 13), (28, -18, 23, 6))),
    (((50, 1, 63, 35), (31, -17, 27, 28)), ((55, 6, 47, 15), (33, -14, 29, 8))),
    (((45, 2, 59, 34), (44, -8, 39, 35)), ((51, 6, 43, 14), (44, -8, 39, 17))),
    (((47, 0, 62, 35), (37, -15, 32, 31)), ((55, 6, 46, 14), (38, -13, 34, 12))),
)


def sample(rng: np.random.Generator, axes: Axes, capsules: Capsules, gesture: bool = False) -> np.ndarray:
    """One random pose: absolute axis-angle (15, 3); with `gesture` one that people show to a camera.

    A family is drawn first; poses in which fingers intersect are drawn anew within it, so that closed gestures (fists)
    stay as frequent as open ones. After a dozen tries the pose with the least overlap is taken.
    """
    family = _gesture if gesture else _FAMILIES[rng.choice(len(_FAMILIES), p=_SHARES)]
    best, least = None, np.inf
    for _ in range(_TRIES):
        angles = np.clip(family(rng) + _noise(rng), LOWEST, HIGHEST)
        pose = to_axis_angle(angles, axes)
        depth = capsules.depth(pose)
        if depth < least:
            best, least = pose, depth
        if depth <= _DEEPEST:
            break
    assert best is not None
    return best


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Small independent variation, degrees."""
    return rng.normal(0, [4.0, 2.5, 4.0, 3.5], (5, 4)) * np.where(np.arange(5) == 4, 1.4, 1.0)[:, None]


def _raised_and_folded(rng: np.random.Generator) -> np.ndarray:
    """Counting, pointing, victory, horns...: every finger is up or folded, the thumb does anything."""
    up = rng.random(4) < 0.52
    pose = _with_fingers_up(rng, up)
    pose[4] = _thumb_beside(rng, up)
    return pose + _thumb_noise(rng)


def _gesture(rng: np.random.Generator) -> np.ndarray:
    """Thumbs up or down, pointing, victory, horns, calling...: few fingers up, the thumb mostly away from them."""
    up = _GESTURES[rng.choice(len(_GESTURES), p=_GESTURE_SHARES)]
    pose = _with_fingers_up(rng, up)
    away = rng.random() < 0.65
    pose[4] = (_THUMB_OUT, _THUMB_UP)[rng.integers(2)] if away else _thumb_beside(rng, up)
    return pose + _thumb_noise(rng)


def _with_fingers_up(rng: np.random.Generator, up: np.ndarray) -> np.ndarray:
    """Some fingers up, the others folded; the thumb at rest."""
    pose = np.zeros((5, 4))
    fan = rng.uniform(-0.3, 1.6)
    knuckle = rng.normal(44 + 10 * (~up).sum(), 13)  # the more fingers fold, the tighter
    curl = rng.normal(96, 8)
    for finger in range(4):
        beside = sum(not up[n] for n in _neighbours(finger))
        if not up[finger]:
            pull = 4.0 * (2 - beside)  # beside a raised finger the knuckle cannot fold as far
            middle = curl + rng.normal(0, 6)
            bend = knuckle - pull + rng.normal(0, 9)
            pose[finger] = bend, 0.6 * fan * _FAN[finger], middle, middle * _coupling(rng, 0.36)
        elif rng.random() < 0.08:  # up at the knuckle, hooked beyond
            middle = rng.uniform(35, 95)
            pose[finger] = rng.normal(14, 10), 0.6 * fan * _FAN[finger], middle, middle * _coupling(rng, 0.45)
        else:
            bent = max(0.0, rng.normal(2, 6))
            pose[finger] = rng.normal(6, 8) + 5 * beside, fan * _FAN[finger], bent, 0.4 * bent
    return pose


def _thumb_beside(rng: np.random.Generator, up: np.ndarray) -> np.ndarray:
    """A thumb that goes with fingers up or folded: free, over the palm, or on one of the folded fingers."""
    folded = np.flatnonzero(~up)
    on_finger = 0.42 if len(folded) else 0.0
    if rng.random() < on_finger:
        rounded, flat = (np.array(pair[1], float) for pair in _PINCH[rng.choice(folded)])
        rest = flat + rng.uniform(-0.3, 1.5) * (rounded - flat)
        return rest + rng.normal([0, 3, 4, 0], [5, 8, 10, 14])
    return np.array((_THUMB_OUT, _THUMB_UP, _THUMB_ACROSS)[rng.choice(3, p=[0.47, 0.28, 0.25])])


def _open(rng: np.random.Generator) -> np.ndarray:
    """A flat hand, fingers together to widely spread."""
    pose = np.zeros((5, 4))
    fan, lift = rng.uniform(-0.5, 1.6), rng.normal(4, 9)
    curl = np.abs(rng.normal(0, 9))
    pose[:4, 0], pose[:4, 1] = lift + rng.normal(0, 4, 4), fan * _FAN
    pose[:4, 2] = curl + rng.normal(2, 4, 4)
    pose[:4, 3] = 0.5 * pose[:4, 2]
    if rng.random() < 0.12:  # fingers part between middle and ring
        pose[:4, 1] = [-3.0, -8.0, 2.0, 7.0]
    pose[4] = _THUMBS_FREE[rng.integers(len(_THUMBS_FREE))]
    return pose + _thumb_noise(rng)


def _curl(rng: np.random.Generator) -> np.ndarray:
    """From relaxed to a fist, all fingers alike, a little more towards the pinky."""
    pose = np.zeros((5, 4))
    curl = rng.uniform(0.05, 1.0) + rng.normal(0.03, 0.06) * np.array([-1.5, -0.5, 1.5, 0.5])
    lead = rng.normal(0, 12)  # knuckles before or after the middle joints
    pose[:4, 0], pose[:4, 2] = 78 * curl - lead, 104 * curl + lead
    pose[:4, 1] = _FAN * rng.uniform(-0.2, 0.9) * (1 - np.clip(curl, 0, 1))
    pose[:4, 3] = pose[:4, 2] * _coupling(rng, 0.52)
    mix, closed = curl.mean(), np.array((_THUMB_OVER, _THUMB_ALONG, _THUMB_OVER)[rng.integers(3)])
    free = np.array(_THUMBS_FREE[rng.integers(len(_THUMBS_FREE))])
    pose[4] = mix * closed + (1 - mix) * free if rng.random() < 0.7 else free
    return pose + _thumb_noise(rng)


def _grasp(rng: np.random.Generator) -> np.ndarray:
    """Round something: bend shared along the finger, thumb opposite; spread for balls, together for handles."""
    pose = np.zeros((5, 4))
    curl = rng.uniform(0.15, 0.9)
    ball = rng.uniform(-0.2, 1.1)
    slope = rng.normal(0, 0.12) * np.array([-1.5, -0.5, 1.5, 0.5])
    finger = np.clip(curl + slope + rng.normal(0, 0.05, 4), 0.02, 1.0)
    pose[:4, 0] = rng.uniform(55, 85) * finger
    pose[:4, 1] = ball * _FAN
    pose[:4, 2] = rng.uniform(65, 100) * finger
    pose[:4, 3] = pose[:4, 2] * _coupling(rng, 0.55)
    reach = np.array([rng.normal(0, 9), rng.normal(0, 9), 22 * (curl - 0.4), 30 * (curl - 0.4)])
    pose[4] = _THUMB_OPPOSED + reach
    return pose + _thumb_noise(rng)


def _pinch(rng: np.random.Generator) -> np.ndarray:
    """Thumb and one fingertip near or touching (OK, holding a thread); the other fingers up, along or folded."""
    finger = rng.choice(4, p=[0.55, 0.2, 0.1, 0.15])
    rounded, flat = (np.array(pair, float) for pair in _PINCH[finger])
    touch = flat + rng.uniform(-0.2, 1.2) * (rounded - flat)
    others = rng.choice(4, p=[0.35, 0.25, 0.15, 0.25])
    pose = np.zeros((5, 4))
    alike = (rng.uniform(0, 0.18), rng.uniform(0.25, 0.65), rng.uniform(0.8, 1.0), 0.0)[others]
    curl = np.full(4, alike) if others < 3 else rng.choice([0.05, 0.9], 4)
    pose[:4, 0] = 70 * curl + rng.normal(0, 7, 4)
    pose[:4, 2] = 98 * curl + rng.normal(0, 7, 4)
    pose[:4, 3] = pose[:4, 2] * _coupling(rng, 0.5)
    pose[:4, 1] = _FAN * rng.uniform(-0.2, 1.2) * (1 - curl)
    pose[finger], pose[4] = touch
    apart = max(0.0, rng.normal(0, 12))  # not always quite closed
    pose[finger, 0] -= 0.7 * apart
    pose[4, 0] -= 0.5 * apart
    return pose


def _hook(rng: np.random.Generator) -> np.ndarray:
    """Claw (straight knuckles, bent fingers) or table top (bent knuckles, straight fingers), all fingers."""
    pose = np.zeros((5, 4))
    if rng.random() < 0.5:
        pose[:4, 0], pose[:4, 2] = rng.normal(5, 14), rng.normal(75, 22)
        pose[:4, 3] = pose[:4, 2] * _coupling(rng, 0.6)
    else:
        pose[:4, 0], pose[:4, 2] = rng.normal(60, 15), abs(rng.normal(8, 12))
        pose[:4, 3] = pose[:4, 2] * 0.5
    pose[:4, 1] = _FAN * rng.uniform(-0.3, 0.8)
    pose[:4] += rng.normal(0, 4, (4, 4)) * [1, 0.5, 1, 1]
    pose[4] = _THUMBS_FREE[rng.integers(len(_THUMBS_FREE))]
    return pose + _thumb_noise(rng)


def _free(rng: np.random.Generator) -> np.ndarray:
    """Every finger its own curl, neighbours alike."""
    shared = rng.uniform(0, 0.9)
    own = np.clip(shared + rng.normal(0, 0.33, 4), 0, 1)
    own[_RING] = 0.5 * own[_RING] + 0.25 * (own[_MIDDLE] + own[_PINKY])
    lead = rng.normal(0, 16, 4)
    pose = np.zeros((5, 4))
    pose[:4, 0], pose[:4, 2] = 75 * own - lead, 100 * own + lead
    pose[:4, 3] = pose[:4, 2] * _coupling(rng, 0.52)
    pose[:4, 1] = _FAN * rng.uniform(-0.4, 1.3) * (1 - 0.7 * own)
    thumb = rng.uniform(0, 1)
    pose[4] = (1 - thumb) * np.array(_THUMB_OUT) + thumb * np.array(_THUMBS_CLOSED[rng.integers(3)])
    return pose + 1.5 * _thumb_noise(rng)


def _coupling(rng: np.random.Generator, mean: float) -> float:
    """Flexion of the last joint per flexion of the middle one."""
    return float(np.clip(rng.normal(mean, 0.13), 0.0, 0.85))


def _thumb_noise(rng: np.random.Generator) -> np.ndarray:
    noise = np.zeros((5, 4))
    noise[4] = rng.normal(0, [6, 6, 7, 10])
    return noise


def _neighbours(finger: int) -> tuple[int, ...]:
    return ((1,), (0, _RING), (_RING,), (_MIDDLE, _PINKY))[finger]


_THUMBS_FREE = (_THUMB_OUT, _THUMB_UP, _THUMB_ALONG, _THUMB_OUT, _THUMB_OPPOSED)
_THUMBS_CLOSED = (_THUMB_ACROSS, _THUMB_OVER, _THUMB_OPPOSED)
_GESTURES = np.array(  # fingers up: index, middle, pinky, ring
    [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1]], bool
)
_GESTURE_SHARES = (0.36, 0.18, 0.13, 0.11, 0.07, 0.08, 0.07)
_FAMILIES: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (
    _raised_and_folded,
    _open,
    _curl,
    _grasp,
    _pinch,
    _hook,
    _free,
)
_SHARES = (0.40, 0.13, 0.10, 0.11, 0.13, 0.06, 0.07)
