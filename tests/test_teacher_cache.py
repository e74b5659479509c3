"""A teacher's outputs on disk: complete or continued, and refused where they are damaged or of another cache."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures_images import ImageDataset, LabelTeacher
from torch.utils.data import default_collate

from fasthamer.data.faults import BadSample
from fasthamer.teachers.cache.build import Builder
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.components import fit_components
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.training.interrupt import Interrupted
from fasthamer.types import Batch

LENGTH = 10  # images, in shards of four: 4, 4, 2
ROWS = 4
OUTPUTS = CacheRequest(maps=False, channels=0, rows=ROWS)
MAPS = CacheRequest(maps=True, channels=0, rows=ROWS)


def cache(folder: Path, request: CacheRequest = MAPS, teacher: LabelTeacher | None = None, **changes) -> CachedTeacher:
    images = ImageDataset(**{"length": LENGTH, **changes})
    return CachedTeacher(folder, teacher or LabelTeacher(images), images, request)


def built(folder: Path, request: CacheRequest = MAPS, **options) -> CachedTeacher:
    cached = cache(folder, request, **options)
    cached.build(batch=3, workers=0, report=lambda text: None)
    return cached


def everything(count: int = LENGTH) -> Batch:
    images = ImageDataset(LENGTH)
    return Batch(*default_collate([images[(0, index)] for index in range(count)]))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_recalled_outputs_are_the_teachers(tmp_path):
    own = LabelTeacher(ImageDataset(LENGTH))(everything().image)
    recalled = built(tmp_path).recall(everything())
    for name in ("vertices", "joints", "keypoints_2d", "camera", "features"):
        torch.testing.assert_close(getattr(recalled, name), getattr(own, name), atol=1e-6, rtol=1e-6, msg=name)
    torch.testing.assert_close(recalled.mano, own.mano, atol=1e-7, rtol=0)


def test_a_teacher_without_mano_parameters_has_its_vertices_kept(tmp_path):
    class Meshes(LabelTeacher):
        def forward(self, image):
            return super().forward(image)._replace(mano=None)

    images = ImageDataset(LENGTH)
    cached = built(tmp_path, OUTPUTS, teacher=Meshes(images))
    recalled, own = cached.recall(everything()), Meshes(images)(everything().image)
    assert recalled.mano is None
    torch.testing.assert_close(recalled.vertices, own.vertices, atol=1e-6, rtol=0)


def test_the_teacher_sees_each_image_once_and_is_released(tmp_path):
    teacher = LabelTeacher(ImageDataset(LENGTH))
    cached = built(tmp_path, teacher=teacher)
    assert cached.teacher is None
    # One image tells what there is to keep, and two passes over the first three how long it will take.
    assert teacher.requested == [0, *[0, 1, 2] * 2, *range(LENGTH)]
    again = LabelTeacher(ImageDataset(LENGTH))
    built(tmp_path, teacher=again)
    assert again.requested == []


def test_size_and_time_are_reported_first(tmp_path):
    lines: list[str] = []
    cached = cache(tmp_path)
    cached.build(batch=3, workers=0, report=lambda text: lines.append(f"{text} {cached.teacher.requested[7:]}"))
    # A row has 6 + 3 + 63 + 42 + 9 + 135 + 10 numbers and a checksum, 4 bytes each; a map 4 x 2 x 2 of 2 bytes.
    assert lines[0].startswith(
        f"teacher cache {tmp_path}: 10 outputs, 0.0 MB and feature maps 4 x 2 x 2, 0.0 MB; 0 of 3"
    )
    assert "for the other 10 at" in lines[0]
    assert lines[0].endswith("images/s []")
    assert (tmp_path / "answers_00000.bin").stat().st_size == 4 * 4 * 269
    assert (tmp_path / "maps_00002.bin").stat().st_size == 2 * 2 * 16
    lines.clear()
    cache(tmp_path).build(batch=3, workers=0, report=lines.append)
    assert lines == [f"teacher cache {tmp_path}: complete (10 outputs, 0.0 MB and feature maps 4 x 2 x 2, 0.0 MB)"]


def test_a_killed_build_is_taken_up_where_it_was(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, {tests!r})\n"
        "import test_teacher_cache as here\n"
        "teacher = here.LabelTeacher(here.ImageDataset(here.LENGTH))\n"
        "teacher.before_output = lambda: time.sleep(1.0 if len(teacher.requested) > 10 else 0)\n"
        "here.built(Path({folder!r}), teacher=teacher)\n"
    ).format(tests=str(Path(__file__).parent), folder=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    first = tmp_path / "killed" / "shard_00000.json"
    end = time.monotonic() + 240
    while not first.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "shard_00002.json").exists(), "it was done before it was killed"

    there = len(list((tmp_path / "killed").glob("shard_*.json")))
    teacher = LabelTeacher(ImageDataset(LENGTH))
    built(tmp_path / "killed", teacher=teacher)
    assert teacher.requested[6:] == list(range(4 * there, LENGTH))
    built(tmp_path / "straight")
    assert files(tmp_path / "killed") == files(tmp_path / "straight")


def test_ctrl_c_stops_between_two_batches_and_keeps_what_is_complete(tmp_path):
    teacher = LabelTeacher(ImageDataset(LENGTH))
    teacher.before_output = lambda: os.kill(os.getpid(), signal.SIGINT) if len(teacher.requested) == 11 else None
    with pytest.raises(Interrupted, match="teacher cache was built: 2 of 3 shards are left"):
        built(tmp_path, teacher=teacher)
    teacher = LabelTeacher(ImageDataset(LENGTH))
    built(tmp_path, teacher=teacher)
    assert teacher.requested[6:] == list(range(4, LENGTH))


def test_two_processes_share_the_shards(tmp_path):
    asked = []
    for rank in (0, 1):
        cached = cache(tmp_path)
        builder = Builder(tmp_path, cached.teacher, cached.images, cached.key, MAPS)
        if rank == 0:
            builder.begin(3, 0)
        builder.fill(3, 0, rank, processes=2)
        asked.append(cached.teacher.requested[rank == 0 :])
    assert asked == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]
    assert built(tmp_path).recall(everything()).features[:, 0, 0, 0].tolist() == list(range(LENGTH))


def test_another_subject_is_refused_by_name(tmp_path):
    built(tmp_path)
    other = LabelTeacher(ImageDataset(LENGTH))
    other.weight.data += 1
    with pytest.raises(ValueError, match=r"caches another teacher .*name another folder"):
        cache(tmp_path, teacher=other)
    half = LabelTeacher(ImageDataset(LENGTH))
    half.precision = "bf16"
    with pytest.raises(ValueError, match=r"caches another precision \(fp32, this run has bf16\)"):
        cache(tmp_path, teacher=half)
    with pytest.raises(ValueError, match="caches another data"):
        cache(tmp_path, seed=5)
    with pytest.raises(ValueError, match="caches another data"):
        cache(tmp_path, length=9)


def test_less_than_is_wanted_is_refused_and_more_is_used(tmp_path):
    built(tmp_path / "outputs", OUTPUTS)
    with pytest.raises(ValueError, match=r"keeps outputs only, but KD.MODE compares features"):
        cache(tmp_path / "outputs", MAPS)
    built(tmp_path / "maps", MAPS)
    assert built(tmp_path / "maps", OUTPUTS).recall(everything()).features.shape == (LENGTH, 4, 0, 0)
    with pytest.raises(ValueError, match=r"keeps 4 of 4 feature channels, TEACHER.CACHE_CHANNELS asks for 2"):
        cache(tmp_path / "maps", CacheRequest(maps=True, channels=2, rows=ROWS))
    with pytest.raises(ValueError, match=r"TEACHER.CACHE_CHANNELS is 5: this teacher has 4"):
        cache(tmp_path / "new", CacheRequest(maps=True, channels=5, rows=ROWS))


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other files, no teacher cache"):
        cache(tmp_path)
    with pytest.raises(ValueError, match="holds other files, no teacher cache"):
        cache(tmp_path / "letter.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("answers_00001.bin", cut, r"answers_00001.bin: cut short \(4301 bytes, expected 4304\); remove shard_00001"),
        ("answers_00001.bin", flip, r"answers_00001.bin: not what was written \(wrong checksum\); remove shard_00001"),
        ("answers_00001.bin", Path.unlink, r"cut short \(0 bytes"),
        ("maps_00001.bin", cut, r"maps_00001.bin: cut short \(125 bytes, expected 128\); remove shard_00001.json"),
        ("shard_00001.json", cut, r"shard_00001.json: damaged"),
        ("about.json", cut, r"about.json: damaged"),
        ("components.npz", flip, r"components.npz: missing, damaged or of another teacher cache"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, file, damage, message):
    request = CacheRequest(maps=True, channels=3, rows=ROWS) if file == "components.npz" else MAPS
    built(tmp_path, request)
    damage(tmp_path / file)
    with pytest.raises(ValueError, match=message) as refused:
        cache(tmp_path, request)
    assert "\n" not in str(refused.value)


def test_the_remedy_that_is_named_helps(tmp_path):
    built(tmp_path)
    before = files(tmp_path)
    flip(tmp_path / "answers_00001.bin")
    (tmp_path / "shard_00001.json").unlink()
    teacher = LabelTeacher(ImageDataset(LENGTH))
    built(tmp_path, teacher=teacher)
    assert teacher.requested[6:] == [4, 5, 6, 7]
    assert files(tmp_path) == before


def test_a_damaged_map_is_found_when_it_is_read(tmp_path):
    built(tmp_path)
    flip(tmp_path / "maps_00000.bin")  # the middle of four maps: number 2
    cached = built(tmp_path)
    cached.recall(everything(2))
    with pytest.raises(BadSample, match=r"maps_00000.bin: the feature map of sample 2 is damaged"):
        cached.recall(everything())


def test_a_shard_of_another_cache_is_refused(tmp_path):
    built(tmp_path / "ours")
    built(tmp_path / "other", seed=3)
    for name in ("shard_00000.json", "answers_00000.bin", "maps_00000.bin"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "ours" / name)
    with pytest.raises(ValueError, match=r"shard_00000.json: a shard of another teacher cache; remove"):
        cache(tmp_path / "ours")


@pytest.mark.parametrize(("value", "message"), [(70000.0, "do not fit half precision"), (np.nan, "do not fit half")])
def test_features_beyond_half_precision_are_not_cut_off(tmp_path, value, message):
    class Loud(LabelTeacher):
        def forward(self, image):
            return super().forward(image)._replace(features=torch.full((len(image), 4, 2, 2), value))

    with pytest.raises(FloatingPointError, match=message):
        built(tmp_path, teacher=Loud(ImageDataset(LENGTH)))
    built(tmp_path / "outputs", OUTPUTS, teacher=Loud(ImageDataset(LENGTH)))


def test_an_answer_that_is_no_number_is_not_cached(tmp_path):
    class Lost(LabelTeacher):
        def forward(self, image):
            return super().forward(image)._replace(camera=torch.full((len(image), 3), torch.nan))

    with pytest.raises(FloatingPointError, match="the teacher's camera for samples 0 to 2 are not finite"):
        built(tmp_path, teacher=Lost(ImageDataset(LENGTH)))


def test_a_full_disk_is_reported_before_the_teacher_works(tmp_path):
    class Large(LabelTeacher):
        def forward(self, image):  # 4 x 2**20 x 2**20 numbers a sample, 8.8 TB in half precision; no memory is used
            return super().forward(image)._replace(features=torch.zeros(1).expand(len(image), 4, 2**20, 2**20))

    teacher = Large(ImageDataset(LENGTH))
    with pytest.raises(OSError, match=r"needs 87960.9 GB more and its disk has \d") as refused:
        built(tmp_path, teacher=teacher)
    assert refused.value.errno == errno.ENOSPC
    assert teacher.requested == [0]


def test_components_are_those_of_a_singular_value_decomposition():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.2, 0.1])
    maps = torch.einsum("cd,bdhw->bchw", mixing, torch.randn(20, 6, 3, 2, generator=generator)) + 4
    components, explained = fit_components(maps.split(7), 2)
    cells = maps.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    centred = cells - cells.mean(0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    assert explained == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-5)
    expected = centred @ directions[:2].T @ directions[:2] + cells.mean(0)
    restored = components.expand(components.compress(maps)).permute(0, 2, 3, 1).reshape(-1, 6)
    np.testing.assert_allclose(restored, expected, atol=1e-4)


def test_components_are_what_is_kept_and_come_back_as_full_maps(tmp_path):
    class Varied(LabelTeacher):
        def forward(self, image):
            numbers = image[:, :1, :1, :1].float()  # features on a line through four dimensions, and an offset
            line = torch.tensor([1.0, -2.0, 0.5, 0.0])[:, None, None]
            return super().forward(image)._replace(features=(numbers * line + 3).expand(-1, 4, 2, 2))

    request = CacheRequest(maps=True, channels=1, rows=ROWS)
    teacher = Varied(ImageDataset(LENGTH))
    cached = built(tmp_path, request, teacher=teacher)
    assert (tmp_path / "maps_00000.bin").stat().st_size == 4 * 2 * 4  # one channel of four
    recalled, own = cached.recall(everything()), teacher(everything().image)
    torch.testing.assert_close(recalled.features, own.features, atol=0.02, rtol=0)  # 20 in half precision


class Holed(ImageDataset):
    def __getitem__(self, key):
        if key[1] == 6:  # none of those that identify the dataset
            raise ValueError("6.jpg: damaged image")
        return super().__getitem__(key)


def holed(folder: Path, request: CacheRequest) -> CachedTeacher:
    cached = CachedTeacher(folder, LabelTeacher(ImageDataset(LENGTH)), Holed(LENGTH), request)
    cached.build(batch=3, workers=0, report=lambda text: None, faults=0.2)
    return cached


@pytest.mark.parametrize("wanted", [OUTPUTS, MAPS])
def test_a_sample_that_cannot_be_read_gets_no_output_and_costs_no_other(tmp_path, wanted):
    cached = holed(tmp_path, wanted)
    known = [number for number in range(LENGTH) if number != 6]
    recalled = cached.recall(Batch(*(part[known] for part in everything())))
    own = LabelTeacher(ImageDataset(LENGTH))(everything().image)
    torch.testing.assert_close(recalled.vertices, own.vertices[known], atol=1e-6, rtol=1e-6)
    marker = tmp_path / "shard_00001.json"
    with pytest.raises(BadSample, match=f"sample 6 could not be read when the cache was built: remove {marker} and"):
        cached.recall(everything())
    again = CachedTeacher(tmp_path / "strict", LabelTeacher(ImageDataset(LENGTH)), Holed(LENGTH), OUTPUTS)
    with pytest.raises(BadSample, match=r"6\.jpg: damaged image"):
        again.build(batch=3, workers=0, report=lambda text: None)


def test_the_shard_of_a_sample_is_computed_anew_once_its_file_is_repaired(tmp_path):
    holed(tmp_path / "holed", MAPS)
    before = files(tmp_path / "holed")
    holed(tmp_path / "holed", MAPS)
    assert files(tmp_path / "holed") == before, "it cannot be read yet"
    teacher = LabelTeacher(ImageDataset(LENGTH))
    built(tmp_path / "holed", teacher=teacher)
    assert teacher.requested[6:] == [4, 5, 6, 7]
    built(tmp_path / "whole")
    assert files(tmp_path / "holed") == files(tmp_path / "whole")
