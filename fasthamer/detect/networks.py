"""MediaPipe's palm detector and hand landmark network as torch modules, with the shipped weights.

The weights are Google's (Apache License 2.0, `assets/mediapipe/`), converted by tools/assets/convert_mediapipe.py. The
networks take RGB images from 0 to 1, without other normalisation. Batch normalisation was folded into the convolutions
before the weights were published, so there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.detect.shipped import FOLDER, check_kind
from fasthamer.files.headed_tensors import Kind, read_headed
from fasthamer.files.weights import check_weights, shapes

FILE_KIND = Kind("detector", "fasthamer.detector/1", {"network", "kind"})
PALM_VALUES = 18  # of a palm: centre x, y, width, height, then x, y of seven keypoints


class Block(NamedTuple):
    """A row of the landmark network's table: an inverted residual block."""

    expanded: int  # channels between the 1x1 convolutions
    kernel: int  # of the depthwise convolution
    stride: int
    width: int  # channels of the result


class LandmarkTable(NamedTuple):
    """What distinguishes the two landmark networks."""

    blocks: tuple[Block, ...]
    features: int  # channels of the last map
    pooled: bool  # whether the first block adds its max-pooled input


LANDMARK_TABLES = {
    "lite": LandmarkTable(
        (
            Block(64, 3, 2, 16),
            Block(96, 3, 1, 16),
            Block(96, 5, 2, 24),
            Block(144, 5, 1, 24),
            Block(144, 3, 2, 48),
            *[Block(288, 3, 1, 48)] * 2,
            Block(288, 5, 1, 64),
            *[Block(384, 5, 1, 64)] * 2,
            Block(384, 5, 2, 112),
            *[Block(672, 5, 1, 112)] * 3,
        ),
        features=672,
        pooled=True,
    ),
    "full": LandmarkTable(
        (
            Block(64, 3, 2, 24),
            Block(144, 3, 1, 24),
            Block(144, 5, 2, 40),
            Block(240, 5, 1, 40),
            Block(240, 3, 2, 80),
            *[Block(480, 3, 1, 80)] * 2,
            Block(480, 5, 1, 112),
            *[Block(672, 5, 1, 112)] * 2,
            Block(672, 5, 2, 192),
            *[Block(1152, 5, 1, 192)] * 3,
        ),
        features=1152,
        pooled=False,
    ),
}
PALM_WIDTHS = (32, 64, 128, 256, 256)  # channels of the stages, at strides 2, 4, 8, 16 and 32
PALM_BLOCKS = {"lite": 3, "full": 4}  # residual blocks of each stage
PALM_ANCHORS = {8: 2, 16: 6}  # of each cell, by the stride of the map


class LandmarkOutput(NamedTuple):
    """The hand in each crop. B = batch."""

    landmarks: Tensor  # (B, 21, 3) pixels of the crop, OpenPose order; z in the same unit, relative to the wrist
    presence: Tensor  # (B,) probability that the crop shows a hand
    right: Tensor  # (B,) probability that it is a right hand
    world: Tensor  # (B, 21, 3) metres, centred on the hand, axes x right, y down, z forward of the crop


class PalmOutput(NamedTuple):
    """A score and a box with keypoints for each anchor. A = 2016 anchors for an image of 192 pixels."""

    palms: Tensor  # (B, A, 18) pixels relative to the anchor: centre, size, seven keypoints
    scores: Tensor  # (B, A) logits


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "same" is: at stride 2 one pixel more on the right and at the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
        spare = kernel - stride  # the sides of every map are even
        self.edges = (spare // 2, spare - spare // 2) * 2 if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.edges is None else F.pad(x, self.edges))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project; the input is added where the shapes allow."""

    def __init__(self, inputs: int, row: Block, pooled: bool) -> None:
        super().__init__()
        self.expand = SameConv2d(inputs, row.expanded, 1)
        self.depthwise = SameConv2d(row.expanded, row.expanded, row.kernel, row.stride, groups=row.expanded)
        self.project = SameConv2d(row.expanded, row.width, 1)
        self.pooled, self.residual = pooled, row.stride == 1 and inputs == row.width

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        if self.pooled:
            return y + F.max_pool2d(x, 2)
        return y + x if self.residual else y


class LandmarkNetwork(nn.Module):
    """21 landmarks, presence and side of the hand that fills a crop.

    Args:
        kind: lite or full.
    """

    image_size = 224  # pixels of the crops it was trained on

    def __init__(self, kind: str) -> None:
        super().__init__()
        table = LANDMARK_TABLES[kind]
        self.stem = nn.ModuleList((SameConv2d(3, 24, 3, 2), SameConv2d(24, 24, 3, groups=24), SameConv2d(24, 16, 1)))
        widths = [16, *(row.width for row in table.blocks)]
        self.blocks = nn.ModuleList(
            InvertedResidual(inputs, row, table.pooled and index == 0)
            for index, (inputs, row) in enumerate(zip(widths[:-1], table.blocks, strict=True))
        )
        channels = self.channels = table.features  # of `features`
        self.last = nn.ModuleList(
            (SameConv2d(widths[-1], channels, 1), SameConv2d(channels, channels, 3, groups=channels))
        )
        self.presence, self.right = nn.Linear(channels, 1), nn.Linear(channels, 1)
        self.landmarks, self.world = nn.Linear(channels, 63), nn.Linear(channels, 63)

    def features(self, image: Tensor) -> Tensor:
        """The last map.

        Args:
            image: (B, 3, S, S) RGB from 0 to 1; S is a multiple of 32.

        Returns:
            (B, `channels`, S / 32, S / 32), from 0 to 6.
        """
        first, filtered, projected = self.stem
        x = projected(F.relu6(filtered(F.relu6(first(image)))))
        for block in self.blocks:
            x = block(x)
        for conv in self.last:
            x = F.relu6(conv(x))
        return x

    def forward(self, image: Tensor) -> LandmarkOutput:
        """(B, 3, 224, 224) RGB from 0 to 1 -> `LandmarkOutput`."""
        pooled = self.features(image).mean((2, 3))
        return LandmarkOutput(
            self.landmarks(pooled).unflatten(1, (21, 3)),
            self.presence(pooled)[:, 0].sigmoid(),
            self.right(pooled)[:, 0].sigmoid(),
            self.world(pooled).unflatten(1, (21, 3)),
        )


class PalmBlock(nn.Module):
    """A depthwise and a 1x1 convolution, added to the input; at stride 2 to its maxima, with channels of zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = SameConv2d(inputs, inputs, 5, stride, groups=inputs)
        self.pointwise = SameConv2d(inputs, outputs, 1)
        self.activation = nn.PReLU(outputs)
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        x = F.max_pool2d(x, 2) if self.stride == 2 else x
        return self.activation(y + (F.pad(x, (0, 0, 0, 0, 0, self.new)) if self.new else x))


class Upsampling(nn.Module):
    """Twice the size, bilinear, then a 1x1 convolution; added to the finer map of the way down."""

    def __init__(self, inputs: int, outputs: int, blocks: int = 2) -> None:
        super().__init__()
        self.conv, self.activation = SameConv2d(inputs, outputs, 1), nn.PReLU(outputs)
        self.blocks = nn.Sequential(*(PalmBlock(outputs, outputs) for _ in range(blocks)))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        larger = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.blocks(fine + self.activation(self.conv(larger)))


class PalmHead(nn.Module):
    """Boxes and scores of the anchors of one map."""

    def __init__(self, inputs: int, anchors: int) -> None:
        super().__init__()
        self.palms, self.scores = SameConv2d(inputs, anchors * PALM_VALUES, 1), SameConv2d(inputs, anchors, 1)

    def forward(self, x: Tensor) -> PalmOutput:
        palms = self.palms(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, PALM_VALUES))
        return PalmOutput(palms, self.scores(x).permute(0, 2, 3, 1).flatten(1))


class PalmNetwork(nn.Module):
    """Palms in a whole image, as a single-shot detector.

    Args:
        kind: lite or full.
    """

    image_size = 192  # pixels of the images it was trained on

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.stem, self.activation = SameConv2d(3, PALM_WIDTHS[0], 5, 2), nn.PReLU(PALM_WIDTHS[0])
        inputs = (PALM_WIDTHS[0], *PALM_WIDTHS[:-1])
        self.stages = nn.ModuleList()
        for index, (before, width) in enumerate(zip(inputs, PALM_WIDTHS, strict=True)):
            down = [PalmBlock(before, width, 2)] if index else []
            self.stages.append(nn.Sequential(*down, *(PalmBlock(width, width) for _ in range(PALM_BLOCKS[kind]))))
        coarsest, coarse, fine = PALM_WIDTHS[4], PALM_WIDTHS[3], PALM_WIDTHS[2]
        self.up_16, self.up_8 = Upsampling(coarsest, coarse), Upsampling(coarse, fine)
        self.head_16, self.head_8 = PalmHead(coarse, PALM_ANCHORS[16]), PalmHead(fine, PALM_ANCHORS[8])

    def forward(self, image: Tensor) -> PalmOutput:
        """(B, 3, 192, 192) RGB from 0 to 1 -> `PalmOutput`: the anchors of stride 8, then of stride 16, by rows."""
        x = self.activation(self.stem(image))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        stride_16 = self.up_16(x, maps[3])
        fine, coarse = self.head_8(self.up_8(stride_16, maps[2])), self.head_16(stride_16)
        return PalmOutput(torch.cat((fine.palms, coarse.palms), 1), torch.cat((fine.scores, coarse.scores), 1))


NETWORKS: dict[str, type[LandmarkNetwork] | type[PalmNetwork]] = {"landmark": LandmarkNetwork, "palm": PalmNetwork}


def load_landmark_network(kind: str, folder: Path = FOLDER) -> LandmarkNetwork:
    """The landmark network with MediaPipe's weights, in eval mode, fp32; errors as `read_headed`."""
    network = LandmarkNetwork(check_kind(kind))
    _fill(network, "landmark", kind, folder)
    return network


def load_palm_network(kind: str, folder: Path = FOLDER) -> PalmNetwork:
    """The palm detector with MediaPipe's weights, in eval mode, fp32; errors as `read_headed`."""
    network = PalmNetwork(check_kind(kind))
    _fill(network, "palm", kind, folder)
    return network


def _fill(network: nn.Module, name: str, kind: str, folder: Path) -> None:
    path = folder / f"{name}_{kind}.safetensors"
    header, tensors = read_headed(path, FILE_KIND)
    if header["detector"] != {"network": name, "kind": kind}:
        raise ValueError(f"{path}: holds {header['detector']}, not the {kind} {name} network")
    check_weights(tensors, shapes(network.state_dict()), f"{path}: {kind} {name} network")
    network.load_state_dict({key: value.float() for key, value in tensors.items()})
    network.eval()
