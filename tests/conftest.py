"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """A function from the name of a folder of real sample files to its path; skips where they are not at hand."""
    root = Path(os.environ.get("FASTHAMER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def folder(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"needs {name} from the sample data: set FASTHAMER_TEST_DATA to its folder")
        return root / name

    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Indexes of datasets go where the tests' other files go, never into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
