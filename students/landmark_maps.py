"""MediaPipe's landmark network as a backbone: `mediapipe:full` and `mediapipe:lite`.

It has seen real hands, in crops turned upright (box shape `upright`) of 224 pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.detect.networks import LANDMARK_TABLES, LandmarkNetwork, load_landmark_network
from fasthamer.detect.shipped import KINDS
from fasthamer.registry import unknown

PREFIX = "mediapipe:"  # of these students' names
MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # its pixels are 0 to 1


class LandmarkMaps(nn.Module):
    """The maps of a landmark network, with the interface of timm's `features_only` networks.

    Args:
        kind: lite or full.
        trained: with MediaPipe's weights, else random ones.

    Raises:
        KeyError: no such kind.
    """

    image_size = LandmarkNetwork.image_size

    def __init__(self, kind: str, trained: bool) -> None:
        super().__init__()
        if kind not in KINDS:
            raise KeyError(unknown("landmark network", kind, KINDS))
        network = load_landmark_network(kind) if trained else LandmarkNetwork(kind)
        self.stem, self.blocks, self.last = network.stem, network.blocks, network.last
        rows = LANDMARK_TABLES[kind].blocks
        ends = [index - 1 for index, row in enumerate(rows) if row.stride == 2 and index]  # last of each resolution
        self.taps = {index: f"blocks.{index}" for index in ends}
        self.feature_info = FeatureNames([*self.taps.values(), "last"])

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, S, S) RGB from 0 to 1, S a multiple of 32, to a map a resolution, from stride 4 to 32."""
        first, filtered, projected = self.stem
        x = projected(F.relu6(filtered(F.relu6(first(image)))))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(x)
        for conv in self.last:
            x = F.relu6(conv(x))
        return [*maps, x]


class FeatureNames:
    """What `Backbone` asks timm's `feature_info` for."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def module_name(self) -> list[str]:
        """Of each map, the module it comes from."""
        return self.names
