"""Batches packed for the way between processes are unpacked unchanged."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from fasthamer.data.crop import Box
from fasthamer.data.loader import pack_batch, unpack_batch
from fasthamer.data.sample import Labels, make_item
from fasthamer.types import Batch


def items(count=3, first=2**40):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for number in range(count):
        labels = Labels(
            rng.normal(size=(21, 3)), rng.normal(size=(21, 4)), rng.normal(size=(778, 3)), None, np.ones(10)
        )
        yield make_item(image, labels, Box(np.array([20.0, 20.0]), 30.0), 32, first + number, left=number == 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_is_the_same_after_the_journey(count):
    wanted = Batch(*default_collate(list(items(count))))
    packed = pickle.loads(pickle.dumps(pack_batch(list(items(count)))))
    assert sum(isinstance(piece, torch.Tensor) for piece in packed) == 2
    found = unpack_batch(packed)
    assert isinstance(found, Batch)
    for name, one, other in zip(Batch._fields, found, wanted, strict=True):
        assert one.dtype == other.dtype and one.is_contiguous() and torch.equal(one, other), name


def test_items_of_another_kind_are_left_to_torch():
    pairs = [(torch.ones(2), 1), (torch.zeros(2), 2)]
    found = unpack_batch(pack_batch(pairs))
    assert torch.equal(found[0], torch.tensor([[1.0, 1], [0, 0]])) and found[1].tolist() == [1, 2]
