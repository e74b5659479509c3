"""What datasets declare, and the fingerprints that teacher caches and runs made earlier are matched by."""

import hashlib

import numpy as np
import pytest
import torch
from miniatures_2d import write_coco
from miniatures_capture import write_dexycb, write_freihand, write_ho3d

from fasthamer.config import load_config
from fasthamer.data.augment import UNCHANGED, Strength
from fasthamer.data.build import build_dataset, training_set_of, training_spec
from fasthamer.data.crop import Box, Cropping
from fasthamer.data.dataset import DatasetInfo, HandDataset, fingerprint
from fasthamer.data.readers.coco import CocoHands
from fasthamer.data.readers.dexycb import DexYCB
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.readers.ho3d import HO3D
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.streams import Indexed, Mix
from fasthamer.data.subsets import LabelledOnly, PartlyLabelled, Views, WithSynthetic, choose_labelled
from fasthamer.data.synthetic.cached import CachedSyntheticDataset
from fasthamer.data.synthetic.dataset import SyntheticDataset


class Blank(HandDataset):
    """Black crops with their number."""

    info = DatasetInfo("Blank")

    def __len__(self):
        return 3

    def __getitem__(self, key):
        return make_item(np.zeros((8, 8, 3), np.uint8), Labels(), Box(np.array([4.0, 4.0]), 8.0), 8, key[1])


def with_name(name, dataset):
    """The definition of a fingerprint, written out again."""
    digest = hashlib.sha256(f"{name} {len(dataset)}".encode())
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1}):
        for field in dataset[(0, index)]:
            digest.update(field.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def test_fingerprints_of_files_are_those_of_earlier_versions(tmp_path, embedded):
    """Values of commit d9b1357, which blurred. JPEG decoding, cropping and labels are the same on every processor."""
    old = Cropping(blur=True)
    root = write_freihand(tmp_path / "f", count=4, evaluation=2)
    dataset = FreiHAND(root, "training", embedded, 64, Strength(), 7, old)
    labelled = choose_labelled(len(dataset), 0.5, 1)
    assert fingerprint(dataset) == "0f8f3fd25b92c5a1"
    assert fingerprint(PartlyLabelled(dataset, labelled)) == "5a0d6a2e8bfc5d3c"
    assert fingerprint(LabelledOnly(dataset, labelled)) == "ae89d1966b55444a"  # its items are numbered anew since then
    assert fingerprint(Views(dataset, 3)) == "47eedef428d0240d"
    assert fingerprint(HO3D(write_ho3d(tmp_path / "h"), "training", embedded, 64, cropping=old)) == "b3cc3b9e85f0fa81"
    assert (
        fingerprint(DexYCB(write_dexycb(tmp_path / "d"), "training", embedded, 64, cropping=old)) == "594f143362926b91"
    )


def test_a_cache_of_crops_as_they_are_has_the_fingerprint_of_earlier_versions(tmp_path, embedded):
    root = write_freihand(tmp_path, count=4, evaluation=2)
    overrides = ["DATA.NAME", "freihand", "DATA.ROOT", str(root), "IMAGE_SIZE", "64", "DATA.LABELLED", "0.5"]
    overrides += ["DATA.BLUR", "true"]  # as they all did
    spec = training_spec(load_config(None, overrides))
    plain = training_set_of(spec._replace(labelled=1.0, strength=UNCHANGED), embedded)
    assert fingerprint(plain) == "33c9312b98b39235"


def test_synthetic_datasets_keep_the_names_that_enter_old_fingerprints(tmp_path, embedded):
    """Their pixels depend on the processor's arithmetic in the last bit, so the name is tested, not a value."""
    synthetic = SyntheticDataset(embedded, 3, 3, 32, scale=0.0, shift=0.0)
    cached = CachedSyntheticDataset(synthetic, tmp_path, Strength())
    assert fingerprint(synthetic) == with_name("SyntheticHands", synthetic)
    assert fingerprint(cached) == with_name("KeptHands", cached)
    assert fingerprint(WithSynthetic(Blank(), synthetic, 0.5)) == with_name(
        "WithSynthetic", WithSynthetic(Blank(), synthetic, 0.5)
    )


def test_a_stream_has_its_own_fingerprint():
    one = Indexed(Blank(), 0, fingerprint(Blank()))
    assert fingerprint(one) == fingerprint(Blank()) != fingerprint(Mix([one], [1], 0)) == Mix([one], [1], 0).fingerprint


@pytest.mark.parametrize("kind", ["embedded", "mano"])
def test_info_is_what_the_items_have(tmp_path, kind, request):
    hand = request.getfixturevalue(kind)
    roots = write_freihand(tmp_path / "f"), write_ho3d(tmp_path / "h"), write_dexycb(tmp_path / "d")
    for reader, root in zip((FreiHAND, HO3D, DexYCB), roots, strict=True):
        for meshes in (True, False):
            dataset = reader(root, "training", hand, meshes=meshes)
            items = [dataset[(0, index)] for index in range(3)]
            assert dataset.info.meshes == any(item.has_vertices for item in items)
            assert dataset.info.poses == any(dataset.articulation(index) is not None for index in range(3))
            assert dataset.info.cameras and dataset.camera(0).shape == (3, 3)


def test_a_partly_labelled_dataset_declares_what_the_whole_does_and_hides_poses(tmp_path, mano):
    whole = FreiHAND(write_freihand(tmp_path), "training", mano)
    part = PartlyLabelled(whole, np.array([1]))
    assert part.info == whole.info._replace(name="PartlyLabelled")
    assert part.articulation(0) is None and part.articulation(1) is not None
    only = LabelledOnly(whole, np.array([1]))
    assert only.sample_name(0) == part.sample_name(1) == "00000001"
    np.testing.assert_array_equal(only.camera(0), whole.camera(1))


def test_a_dataset_without_cameras_says_so_and_is_named_by_number():
    assert Blank().sample_name(2) == "2" and Blank().articulation(0) is None
    with pytest.raises(NotImplementedError, match="Blank has no cameras"):
        Blank().camera(0)


def test_evaluation_is_not_augmented_and_has_every_label(tmp_path, embedded):
    root = write_freihand(tmp_path, evaluation=2)
    overrides = ["DATA.NAME", "freihand", "DATA.ROOT", str(root), "DATA.LABELLED", "0.5", "KD.MODE", "none"]
    dataset = build_dataset(load_config(None, overrides), embedded, train=False)
    assert len(dataset) == 2 and isinstance(dataset, FreiHAND)
    assert torch.equal(dataset[(0, 1)].image, dataset[(5, 1)].image)


def test_the_reader_of_keypoints_names_its_file_and_protocol(tmp_path):
    write_coco(tmp_path, 2)
    info = CocoHands(tmp_path, "training").info
    assert info.protocol == "hint" and info.source is not None and info.source.is_file() and not info.cameras
