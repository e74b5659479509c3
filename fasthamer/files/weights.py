"""Compares the tensors of a file with those that a network expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

SHOWN = 20  # differences listed in a message; the others are counted


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], source: str) -> None:
    """Compares names and shapes.

    Args:
        found: tensors of a file.
        expected: name -> shape.
        source: begins the message: the file and the network.

    Raises:
        ValueError: missing or unexpected tensors, or different shapes.
    """
    differing = [f"missing {name}" for name in expected if name not in found]
    differing += [f"unexpected {name}" for name in found if name not in expected]
    differing += [
        f"{name} is {tuple(found[name].shape)}, not {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if differing:
        more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        count = f"{len(differing)} of {len(expected)} tensors differ"
        raise ValueError(f"{source}: {count}: {'; '.join(differing[:SHOWN])}{more}")


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a state dict."""
    return {name: tuple(value.shape) for name, value in state.items()}
