"""Time image to meshes, detection included, beside MediaPipe's landmark network: ONNX Runtime, CPU.

    python tools/benchmark_pipeline.py
    python tools/benchmark_pipeline.py --models embedded,runs/mine --images MY_IMAGES --threads 2

Two measurements, each interleaved: crop to mesh on one thread, the models beside hand_landmark_full and _lite; image to
meshes on `--threads` threads, over images that are in memory (without --images rendered ones, one hand each).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fasthamer.tools import cli

if TYPE_CHECKING:
    from fasthamer.predict import HandMesh

SHOWN, SIZE = 40, 480  # images; pixels of a rendered one


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 the user's mistake."""
    parser = cli.command("benchmark_pipeline", __doc__)
    parser.add_argument("--models", default="mobilenetv3_l,embedded", help="models that HandMesh opens, with commas")
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--threads", type=int, default=2, help="of image to meshes (2)")
    parser.add_argument("--repeats", type=int, default=100, help="timed calls of each (100)")
    arguments = parser.parse_args(argv)

    from fasthamer.benchmark.timing import Timing, interleaved

    try:
        models, images = arguments.models.split(","), _images(arguments.images)
        for title, calls in (
            ("crop to mesh, one thread", _crop_calls(models)),
            (f"image to meshes, {arguments.threads} threads", _image_calls(models, images, arguments.threads)),
        ):
            print(f"{title}:")
            for name, seconds in interleaved(calls, arguments.repeats).items():
                timing = Timing.of(seconds)
                times = f"median {timing.median_ms:7.2f} ms, 95 % {timing.p95_ms:7.2f} ms"
                print(f"  {name:28s} {times}, {1000 / timing.median_ms:6.1f} a second")
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    return 0


def _crop_calls(models: list[str]) -> dict[str, Callable[[], object]]:
    """The models and both landmark networks, one crop a call, one thread."""
    from fasthamer.detect.export import write_onnx
    from fasthamer.detect.inference import LANDMARK_OUTPUTS, LANDMARK_SIZE, OnnxNetwork
    from fasthamer.detect.networks import load_landmark_network
    from fasthamer.predict import open_model
    from fasthamer.runtime.sessions import open_session

    calls: dict[str, Callable[[], object]] = {}
    for name in models:
        session = open_session(open_model(name), "onnxruntime", "auto", "cpu", threads=1)
        assert session.image_size is not None
        size = session.image_size
        calls[name] = partial(session, np.random.default_rng(0).integers(0, 256, (1, 3, size, size), dtype=np.uint8))
    pixels = np.random.default_rng(0).random((1, 3, LANDMARK_SIZE, LANDMARK_SIZE), dtype=np.float32)
    for kind in ("full", "lite"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            write_onnx(load_landmark_network(kind), path)
            network = OnnxNetwork(path, LANDMARK_SIZE, LANDMARK_OUTPUTS, threads=1)
            network(pixels)  # opens the file
        calls[f"hand_landmark_{kind}"] = partial(network, pixels)
    return calls


def _image_calls(models: list[str], images: list[NDArray[np.uint8]], threads: int) -> dict[str, Callable[[], object]]:
    """Detection alone, and with each model."""
    from itertools import cycle

    from fasthamer.detect.detector import MediaPipeDetector
    from fasthamer.predict import HandMesh

    detector = MediaPipeDetector(threads=threads)
    source = cycle(images)
    calls: dict[str, Callable[[], object]] = {"detection alone": lambda: detector(next(source))}
    for name in models:
        hands = HandMesh(name, backend="onnxruntime", threads=threads, detector=detector)
        calls[f"{name} with detection"] = partial(_next_image, hands, cycle(images))
    return calls


def _next_image(hands: HandMesh, source: Iterator[NDArray[np.uint8]]) -> object:
    return hands(next(source))


def _images(folder: Path | None) -> list[NDArray[np.uint8]]:
    from fasthamer.data.synthetic.dataset import SyntheticDataset
    from fasthamer.distill.labelling import image_names
    from fasthamer.files.images import read_image
    from fasthamer.hand.mano import load_hand

    if folder is not None:
        names = image_names(folder)
        return [read_image(folder / name) for name in names[:: max(1, len(names) // SHOWN)][:SHOWN]]
    hands = SyntheticDataset(load_hand("embedded"), SHOWN, seed=1, image_size=SIZE, scale=0.0, shift=0.0)
    return [np.ascontiguousarray(hands[(0, index)].image.permute(1, 2, 0).numpy()) for index in range(SHOWN)]


if __name__ == "__main__":
    sys.exit(main())
