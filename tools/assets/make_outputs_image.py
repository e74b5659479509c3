"""Make the image of docs/outputs.md: the embedded hand with joint numbers, the axes of both frames, and the box.

python tools/assets/make_outputs_image.py --out docs/outputs.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fasthamer.camera import project_pixels
from fasthamer.files.images import write_image
from fasthamer.hand.mano import load_hand
from fasthamer.render.figure import INK, new_figure, pixels
from fasthamer.render.mesh import draw_mesh
from fasthamer.render.overlay import draw_keypoints
from fasthamer.types import ManoParams

WIDTH, HEIGHT, FOCAL = 640, 480, 900.0
PLACE = np.array([0.03, 0.03, 0.5])  # metres, of the hand's middle
ARROW, BOX = "#c03030", "#4477aa"


def outputs_image() -> NDArray[np.uint8]:
    """(480, 640, 3) RGB: an open right hand whose palm faces the camera."""
    hand = load_hand("embedded")
    eye = torch.eye(3).repeat(1, 16, 1, 1)
    vertices, joints = (each[0].numpy() for each in hand(ManoParams(eye[:, :1], eye[:, 1:], torch.zeros(1, 10))))
    up, across = joints[9] - joints[0], joints[5] - joints[17]  # to the fingers; from the little finger to the index
    up = up / np.linalg.norm(up)
    across = across - up * (across @ up)
    across = across / np.linalg.norm(across)
    turn = np.stack((across, -up, np.cross(across, -up)))  # rows: the camera's x, y and z
    middle = (joints.min(0) + joints.max(0)) / 2
    vertices, joints = ((each - middle) @ turn.T + PLACE for each in (vertices, joints))
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    image = np.full((HEIGHT, WIDTH, 3), 236, np.uint8)
    image = draw_mesh(image, vertices, hand.faces, FOCAL, (WIDTH / 2, HEIGHT / 2), opacity=0.6)
    points = project_pixels(joints, intrinsics)
    return _labelled(draw_keypoints(image, points), points)


def _labelled(image: NDArray[np.uint8], points: NDArray) -> NDArray[np.uint8]:
    figure = new_figure(WIDTH, HEIGHT)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, extent=(-0.5, WIDTH - 0.5, HEIGHT - 0.5, -0.5))
    axes.set_axis_off()
    for number, (x, y) in enumerate(points):
        axes.text(x + 7, y - 5, str(number), color=INK, fontsize=10, weight="bold")
    low, high = points.min(0), points.max(0)
    axes.plot([low[0], high[0], high[0], low[0], low[0]], [low[1], low[1], high[1], high[1], low[1]], "--", color=BOX)
    axes.text(high[0] + 6, high[1] - 4, "box", color=BOX, fontsize=10)
    arrow = {"arrowstyle": "-|>", "color": ARROW, "linewidth": 2}
    x, y = 30, 40
    axes.annotate("", (x + 70, y), (x, y), arrowprops=arrow)
    axes.annotate("", (x, y + 70), (x, y), arrowprops=arrow)
    axes.plot(x, y, "o", markersize=11, markerfacecolor="white", markeredgecolor=ARROW, markeredgewidth=2)
    axes.plot(x, y, "x", markersize=6, color=ARROW, markeredgewidth=2)
    for text, place in (("x", (x + 74, y + 5)), ("y", (x - 5, y + 88)), ("z: into the image", (x + 8, y - 14))):
        axes.text(*place, text, color=ARROW, fontsize=11)
    axes.text(x + 8, y + 28, "camera and hand frame", color=ARROW, fontsize=9)
    return pixels(figure)


def main(argv: list[str] | None = None) -> int:
    """0 done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/outputs.png"))
    write_image(parser.parse_args(argv).out, outputs_image())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
