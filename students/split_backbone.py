"""A backbone with frozen stages in two parts: those stages, whose maps may be stored, and what follows them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fasthamer.students.backbone import Backbone

TOLERANCE = 1e-4  # of the largest value: both ways compute the same


class FrozenStages(nn.Module):
    """`stages(image) -> (B, C, h, w)`: the last frozen stage's map. Its weights are the frozen ones alone.

    Args:
        backbone: with frozen stages.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        if not backbone.frozen_stages:
            raise ValueError("no stage of the backbone is frozen")
        self.parts = nn.ModuleList(_outermost(backbone))
        self._backbone = (backbone,)  # no submodule: the rest of it trains

    @property
    def identity(self) -> str:
        """What the map depends on beside weights and pixels; timm's tag of weights does not change the network."""
        backbone = self._backbone[0]
        epsilons = [part.eps for part in self.modules() if isinstance(part, nn.BatchNorm2d)]
        return f"{backbone.name.split('.')[0]} {backbone.layers[backbone.frozen_stages - 1]} {epsilons}"

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        backbone, mode = self._backbone[0], self._backbone[0].training
        backbone.eval()
        maps = backbone.network(image)[backbone.frozen_stages - 1]
        backbone.train(mode)
        return maps.permute(0, 3, 1, 2) if backbone.channels_last else maps


class TrainedStages:
    """`stages(map) -> (features of the chosen layer, last features)`, as `Backbone` gives them, from the frozen map.

    It runs the backbone's own modules; where the frozen ones stand, the map passes unchanged.

    Args:
        backbone: with frozen stages.
        image_size: pixels of the backbone's input.

    Raises:
        ValueError: this network cannot be run from the end of a stage.
    """

    def __init__(self, backbone: Backbone, image_size: int) -> None:
        self.backbone = backbone
        self.network = _without(backbone.network, {id(part) for part in _outermost(backbone)})
        seeded = torch.Generator().manual_seed(0)  # the global one goes on to draw initial weights
        example = torch.rand(1, 3, image_size, image_size, generator=seeded).to(next(backbone.parameters()).device)
        mode = backbone.training
        backbone.eval()
        try:
            with torch.no_grad():
                same = _close(self(FrozenStages(backbone)(example)), backbone(example))
        except (RuntimeError, IndexError):
            same = False
        finally:
            backbone.train(mode)
        if not same:
            raise ValueError(
                f"{backbone.name} cannot be run from the end of stage {backbone.frozen_stages}: leave STUDENT.CACHE out"
            )

    def __call__(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return self.backbone.read_out(self.network(maps.permute(0, 2, 3, 1) if self.backbone.channels_last else maps))


def _close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    pairs = list(zip(found, expected, strict=True))
    return all(a.shape == b.shape and torch.dist(a, b, torch.inf) <= TOLERANCE * b.abs().max() for a, b in pairs)


def _outermost(backbone: Backbone) -> list[nn.Module]:
    """The frozen modules that are in no other frozen one."""
    inner = {id(part) for each in backbone.frozen for part in each.modules() if part is not each}
    return [part for part in backbone.frozen if id(part) not in inner]


def _without(module: nn.Module, removed: set[int]) -> nn.Module:
    """A copy of the tree of modules that shares all leaves; what is removed passes its input."""
    if id(module) in removed:
        return nn.Identity()
    if not any(id(part) in removed for part in module.modules()):
        return module
    other = copy.copy(module)
    other._modules = {name: part if part is None else _without(part, removed) for name, part in module._modules.items()}
    return other
