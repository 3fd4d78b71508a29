"""Shared fixtures: tiny data sets on disk, and one trained run that several tests look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import main
from tests.tiny import SMALL_RUN, data_flags
from utils.training import estimate

# the same examples in every run, and no time limit on a busy machine
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_timed():
    """No run of the suite is timed beforehand: that takes as long as the run itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "measure", lambda *_: (1.0, 1e-6))
        yield


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory) -> Path:
    """Folder below which `data_flags` finds its data sets."""
    root = tmp_path_factory.mktemp("tiny")
    data_flags(root)
    return root


@pytest.fixture(scope="session")
def trained_run(tiny_root, tmp_path_factory) -> Iterator[Path]:
    """Run folder of a finished two-epoch training on the tiny data. Many tests read it, so none may write into it."""
    import os

    work = tmp_path_factory.mktemp("work")
    before = os.getcwd()
    os.chdir(work)
    try:
        assert main.main([*data_flags(tiny_root), *SMALL_RUN, "--exp_name", "first"]) == 0
    finally:
        os.chdir(before)
    (folder,) = (work / "runs" / "first").iterdir()
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    yield folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == finished, "a test wrote into the shared run"
