"""Sets made of sets: some of the labels, some of the samples, and synthetic hands between images."""

import pytest
import torch
from miniatures_capture import write_freihand

from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.subsets import LabelledOnly, PartlyLabelled, WithSynthetic, choose_labelled


@pytest.fixture
def whole(tmp_path, embedded):
    """Twelve images."""
    return FreiHAND(write_freihand(tmp_path), "training", embedded)


def test_a_fraction_of_the_images_keeps_its_labels_the_same_in_every_epoch(whole):
    kept = choose_labelled(len(whole), 1 / 3, seed=0)
    part = PartlyLabelled(whole, kept)
    labelled = [i for i in range(12) if part[(0, i)].joints[:, 3].any()]
    assert len(labelled) == 4
    assert labelled == [i for i in range(12) if part[(9, i)].keypoints_2d[:, 2].any()]
    assert all(torch.equal(part[(0, i)].image, whole[(0, i)].image) for i in range(12))
    with pytest.raises(ValueError, match=r"DATA\.LABELLED"):
        choose_labelled(len(whole), 0.0, seed=0)


def test_without_a_teacher_only_the_labelled_images_are_trained_on(whole):
    kept = choose_labelled(len(whole), 1 / 3, seed=0)
    only = LabelledOnly(whole, kept)
    assert [int(only.sample_name(i)) for i in range(len(only))] == kept.tolist()
    assert all(torch.equal(only[(0, i)].image, whole[(0, int(k))].image) for i, k in enumerate(kept))
    assert int(only[(0, 1)].index) == 1 and f"{kept[1]:08d}.jpg" in only.describe(1)


class Numbered(HandDataset):
    """Records which samples were read."""

    info = DatasetInfo("Numbered")

    def __init__(self, item, size):
        self.item, self.size, self.asked = item, size, []

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        self.asked.append(key)
        return self.item


def test_synthetic_hands_fill_their_part_of_each_epoch_and_do_not_repeat_early(whole):
    drawn = Numbered(whole[(0, 0)], 20)
    mixed = WithSynthetic(whole, drawn, 0.6)
    assert len(mixed) == 30  # 12 images are 40 %
    items = [mixed[(epoch, i)] for epoch in range(3) for i in range(30)]
    assert [int(item.index) for item in items] == list(range(30)) * 3
    assert drawn.asked == [(0, i) for i in range(20)] + [(1, i) for i in range(20)] + [(2, i) for i in range(14)]
    with pytest.raises(ValueError, match=r"DATA\.MIX_SYNTHETIC"):
        WithSynthetic(whole, drawn, 1.0)
