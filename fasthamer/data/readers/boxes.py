"""The square that is cropped around a hand (config key DATA.BOX)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fasthamer.data import crop
from fasthamer.files.images import read_image_size
from fasthamer.files.safe_npz import read_npz


class Boxes:
    """Chooses the boxes according to DATA.BOX.

    Args:
        choice: keypoints: around the labelled joints, see `crop.keypoint_box`; detector: the same, as what
            `crop.chosen_box` compares the detected ones with; image: the whole image, as HaMeR evaluates FreiHAND; or
            one of HaMeR's lists, such as ho3d_val.npz. Boxes of a list are already enlarged; here they are only
            expanded to the shape's aspect ratio.
        shape: one of `crop.BOX_SHAPES`. With upright every box turns with its hand where the keypoints are known.

    Raises:
        FileNotFoundError: no such list.
        ValueError: another choice, or a damaged list.
    """

    def __init__(self, choice: str, shape: str = "hamer") -> None:
        check_choice(choice)
        self.choice, self.shape = "keypoints" if choice == "detector" else choice, shape
        if self.choice in ("keypoints", "image"):
            return
        found = read_npz(Path(choice), {"imgname": (None,), "center": (None, 2), "scale": (None, 2)})
        if not len(found["imgname"]) == len(found["center"]) == len(found["scale"]) or (found["scale"] <= 0).any():
            raise ValueError(f"{choice}: every imgname needs a center and a scale above 0")
        self.centres, self.extents = found["center"], found["scale"]
        self.rows = {str(name): row for row, name in enumerate(found["imgname"])}

    def __call__(
        self, image: Path, name: str, keypoints: np.ndarray | None, corners: np.ndarray | None = None
    ) -> crop.Box:
        """The box of one hand.

        Args:
            image: the image file.
            name: the image's name in HaMeR's lists.
            keypoints: (21, 3) pixels and confidence; None: unknown.
            corners: (2, 2) pixels, of a box that is used instead of the keypoints' own. Neither: the whole image.

        Raises:
            ValueError: the list has no such image.
        """
        rotation = crop.shape_rotation(self.shape, keypoints)
        if self.choice not in ("keypoints", "image"):
            if name not in self.rows:
                raise ValueError(f"{self.choice} has no box for {name}: it is the list of another set")
            row = self.rows[name]
            return crop.Box(self.centres[row], crop.box_side(self.extents[row], self.shape), rotation)
        if self.choice == "keypoints" and corners is not None:
            return crop.keypoint_box(corners, self.shape)._replace(rotation=rotation)
        if self.choice == "keypoints" and keypoints is not None:
            return crop.hand_box(keypoints, self.shape)
        return crop.image_box(*read_image_size(image, upright=False), self.shape)._replace(rotation=rotation)


def check_choice(choice: str) -> None:
    """Whether DATA.BOX can be this.

    Raises:
        ValueError: it cannot.
    """
    if choice not in ("keypoints", "detector", "image") and not choice.endswith(".npz"):
        raise ValueError(f"DATA.BOX is {choice!r}, expected keypoints, detector, image or one of HaMeR's lists (.npz)")
