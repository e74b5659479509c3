"""Which device is computed on: one that only gives memory is passed over."""

import warnings

import pytest
import torch

from fasthamer.device import PRESENT, _first_that_computes, pick_device, trouble_with

NO_KERNELS = "cuda:77"  # computes nothing, as a GPU that this torch has no kernels for


def test_a_device_that_computes_has_no_trouble():
    assert trouble_with("cpu") == ""
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", [NO_KERNELS, "no_device"])
def test_a_device_that_does_not_compute_is_refused_with_the_reason_in_one_line(name):
    assert trouble_with(name) and "\n" not in trouble_with(name)
    with pytest.raises(ValueError, match=f"device '{name}' cannot be used here .*; auto takes the best"):
        pick_device(name)


def test_auto_passes_over_a_gpu_that_does_not_compute_and_says_so():
    with pytest.warns(UserWarning, match=f"{NO_KERNELS} is there but does not compute"):
        assert _first_that_computes([NO_KERNELS]) == torch.device("cpu")


def test_auto_takes_the_first_that_computes():
    assert _first_that_computes(["cpu", NO_KERNELS]) == torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = pick_device("auto")
    assert chosen.type == next((gpu for gpu, present in PRESENT.items() if present()), "cpu")
