"""A sound data set, and a copy to spoil."""

import shutil
from pathlib import Path

import pytest

from tests.tiny import write_idda


@pytest.fixture(scope="module")
def good_idda(tmp_path_factory) -> Path:
    return write_idda(tmp_path_factory.mktemp("check") / "idda", places=3)


@pytest.fixture
def idda(good_idda, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good_idda, tmp_path / "idda"))
