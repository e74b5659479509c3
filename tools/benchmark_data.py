"""How many crops a second the training pipeline delivers: reading, decoding, cropping, augmenting, batching.

python tools/benchmark_data.py
python tools/benchmark_data.py --data tars --data-root shards --workers 2
python tools/benchmark_data.py --data synthetic --sheet synthetic.jpg

Without --data, a tar shard of synthetic 224-pixel JPEG images is written and read. Trailing KEY VALUE pairs change the
configuration, such as AUGMENT.ROTATION 0. Next to the rate by the clock, the processor time of a crop in all processes
is printed: compare that on a machine that other jobs use too. From it follows the rate on undisturbed cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import psutil
import torch
from yacs.config import CfgNode

from fasthamer.config import load_config
from fasthamer.data.build import build_training_set
from fasthamer.data.crop import Box
from fasthamer.data.faults import BadSample
from fasthamer.data.loader import Feed
from fasthamer.data.readers.tar_record import write_record
from fasthamer.data.readers.tars import RECORD, webdataset
from fasthamer.data.sample import Labels
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.images import encode_image, write_image
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.rotation import matrix_to_axis_angle
from fasthamer.tools import cli
from fasthamer.types import Batch

BATCH = 32
IMAGES, SAMPLES = 64, 1024  # synthetic images that are made without --data, and samples of the shard that repeats them
IMAGE_SIZE = 224  # pixels, as FreiHAND's
QUALITY = 95  # of their JPEG files
SHOWN = (6, 8)  # rows and columns of --sheet


class Rate(NamedTuple):
    """What was measured."""

    crops: float  # a second, on the clock
    processor: float  # seconds a crop, of all processes


def main(argv: list[str] | None = None) -> int:
    """Prints one line per number of workers; --sheet also writes an image of 48 samples."""
    parser = cli.command("benchmark_data", __doc__)
    parser.add_argument("--data", help="a dataset, or a mix; left out: synthetic images")
    parser.add_argument("--data-root", default="", help="its folder")
    parser.add_argument("--images", type=int, default=IMAGES, help="synthetic images that are made without --data")
    parser.add_argument("--workers", default="0,1,2", help="numbers of worker processes; 0 = the main process")
    parser.add_argument("--count", type=int, default=3000, help="crops to time")
    parser.add_argument("--image-size", default="256", help="pixels of the crops")
    parser.add_argument("--hand", default="embedded", help="embedded, or a MANO file")
    parser.add_argument("--sheet", type=Path, help="a .jpg or .png to write")
    arguments, overrides = cli.parse(parser, argv)
    with ExitStack() as stack:
        try:
            workers = [int(number) for number in arguments.workers.split(",")]
            if arguments.count < 1:
                raise ValueError(f"--count is {arguments.count}, at least one crop is timed")
            if arguments.images < 1:
                raise ValueError(f"--images is {arguments.images}, at least one image is made")
            if arguments.sheet:
                encode_image(np.zeros((1, 1, 3), np.uint8), arguments.sheet.suffix)  # a format that cannot be written
            hand, (name, root) = load_hand(arguments.hand), (arguments.data, arguments.data_root)
            if name is None:
                name, root = "tars", stack.enter_context(tempfile.TemporaryDirectory(prefix="fasthamer-"))
                write_images(Path(root) / "000000.tar", hand, arguments.images)
            settings = ["DATA.NAME", name, "IMAGE_SIZE", arguments.image_size, *(["DATA.ROOT", root] if root else [])]
            cfg = load_config(None, [*settings, *overrides])
            images = build_training_set(cfg, hand)
        except (*cli.MISTAKES, OSError) as error:
            parser.error(cli.one_line(error))
        try:
            for number in workers:
                print(_line(number, measure(images, number, arguments.count, cfg), cfg.IMAGE_SIZE), flush=True)
            if arguments.sheet:
                write_image(arguments.sheet, sheet(images, cfg), quality=84)
        except (BadSample, OSError) as error:
            return cli.failed("benchmark_data", error)
    return 0


def measure(images: Any, workers: int, count: int, cfg: CfgNode) -> Rate:
    """The steady rate in batches, as in training; the clock starts when every worker has delivered twice."""
    torch.set_num_threads(1)
    batch = min(BATCH, count)
    source = Feed(images, batch, cfg.SEED, workers=workers).batches()
    try:
        for _ in islice(source, 2 * max(1, workers)):
            pass
        batches = count // batch
        busy, start = _processor_time(), time.perf_counter()
        for _ in islice(source, batches):
            pass
        passed, busy = time.perf_counter() - start, _processor_time() - busy
    finally:
        source.close()
    return Rate(batches * batch / passed, busy / (batches * batch))


def _processor_time() -> float:
    """Seconds of this process and its workers."""
    workers = psutil.Process().children()
    return time.process_time() + sum(sum(process.cpu_times()[:2]) for process in workers)


def _line(workers: int, rate: Rate, size: int) -> str:
    cores = max(1, workers)
    return (
        f"workers {workers}: {rate.crops:.0f} crops/s of {size} px on the clock; {rate.processor * 1e3:.2f} ms of "
        f"processor time each, so {cores / rate.processor:.0f} a second on {cores} undisturbed core{'s' * (cores > 1)}"
    )


def write_images(path: Path, hand: Hand, images: int = IMAGES) -> None:
    """A shard of synthetic images of 224 pixels, with every label, in HaMeR's format; images repeat."""
    hands = SyntheticDataset(hand, images, image_size=IMAGE_SIZE, scale=0.0, shift=0.0)
    samples = [_sample(hands[(0, index)]) for index in range(images)]
    with webdataset().TarWriter(str(path), encoder=False) as writer:
        for number in range(SAMPLES):
            writer.write({"__key__": f"{number:08d}", **samples[number % images]})


def _sample(item: Batch) -> dict[str, bytes]:
    image = np.ascontiguousarray(item.image.numpy().transpose(1, 2, 0)[..., ::-1])
    keypoints = item.keypoints_2d.numpy().astype(np.float64)
    keypoints[:, :2] = (keypoints[:, :2] + 0.5) * IMAGE_SIZE
    pose = matrix_to_axis_angle(torch.cat((item.global_orient, item.hand_pose))).numpy()
    labels = Labels(keypoints, item.joints.numpy(), None, pose, item.betas.numpy())
    box = Box(np.array([IMAGE_SIZE / 2, IMAGE_SIZE / 2]), float(IMAGE_SIZE))
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return {"jpg": content, RECORD: write_record(labels, box, False, "synthetic")}


def sheet(images: Any, cfg: CfgNode, side: int = 144) -> np.ndarray:
    """(rows * side, columns * side, 3) RGB contact sheet of the first samples."""
    rows, columns = SHOWN
    source = Feed(images, rows * columns, cfg.SEED).batches()
    crops = Batch(*next(source)).image.permute(0, 2, 3, 1).numpy()
    source.close()
    small = [cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA) for crop in crops]
    lines = [np.hstack(small[row * columns : (row + 1) * columns]) for row in range(rows)]
    return np.vstack(lines)


if __name__ == "__main__":
    sys.exit(main())
