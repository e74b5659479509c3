"""The default hand detector: MediaPipe's networks, first palms in the whole image, then 21 landmarks of each hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.data.crop import box_problem
from fasthamer.detect.detections import Detections
from fasthamer.detect.inference import PALM_SIZE, Networks, onnx_networks
from fasthamer.detect.landmark_reader import PRESENT, LandmarkReader, Landmarks
from fasthamer.detect.palms import Palms, decode, join, weighted_nms, window_affine, windows
from fasthamer.detect.regions import hand_rotation, palm_region
from fasthamer.detect.sampling import as_input, sample

# One hand found twice: the landmarks' mean distance is below this share of its size, or (a part of a large hand, seen
# in a tile as a small hand) this share of a box lies in one twice as large. Two clasped hands stay two.
CLOSE, NESTED = 0.35, 0.7
MOST_TILES = 8
BATCH = 8  # windows at once


class MediaPipeDetector:
    """Finds any number of hands.

    Args:
        networks: of `fasthamer.detect.inference`; None is the shipped lite pair in ONNX Runtime.
        threads: of the CPU, for the shipped pair; 0 = the runtime's choice.
        tiles: also looks at tiles x tiles overlapping parts of the image, for hands that are small in it.
        most: number of palms, the best first, at which landmarks are read.
        score: a palm has at least this score.
        refine: reads landmarks twice; the second time is more exact.

    Raises:
        ValueError: a setting out of its range.
        FileNotFoundError: the shipped networks are missing.
    """

    def __init__(
        self,
        networks: Networks | None = None,
        threads: int = 0,
        tiles: int = 1,
        most: int = 100,
        score: float = 0.5,
        refine: bool = True,
    ) -> None:
        if not 1 <= tiles <= MOST_TILES:
            raise ValueError(f"tiles is {tiles}; expected 1 (the whole image only) to {MOST_TILES}")
        if most < 1:
            raise ValueError(f"most is {most}; expected 1 or more hands")
        if not 0 < score < 1:
            raise ValueError(f"score is {score}; expected a probability between 0 and 1")
        self.networks = onnx_networks(threads) if networks is None else networks
        self.reader = LandmarkReader(self.networks.landmark, refine)
        self.tiles, self.most, self.score = tiles, most, score

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """The hands of an image (H, W, 3) uint8 RGB, the best first.

        Raises:
            ImportError, ValueError: onnxruntime or the networks' files cannot be used.
        """
        palms = self.palms(image)
        regions = [palm_region(box, keypoints) for box, keypoints, _ in zip(*palms, strict=True)]
        hands = self.reader.in_regions(image, regions)
        hands = hands.take(hands.presence >= PRESENT)
        hands = hands.take(distinct(hands, image.shape[1], image.shape[0]))
        boxes = tight_boxes(hands.points)
        rotation = hand_rotation(hands.points)
        return Detections(boxes, hands.right > 0.5, hands.presence, hands.points, rotation, hands.world)

    def palms(self, image: NDArray[np.uint8]) -> Palms:
        """The palms of an image (H, W, 3), before landmarks are read at them."""
        affines = [window_affine(window) for window in windows(image.shape[1], image.shape[0], self.tiles)]
        found = []
        for first in range(0, len(affines), BATCH):
            batch = affines[first : first + BATCH]
            crops = [sample(image, affine, PALM_SIZE, repeat=False) for affine in batch]
            values, logits = self.networks.palm(as_input(crops))
            found += [decode(*each, self.score) for each in zip(values, logits, batch, strict=True)]
        return weighted_nms(join(found), self.most)

    def landmarks(self, image: NDArray[np.uint8], boxes: ArrayLike, rotation: ArrayLike | None = None) -> Landmarks:
        """Landmarks of hands whose boxes are known; see `LandmarkReader.in_boxes`."""
        return self.reader.in_boxes(image, boxes, rotation)


def tight_boxes(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) boxes around points (N, 21, 2)."""
    return np.concatenate((points.min(1), points.max(1)), 1)


def distinct(hands: Landmarks, width: int, height: int) -> NDArray[np.int64]:
    """Indexes of the hands in the image, each found once, by falling presence."""
    boxes = tight_boxes(hands.points)
    kept: list[int] = []
    for hand in np.argsort(-hands.presence, kind="stable").tolist():
        if box_problem(boxes[hand, :2], boxes[hand, 2:], width, height):
            continue
        if not (_close(hands.points[hand], hands.points[kept]) | _nested(boxes[hand], boxes[kept])).any():
            kept.append(hand)
    return np.array(kept, np.int64)


def _close(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether landmarks (21, 2) are those of another hand (N, 21, 2), relative to the larger of the two."""
    size = np.maximum(np.ptp(points, axis=0).max(), np.ptp(others, axis=1).max(1))
    return np.linalg.norm(others - points, axis=-1).mean(1) < CLOSE * size


def _nested(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether of two boxes, one twice as large as the other, the large one contains the small one."""
    common = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(min=0).prod(1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(1)
    small, large = np.minimum(area, areas), np.maximum(area, areas)
    return (small < large / 2) & (common > NESTED * small)
