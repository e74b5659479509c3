"""Make the embedded hand, fasthamer/assets/procedural_hand.npz, from nothing but numbers in tools/assets/hand/.

    python tools/assets/make_hand.py
    python tools/assets/make_hand.py --out /tmp/hand.npz
    python tools/assets/make_hand.py --image docs/hand.png

Needs scikit-image. Takes about a minute; the result is the same file each time. The image shows the hand as shipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fasthamer.files.atomic import replacing
from fasthamer.files.images import write_image
from fasthamer.hand import gestures, pose_sampling
from fasthamer.hand.collision import Capsules
from fasthamer.hand.conventions import MANO_PARENTS
from fasthamer.tools.assets.hand import correctives, meshing, render, shapes, skeleton, skinning, surface
from fasthamer.tools.assets.hand.numbering import renumber
from fasthamer.tools.assets.hand.regions import regions

ASSET = Path(__file__).resolve().parents[2] / "fasthamer" / "assets" / "procedural_hand.npz"


def make() -> dict[str, np.ndarray]:
    """All arrays of the hand under MANO's keys, metres, with `region`, `flexion_axes` and `dorsal_axes` beside them."""
    bones = skeleton.build()
    parts = surface.build(bones)
    dense_vertices, dense_faces = meshing.dense(parts)
    size = meshing.density(dense_vertices, bones)
    vertices, faces = meshing.coarse(dense_vertices, dense_faces, size)
    vertices, faces = meshing.relax(vertices, faces, parts)
    vertices, faces = renumber(vertices, faces, bones)
    skin = skinning.weights(dense_vertices, dense_faces, vertices, bones)
    directions, moves, share = shapes.directions(vertices, skin, bones)
    print("variance explained by ten betas:", share.round(4), share.sum().round(4))
    regressor = skinning.joint_regressor(vertices, bones.joints, directions, moves)
    joints = regressor @ vertices
    print("joint regressor off by at most", np.abs(joints - bones.joints).max(), "mm")
    axes = gestures.Axes(bones.flexion[1:], bones.dorsal[1:])
    components, mean, coefficients = pose_space(axes, bones)
    single = np.float32
    arrays = {
        "v_template": (vertices / 1000).astype(single),
        "f": faces.astype(np.uint32),
        "weights": skin.astype(single),
        "shapedirs": (directions / 1000).astype(single),
        "posedirs": (correctives.directions(vertices, faces, skin, bones, parts) / 1000).astype(np.float16),
        "J_regressor": regressor.astype(single),
        "kintree_table": np.array([MANO_PARENTS, range(16)], np.int64).astype(np.uint32),
        "hands_components": components.astype(single),
        "hands_mean": mean.astype(single),
        "hands_coeffs": coefficients.astype(single),
        "region": regions(vertices, faces, bones),
        "flexion_axes": bones.flexion[1:].astype(single),
        "dorsal_axes": bones.dorsal[1:].astype(single),
    }
    arrays["J"] = arrays["J_regressor"] @ arrays["v_template"]
    return arrays


def pose_space(axes: gestures.Axes, bones: skeleton.Skeleton, count: int = 2000):
    """Principal axes (45, 45) of sampled poses, their relaxed mean (45,) and coefficients (N, 45)."""
    rng = np.random.default_rng(7)
    capsules = Capsules(bones.joints / 1000, bones.tips / 1000)
    poses = np.stack([pose_sampling.sample(rng, axes, capsules).reshape(-1) for _ in range(count)])
    mean = gestures.to_axis_angle(gestures.PRESETS["relaxed"], axes).reshape(-1)
    _, _, components = np.linalg.svd(poses - poses.mean(0))
    components *= np.sign(components[np.arange(45), np.abs(components).argmax(1)])[:, None]
    return components, mean, (poses - mean)[:200] @ components.T


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--image", type=Path, help="draw the shipped hand's poses and shapes here, make nothing")
    args = parser.parse_args(argv)
    if args.image:
        write_image(args.image, render.draw())
        return
    out = args.out
    try:
        arrays = make()
    except ImportError as error:
        parser.error(str(error))
    with replacing(out) as draft:
        np.savez_compressed(draft, **arrays)  # type: ignore[arg-type]
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
