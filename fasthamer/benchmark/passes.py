"""The calls that the benchmark times: a model's forward pass, its parts, decoding and cropping of an image."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fasthamer.benchmark.timing import Clock, StageClock, synchronise
from fasthamer.camera import full_image_focal, full_image_translation
from fasthamer.data.crop import crop_affine, mirror_points, warp
from fasthamer.runtime.session import Session

PARTS = ("backbone", "head", "mesh")
MESH = ("mesh", "placing", "hand")  # the stage mesh is the sum of those of these modules that a model has
IMAGE_SIZE = (480, 640)  # height, width of the image, pixels
JPEG_QUALITY = 90
_BOX = 300.0  # pixels, side of a hand's box in the image


class Passes:
    """The calls of one session on a batch. `whole` and `frame` return when the results are in main memory.

    Args:
        session: of `fasthamer.runtime.sessions`.
        batch: (B, 3, S, S) uint8 crops on the session's device.
        jpeg: the image that the crops of `whole` and `frame` are cut from.
    """

    def __init__(self, session: Session, batch: torch.Tensor, jpeg: NDArray[np.uint8]) -> None:
        self.session, self.batch, self.jpeg = session, batch, jpeg
        self.image = decode(jpeg)

    def model(self) -> None:
        """From crops on the device to meshes on the device.

        Sessions that compute on arrays (onnxruntime, tensorrt) copy both through main memory: on a GPU their time
        includes these copies, and that of torch does not.
        """
        self.session(self.batch)
        synchronise(self.batch.device)

    def whole(self) -> None:
        """From a decoded image to meshes."""
        self.session(crops(self.image, len(self.batch), self.batch.shape[2]))

    def frame(self) -> None:
        """From the bytes of a JPEG file to all its hands, every second one left, in the camera's frame."""
        count, size = len(self.batch), self.batch.shape[2]
        result = self.session(crops(decode(self.jpeg), count, size))
        vertices, camera = result["vertices"].copy(), result["camera"].astype(np.float64)
        vertices[1::2] = mirror_points(vertices[1::2])
        camera[1::2, 1] *= -1
        height, width = IMAGE_SIZE
        full_image_translation(
            torch.from_numpy(camera),
            torch.from_numpy(np.stack([_centre(index) for index in range(count)])),
            torch.full((count,), _BOX, dtype=torch.float64),
            torch.tensor([[width, height]], dtype=torch.float64),
            full_image_focal(width, height),
        )


class PartsPass:
    """One pass of a torch network that records the time of each of its parts.

    The device is synchronised between the parts, which makes the pass a little slower.

    Args:
        session: runs the network.
        network: has the parts that `stage_modules` requires.
        image: (B, 3, S, S) uint8 crops.
        clock: seconds.
    """

    def __init__(
        self, session: Session, network: nn.Module, image: torch.Tensor, clock: Clock = time.perf_counter
    ) -> None:
        self.session, self.image = session, image
        self.clock = StageClock(stage_modules(network), image.device, clock)
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}  # warm-up included

    def __call__(self) -> None:
        with self.clock.running() as clock:
            self.session(self.image)
        spent = clock.seconds
        self.seconds["backbone"].append(spent["normalise"] + spent["backbone"])
        mesh = sum(spent.get(name, 0.0) for name in MESH)
        self.seconds["head"].append(spent["head"] if "head" in spent else spent["decoder"] - mesh)
        self.seconds["mesh"].append(mesh)

    def after_warm_up(self, warmup: int) -> dict[str, list[float]]:
        """Seconds of each part, without the first `warmup` passes, but without no more than a third."""
        return {part: each[min(warmup, len(each) // 3) :] for part, each in self.seconds.items()}


@cache
def jpeg_image() -> NDArray[np.uint8]:
    """A JPEG file of `IMAGE_SIZE` pixels, the same each time: blurred noise of about 60 kB, as a natural image has."""
    noise = np.random.default_rng(0).normal(0, 1, (*IMAGE_SIZE, 3)).astype(np.float32)
    smooth = sum(cv2.GaussianBlur(noise, (0, 0), width) * width for width in (1.5, 6.0, 24.0))
    image = np.clip(128 + 40 * np.asarray(smooth), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].reshape(-1).astype(np.uint8)


def decode(jpeg: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB."""
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB), np.uint8)


def crops(image: NDArray[np.uint8], count: int, size: int) -> NDArray[np.uint8]:
    """(count, 3, size, size) crops of one image, every second mirrored as a left hand is."""
    cut = [warp(image, crop_affine(_centre(index), _BOX, size, mirror=index % 2 == 1), size) for index in range(count)]
    return np.ascontiguousarray(np.stack(cut).transpose(0, 3, 1, 2))


def before_the_model(batch: int, size: int, device: torch.device, jpeg: NDArray[np.uint8]) -> dict[str, Callable]:
    """The stages that all models share: `decode` of `batch` images, `crop` of `batch` hands onto the device."""
    image = decode(jpeg)

    def cut() -> None:
        torch.from_numpy(crops(image, batch, size)).to(device)
        synchronise(device)

    return {"decode": lambda: [decode(jpeg) for _ in range(batch)], "crop": cut}


def stage_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a hand model by name: normalise, backbone, and either head and mesh or decoder and hand.

    A token decoder has mesh and placing instead of hand. In its training graph the weighting of the codes belongs to
    the head; in its inference graph, where it is merged with the mesh decoder's first layer, it belongs to the mesh.

    Raises:
        ValueError: a part is missing.
    """
    parts = dict(model.named_children())
    if "mano_head" in parts:  # the decoder's name in HaMeR's checkpoint
        parts["decoder"] = parts["mano_head"]
    names = ["normalise", "backbone", *(("head", "mesh") if "mesh" in parts else ("decoder", "hand"))]
    if "decoder" in names and hasattr(
        parts.get("decoder"), "placing"
    ):  # a token decoder: a mesh decoder, no hand layer
        parts |= dict(parts["decoder"].named_children())
        names[-1:] = ["mesh", "placing"]
    missing = [name for name in names if name not in parts]
    if missing:
        raise ValueError(f"{type(model).__name__} has no part named {', '.join(missing)}: its stages cannot be timed")
    return {name: parts[name] for name in names}


def _centre(index: int) -> NDArray[np.float64]:
    """Pixels. The boxes overlap, which does not affect the time."""
    return np.array([IMAGE_SIZE[1] / 2 + 10 * (index % 8), IMAGE_SIZE[0] / 2])
