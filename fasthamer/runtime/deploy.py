"""A hand model for inference: one folded graph from crop to mesh, without parts that only training needs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fasthamer.hand.mano import Hand
from fasthamer.nn.normalise import Normalise
from fasthamer.runtime.fold import fold_decoder
from fasthamer.types import HandOutput, View


class Deployed(nn.Module):
    """`fasthamer.types.HandModel` in eval mode, for inference alone; `student.deploy()` makes it.

    Args:
        normalise: image to the backbone's input.
        backbone: gives (features to return, features to decode); already folded.
        decoder: not yet folded.
        hand: the hand model.
        view: the part of the crop that the features cover.
        channels: of the returned features.
    """

    def __init__(
        self, normalise: Normalise, backbone: nn.Module, decoder: nn.Module, hand: Hand, view: View, channels: int
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.backbone = backbone
        self.head, self.mesh, self.outputs = fold_decoder(decoder, hand)
        self.hand = hand
        self.view, self.image_size, self.feature_channels = view, normalise.size, channels
        self.box_shape = "hamer"  # of the boxes of its crops, see `fasthamer.data.crop.BOX_SHAPES`
        self.dtype = torch.float32
        self.licence = ""  # of the weights, where their owner's terms must travel with them
        self.eval()

    def in_precision(self, dtype: torch.dtype) -> Deployed:
        """The same with backbone and decoder in another precision; read-outs, mesh and camera stay in float32."""
        if dtype == self.dtype:
            return self
        other = self.parts(self._modules)  # a plain copy would share the dictionary of submodules
        other.backbone = copy.deepcopy(self.backbone).to(dtype)
        other.head = copy.deepcopy(self.head)
        other.head.round_to(dtype)  # type: ignore[operator]
        other.dtype = dtype
        return other

    def parts(self, names: Iterable[str]) -> Deployed:
        """The same with only these submodules, so that nothing else is written into a file."""
        other = copy.copy(self)
        other._modules = {name: self._modules[name] for name in names}
        return other

    def read(self, image: Tensor) -> tuple[tuple[Any, ...], Tensor]:
        """The head's outputs (MANO parameters and a camera, or tokens), and features; skins no mesh."""
        features, last = self.backbone(self.normalise(image).to(self.dtype))
        return self.head(last), features

    def forward(self, image: Tensor) -> HandOutput:
        """(B, 3, S, S) RGB, values 0..255 of any dtype."""
        outputs, features = self.read(image)
        return self.mesh(*outputs, features)


def inference_graph(model: nn.Module) -> Deployed:
    """The inference graph of a student or teacher; itself, if it is one.

    Raises:
        ValueError: this kind of model has none.
    """
    inner: Any = getattr(model, "model", model)  # a Teacher's
    if isinstance(inner, Deployed):
        return inner
    if not hasattr(inner, "deploy"):
        raise ValueError(f"a {type(inner).__name__} has no inference graph (no deploy()): only backend torch runs it")
    return inner.deploy()


def named(output: HandOutput) -> dict[str, Tensor]:
    """A model's output under the names of `fasthamer.runtime.contract.OUTPUTS`, without those it does not have."""
    return {
        "vertices": output.vertices,
        "joints": output.joints,
        "keypoints_2d": output.keypoints_2d,
        "camera": output.camera,
        **(output.mano._asdict() if output.mano else {}),
    }


def crop_size(graph: Deployed) -> int:
    """Pixels of the smallest crop whose view has `image_size` pixels, so that nothing is resized."""
    share, size = graph.normalise.share, graph.image_size
    # With every second side, the view grows by 0 or 2 pixels, so it takes each size of its parity.
    return next(side for side in itertools.count(size, 2) if side - 2 * round(side * (1 - share) / 2) == size)
