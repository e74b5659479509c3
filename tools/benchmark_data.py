"""How many synthetic crops a second the loader's workers make.

python tools/benchmark_data.py
python tools/benchmark_data.py --workers 1,2,4 --image-size 224 --sheet synthetic.jpg
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader

from fasthamer.data.synthetic import SyntheticHands
from fasthamer.hand.mano import load_hand

BATCH = 32


def main(argv: list[str] | None = None) -> int:
    """Prints one line per number of workers; --sheet also writes a picture of 48 samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="0,1,2", help="numbers of worker processes; 0 = the main process")
    parser.add_argument("--count", type=int, default=400, help="crops to time")
    parser.add_argument("--image-size", type=int, default=256, help="pixels")
    parser.add_argument("--hand", default="embedded", help="embedded, or a MANO file")
    parser.add_argument("--sheet", type=Path, help="a .jpg or .png to write")
    args = parser.parse_args(argv)
    try:
        workers = [int(number) for number in args.workers.split(",")]
        if args.count < 1:
            raise ValueError(f"--count is {args.count}, at least one crop is timed")
        hands = SyntheticHands(load_hand(args.hand), args.count, image_size=args.image_size)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for number in workers:
        print(f"workers {number}: {crops_per_second(hands, number):.1f} crops/s at {args.image_size} px", flush=True)
    if args.sheet:
        cv2.imwrite(str(args.sheet), sheet(hands), [cv2.IMWRITE_JPEG_QUALITY, 84])
    return 0


def crops_per_second(hands: SyntheticHands, workers: int) -> float:
    """The steady rate in batches, as in training; the clock starts when every worker has delivered twice."""
    warm_up = 2 * max(1, workers)
    batches = max(1, len(hands) // BATCH)
    keys = [(0, index % len(hands)) for index in range((warm_up + batches) * BATCH)]
    loader = iter(DataLoader(hands, batch_size=BATCH, sampler=keys, num_workers=workers))
    for _ in range(warm_up):
        next(loader)
    start = time.perf_counter()
    for _ in loader:
        pass
    return batches * BATCH / (time.perf_counter() - start)


def sheet(hands: SyntheticHands, columns: int = 8, rows: int = 6, side: int = 144) -> np.ndarray:
    """(rows * side, columns * side, 3) BGR contact sheet of the first samples of epoch 0."""
    images = [hands[(0, index % len(hands))].image.numpy().transpose(1, 2, 0) for index in range(rows * columns)]
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
    lines = [np.hstack(small[row * columns : (row + 1) * columns]) for row in range(rows)]
    return np.ascontiguousarray(np.vstack(lines)[..., ::-1])


if __name__ == "__main__":
    sys.exit(main())
