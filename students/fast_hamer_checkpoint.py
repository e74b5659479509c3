"""Fast-HaMeR's checkpoints (PyTorch Lightning) as students: strictly, and without running code in the file."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from fasthamer.files.safe_checkpoint import read_state_dict
from fasthamer.files.weights import SHOWN
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.nn.normalise import Normalise
from fasthamer.students.fast_hamer import PREFIX, fast_hamer_backbone, load_named, torchvision_names
from fasthamer.students.student import Student

logger = logging.getLogger(__name__)

SUFFIXES = (".ckpt", ".pt", ".pth")
IMAGE_SIZE = 256  # pixels
BOX_SHAPE = "square"  # of its crops: only configurations with a ViT let boxes grow to 3:4
# Also in the file: the discriminator, MANO's arrays (`load_hand` reads those), the whole teacher, and the projection of
# the teacher's features, which only the loss uses.
IGNORED = ("discriminator.", "mano.", "teacher.", "channel_projection.", "initialized")
MLP = "mano_head.transformer.transformer.layers.0.2.fn.net.0.weight"  # (mlp width, 1024)
HEADS = {1024: "full", 768: "full_mlp768", 512: "full_mlp512"}  # mlp width: a size of `SIZES`
MARKS = {  # a tensor and its shape; the first that is there names the backbone
    "wide_resnet101": ("6.22.conv2.weight", (512, 512, 3, 3)),
    "resnet101": ("6.22.conv2.weight", (256, 256, 3, 3)),
    "wide_resnet50": ("6.5.conv2.weight", (512, 512, 3, 3)),
    "resnet50": ("6.5.conv2.weight", (256, 256, 3, 3)),
    "convnext_l": ("0.0.weight", (192, 3, 4, 4)),
    "mobilenetv3_l": ("0.0.weight", (16, 3, 3, 3)),
    "mobilevit_s": ("0.conv.weight", (16, 3, 3, 3)),
    "efficientnetv2_m": ("0.0.0.weight", (24, 3, 3, 3)),
    "efficientnetv2_l": ("0.0.0.weight", (32, 3, 3, 3)),
}
RENAMED = {  # of torchvision's and timm's modules, which Fast-HaMeR puts into a sequence
    "resnet": {"conv1.": "0.", "bn1.": "1.", "layer1.": "4.", "layer2.": "5.", "layer3.": "6.", "layer4.": "7."},
    "mobilevit": {"stem.": "0.", "stages.": "1.", "final_conv.": "2."},
    "efficientnetv2": {"features.": "0."},
    "features": {"features.": ""},
}


def load_fast_hamer(path: str | Path, hand: Hand | None = None) -> Student:
    """The student of a checkpoint, in fp32 and eval mode; large tensors stay mapped from the file.

    Args:
        path: saved by Fast-HaMeR's training, or any `torch.save` of such a state dict.
        hand: the hand model, usually `load_hand(path)`; None is the one in the file, without one the embedded hand.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, refers to code, or no Fast-HaMeR student: missing, unexpected or misshapen tensors.
    """
    state = read_state_dict(path)
    weights = {name: value for name, value in state.items() if not name.startswith(IGNORED)}
    name = _backbone_of(weights, path)
    size = _head_of(weights, path)
    hand = load_hand(_hand_in(state, path)) if hand is None else hand
    if hand.is_embedded:
        logger.warning(
            "%s predicts MANO's parameters but the hand is the embedded one, so its meshes are only approximate: "
            "give MANO_RIGHT.pkl (--mano)",
            path,
        )
    student = hollow_student(name, size, hand)
    load_named(student, weights, checkpoint_names(student), f"{path} is not Fast-HaMeR's {name}")
    return student.eval()


def hand_of_checkpoint(path: str | Path) -> str:
    """The hand model for a checkpoint: the file itself where MANO is in it, else `embedded`.

    Raises:
        FileNotFoundError, ValueError: no such file, or not a readable one.
    """
    return _hand_in(read_state_dict(path), path)


def hollow_student(name: str, size: str, hand: Hand) -> Student:
    """Fast-HaMeR's student with weights on the meta device: names and shapes alone.

    Args:
        name: one of `fasthamer.students.fast_hamer.TRUNKS`.
        size: one of `HEADS`' sizes.
        hand: the hand model.
    """
    with torch.device("meta"):
        backbone = fast_hamer_backbone(name, IMAGE_SIZE)
        head = ManoHead(backbone.channels, SIZES[size])
    spec = {
        "name": PREFIX + name,
        "decoder": "hamer",
        "decoder_size": size,
        "image_size": IMAGE_SIZE,
        "view": 1.0,
        "feature_layer": "last",
        "box_shape": BOX_SHAPE,
    }
    return Student(Normalise(IMAGE_SIZE), backbone, head, hand, spec)


def checkpoint_names(student: Student) -> dict[str, str]:
    """Our name of each tensor of a Fast-HaMeR student -> its name in the checkpoint."""
    names = {f"decoder.{name}": f"mano_head.{name}" for name in student.decoder.state_dict()}
    name = student.spec["name"].removeprefix(PREFIX)
    family = next((family for family in RENAMED if family in name), "features")
    for ours, theirs in torchvision_names(student.backbone).items():
        old = next(old for old in RENAMED[family] if theirs.startswith(old))
        names[f"backbone.{ours}"] = f"backbone.{RENAMED[family][old]}{theirs.removeprefix(old)}"
    return names


def _hand_in(state: dict[str, Tensor], path: str | Path) -> str:
    return str(path) if any(name.startswith("mano.") for name in state) else "embedded"


def _backbone_of(weights: dict[str, Tensor], path: str | Path) -> str:
    strays = [name for name in weights if not name.startswith(("backbone.", "mano_head."))]
    if strays:
        more = f" and {len(strays) - SHOWN} more" if len(strays) > SHOWN else ""
        raise ValueError(f"{path} is no Fast-HaMeR student: it also holds {', '.join(strays[:SHOWN])}{more}")
    if "backbone.patch_embed.proj.weight" in weights or "backbone.pos_embed" in weights:
        raise ValueError(
            f"{path} has a ViT for a backbone: if it is hamer.ckpt, name the model hamer and give the file as "
            "--teacher-ckpt; Fast-HaMeR's own ViT students are not supported"
        )
    for name, (tensor, shape) in MARKS.items():
        found = weights.get(f"backbone.{tensor}")
        if found is not None and tuple(found.shape) == shape:
            return name
    raise ValueError(f"{path} is no Fast-HaMeR student: its backbone is none of {', '.join(sorted(MARKS))}")


def _head_of(weights: dict[str, Tensor], path: str | Path) -> str:
    found = weights.get(MLP)
    width = 0 if found is None or found.ndim != 2 else found.shape[0]
    if width not in HEADS:
        raise ValueError(
            f"{path} is no Fast-HaMeR student: {MLP} {'is missing' if found is None else f'is {tuple(found.shape)}'}, "
            f"expected ({' or '.join(str(each) for each in HEADS)}, 1024)"
        )
    return HEADS[width]
