"""How the datasets order joints and where on the mesh they put fingertips.

Sources: HaMeR's MANO wrapper, FreiHAND's `utils/model.py`, HO-3D's `vis_HO3D.py`, manopth's `manolayer.py` (used by
DexYCB). The wrong tips alone cost 0.5 to 1.4 mm PA-MPJPE, measured on real FreiHAND meshes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # exported models run without torch
    from torch import Tensor

TIPS: dict[str, tuple[int, ...]] = {  # vertices of thumb, index, middle, ring, pinky
    "hamer": (744, 320, 443, 554, 671),
    "freihand": (744, 320, 443, 555, 672),
    "ho3d": (744, 333, 444, 555, 672),
    "dexycb": (745, 317, 444, 556, 673),
}
TIPS["manopth"] = TIPS["dexycb"]
LEFT_TIPS = dict.fromkeys(("dexycb", "manopth"), (745, 317, 445, 556, 673))  # where a left hand's are others

# MANO's joints: wrist, index, middle, pinky, ring, thumb (3 each); tips follow in the order of `TIPS`.
MANO_TO_OPENPOSE = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
# InterHand2.6M's joints of one hand: thumb, index, middle, ring, pinky, each from tip to base; the wrist last.
INTERHAND_TO_OPENPOSE = (20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16)
MANO_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
OPENPOSE_BONES = tuple((0 if i % 4 == 1 else i - 1, i) for i in range(1, 21))  # (parent, child)
WRIST = 0
MIDDLE_KNUCKLE = 9  # FreiHAND's root


def openpose_joints(mano_joints: Tensor, vertices: Tensor, tips: str = "hamer") -> Tensor:
    """The 21 joints in OpenPose order from the kinematic chain's 16 and five vertices.

    Args:
        mano_joints: (B, 16, 3) in MANO's order.
        vertices: (B, 778, 3), same frame and unit.
        tips: a convention of `TIPS`.

    Returns:
        (B, 21, 3)
    """
    import torch

    # Slices, as a list would be an index tensor, which is copied to a GPU at every call and waited for.
    points = [*mano_joints.unbind(1), *(vertices[:, tip] for tip in tip_vertices(tips))]
    return torch.stack([points[joint] for joint in MANO_TO_OPENPOSE], dim=1)


def regressed_joints(J_regressor: Tensor, vertices: Tensor, tips: str = "freihand") -> Tensor:
    """As `openpose_joints`, with the 16 joints regressed from the posed mesh, as FreiHAND defines its labels.

    Args:
        J_regressor: (16, 778).
        vertices: (B, 778, 3).
        tips: a convention of `TIPS`.
    """
    return openpose_joints(J_regressor @ vertices, vertices, tips)


def tip_vertices(tips: str) -> tuple[int, ...]:
    """The vertices of the five fingertips in a convention.

    Raises:
        ValueError: no such convention.
    """
    if tips not in TIPS:
        raise ValueError(f"no fingertip convention {tips!r} (there are: {', '.join(TIPS)})")
    return TIPS[tips]
