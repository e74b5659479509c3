"""HaMeR's decoder alone, folded against unfolded: speed-up and numerical error of `fasthamer.runtime.fold`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fasthamer.benchmark.group import COLUMNS, Setting
from fasthamer.benchmark.timing import Timing, flat, in_blocks, synchronise, times_faster
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.runtime.fold import FoldedHead
from fasthamer.types import ManoParams

STAGE = "head alone"


class Map(NamedTuple):
    """Shape of a decoder's input feature map."""

    name: str
    channels: int
    grid: tuple[int, int]
    has_place: bool  # whether the decoder adds a learned position embedding, as those of students do


MAPS = (
    Map("head on 64 tokens x 960", 960, (8, 8), True),  # MobileNetV3-L at 256 pixels
    Map("head on 192 tokens x 1280", 1280, (16, 12), False),  # HaMeR
)


@torch.no_grad()
def benchmark_heads(setting: Setting, size: str = "full", maps: Sequence[Map] = MAPS) -> list[dict[str, Any]]:
    """Two rows in fp32, backend torch and folded, for each feature map and batch size.

    `relative_error` is the largest difference of any regressed number, divided by the largest number.

    Args:
        setting: device, batches, rounds, seconds and clock are used.
        size: of the decoder, a key of `fasthamer.nn.mano_head.SIZES`.
        maps: feature maps.
    """
    rows = []
    for each in maps:
        head = random_head(each, size).to(setting.device)
        both: dict[str, Callable] = {"torch": head.regress, "folded": FoldedHead(head).to(setting.device)}
        for batch in setting.batches:
            features = torch.randn(batch, each.channels, *each.grid, device=setting.device)
            calls = {name: _call(regress, features) for name, regress in both.items()}
            blocks = in_blocks(calls, setting.rounds, 2 * setting.seconds, clock=setting.clock)
            exact, close = (_numbers(*both[name](features)) for name in ("torch", "folded"))
            errors = {"torch": None, "folded": float((exact - close).abs().max() / exact.abs().max())}
            for name, own in blocks.items():
                timing = Timing.of(flat(own))
                rows.append(
                    dict.fromkeys(COLUMNS)
                    | {"model": each.name, "weights": "random", "decoder": f"mano {size}", "backend": name}
                    | {"precision": "fp32", "device": str(setting.device), "batch": batch, "stage": STAGE}
                    | timing._asdict()
                    | {"fps": 1000 * batch / timing.median_ms, "ratio_to_eager": times_faster(own, blocks["torch"])}
                    | {"relative_error": errors[name]}
                )
    return rows


def random_head(each: Map, size: str, seed: int = 0) -> ManoHead:
    """A decoder in eval mode whose norms and output layers differ from their initial values (1, 0 and near 0)."""
    head = ManoHead(each.channels, SIZES[size], each.grid if each.has_place else None)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in head.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.add_(0.2 * torch.randn(module.weight.shape, generator=generator))
                module.bias.normal_(0, 0.2, generator=generator)
        for readout in (head.decpose, head.decshape, head.deccam):
            readout.weight.normal_(0, 0.05, generator=generator)
        if head.place is not None:
            head.place.normal_(0, 0.2, generator=generator)
    return head.eval()


def _call(regress: Callable, features: Tensor) -> Callable[[], object]:
    def call() -> None:
        regress(features)
        synchronise(features.device)

    return call


def _numbers(mano: ManoParams, camera: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in (*mano, camera)])
