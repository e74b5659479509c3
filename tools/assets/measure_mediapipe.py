"""Measure how MediaPipe's landmarks differ from our joints, on synthetic images, where both are known.

    python tools/assets/measure_mediapipe.py

Writes the medians to teachers/mediapipe_offsets.py. Takes some minutes on one core; the result is the same each time,
up to rounding. Each hand is looked at as the teacher does: the lite network finds the square for the full one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.detect.inference import torch_networks
from fasthamer.detect.landmark_reader import LandmarkReader
from fasthamer.detect.regions import landmark_region
from fasthamer.files.atomic import write_text
from fasthamer.hand.mano import load_hand
from fasthamer.teachers.mediapipe_frame import joint_offsets, keypoint_offsets

FILE = Path(__file__).resolve().parents[2] / "teachers" / "mediapipe_offsets.py"
SEED = 20_241_126
SIZE = 320  # pixels of an image; the networks see about two thirds of it
PRESENCE = 0.9  # hands that the network finds less probable are left out


class Pairs(NamedTuple):
    """Landmarks and joints of the same N right hands."""

    points: NDArray[np.float64]  # (N, 21, 2) MediaPipe's, pixels
    world: NDArray[np.float64]  # (N, 21, 3) MediaPipe's, metres
    keypoints: NDArray[np.float64]  # (N, 21, 2) ours, pixels
    joints: NDArray[np.float64]  # (N, 21, 3) ours, metres


def measured(count: int) -> Pairs:
    """The hands among `count` synthetic images that the full network finds, as right ones."""
    images = SyntheticDataset(load_hand("embedded"), count, SEED, SIZE, scale=0.0, shift=0.0)
    lite, full = (LandmarkReader(torch_networks(kind, "cpu").landmark, refine=False) for kind in ("lite", "full"))
    pairs = []
    for index in tqdm(range(count), mininterval=2):
        item = images[(0, index)]
        image, keypoints = item.image.permute(1, 2, 0).numpy(), (item.keypoints_2d[:, :2].double().numpy() + 0.5) * SIZE
        first = lite.in_regions(image, [landmark_region(keypoints)])
        found = full.in_regions(image, [landmark_region(first.points[0])])
        if found.presence[0] > PRESENCE and found.right[0] > 0.5:
            pairs.append(Pairs(found.points[0], found.world[0], keypoints, item.joints[:, :3].double().numpy()))
    return Pairs(*(np.stack(column) for column in zip(*pairs, strict=True)))


def module(keypoints: NDArray[np.float64], joints: NDArray[np.float64], count: int, hands: int) -> str:
    """The text of the module of constants."""

    def rows(values: NDArray[np.float64]) -> str:
        return "\n".join(
            f"        [{', '.join(f'{number:.3f}' for number in row)}]," for row in np.round(values, 3) + 0.0
        )

    return f'''"""MediaPipe's landmarks minus our joints: medians of {hands} synthetic hands, in palm lengths.

    python tools/assets/measure_mediapipe.py --count {count}
"""

import numpy as np

KEYPOINTS = np.array(  # (21, 2) in the image: along, across; see `mediapipe_frame.image_frame`
    [
{rows(keypoints)}
    ]
)
JOINTS = np.array(  # (21, 3) from the wrist: along, across, out of the palm; see `mediapipe_frame.palm_frame`
    [
{rows(joints)}
    ]
)
'''


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=512, help="synthetic images (512)")
    parser.add_argument("--out", type=Path, default=FILE, help="the module to write; default: the package's")
    args = parser.parse_args(argv)
    pairs = measured(args.count)
    keypoints = np.median(keypoint_offsets(pairs.points, pairs.keypoints), axis=0)
    joints = np.median(joint_offsets(pairs.world, pairs.joints), axis=0)
    write_text(args.out, module(keypoints, joints, args.count, len(pairs.points)))
    print(f"{args.out}: {len(pairs.points)} of {args.count} hands")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
