"""The trained models in the package: they open by name, and are good on hands that they have not seen."""

import numpy as np
import pytest

from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.data.zoo import EVALUATION_SEED
from fasthamer.hand.mano import load_hand
from fasthamer.metrics.alignment import procrustes
from fasthamer.predict import HandMesh, open_model
from fasthamer.students.shipped import shipped_students
from fasthamer.teachers import build_teacher, resolve_teacher
from fasthamer.tools import benchmark_pipeline, zoo

NAMES = ["embedded", *shipped_students()]


@pytest.fixture(scope="module")
def held_out():
    return SyntheticDataset(load_hand("embedded"), 16, EVALUATION_SEED, 192, 0.0, 0.0, "upright")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_is_near_the_hands_of_the_evaluation_set(name, held_out):
    model, errors = open_model(name), []
    assert model.box_shape == "upright"
    for index in range(len(held_out)):
        item = held_out[(0, index)]
        predicted = model(item.image[None]).joints[0].detach().numpy()
        true = item.joints[:, :3].numpy()
        errors.append(np.linalg.norm(procrustes(predicted[None], true[None])[0] - true, axis=-1).mean())
    assert np.mean(errors) < 0.0175  # metres; the mean pose is at 0.020


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_finds_the_hand_of_an_image_and_places_its_keypoints(name):
    image = SyntheticDataset(load_hand("embedded"), 11, seed=1, image_size=320, scale=0.0, shift=0.0)[(0, 10)]
    pixels = np.ascontiguousarray(image.image.permute(1, 2, 0).numpy())
    true = (image.keypoints_2d[:, :2].numpy() + 0.5) * 320
    found = HandMesh(name)(pixels)
    assert len(found.boxes) == 1
    size = (true.max(0) - true.min(0)).max()
    assert np.linalg.norm(found.keypoints_2d[0] - true, axis=-1).mean() < 0.15 * size


@pytest.mark.parametrize("name", shipped_students())
def test_a_shipped_student_teaches_by_name(name):
    resolved, why = resolve_teacher(name)
    assert resolved == str(shipped_students()[name]) and "student's file" in why
    assert build_teacher(name).box_shape == "upright"


def test_the_zoo_lists_every_shipped_model(capsys):
    assert zoo.main([]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [*shipped_students(), "embedded"]


def test_files_stay_small_enough_for_the_wheel():
    files = [*shipped_students().values()]
    assert all(path.stat().st_size <= 16e6 for path in files)


def test_the_pipeline_benchmark_times_model_landmarks_and_detection(capsys):
    assert benchmark_pipeline.main(["--models", "embedded", "--repeats", "3"]) == 0
    output = capsys.readouterr().out
    for name in ("embedded", "hand_landmark_full", "hand_landmark_lite", "detection alone", "embedded with detection"):
        assert f"{name} " in output


def test_the_pipeline_benchmark_names_an_unknown_model(capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark_pipeline.main(["--models", "nothing"])
    assert stopped.value.code == 2 and "no model 'nothing'" in capsys.readouterr().err
