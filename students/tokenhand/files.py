"""`tokenizer.safetensors`: a trained tokenizer and the hand it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fasthamer
from fasthamer.files.headed_tensors import Kind, read_headed, read_header, write_headed
from fasthamer.files.weights import check_weights, shapes
from fasthamer.hand.mano import Hand
from fasthamer.one_line import one_line
from fasthamer.students.tokenhand.tokenizer import Tokenizer, TokenizerSpec

SHIPPED = Path(fasthamer.__file__).parent / "assets" / "embedded_tokenizer.safetensors"
TOKENIZER = Kind("tokenizer", "fasthamer-tokenizer-1", {*TokenizerSpec._fields, "hand", "hand_name"})


def save_tokenizer(path: str | Path, tokenizer: Tokenizer, metadata: dict[str, Any], dtype: str = "fp32") -> None:
    """Writes the weights and the architecture; atomic.

    Args:
        path: ends in .safetensors; replaced whole or not at all.
        metadata: JSON values kept in the header, such as config, metrics and provenance.
        dtype: fp32 or fp16, of the stored weights.
    """
    description = {**tokenizer.spec._asdict(), "hand": tokenizer.fingerprint, "hand_name": tokenizer.hand_name}
    write_headed(Path(path), TOKENIZER, description, metadata, tokenizer.state_dict(), dtype)


def load_tokenizer(path: str | Path, hand: Hand) -> Tokenizer:
    """The tokenizer of a file, frozen, in fp32 and eval mode.

    Args:
        path: written by `save_tokenizer`; `auto` is the one that fasthamer ships for the embedded hand.
        hand: the hand model whose meshes it encodes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a tokenizer's file, damaged, or made for another hand.
    """
    if str(path) == "auto":
        if not hand.is_embedded:
            raise ValueError(
                f"fasthamer ships a tokenizer for its embedded hand only, and this is {hand.name!r}: train one with "
                "tools/train_tokenizer.py --mano FILE, then give it as STUDENT.TOKENIZER"
            )
        path = SHIPPED
    header, tensors = read_headed(Path(path), TOKENIZER)
    description = dict(header["tokenizer"])
    fingerprint, name = description.pop("hand"), description.pop("hand_name")
    if fingerprint != hand.fingerprint:
        raise ValueError(
            f"{path}: this tokenizer was made for the hand {name!r} ({fingerprint}), not for {hand.name!r} "
            f"({hand.fingerprint}): its codes do not fit that hand. Train one with tools/train_tokenizer.py"
        )
    try:
        tokenizer = Tokenizer(TokenizerSpec(**description), hand)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:  # of whatever the header holds
        raise ValueError(f"{path}: no tokenizer can be built from its description: {one_line(error)}") from error
    check_weights(tensors, shapes(tokenizer.state_dict()), f"{path}: weights that do not fit its description")
    tokenizer.load_state_dict(tensors)
    return tokenizer.eval().requires_grad_(False)


def tokenizer_metadata(path: str | Path) -> dict[str, Any]:
    """The header: `tokenizer` (its architecture) and `metadata`; reads no weights."""
    return read_header(Path(path), TOKENIZER)
