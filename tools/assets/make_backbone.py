"""A MobileNetV3-L distilled from EfficientNet-Lite0's ImageNet weights: the shipped initial weights of that student.

    python tools/assets/convert_lite0.py --out runs/lite0.safetensors
    python tools/assets/make_backbone.py --source runs/lite0.safetensors --out runs/mobilenetv3_l.safetensors

For when ImageNet weights cannot be downloaded. The two networks' stages end at the same strides with the same widths
(16, 24, 40 and 112 channels), so a stage of the one can replace a stage of the other. First every stage is
trained apart, on the source's own maps (blockwise distillation: Li et al. 2020, "Blockwisely supervised neural
architecture search with knowledge distillation"); then the whole network is trained on all maps at once.
The images are synthetic hands; no label is used.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from fasthamer.data.augment import Strength
from fasthamer.data.loader import Stream
from fasthamer.data.synthetic.cached import CachedSyntheticDataset
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.atomic import replacing
from fasthamer.hand.mano import load_hand
from fasthamer.students.backbone import normalisation

SOURCE, TARGET = "tf_efficientnet_lite0", "mobilenetv3_large_100"
STAGES = ((0, 1), (1, 2), (2, 3), (3, 5), (5, 7))  # of `blocks`: each ends where timm returns a map
IMAGE, VIEW = 192, 128  # pixels of an image, and of its middle that is used
APART = 0.5  # share of the steps in which the stages are trained apart


class Stages(nn.Module):
    """A timm EfficientNet-like network split where timm returns its maps."""

    mean: Tensor  # of the pixels, 0 to 255
    std: Tensor

    def __init__(self, name: str, weights: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        network: Any = timm.create_model(name)
        if weights is not None:
            network.load_state_dict(weights)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.stages = nn.ModuleList(network.blocks[first:last] for first, last in STAGES)
        mean, std = normalisation(name)
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None])

    def maps(self, image: Tensor, given: list[Tensor] | None = None) -> list[Tensor]:
        """The map at the end of each stage; `given` replaces the input of each stage but the first."""
        found = [self.stages[0](self.stem((image - self.mean) / self.std))]
        for number, stage in enumerate(self.stages[1:]):
            found.append(stage((given or found)[number]))
        return found


class Learner(nn.Module):
    """The trained network, and a projection of its last map, which is wider than the source's."""

    def __init__(self, source: Stages) -> None:
        super().__init__()
        self.source = source.eval().requires_grad_(False)
        self.network = Stages(TARGET)
        self.projection = nn.Conv2d(960, 320, 1)

    def forward(self, image: Tensor, apart: bool) -> Tensor:
        """The error of each map (5,): mean squares, in variances of the source's channel.

        Args:
            image: (B, 3, IMAGE, IMAGE), 0 to 255.
            apart: feed each stage with the source's maps.
        """
        margin = (IMAGE - VIEW) // 2
        middle = image[:, :, margin : margin + VIEW, margin : margin + VIEW]
        with torch.no_grad():
            target = self.source.maps(middle)
        found = self.network.maps(middle, target if apart else None)
        found[-1] = self.projection(found[-1])
        return torch.stack([error_of_map(*pair) for pair in zip(found, target, strict=True)])


def error_of_map(found: Tensor, target: Tensor) -> Tensor:
    """The mean square, in variances of the target's channel."""
    variance = target.var((0, 2, 3), keepdim=True) + 1e-6
    return ((found - target).square() / variance).mean()


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help=f"ImageNet weights of timm's {SOURCE}")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write, half precision")
    parser.add_argument("--images", type=Path, default=Path("runs/drawn"), help="keeps the synthetic images")
    parser.add_argument("--size", type=int, default=12000, help="how many of them")
    parser.add_argument("--steps", type=int, default=800, help="of --batch images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    if not args.source.is_file():
        parser.error(f"no file {args.source}; tools/assets/convert_lite0.py makes it")
    torch.manual_seed(0)
    loader = hands_loader(args.images, args.size, args.batch, args.workers)
    learner = Learner(Stages(SOURCE, load_file(args.source))).to(memory_format=torch.channels_last)
    errors = learn(learner, loader, args.steps, args.lr)
    with replacing(args.out) as draft:
        about = {"source": "EfficientNet-Lite0, ImageNet", "license": "Apache-2.0"}
        save_file(_stored(stage_weights(learner.network)), draft, about)
    shares = ", ".join(f"{100 * (1 - error):.0f} %" for error in errors)
    print(f"{args.out}: explains {shares} of the variance of the source's maps, from the first to the last")
    return 0


def hands_loader(folder: Path, size: int, batch: int, workers: int) -> DataLoader:
    """Batches of synthetic hands without end, images of `IMAGE` pixels; `folder` keeps them."""
    hands = SyntheticDataset(load_hand("embedded"), size, image_size=IMAGE, scale=0.0, shift=0.0)
    return DataLoader(
        CachedSyntheticDataset(hands, folder, Strength()),  # type: ignore[arg-type]
        batch_sampler=Stream(size, batch, seed=0),  # type: ignore[arg-type]
        num_workers=workers,
    )


def learn(learner: nn.Module, loader: DataLoader, steps: int, rate: float) -> list[float]:
    """Trains `learner(image, apart=...)`; gives the errors of the maps over the last hundred steps."""
    trained = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    history = []
    bar = tqdm(islice(loader, steps), total=steps, unit="step")
    for step, batch in enumerate(bar):
        image = batch[0].float().contiguous(memory_format=torch.channels_last)
        errors = learner(image, apart=step < APART * steps)
        optimizer.zero_grad()
        errors.sum().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        history.append(errors.detach())
        if step % 20 == 0:
            bar.set_postfix_str(" ".join(f"{error:.2f}" for error in torch.stack(history[-20:]).mean(0).tolist()))
    return torch.stack(history[-100:]).mean(0).tolist()


def stage_weights(network: Stages) -> dict[str, Tensor]:
    """Under timm's names, without the classifier and what belongs to it."""
    conv, norm = network.stem
    state = {f"conv_stem.{name}": value for name, value in conv.state_dict().items()}
    state |= {f"bn1.{name}": value for name, value in norm.state_dict().items()}
    for stage in network.stages:  # a slice of `blocks` keeps its numbers
        state |= {f"blocks.{name}": value for name, value in stage.state_dict().items()}
    return state


def _stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In half precision, but for what would not fit (some networks' batch variances)."""
    largest = torch.finfo(torch.half).max
    fits = {name for name, value in state.items() if value.is_floating_point() and value.abs().max() <= largest}
    return {name: (value.half() if name in fits else value).contiguous() for name, value in state.items()}


if __name__ == "__main__":
    sys.exit(main())
