"""Hands followed from frame to frame: the landmarks of the last frame give the square in which the next are read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fasthamer.detect.detections import Detections, HandDetector
from fasthamer.detect.detector import MediaPipeDetector, distinct, tight_boxes
from fasthamer.detect.inference import onnx_networks
from fasthamer.detect.landmark_reader import PRESENT, LandmarkReader, Landmarks
from fasthamer.detect.regions import hand_rotation, landmark_region

# A track and an observation differ by their landmarks' mean distance, in hand sizes, and by:
OTHER_SIDE = 0.5  # one is a left hand, the other a right one
NO_OVERLAP = 0.3  # their boxes do not overlap at all
TOO_DIFFERENT = 1.0  # the sum above which they are not the same hand
NEW_SPEED = 0.5  # weight of the last two frames in a track's velocity


class Observed(NamedTuple):
    """What the networks found in one frame, each hand once: all that tracks are computed from."""

    hands: Landmarks
    detected: bool  # whether the detector looked at the whole image


class Track:
    """One hand over time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.frames = 0  # in which it was seen
        self.right = 0.0  # mean over them of the probability that it is a right hand
        self.velocity = np.zeros(2)  # pixels a second
        self.points: NDArray[np.float64]  # (21, 2) pixels, where it was last seen
        self.world: NDArray[np.float64]  # (21, 3) metres, see `Detections.world`
        self.presence = self.time = 0.0

    def see(self, hands: Landmarks, index: int, time: float) -> None:
        """The hand's place in a new frame."""
        points = hands.points[index]
        if self.frames and time > self.time:
            velocity = (points - self.points).mean(0) / (time - self.time)
            self.velocity = velocity if self.frames == 1 else self.velocity + NEW_SPEED * (velocity - self.velocity)
        self.frames += 1
        self.right += (float(hands.right[index]) - self.right) / self.frames
        self.points, self.presence, self.world = points, float(hands.presence[index]), hands.world[index]
        self.time = time

    def predicted(self, time: float) -> NDArray[np.float64]:
        """(21, 2) pixels: the landmarks, moved on with the same velocity."""
        return self.points + self.velocity * (time - self.time)


class HandTracker:
    """Follows hands through the frames of a video.

    Landmarks are read around each hand's place in the last frame. The detector looks at the whole image only in the
    first frame, each `every` frames, and while a hand is lost or fewer than `most` are there. A hand that is found
    twice counts once. The Hungarian method gives hands to tracks, so that two that cross keep their numbers.

    Args:
        detector: finds hands in a whole image; None is `MediaPipeDetector`.
        most: number of hands.
        every: frames between two detections while all hands are there.
        patience: seconds for which a hand that is not seen keeps its number.
        threads: of the CPU, for the landmark network and the default detector; 0 = the runtime's choice.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        detector: HandDetector | None = None,
        most: int = 2,
        every: int = 30,
        patience: float = 1.0,
        threads: int = 0,
    ) -> None:
        if most < 1 or every < 1:
            raise ValueError(f"most is {most} and every is {every}; expected 1 or more hands, and 1 or more frames")
        if not patience >= 0:
            raise ValueError(f"patience is {patience}; expected seconds, 0 or more")
        if detector is None:
            detector = MediaPipeDetector(threads=threads)
        networks = detector.networks if isinstance(detector, MediaPipeDetector) else onnx_networks(threads)
        self.detector, self.reader = detector, LandmarkReader(networks.landmark, refine=False)
        self.most, self.every, self.patience = most, every, patience
        self.tracks: list[Track] = []  # those seen in the last frame, and those that are lost but may come back
        self.ids = np.zeros(0, np.int64)  # (N,) the numbers of the hands of the last frame
        self.detected = False  # whether the detector looked at the last frame
        self._next, self._since_detection = 1, every

    def __call__(self, image: NDArray[np.uint8], time: float) -> Detections:
        """The hands of the next frame, in the order of `ids`, with their settled sides.

        Args:
            image: (H, W, 3) uint8 RGB.
            time: seconds, not before the last frame's.
        """
        return self.associate(self.observe(image, time), time, image.shape[1], image.shape[0])

    def observe(self, image: NDArray[np.uint8], time: float) -> Observed:
        """What the networks find in the next frame; does not change the tracks."""
        read = self.reader.in_regions(image, [landmark_region(track.predicted(time)) for track in self.tracks])
        hands = _each_once(read.take(read.presence >= PRESENT), image)
        detect = len(hands.points) < self.most or self._since_detection + 1 >= self.every
        if detect:
            both = zip(hands, self._detected(image), strict=True)
            hands = _each_once(Landmarks(*map(np.concatenate, both)), image)
        return Observed(hands, detect)

    def associate(self, observed: Observed, time: float, width: int, height: int) -> Detections:
        """Gives the observations of a frame of `width` x `height` pixels to the tracks; starts and ends tracks."""
        hands = observed.hands
        self.detected = observed.detected
        self._since_detection = 0 if self.detected else self._since_detection + 1
        given = self._assigned(hands, time)
        for index, track in given.items():
            track.see(hands, index, time)
        seen = list(given.values())
        self.tracks = [each for each in self.tracks if each in seen or self._may_return(each, time, width, height)]
        for index in range(len(hands.points)):  # the surest first
            if index not in given and len(self.tracks) < self.most:
                track = Track(self._next)
                track.see(hands, index, time)
                self._next += 1
                self.tracks.append(track)
                seen.append(track)
        seen.sort(key=lambda each: each.number)
        self.ids = np.array([each.number for each in seen], np.int64)
        return _detections(seen)

    def _detected(self, image: NDArray[np.uint8]) -> Landmarks:
        """The hands in the whole image; landmarks are read in the boxes of a detector that gives none."""
        found = self.detector(image)
        if found.landmarks is None:
            read = self.reader.in_boxes(image, found.boxes, found.rotation)
            read = read._replace(right=found.right.astype(np.float64))
            return read.take(read.presence >= PRESENT)
        world = np.zeros((len(found.boxes), 21, 3)) if found.world is None else found.world
        return Landmarks(found.landmarks, found.score, found.right.astype(np.float64), world)

    def _assigned(self, hands: Landmarks, time: float) -> dict[int, Track]:
        """The track of each observation that has one."""
        if not self.tracks or not len(hands.points):
            return {}
        costs = np.stack([_difference(track, hands, time) for track in self.tracks])
        pairs = zip(*linear_sum_assignment(np.minimum(costs, 2 * TOO_DIFFERENT)), strict=True)
        return {int(index): self.tracks[row] for row, index in pairs if costs[row, index] <= TOO_DIFFERENT}

    def _may_return(self, track: Track, time: float, width: int, height: int) -> bool:
        """Whether a hand that is not seen is only hidden: it has not moved out of the image, and not for long."""
        x, y = track.predicted(time).mean(0).tolist()
        return 0 <= x < width and 0 <= y < height and time - track.time <= self.patience


def _detections(tracks: list[Track]) -> Detections:
    points = np.array([track.points for track in tracks]).reshape(-1, 21, 2)
    world = np.array([track.world for track in tracks]).reshape(-1, 21, 3)
    right, score = np.array([track.right > 0.5 for track in tracks], bool), np.array([each.presence for each in tracks])
    return Detections(tight_boxes(points), right, score, points, hand_rotation(points), world)


def _each_once(hands: Landmarks, image: NDArray[np.uint8]) -> Landmarks:
    """By falling presence; those outside of the image are left out."""
    return hands.take(distinct(hands, image.shape[1], image.shape[0]))


def _difference(track: Track, hands: Landmarks, time: float) -> NDArray[np.float64]:
    """(N,) see the constants at the top."""
    predicted = track.predicted(time)
    distance = np.linalg.norm(hands.points - predicted, axis=-1).mean(1) / np.ptp(predicted, axis=0).max()
    box, boxes = tight_boxes(predicted[None])[0], tight_boxes(hands.points)
    common = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(min=0).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common
    return distance + OTHER_SIDE * np.abs(track.right - hands.right) + NO_OVERLAP * (1 - common / union)
