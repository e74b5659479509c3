"""Distillation from a teacher's cached outputs: what is cached for a config, and when it is filled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from torch.utils.data import default_collate
from yacs.config import CfgNode

from fasthamer.data.augment import UNCHANGED
from fasthamer.data.build import training_set_of, training_spec
from fasthamer.data.dataset import HandDataset, HandStream
from fasthamer.data.faults import Tolerant
from fasthamer.data.subsets import Views
from fasthamer.detect.boxes import mediapipe_boxes
from fasthamer.hand.mano import Hand
from fasthamer.teachers import Teacher
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.check import check_images, deviation
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.types import Batch

COMPARED = 32  # augmented crops on which a new cache is compared with its teacher


def cached_teacher(
    cfg: CfgNode, teacher: Teacher, hand: Hand, images: HandDataset | HandStream, keeps_maps: bool
) -> tuple[CachedTeacher, HandDataset]:
    """The teacher behind its cache TEACHER.CACHE, and the set to train on with it.

    Every label is left out of account (DATA.LABELLED), so one cache serves runs with few labels and with many.
    Outputs alone are computed on crops of the teacher's own box shape and moved to the student's. Feature maps cannot
    be moved, fixed views are the student's crops, and synthetic images are rendered in one shape: these the teacher
    sees as the student does.

    Args:
        cfg: the resolved config.
        teacher: computes what is missing.
        hand: the hand model.
        images: the training set of the config.
        keeps_maps: cache the teacher's feature maps too, for feature distillation.

    Raises:
        ValueError: this set cannot be cached, or the folder holds another cache; the message says what to do.
    """
    views = cfg.TEACHER.CACHE_VIEWS
    if isinstance(images, HandStream):
        raise ValueError(
            "TEACHER.CACHE needs a set whose samples have numbers; this one is read in an order of its own: leave "
            "--teacher-cache out"
        )
    spec = training_spec(cfg, mediapipe_boxes())._replace(labelled=1.0)
    augmented = training_set_of(spec, hand)
    assert not isinstance(augmented, HandStream), "labels do not make a dataset a stream"
    if views:
        cached: HandDataset = Views(augmented, views)
        images = Views(images, views)
    else:
        if not keeps_maps and spec.name != "synthetic":
            spec = spec._replace(cropping=spec.cropping._replace(shape=teacher.box_shape))
        plain = training_set_of(spec._replace(strength=UNCHANGED), hand)
        assert not isinstance(plain, HandStream), "augmentation does not make a dataset a stream"
        check_images(plain, augmented, keeps_maps)
        cached = plain
    wanted = CacheRequest(keeps_maps, cfg.TEACHER.CACHE_CHANNELS)
    return CachedTeacher(Path(cfg.TEACHER.CACHE), teacher, cached, wanted), images


def complete_cache(
    cfg: CfgNode, cached: CachedTeacher, images: HandDataset, accelerator: Accelerator, say: Callable[[str], None]
) -> None:
    """Fills what is missing and opens the cache; for a new one, prints how well it follows augmentation.

    Args:
        cfg: the resolved config.
        cached: on the accelerator's device.
        images: the training set.
        accelerator: of all processes, which share the work.
        say: gets lines for the user.

    Raises:
        OSError, Interrupted, FloatingPointError, BadSample: see `CachedTeacher.build`.
    """
    teacher = cached.teacher
    assert teacher is not None, "a cache is completed once"
    where = accelerator.process_index, accelerator.num_processes
    new = cached.build(cfg.EVAL.BATCH, cfg.DATA.WORKERS, say, *where, accelerator.wait_for_everyone, cfg.DATA.FAULTS)
    if new and not cfg.TEACHER.CACHE_VIEWS:
        keys = [(1, index) for index in range(min(COMPARED, len(images)))]
        items = Tolerant(images, seed=None).__getitems__(keys).items
        say(str(deviation(cached, teacher, Batch(*default_collate(items)))))
