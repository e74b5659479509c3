"""Fast-HaMeR's backbones (VISAPP 2026): timm's networks with torchvision's details, and torchvision's names for them.

`fast_hamer:<name>` is a student whose backbone equals the one that Fast-HaMeR trains: the epsilon of its batch norms,
the 1280-channel convolution and the pooling at the end of EfficientNetV2, HaMeR's normalisation of the pixels. Its
checkpoints are read by `fasthamer.students.fast_hamer_checkpoint`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from fasthamer.files.weights import check_weights
from fasthamer.registry import unknown
from fasthamer.students.backbone import Backbone, read_state

logger = logging.getLogger(__name__)

PREFIX = "fast_hamer:"  # of these students' names
TORCHVISION = "torchvision"  # as a file of weights: torchvision's own, in torch hub's cache
CLASSIFIERS = ("fc.", "classifier.", "head.")  # a backbone has none


class Trunk(NamedTuple):
    """One of Fast-HaMeR's backbones."""

    network: str  # timm's name; its pretrained tag has the weights nearest to torchvision's
    weights: (
        str  # torchvision's ImageNet-1k weights for `torchvision.models.get_weight`; empty = timm's are the official
    )
    batch_norm_eps: float | None = None  # None: timm's
    end: tuple[int, int] | None = None  # channels in and out of the last 1x1 convolution; its result is pooled


TRUNKS = {
    "resnet50": Trunk("resnet50.tv2_in1k", "ResNet50_Weights.IMAGENET1K_V2"),
    "resnet101": Trunk("resnet101.tv2_in1k", "ResNet101_Weights.IMAGENET1K_V2"),
    "wide_resnet50": Trunk("wide_resnet50_2.tv2_in1k", "Wide_ResNet50_2_Weights.IMAGENET1K_V2"),
    "wide_resnet101": Trunk("wide_resnet101_2.tv2_in1k", "Wide_ResNet101_2_Weights.IMAGENET1K_V2"),
    "convnext_l": Trunk("convnext_large.fb_in1k", "ConvNeXt_Large_Weights.IMAGENET1K_V1"),
    "mobilenetv3_l": Trunk("mobilenetv3_large_100", "MobileNet_V3_Large_Weights.IMAGENET1K_V1", 1e-3),
    "mobilevit_s": Trunk("mobilevit_s", ""),
    "efficientnetv2_m": Trunk("efficientnetv2_m", "EfficientNet_V2_M_Weights.IMAGENET1K_V1", 1e-3, (512, 1280)),
    "efficientnetv2_l": Trunk("efficientnetv2_l", "EfficientNet_V2_L_Weights.IMAGENET1K_V1", 1e-3, (640, 1280)),
}


def fast_hamer_backbone(
    name: str,
    image_size: int = 256,
    layer: str = "last",
    pretrained: bool = False,
    weights: str | Path | None = None,
) -> Backbone:
    """One of `TRUNKS`, for images normalised as HaMeR's.

    Args:
        name: one of `TRUNKS`.
        image_size: pixels.
        layer: see `Backbone`.
        pretrained: ImageNet-1k weights: torchvision's if torch hub's cache holds them, else timm's, as for every
            other student. torchvision's are never downloaded.
        weights: instead: a file of torchvision's weights for the whole network, a student's file, `torchvision`
            (torch hub's cache, or an error that names the file to fetch), or `shipped`.

    Raises:
        KeyError: no such backbone.
        FileNotFoundError, ValueError: weights that are not there or not this backbone's.
    """
    trunk = trunk_of(name)
    cached = hub_file(trunk)
    if weights == TORCHVISION:
        weights = _wanted(name, trunk, cached)
    elif not weights and pretrained and cached is not None and cached.is_file():
        weights = cached
    elif not weights and pretrained and cached is not None:
        logger.warning("torchvision's weights of %s are not in torch hub's cache (%s): timm's are tried", name, cached)
    theirs = None
    if weights and Path(weights).suffix in (".pth", ".pt") and trunk.weights:
        theirs = read_state(weights)
    backbone = Backbone(
        trunk.network,
        image_size,
        layer,
        pretrained and theirs is None,
        weights if theirs is None else None,
        batch_norm_eps=trunk.batch_norm_eps,
        end=None if trunk.end is None else _end(*trunk.end),
    )
    if theirs is not None:
        load_named(backbone, theirs, torchvision_names(backbone), f"{weights} is not torchvision's {name}")
    return backbone


def trunk_of(name: str) -> Trunk:
    """
    Raises:
        KeyError: no such backbone; the message offers the nearest.
    """
    if name not in TRUNKS:
        raise KeyError(unknown("Fast-HaMeR student", name, TRUNKS))
    return TRUNKS[name]


def hub_file(trunk: Trunk) -> Path | None:
    """Where torch hub's cache keeps torchvision's weights of a backbone, there or not; None: torchvision has none."""
    if not trunk.weights:
        return None
    url: str = torchvision.models.get_weight(trunk.weights).url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def torchvision_names(backbone: Backbone) -> dict[str, str]:
    """Our name of each tensor of a Fast-HaMeR backbone -> its name in torchvision's network (MobileViT: timm's)."""
    renamed = dict(_renamed(backbone))
    names = {}
    for ours in backbone.state_dict():
        part = next((part for part in (ours, *_parents(ours)) if part in renamed), None)
        assert part is not None, f"{ours} has no name in torchvision"
        names[ours] = renamed[part] + ours[len(part) :]
    return names


def load_named(module: nn.Module, found: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> None:
    """Loads tensors under other names, strictly; the module may be on the meta device.

    Args:
        module: whose state dict `names` maps.
        found: the file's tensors, in any precision; those of a classifier are left out.
        names: the module's name -> the file's.
        source: opens the message of an error.

    Raises:
        ValueError: missing or unexpected tensors or other shapes, under the file's names.
    """
    found = {name: value for name, value in found.items() if not name.startswith(CLASSIFIERS)}
    state = module.state_dict()
    check_weights(found, {names[ours]: _their_shape(names[ours], value) for ours, value in state.items()}, source)
    taken = {ours: found[names[ours]].reshape(value.shape).to(value.dtype) for ours, value in state.items()}
    module.load_state_dict(taken, assign=True)


def _their_shape(name: str, value: Tensor) -> tuple[int, ...]:
    return (*value.shape, 1, 1) if name.endswith(".layer_scale") else tuple(value.shape)


def _wanted(name: str, trunk: Trunk, cached: Path | None) -> Path:
    if cached is None:
        raise ValueError(f"torchvision has no weights of {name}: Fast-HaMeR takes timm's (STUDENT.PRETRAINED true)")
    if not cached.is_file():
        url = torchvision.models.get_weight(trunk.weights).url
        raise FileNotFoundError(f"no {cached}: fetch {url} into it, or give the file as STUDENT.BACKBONE_FILE")
    return cached


def _end(channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel_size=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width, eps=1e-3), nn.SiLU(), nn.AdaptiveAvgPool2d(1))


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rsplit(".", 1)[0]
        yield name


def _renamed(backbone: Backbone) -> Iterator[tuple[str, str]]:
    """Modules (and single parameters) whose name is another: ours -> theirs; what lies within them keeps its name."""
    family = backbone.name.split("_")[0]
    if family in ("mobilenetv3", "efficientnetv2"):
        yield from _renamed_mobile(backbone, flat=family == "mobilenetv3")
        return
    for name in [name for name, _ in backbone.network.named_children()]:
        ours, theirs = f"network.{name}", name
        if family == "mobilevit":
            theirs = name.replace("stages_", "stages.")
        if family == "convnext":
            kind, index = name.split("_")
            if kind == "stem":
                theirs = f"features.0.{index}"
            else:
                yield f"{ours}.downsample", f"features.{2 * int(index)}"
                yield from _renamed_convnext(backbone, ours, f"features.{2 * int(index) + 1}")
        yield ours, theirs


def _renamed_convnext(backbone: Backbone, ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    parts = {
        "gamma": "layer_scale",
        "conv_dw": "block.0",
        "norm": "block.2",
        "mlp.fc1": "block.3",
        "mlp.fc2": "block.5",
    }
    blocks: nn.Module = backbone.get_submodule(f"{ours}.blocks")
    for index, _ in blocks.named_children():
        for our_part, their_part in parts.items():
            yield f"{ours}.blocks.{index}.{our_part}", f"{theirs}.{index}.{their_part}"


def _renamed_mobile(backbone: Backbone, flat: bool) -> Iterator[tuple[str, str]]:
    """MobileNetV3, whose blocks torchvision numbers through (`flat`), and EfficientNetV2, which keeps stages."""
    yield from (("network.conv_stem", "features.0.0"), ("network.bn1", "features.0.1"))
    number = 0
    stages: nn.Module = backbone.get_submodule("network.blocks")
    for stage, blocks in stages.named_children():
        for index, block in blocks.named_children():
            number += 1
            ours = f"network.blocks.{stage}.{index}"
            theirs = f"features.{number}" if flat else f"features.{int(stage) + 1}.{index}"
            alone = flat and type(block).__name__ == "ConvBnAct"  # the last one, which is no block in torchvision
            for our_part, layer, their_part in _parts_of_block(block):
                name = f"{theirs}.{their_part}" if alone else f"{theirs}.block.{layer}.{their_part}"
                yield f"{ours}.{our_part}", name
    if not flat:
        last = f"features.{len(list(stages.children())) + 1}"
        yield from (("end.0", f"{last}.0"), ("end.1", f"{last}.1"))


def _parts_of_block(block: nn.Module) -> Iterator[tuple[str, int, str]]:
    """timm's name of each part, the number of torchvision's layer that it is in, and its name there."""
    layer = -1
    for name, part in block.named_children():
        if isinstance(part, nn.Conv2d):
            layer += 1
            yield name, layer, "0"
        elif isinstance(part, nn.BatchNorm2d):
            yield name, layer, "1"
        elif any(True for _ in part.parameters()):  # squeeze and excitation
            layer += 1
            yield f"{name}.conv_reduce", layer, "fc1"
            yield f"{name}.conv_expand", layer, "fc2"
