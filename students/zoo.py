"""Every student by name, its decoders, and the table of their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fasthamer.config import defaults
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.nn.mano_head import SIZES, FlatHead, HeadSize, ManoHead
from fasthamer.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from fasthamer.registry import Registry, unknown
from fasthamer.students import landmark_maps
from fasthamer.students.backbone import Backbone, normalisation
from fasthamer.students.fast_hamer import PREFIX, fast_hamer_backbone
from fasthamer.students.student import Student
from fasthamer.students.tokenhand.files import load_tokenizer
from fasthamer.students.tokenhand.token_decoder import TokenDecoder, token_decoder_params
from fasthamer.students.tokenhand.tokenizer import Tokenizer, spec_of

STUDENTS = {  # name: timm's network; any other is `timm:<name>`; Fast-HaMeR's own are `fast_hamer:<name>`
    "mobilenetv3_s": "mobilenetv3_small_100",
    "mobilenetv3_l": "mobilenetv3_large_100",
    "mobilevit_s": "mobilevit_s",
    "convnext_t": "convnext_tiny",
    "convnext_s": "convnext_small",
    "convnext_b": "convnext_base",
    "convnext_l": "convnext_large",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "wide_resnet50": "wide_resnet50_2",
    "wide_resnet101": "wide_resnet101_2",
    "efficientnetv2_m": "tf_efficientnetv2_m",
    "efficientnetv2_l": "tf_efficientnetv2_l",
    "fastvit_t8": "fastvit_t8",
    "fastvit_t12": "fastvit_t12",
    "fastvit_s12": "fastvit_s12",
    "fastvit_sa12": "fastvit_sa12",
    "fastvit_sa24": "fastvit_sa24",
    "fastvit_sa36": "fastvit_sa36",
    "fastvit_ma36": "fastvit_ma36",
}
DECODERS = Registry("decoder")  # builder(plan, hand) -> a module, see `students.student.Decoder`


class Plan(NamedTuple):
    """The arguments of a decoder's builder."""

    channels: int  # of the feature map
    grid: tuple[int, int]  # the map's cells
    size: str  # one of `fasthamer.nn.mano_head.SIZES`
    tokenizer: Tokenizer | str | Path | None = None  # token decoders only: it, or what `load_tokenizer` takes
    generator: str = "upsampled"  # token decoders only, see `TokenClassifier`
    view: float = 1.0  # the middle share of the crop's side that the map covers


@DECODERS.register
def mano(plan: Plan, hand: Hand) -> nn.Module:
    """HaMeR's transformer head at any width, with position embeddings; starts from the hand's mean pose."""
    head = ManoHead(plan.channels, _size(plan.size), plan.grid)
    head.start_from(hand)
    return head


@DECODERS.register
def hamer(plan: Plan, hand: Hand) -> nn.Module:
    """HaMeR's transformer head unchanged: without the position embedding that the decoder mano adds to the map."""
    head = ManoHead(plan.channels, _size(plan.size))
    head.start_from(hand)
    return head


@DECODERS.register
def flat(plan: Plan, hand: Hand) -> nn.Module:
    """Two layers over the flattened map, without attention; starts from the hand's mean pose."""
    head = FlatHead(plan.channels, _size(plan.size), plan.grid)
    head.start_from(hand)
    return head


@DECODERS.register
def token(plan: Plan, hand: Hand) -> nn.Module:
    """TokenHand's: a code of the codebook for each of M tokens, and a frozen decoder from codes to a mesh."""
    if plan.size != "full":
        raise ValueError(f"the decoder token comes in one size, full, not {plan.size}")
    tokenizer = plan.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load_tokenizer(tokenizer or "auto", hand)
    return TokenDecoder(plan.channels, tokenizer, hand, plan.generator, plan.view)


def build_student(
    name: str,
    decoder: str = "mano",
    decoder_size: str = "full",
    image_size: int = 256,
    view: float = 1.0,
    pretrained: bool = False,
    hand: Hand | None = None,
    feature_layer: str = "last",
    backbone_file: str | Path | None = None,
    tokenizer: Tokenizer | str | Path | None = None,
    generator: str = "upsampled",
    box_shape: str = "hamer",
) -> Student:
    """A new student.

    Args:
        name: one of `STUDENTS`; `timm:<name>` for any network of timm that has feature maps; or `fast_hamer:<name>`
            for one of Fast-HaMeR's own, see `fasthamer.students.fast_hamer`; or `mediapipe:lite` or `mediapipe:full`,
            see `fasthamer.students.landmark_maps`.
        decoder: one of `DECODERS`.
        decoder_size: one of `fasthamer.nn.mano_head.SIZES`.
        image_size: pixels; images of other sizes are resized.
        view: the middle share of the crop's side that the student takes.
        pretrained: ImageNet weights for the backbone where timm can load them; logs a warning where it cannot.
        hand: the hand model; None is the embedded one.
        feature_layer: the backbone layer whose map is `HandOutput.features`; `last`, or one of timm's names.
        backbone_file: a local file of timm's weights for the backbone, instead of `pretrained`.
        tokenizer: of the decoder `token`: one, or its file; None is the shipped one of the embedded hand.
        generator: of the decoder `token`: the map that it samples, see `TokenClassifier`.
        box_shape: of the boxes that its crops are made from, see `fasthamer.data.crop.BOX_SHAPES`.

    Raises:
        KeyError: no such student, decoder, size or generator; the message offers the nearest.
        ValueError: no such layer, or a file that is not this backbone's, or a tokenizer of another hand.
    """
    if decoder not in DECODERS:
        raise KeyError(unknown("decoder", decoder, DECODERS))
    hand = load_hand("embedded") if hand is None else hand
    backbone, mean, std = _backbone(name, image_size, feature_layer, pretrained, backbone_file)
    plan = Plan(backbone.channels, backbone.grid, decoder_size, tokenizer, generator, view)
    head = DECODERS.build(decoder, plan, hand)
    spec: dict[str, Any] = {
        "name": name,
        "decoder": decoder,
        "decoder_size": decoder_size,
        "image_size": image_size,
        "view": view,
        "feature_layer": feature_layer,
    }
    if box_shape != "hamer":
        spec["box_shape"] = box_shape
    if isinstance(head, TokenDecoder):
        spec |= {"tokenizer": head.spec._asdict(), "generator": generator}
    return Student(Normalise(image_size, mean, std, view), backbone, head, hand, spec)


class StudentRow(NamedTuple):
    """One line of `tools/distill.py --list`."""

    name: str
    backbone_params: int
    head_params: int  # of the decoder mano
    token_params: int  # of the decoder token with the default tokenizer: codes and mesh decoder included
    gflops: float  # multiplications and additions of backbone and decoder mano, 2 per multiply-add
    channels: int
    height: int
    width: int


def list_students(
    names: Iterable[str] = tuple(STUDENTS), decoder_size: str = "full", image_size: int = 256
) -> list[StudentRow]:
    """Size and arithmetic of each student; computed on shapes alone, no weights are allocated."""
    return [_measure(name, decoder_size, image_size) for name in names]


def student_table(rows: Iterable[StudentRow]) -> str:
    """The rows as aligned text with a heading; total and GFLOPs are those with the decoder mano."""
    headings = f"{'backbone':>9s} {'mano':>8s} {'total':>8s} {'GFLOPs':>7s} {'token':>8s}"
    lines = [f"{'student':15s} {headings}  feature map"]
    for row in rows:
        sizes = (row.backbone_params, row.head_params, row.backbone_params + row.head_params)
        backbone, mano, total = (f"{size / 1e6:.1f} M" for size in sizes)
        token = f"{row.token_params / 1e6:.2f} M"
        shape = f"{row.channels} x {row.height} x {row.width}"
        lines.append(f"{row.name:15s} {backbone:>9s} {mano:>8s} {total:>8s} {row.gflops:7.1f} {token:>8s}  {shape}")
    return "\n".join(lines)


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _backbone(name: str, *how: Any) -> tuple[Backbone, Sequence[float], Sequence[float]]:
    """The backbone, and mean and standard deviation of the pixels that it takes."""
    if name.startswith(PREFIX):
        return fast_hamer_backbone(name.removeprefix(PREFIX), *how), IMAGENET_MEAN, IMAGENET_STD
    network = _network(name)
    return Backbone(network, *how), *normalisation(network)


def _network(name: str) -> str:
    if name.startswith(landmark_maps.PREFIX):
        return name
    if name.startswith("timm:"):
        return name.removeprefix("timm:")
    if name not in STUDENTS:
        raise KeyError(
            unknown("student", name, STUDENTS) + f"; timm:<name> takes any network of timm, {PREFIX}<name> Fast-HaMeR's"
        )
    return STUDENTS[name]


def _size(name: str) -> HeadSize:
    if name not in SIZES:
        raise KeyError(unknown("decoder size", name, SIZES))
    return SIZES[name]


def _measure(name: str, decoder_size: str, image_size: int) -> StudentRow:
    with torch.device("meta"):
        backbone = _backbone(name, image_size)[0].eval()
        head = ManoHead(backbone.channels, _size(decoder_size), backbone.grid).eval()
        # Fused attention kernels would hide their products from the counter.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            _, features = backbone(torch.empty(1, 3, image_size, image_size))
            head.regress(features)
    return StudentRow(
        name,
        parameter_count(backbone),
        parameter_count(head),
        token_decoder_params(backbone.channels, spec_of(defaults().TOKENIZER)),
        counter.get_total_flops() / 1e9,
        *features.shape[1:],
    )
