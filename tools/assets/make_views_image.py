"""Make the image of docs/predict.md: the views of one hand, and its errors after the alignment of PA-MPVPE.

python tools/assets/make_views_image.py --out docs/views.jpg

The hand is the first of the README's that is found, none is chosen.
"""

from __future__ import annotations

import argparse
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.images import write_image
from fasthamer.hand.mano import load_hand
from fasthamer.metrics.alignment import procrustes
from fasthamer.predict import HandMesh
from fasthamer.predict.hands import HandResult, Hands
from fasthamer.render.heat_map import LEGEND, error_view
from fasthamer.render.mesh import draw_wireframe
from fasthamer.render.overlay import PAPER, sheet, skeletons_view, turned_view
from fasthamer.tools.assets.make_hands_image import SEED
from fasthamer.types import Batch

SIZE = 512  # pixels, of the image and of each view
LIMIT_MM = 20.0  # of the error's colours
NAMES = (
    ("image", "mesh", "skeleton", "wireframe"),
    ("from the side", "from above", "error of each vertex", "skeleton and truth"),
)


def first_found(model: HandMesh) -> tuple[NDArray[np.uint8], Hands, Batch]:
    """The first rendered image in which one hand is found, the hand, and its labels."""
    samples = SyntheticDataset(load_hand("embedded"), 1000, SEED, SIZE, 0.0, 0.0, "upright", distribution="gestures")
    for index in count():
        sample = samples[(0, index)]
        image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
        if len(hands := model(image)) == 1:
            return image, hands, sample
    raise AssertionError("a dataset ends with an IndexError")


def views(image: NDArray[np.uint8], hands: Hands, truth: Batch) -> NDArray[np.uint8]:
    """All views of a hand, four in a row, with their names."""
    hand = hands[0]
    true_joints = truth.joints[:, :3].numpy()
    above = [image, hands.draw(image), hands.draw(image, skeleton=True), _wireframe(image, hand)]
    below = [
        turned_view(hand.vertices, hand.faces, 90.0, SIZE),
        turned_view(hand.vertices, hand.faces, 0.0, SIZE, tilt=90.0),
        _errors(hand, truth),
        skeletons_view(_aligned(hand.joints, true_joints), true_joints, size=SIZE),
    ]
    return sheet([above, below], captions=NAMES, cell=232)


def _wireframe(image: NDArray[np.uint8], hand: HandResult) -> NDArray[np.uint8]:
    camera = hand.camera
    return draw_wireframe(image, hand.vertices_camera, hand.faces, (camera.fx, camera.fy), (camera.cx, camera.cy))


def _errors(hand: HandResult, truth: Batch) -> NDArray[np.uint8]:
    """Square, with the legend."""
    true = truth.vertices.numpy()
    errors = 1000 * np.linalg.norm(_aligned(hand.vertices, true) - true, axis=1)
    view = error_view(hand.vertices, hand.faces, errors, LIMIT_MM, size=SIZE - LEGEND)
    page = np.full((SIZE, SIZE, 3), PAPER, np.uint8)
    page[LEGEND // 2 : -LEGEND // 2] = view
    return page


def _aligned(points: NDArray, true: NDArray) -> NDArray[np.float64]:
    return procrustes(points[None], true[None])[0]


def main(argv: list[str] | None = None) -> int:
    """0 done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/views.jpg"))
    parser.add_argument("--model", default="mobilenetv3_l")
    arguments = parser.parse_args(argv)
    write_image(arguments.out, views(*first_found(HandMesh(arguments.model))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
