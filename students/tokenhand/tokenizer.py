"""TokenHand's first stage: a hand mesh as M tokens, each a code of a codebook, and back."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fasthamer.hand.mano import Hand
from fasthamer.hand.palm import PalmFrame
from fasthamer.nn.precision import full_precision
from fasthamer.registry import unknown
from fasthamer.students.tokenhand.codebook import Codebook, Quantised
from fasthamer.students.tokenhand.encoder import MeshEncoder
from fasthamer.students.tokenhand.mesh_decoder import MeshDecoder
from fasthamer.types import N_VERTICES

LARGEST = 16384  # codes or widths
FRAMES = ("palm", "camera")


class TokenizerSpec(NamedTuple):
    """What a tokenizer is built from, beside the hand; plain values, stored in its file."""

    tokens: list[int]  # of each layer of the mesh decoder; the first is M
    widths: list[int]  # of each layer
    blocks: int  # MetaFormer blocks in a layer
    codes: int  # K
    code_width: int  # D
    frame: str  # palm: tokens without the hand's rotation, which is stored apart; camera: tokens encode it too
    points: list[int]  # left after each pooling of the encoder but the last, which leaves M
    point_widths: list[int]  # channels after each pooling
    neighbours: int  # that a point attends to
    encoder_blocks: int  # of attention among the M tokens


class EncodedHand(NamedTuple):
    """A mesh as tokens."""

    tokens: Tensor  # (B, M, D) before they are quantised
    rotation: Tensor  # (B, 3, 3) of the hand; the identity where the tokens encode it


class Tokenizer(nn.Module):
    """Encoder, codebook and mesh decoder; `tokenizer(vertices)` reconstructs meshes.

    In the frame `palm`, the rotation of the hand is found in closed form (`PalmFrame`) and removed before the
    encoder; `camera` is TokenHand's own frame. Hands are compared with the wrist at the origin.

    Args:
        spec: the architecture.
        hand: whose topology the neighbourhoods are made of; its fingerprint goes into the file.
        decay, dead_below: of the codebook while it trains.

    Raises:
        ValueError, KeyError: a spec that cannot be built.
    """

    def __init__(self, spec: TokenizerSpec, hand: Hand, decay: float = 0.99, dead_below: float = 0.0) -> None:
        super().__init__()
        check_spec(spec)
        self.spec, self.fingerprint, self.hand_name = spec, hand.fingerprint, hand.name
        self.frame = PalmFrame(hand)
        template = hand.layer.v_template.detach()
        upright = self.frame(template[None]).vertices[0]
        mean = upright if spec.frame == "palm" else torch.zeros_like(upright)
        points = [*spec.points, spec.tokens[0]]
        self.encoder = MeshEncoder(
            template, points, spec.point_widths, spec.neighbours, spec.code_width, spec.encoder_blocks
        )
        self.codebook = Codebook(spec.codes, spec.code_width, decay, dead_below)
        self.decoder = MeshDecoder(spec.code_width, spec.tokens, spec.widths, spec.blocks, mean)

    @property
    def shape(self) -> tuple[int, int]:
        """M and K."""
        return self.spec.tokens[0], self.spec.codes

    @property
    def digest(self) -> str:
        """Twelve hex digits of the codes' hash: identifies a tokenizer."""
        return hashlib.sha256(self.codebook.codes.cpu().numpy().tobytes()).hexdigest()[:12]

    def encode(self, vertices: Tensor) -> EncodedHand:
        """The tokens of meshes.

        Args:
            vertices: (B, 778, 3) metres, any origin, oriented like the camera.

        Raises:
            ValueError: another shape, or a mesh with a NaN or infinity; the message names the sample.
        """
        check_meshes(vertices)
        aligned, rotation = self._aligned(vertices)
        return EncodedHand(self.encoder(aligned), rotation)

    def labels(self, vertices: Tensor) -> Tensor:
        """The nearest code of each token: (B, 778, 3) to (B, M) int64."""
        return self.codebook.distances(self.encode(vertices).tokens).argmin(-1)

    def decode(self, tokens: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Codes or mixtures of them (B, M, D), and a rotation (B, 3, 3), to (B, 778, 3) metres."""
        vertices = self.decoder(tokens)
        return vertices if rotation is None else vertices @ rotation.transpose(1, 2)

    def forward(self, vertices: Tensor) -> tuple[Tensor, Tensor, Quantised]:
        """(B, 778, 3) to the aligned mesh (`align`), its reconstruction, and its quantised tokens."""
        aligned = self.align(vertices)
        quantised = self.codebook(self.encoder(aligned))
        return aligned, self.decoder(quantised.tokens), quantised

    def align(self, vertices: Tensor) -> Tensor:
        """The mesh in the frame of encoder and decoder: wrist at the origin; `palm` also turns it upright."""
        return self._aligned(vertices)[0]

    def _aligned(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """`align`, and the rotation (B, 3, 3) that was removed."""
        with full_precision(vertices):  # half precision would rotate hands and move vertices
            if self.spec.frame == "palm":
                aligned = self.frame(vertices)
                return aligned.vertices, aligned.rotation
            vertices = vertices.float()
            straight = torch.eye(3, device=vertices.device).expand(len(vertices), 3, 3)
            return vertices - self.frame.wrist @ vertices, straight


def check_spec(spec: TokenizerSpec) -> None:
    """
    Raises:
        ValueError, KeyError: not a valid architecture; the message names the number and the reason.
    """
    if spec.frame not in FRAMES:
        raise KeyError(unknown("frame of the tokens", spec.frame, FRAMES))
    for name, value in spec._asdict().items():
        least = 0 if name == "encoder_blocks" else 1
        numbers = value if isinstance(value, list) else [value]
        if name != "frame" and not all(isinstance(number, int) and number >= least for number in numbers):
            raise ValueError(f"a tokenizer's {name} is of whole numbers of at least {least}, not {value}")
        most = 64 if "blocks" in name else LARGEST
        if name != "frame" and (len(numbers) > 64 or max(numbers, default=0) > most):
            raise ValueError(f"a tokenizer's {name} is of at most 64 numbers up to {most}, not {value}")
    if not spec.tokens or len(spec.tokens) != len(spec.widths):
        raise ValueError(f"a mesh decoder has as many token counts as widths, not {spec.tokens} and {spec.widths}")
    if len(spec.points) + 1 != len(spec.point_widths):
        raise ValueError(
            f"an encoder has a width for each pooling and the last one to M: {spec.points} points take "
            f"{len(spec.points) + 1} widths, not {spec.point_widths}"
        )
    counts = [N_VERTICES, *spec.points, spec.tokens[0]]
    if any(after > before for before, after in itertools.pairwise(counts)):
        raise ValueError(f"an encoder's points get fewer: {counts} do not")


def check_meshes(vertices: Tensor) -> None:
    """
    Raises:
        ValueError: another shape, or a coordinate that is not finite; the message names the sample.
    """
    if vertices.shape[1:] != (N_VERTICES, 3):
        raise ValueError(f"meshes have shape {tuple(vertices.shape)}; expected (B, {N_VERTICES}, 3), metres")
    finite = torch.isfinite(vertices).flatten(1).all(1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite)[:, 0].tolist()
        raise ValueError(f"the mesh of sample {bad[0]} is not finite ({len(bad)} of {len(vertices)} meshes hold NaN)")


def spec_of(node: Any) -> TokenizerSpec:
    """From the config's section TOKENIZER."""
    return TokenizerSpec(*(_plain(getattr(node, name.upper())) for name in TokenizerSpec._fields))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
