"""`HandVideo`: hand models on consecutive frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.detect.detections import Detections
from fasthamer.hand.posing import Poser
from fasthamer.predict import Camera, HandMesh, Hands
from fasthamer.runtime.exported_model import ExportedModel
from fasthamer.video.smoothing import HandSmoother
from fasthamer.video.tracker import HandTracker, Observed

if TYPE_CHECKING:
    from torch import nn


class TrackedHands(NamedTuple):
    """The hands of one frame."""

    ids: NDArray[np.int64]  # (N,) of the tracks: a hand keeps its number through the video
    hands: list[Hands]  # of each model, N hands in the order of `ids`


class Computed(NamedTuple):
    """What the networks computed for one frame; everything else follows from it and the frames before."""

    observed: Observed
    hands: list[Hands]  # of each model, before smoothing


class HandVideo:
    """Hands of consecutive frames: tracked, their sides and shapes settled, their motion smoothed.

    Args:
        model: what `HandMesh` takes.
        compare: another model for the same hands.
        tracker: None is a `HandTracker` of two hands.
        smooth: whether shapes are settled and motion is smoothed (`fasthamer.video.smoothing`).
        camera: of all frames, see `HandMesh`.
        **options: of `HandMesh`, for both models: device, backend, threads, hand, checkpoint.

    Raises:
        FileNotFoundError, ValueError, KeyError, ImportError: as `HandMesh`.
    """

    def __init__(
        self,
        model: str | Path | nn.Module = "mobilenetv3_l",
        compare: str | Path | nn.Module | None = None,
        tracker: HandTracker | None = None,
        smooth: bool = True,
        camera: Camera | ArrayLike | None = None,
        **options: Any,
    ) -> None:
        sources = [model] if compare is None else [model, compare]
        self.names = [str(each) if isinstance(each, str | Path) else type(each).__name__ for each in sources]
        self.models = [HandMesh(each, detector=self._hands_of_this_frame, **options) for each in sources]
        self.tracker = HandTracker(threads=options.get("threads", 0)) if tracker is None else tracker
        self.smooth, self.camera = smooth, camera
        self._posers = [_poser(each) for each in self.models]
        self._found: Detections
        self._smoothers: dict[tuple[int, bool, int], HandSmoother] = {}

    def __call__(self, image: NDArray[np.uint8], time: float) -> TrackedHands:
        """The hands of the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the same size in all frames.
            time: seconds, not before the last frame's.
        """
        return self.follow(image, time)[0]

    def follow(
        self, image: NDArray[np.uint8], time: float, computed: Computed | None = None
    ) -> tuple[TrackedHands, Computed]:
        """As calling it; with what was computed for this frame in an earlier run, no network runs."""
        height, width = image.shape[:2]
        observed = self.tracker.observe(image, time) if computed is None else computed.observed
        self._found = self.tracker.associate(observed, time, width, height)
        hands = [model(image, camera=self.camera) for model in self.models] if computed is None else computed.hands
        smoothed = [self._smoothed(each, model, time) for model, each in enumerate(hands)] if self.smooth else hands
        return TrackedHands(self.tracker.ids, smoothed), Computed(observed, hands)

    def _smoothed(self, hands: Hands, model: int, time: float) -> Hands:
        """Each hand by its track's smoother; a hand that changes its side starts anew."""
        parts = []
        for index, (number, right) in enumerate(zip(self.tracker.ids.tolist(), hands.right.tolist(), strict=True)):
            smoother = self._smoothers.setdefault((number, right, model), HandSmoother(self._posers[model]))
            parts.append(smoother(hands[index : index + 1], time))
        if not parts:
            return hands
        return replace(
            hands,
            vertices=np.concatenate([each.vertices for each in parts]),
            joints=np.concatenate([each.joints for each in parts]),
            keypoints_2d=np.concatenate([each.keypoints_2d for each in parts]),
            translation=np.concatenate([each.translation for each in parts]),
            mano=None,
        )

    def _hands_of_this_frame(self, image: NDArray[np.uint8]) -> Detections:
        return self._found


def _poser(model: HandMesh) -> Poser | None:
    """Of the model's hand; None for an exported model, whose results have no parameters of MANO."""
    return None if isinstance(model.model, ExportedModel) else Poser.of(model.model.hand)  # type: ignore[arg-type]
