"""Draw the hands of an image: meshes over the image.

    python tools/demo.py image.jpg
    python tools/demo.py image.jpg --box 120,80,260,240 --box 400,90,520,230,left --out hands.png
    python tools/demo.py crowd.jpg --tiles 3 --model runs/mine

Without --box the hands are detected. Boxes are x1,y1,x2,y2 in pixels, tight around the hand.
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
    parser.add_argument("--tiles", type=int, default=1, help="also detect in N x N parts of the image: small hands")
    parser.add_argument(
        "--rotation",
        action="append",
        type=float,
        default=[],
        help="degrees clockwise from fingers up, one for each --box, for models of upright boxes; else from landmarks",
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

    from fasthamer.detect.detector import MediaPipeDetector
    from fasthamer.files.images import read_image, write_image
    from fasthamer.predict import HandMesh

    try:
        image = read_image(arguments.image)
        boxes, right = zip(*map(_box, arguments.box), strict=True) if arguments.box else (None, True)
        detector = MediaPipeDetector(tiles=arguments.tiles)
        model = HandMesh(arguments.model, arguments.mano, arguments.teacher_ckpt, arguments.device, detector=detector)
        hands = model(image, boxes, right, rotation=arguments.rotation or None)
        write_image(arguments.out, hands.draw(image, skeleton=arguments.skeleton))
    except (ValueError, KeyError, OSError, ImportError, cv2.error) as error:
        parser.error(str(error.args[0] if error.args else error))
    count = len(hands.boxes)
    print(f"{f'{count} hand(s)' if count else 'no hands found'}: {arguments.out}")
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
