"""Traversals to convert."""

from pathlib import Path

import pytest

from tests.datasets.robotcar.traversals import write_traversal


@pytest.fixture
def traversal(tmp_path) -> Path:
    return write_traversal(tmp_path / "2014-11-18-13-20-12", gap=(4.0, 5.0), bad=(8.1, 8.4))


@pytest.fixture
def smooth(tmp_path) -> Path:
    return write_traversal(tmp_path / "2014-12-09-13-21-02", frames=20)
