"""Draw the hands of an image: meshes over the image, given a box for each hand.

    python tools/demo.py image.jpg --box 120,80,260,240 --box 400,90,520,230,left --out hands.png
    python tools/demo.py crop.jpg --model runs/mine

Without --box the whole image is one right hand's box. Boxes are x1,y1,x2,y2 in pixels, tight around the hand.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(
        prog="demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path)
    parser.add_argument("--box", action="append", default=[], help="x1,y1,x2,y2 or x1,y1,x2,y2,left; may be repeated")
    parser.add_argument(
        "--rotation",
        action="append",
        type=float,
        default=[],
        help="degrees clockwise from fingers up, one for each --box; only for models of upright boxes",
    )
    parser.add_argument(
        "--model", default="embedded", help="embedded, hamer, wilor, a student's file or a run directory"
    )
    parser.add_argument("--mano", help="the MANO file the student was trained with, if one was")
    parser.add_argument("--teacher-ckpt", default="", help="hamer.ckpt or wilor_final.ckpt, for --model hamer or wilor")
    parser.add_argument("--device", default="auto", help="auto = cuda, then mps, then cpu")
    parser.add_argument("--skeleton", action="store_true", help="draw joints instead of meshes")
    parser.add_argument("--out", type=Path, default=Path("hands.png"))
    arguments = parser.parse_args(argv)

    import cv2

    from fasthamer.files.images import read_image, write_image
    from fasthamer.predict import HandMesh

    try:
        image = read_image(arguments.image)
        whole = f"0,0,{image.shape[1]},{image.shape[0]}"
        boxes, right = zip(*(_box(text) for text in arguments.box or [whole]), strict=True)
        hands = HandMesh(arguments.model, arguments.mano, arguments.teacher_ckpt, arguments.device)
        found = hands(image, boxes, right, factor=2.0 if arguments.box else 1.0, rotation=arguments.rotation or 0.0)
        write_image(arguments.out, found.draw(image, skeleton=arguments.skeleton))
    except (ValueError, KeyError, OSError, cv2.error) as error:
        parser.error(str(error.args[0] if error.args else error))
    print(f"{len(boxes)} hand(s): {arguments.out}")
    return 0


def _box(text: str) -> tuple[list[float], bool]:
    """`1,2,3,4[,left|right]` to a box and whether it is a right hand's."""
    *numbers, last = text.split(",")
    side = last.strip().lower()
    if side not in ("left", "right"):
        numbers, side = [*numbers, last], "right"
    try:
        box = [float(number) for number in numbers]
    except ValueError:
        box = []
    if len(box) != 4:
        raise ValueError(f"--box {text}: expected x1,y1,x2,y2 in pixels, then optionally ,left or ,right")
    return box, side == "right"


if __name__ == "__main__":
    sys.exit(main())
