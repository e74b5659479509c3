"""One hand's shape settled and its motion smoothed, over the frames of its track."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fasthamer.camera import perspective_translation, project_pixels
from fasthamer.data.crop import mirror_points
from fasthamer.hand.conventions import OPENPOSE_BONES
from fasthamer.hand.posing import Poser
from fasthamer.predict import Hands, ManoArrays
from fasthamer.types import N_JOINTS
from fasthamer.video.one_euro import OneEuro

# Cutoff at rest in Hz, and slope in Hz for each unit of speed.
POINTS = 1.0, 40.0  # vertices and joints in the hand frame; metres a second
PLACE = 1.0, 40.0  # the hand's origin across the view; metres a second at its distance
DEPTH = 0.4, 4.0  # the logarithm of its distance; shares of the distance a second
MIRROR = np.array([-1.0, 1.0, 1.0])
_PARENTS, _CHILDREN = np.array(OPENPOSE_BONES).T


class HandSmoother:
    """Of one track and one model.

    The shape is the mean of MANO's betas over the track's frames, in each frame's pose; for a model without them only
    the size is, the length of all bones. The hand's distance follows its size, so that its image does not change. Then
    a One-Euro filter smooths joints and vertices together, others the place in the image and the distance.

    Args:
        poser: the model's hand; None for a model without MANO's parameters.
    """

    def __init__(self, poser: Poser | None) -> None:
        self.poser = poser
        self._points, self._place, self._depth = OneEuro(*POINTS), OneEuro(*PLACE), OneEuro(*DEPTH)
        self._frames, self._mean = 0, np.zeros(())

    def __call__(self, hand: Hands, time: float) -> Hands:
        """The hand of the next frame: `Hands` with N = 1, without MANO's parameters (`Hands.fit_mano` gives them)."""
        settled = self._settled(hand)  # (799, 3)
        matrix = hand.camera.matrix
        place = perspective_translation(settled[None, :N_JOINTS], hand.keypoints_2d, matrix)[0]
        points = self._points(settled, time).astype(np.float32)
        distance = float(np.exp(self._depth(np.log([[place[2]]]), time))[0, 0])
        across = self._place(place[None, :2] / place[2], time, unit=float(place[2]))
        translation = distance * np.append(across, 1.0)
        joints, vertices = points[None, :N_JOINTS], points[None, N_JOINTS:]
        pixels = project_pixels(joints + translation, matrix)
        return replace(
            hand, vertices=vertices, joints=joints, keypoints_2d=pixels, translation=translation[None], mano=None
        )

    def _settled(self, hand: Hands) -> NDArray[np.float64]:
        """(799, 3) metres, joints and vertices of the hand with the track's mean shape."""
        if self.poser is None or hand.mano is None:
            size = bone_length(hand.joints[0])
            return self._mean_with(size) / size * np.concatenate((hand.joints[0], hand.vertices[0]))
        mano: ManoArrays = hand.mano.take(0)
        rotations = np.concatenate((mano.global_orient.reshape(1, 3, 3), mano.hand_pose))
        if not hand.right[0]:
            rotations = rotations * np.outer(MIRROR, MIRROR)
        vertices, joints = self.poser(rotations, self._mean_with(mano.betas))
        points = np.concatenate((joints, vertices)).astype(np.float64)
        return points if hand.right[0] else mirror_points(points)

    def _mean_with(self, value: NDArray | float) -> NDArray[np.float64]:
        """The mean over the track's frames, with this one."""
        self._frames += 1
        self._mean = self._mean + (np.asarray(value, np.float64) - self._mean) / self._frames
        return self._mean


def bone_length(joints: NDArray) -> float:
    """Metres, all bones of a hand (21, 3) together."""
    return float(np.linalg.norm(joints[_CHILDREN] - joints[_PARENTS], axis=-1).sum())
