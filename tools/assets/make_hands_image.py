"""Make the image at the top of the README: rendered hands, their predicted meshes over the image, and those turned.

python tools/assets/make_hands_image.py --out docs/hands.jpg

The hands are drawn from a seed that no training used; one that the detector does not find is left out, none is chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.images import write_image
from fasthamer.hand.mano import load_hand
from fasthamer.predict import HandMesh, Hands
from fasthamer.render.overlay import sheet, turned_view

SEED, SIZE, HANDS = 2026, 256, 7


def columns(model: HandMesh) -> Iterator[list[NDArray[np.uint8]]]:
    """Of each rendered image in which one hand is found: the image, the overlay, the mesh from the side."""
    images = SyntheticDataset(load_hand("embedded"), 1000, SEED, SIZE, 0.0, 0.0, "upright", distribution="gestures")
    for index in count():
        image = images[(0, index)].image.permute(1, 2, 0).numpy()
        hands = model(image)
        if len(hands) == 1:
            yield [image, hands.draw(image), _side(hands)]


def _side(hands: Hands) -> NDArray[np.uint8]:
    return turned_view(hands[0].vertices, hands[0].faces, 90.0, SIZE)


def main(argv: list[str] | None = None) -> int:
    """0 done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/hands.jpg"))
    parser.add_argument("--model", default="mobilenetv3_l")
    arguments = parser.parse_args(argv)
    found = list(islice(columns(HandMesh(arguments.model)), HANDS))
    write_image(arguments.out, sheet([list(row) for row in zip(*found, strict=True)], cell=150))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
