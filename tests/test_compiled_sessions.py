"""Backend `compile`: one compilation for each shape of crops, whatever their strides; none at a later call."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fasthamer.runtime import torch_sessions
from fasthamer.runtime.sessions import open_session
from fasthamer.types import HandOutput

SIZE = 4
HANDS = 11  # torch compiles a function for no more than 8 sizes


class Tiny(nn.Module):
    """A hand model that is its own inference graph and takes no time to compile; its joints are the crop's pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.normalise = SIZE, SimpleNamespace(share=1.0)

    def deploy(self) -> "Tiny":
        return self

    def in_precision(self, dtype: torch.dtype) -> "Tiny":
        return self

    def forward(self, image: torch.Tensor) -> HandOutput:
        points = image.float().flatten(2).mT
        return HandOutput(points, points, points[..., :2], points[:, 0], points)


@pytest.fixture
def compilations(monkeypatch):
    """The shapes that were compiled, in their order; the compiled code is the traced graph itself."""
    shapes = []

    def compiler(graph, examples, **options):
        shapes.append(tuple(examples[0].shape))
        return graph.forward

    monkeypatch.setattr(torch_sessions, "COMPILER", compiler)
    return shapes


def crops(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, 3, SIZE, SIZE), dtype=np.uint8)


def test_any_number_of_hands_is_compiled_at_its_first_call(compilations):
    session = open_session(Tiny(), "compile")
    assert compilations == [(1, 3, SIZE, SIZE)]
    for _ in range(2):
        for batch in range(1, HANDS + 1):
            expected = crops(batch).reshape(batch, 3, -1).transpose(0, 2, 1)
            np.testing.assert_array_equal(session(crops(batch))["joints"], expected)
    assert compilations == [(batch, 3, SIZE, SIZE) for batch in range(1, HANDS + 1)]


@pytest.mark.parametrize(
    "strided",
    [
        np.ascontiguousarray(crops(2).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),  # as HandMesh stacks its crops
        crops(4)[::2],
        crops(2)[:, ::-1],
        np.stack([crops(1)[0]] * 2, axis=1).transpose(1, 0, 2, 3),
    ],
)
def test_crops_of_any_strides_take_the_same_compilation(strided, compilations):
    session = open_session(Tiny(), "compile", batch=2)
    expected = strided.reshape(2, 3, -1).transpose(0, 2, 1)
    np.testing.assert_array_equal(session(strided)["joints"], expected)
    assert len(compilations) == 1


def test_a_single_crop_with_a_new_axis_takes_the_same_compilation(compilations):
    open_session(Tiny(), "compile")(crops(1)[0][None])  # whose stride is 0
    assert len(compilations) == 1


def test_the_number_of_threads_is_set_before_compiling(compilations):
    before = torch.get_num_threads()
    try:
        session = open_session(Tiny(), "compile", threads=before + 1)
        session(crops(1))
    finally:
        torch.set_num_threads(before)
    assert len(compilations) == 1


def test_an_archive_is_not_compiled(tmp_path):
    path = tmp_path / "hand.pt2"
    path.touch()
    with pytest.raises(ValueError, match=r"a \.pt2 file runs in folded, not in compile"):
        open_session(path, "compile")
