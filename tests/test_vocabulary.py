"""One word for each idea, and the field's own: docs/architecture.md opens with the table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("fasthamer", "students", "teachers", "distill", "tools", "configs", "docs", "tests")
OLD_FILES = ROOT / "tests" / "data" / "before_redraw"  # made by an older version, with its names
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "setup.py", "pyproject.toml")
# Each with what to write instead.
BANNED = {
    **dict.fromkeys(("classroom", "room", "rooms"), "trainer; space (on a disk)"),
    **dict.fromkeys(("lesson", "lessons"), "learner output"),
    **dict.fromkeys(("exam", "exams"), "evaluation"),
    "workshop": "trainer, run",
    **dict.fromkeys(("contestant", "contestants", "pupil", "pupils"), "model, baseline, run"),
    **dict.fromkeys(("said", "told", "spoken"), "token targets; description, message"),
    **dict.fromkeys(("wish", "wishes"), "interrupt"),
    **dict.fromkeys(("fool", "fools"), "adversarial loss"),
    **dict.fromkeys(("word", "words"), "token, code; name, number, text"),
    **dict.fromkeys(("whiten", "whitened"), "layer norm without affine"),
    **dict.fromkeys(("picture", "pictures", "photograph", "photographs", "photo", "photos"), "image"),
    **dict.fromkeys(("drawing", "drawings"), "synthetic image"),
}
# What users' files and scripts hold: the folder of a run's images, and a key, a recipe and a flag of older versions.
FORMATS = re.compile(r"""pictures/|["']pictures["']|PICTURE_EVERY|["']photographs["']: |["']--photos["']""")


def texts() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".yaml") and OLD_FILES not in path.parents:
                yield path
    yield from (ROOT / page for page in PAGES)


def split(text: str) -> list[str]:
    """Lower-case words of prose and of names: `read_image` and `ReadImage` are two each."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def banned_in(path: Path) -> list[str]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for each in BANNED.keys() & set(split(FORMATS.sub("", line))):
            found.append(f"{path.relative_to(ROOT)}:{number}: {each!r}, write {BANNED[each]}")
    return found


@pytest.mark.parametrize("folder", [*FOLDERS, "."])
def test_no_banned_term_is_left(folder):
    own = Path(__file__).resolve()
    files = [path for path in texts() if path.resolve() != own and path.relative_to(ROOT).parts[0] in (folder, *PAGES)]
    found = [line for path in files if (folder == ".") == (path.parent == ROOT) for line in banned_in(path)]
    assert not found, "\n" + "\n".join(found)


def test_banned_terms_are_found_in_names_and_in_prose(tmp_path):
    path = ROOT / "README.md"
    assert split("self.readPhoto(TOLD_you)") == ["self", "read", "photo", "told", "you"]
    assert banned_in(path) == []
    assert not BANNED.keys() & set(split(FORMATS.sub("", 'run / "pictures" / "final.png"')))


def test_the_architecture_page_opens_with_the_vocabulary():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert page.index("| term |") < page.index("## Layers")
