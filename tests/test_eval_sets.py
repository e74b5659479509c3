"""The command's datasets and models: which flags belong together."""

import pytest

from fasthamer.students import build_student, save_student
from fasthamer.tools import cli
from fasthamer.tools import eval as command


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    save_student(path, build_student("timm:test_resnet", "flat", "tiny", 64), {})
    return path


@pytest.mark.parametrize(
    ("given", "sets"),
    [
        ([], [[]]),
        (["--data-root", "A", "--data", "b"], [["DATA.ROOT", "A", "DATA.NAME", "b"]]),
        (
            ["--data", "a", "--split", "s", "--data", "b", "--data-root", "B"],
            [["DATA.NAME", "a", "DATA.EVAL_SPLIT", "s"], ["DATA.NAME", "b", "DATA.ROOT", "B"]],
        ),
    ],
)
def test_each_data_begins_a_dataset(given, sets):
    arguments, pairs = cli.parse(command._parser(), [*given, "DATA.WORKERS", "0"])
    assert arguments.sets == sets and pairs == ["DATA.WORKERS", "0"]


def mistake(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_second_root_for_one_dataset_is_refused(student, capsys):
    given = ["--model", str(student), "--data", "freihand", "--data-root", "a", "--data-root", "b"]
    assert "--data-root comes twice for one dataset: give --data before each" in mistake(given, capsys)


@pytest.mark.parametrize("more", [["--report"], ["--data", "freihand", "--data", "ho3d"]])
def test_an_existing_prediction_is_of_one_dataset_and_has_no_images(more, capsys):
    assert "--pred is one dataset's" in mistake(["--pred", "a.json", "--gt", "b", *more], capsys)
