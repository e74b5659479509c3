"""Time mesh overlays on one CPU core: the embedded hand over an image, as large as in a model's crop.

    python tools/benchmark_overlays.py
    python tools/benchmark_overlays.py --size 1024 --rounds 200

Prints the median of wall and processor time; they differ where other processes use the same cores.
"""

from __future__ import annotations

import sys
import time

from fasthamer.tools import cli

HAND = 0.19  # metres, the length of the embedded hand


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 the user's mistake."""
    parser = cli.command("benchmark_overlays", __doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels of the image's sides (512)")
    parser.add_argument("--share", type=float, default=0.5, help="of the image's side that the hand takes (0.5)")
    parser.add_argument("--rounds", type=int, default=100, help="overlays (100)")
    arguments = parser.parse_args(argv)
    if arguments.size < 1 or arguments.rounds < 1 or not 0 < arguments.share <= 10:
        parser.error("--size and --rounds are at least 1, --share is above 0 and at most 10")

    import cv2
    import numpy as np

    from fasthamer.hand.mano_files import read_hand_arrays
    from fasthamer.render.mesh import draw_mesh

    cv2.setNumThreads(1)
    arrays, side = read_hand_arrays("embedded"), arguments.size
    vertices = arrays["v_template"] - arrays["v_template"].mean(0) + [0, 0, 1]
    image = np.full((side, side, 3), 128, np.uint8)
    focal = arguments.share * side / HAND
    wall, processor = [], []
    for _ in range(arguments.rounds + 3):  # the first ones warm up
        begin = time.perf_counter(), time.process_time()
        draw_mesh(image, vertices, arrays["f"], focal, (side / 2, side / 2))
        wall.append(time.perf_counter() - begin[0])
        processor.append(time.process_time() - begin[1])
    for name, times in (("wall", wall), ("processor", processor)):
        seconds = float(np.median(times[3:]))
        print(f"{name:10s} {1e3 * seconds:6.2f} ms an overlay, {1 / seconds:6.1f} a second at {side} x {side} pixels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
