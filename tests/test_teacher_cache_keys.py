"""The key of a teacher cache: the same for the same features, whatever version filled it, and for no others."""

from __future__ import annotations

from miniatures_images import ImageDataset, LabelTeacher

from fasthamer.students import Student, build_student
from fasthamer.teachers.cache.manifest import CacheKey, cache_key
from fasthamer.teachers.ensemble import Ensemble
from fasthamer.teachers.teacher import Teacher


def of_zeros(**options) -> Student:
    student = build_student("timm:test_resnet", "flat", "tiny", 64, **options)
    for value in student.state_dict().values():
        value.zero_()
    return student


def test_the_keys_of_caches_on_disk_stay_as_they_are():
    images = ImageDataset(2)
    assert cache_key(LabelTeacher(images), images).teacher == "42884482a454e53b"
    assert cache_key(Teacher(of_zeros(), "fp32"), images).teacher == "96aaaa67d0ecc99f"
    pair = Ensemble([of_zeros(), of_zeros(feature_layer="layer3")])  # features are the first one's
    assert cache_key(Teacher(pair, "fp32"), images).teacher == "2b1d51b4077a84af"


def test_a_student_that_teaches_has_a_key_for_each_layer_whose_features_it_gives():
    images = ImageDataset(2)

    def key(*layers: str) -> CacheKey:
        members = [of_zeros(feature_layer=layer) for layer in layers]
        return cache_key(Teacher(Ensemble(members) if len(members) > 1 else members[0], "fp32"), images)

    keys = [key("last"), key("layer3"), key("layer2,last"), key("last", "last"), key("layer3", "last")]
    assert len(set(keys)) == len(keys)
    assert key("layer4") == key("last"), "the same map"
