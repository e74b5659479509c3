"""Initial weights of any student where ImageNet's cannot be had: its maps learn to show what MobileNetV3-L's show.

    python tools/assets/copy_features.py resnet18 --out runs/study/resnet18.safetensors --bf16

The source is the backbone in the package, which has ImageNet's features at second hand and knows no hands
(`make_backbone.py`). A 1x1 projection of each of the student's maps is compared with the source's map at the same
stride. The images are synthetic hands; no label is used. The file is for STUDENT.BACKBONE_FILE.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from fasthamer.files.atomic import replacing
from fasthamer.students.backbone import Backbone, normalisation
from fasthamer.tools import cli
from fasthamer.tools.assets.make_backbone import TARGET, error_of_map, hands_loader, learn

IMAGE = 96  # pixels that both networks see, half of an image


class Copy(nn.Module):
    """A student's backbone, the source, and the projections from the one's maps to the other's."""

    def __init__(self, name: str, bf16: bool) -> None:
        super().__init__()
        self.bf16 = bf16
        self.source = Backbone(TARGET, IMAGE, weights="shipped").eval().requires_grad_(False)
        self.backbone = Backbone(name, IMAGE)
        of_source: Any = self.source.network.feature_info
        own: Any = self.backbone.network.feature_info
        places = {stride: place for place, stride in enumerate(of_source.reduction())}
        self.pairs = [(place, places[stride]) for place, stride in enumerate(own.reduction()) if stride in places]
        self.projections = nn.ModuleList(
            nn.Conv2d(own.channels()[here], of_source.channels()[there], 1) for here, there in self.pairs
        )

    def forward(self, image: Tensor, apart: bool) -> Tensor:
        """The error of each pair of maps.

        Args:
            image: (B, 3, 2 * IMAGE, 2 * IMAGE), 0 to 255.
            apart: of no use here, stages of different widths cannot replace one another.
        """
        small = avg_pool2d(image, 2)
        with torch.no_grad():
            target = self.source.network(normalised(small, TARGET))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            maps = self.backbone.network(normalised(small, self.backbone.name))
            found = [each(maps[here]) for each, (here, _) in zip(self.projections, self.pairs, strict=True)]
        return torch.stack(
            [error_of_map(f.float(), target[there]) for f, (_, there) in zip(found, self.pairs, strict=True)]
        )


def normalised(image: Tensor, name: str) -> Tensor:
    """As the network's weights expect it; `image` is 0 to 255."""
    mean, std = (255 * torch.tensor(each)[:, None, None] for each in normalisation(name))
    return (image - mean) / std


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", help="timm's name")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--images", type=Path, default=Path("runs/drawn"), help="keeps the synthetic images")
    parser.add_argument("--size", type=int, default=4000, help="how many of them")
    parser.add_argument("--steps", type=int, default=800, help="of --batch images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--bf16", action="store_true", help="bfloat16: faster for ResNets where the processor has it")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    try:
        copy = Copy(args.student, args.bf16).to(memory_format=torch.channels_last)
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    errors = learn(copy, hands_loader(args.images, args.size, args.batch, 0), args.steps, args.lr)
    with replacing(args.out) as draft:
        save_file({f"backbone.{name}": each.contiguous() for name, each in copy.backbone.state_dict().items()}, draft)
    shares = ", ".join(f"{100 * (1 - error):.0f} %" for error in errors)
    print(f"{args.out}: explains {shares} of the variance of the source's maps, from the first to the last")
    return 0


if __name__ == "__main__":
    sys.exit(main())
