"""Tokenizers small enough for tests, and posed hands for them."""

import torch

from fasthamer.data.poses import sampled_poses
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import random_rotations
from fasthamer.students.tokenhand.tokenizer import Tokenizer, TokenizerSpec
from fasthamer.types import ManoParams

SPEC = TokenizerSpec(
    tokens=[6, 12],
    widths=[16, 8],
    blocks=1,
    codes=16,
    code_width=8,
    frame="palm",
    points=[24],
    point_widths=[8, 16],
    neighbours=4,
    encoder_blocks=1,
)
SETTINGS = [part for name, value in SPEC._asdict().items() for part in (f"TOKENIZER.{name.upper()}", str(value))]


def tiny_tokenizer(hand: Hand, seed: int = 0, **changes) -> Tokenizer:
    """Untrained, in eval mode; its codes are tokens of hands, so that hands differ in their codes."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer(SPEC._replace(**changes), hand).train()
    tokenizer(meshes(hand, 32, seed + 1000)[0])  # the first batch initialises the codes
    return tokenizer.eval()


def meshes(hand: Hand, number: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices (B, 778, 3) and joints (B, 21, 3) of natural poses, turned at random."""
    poses = sampled_poses(number, seed)
    turned = random_rotations(number, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return hand(ManoParams(turned[:, None], poses.hand_pose, poses.betas))
