"""Shared fixtures: tiny data sets on disk, and one trained run that many tests look at."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import main
from datasets.files import locked
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
def shared(tmp_path_factory) -> Path:
    """A folder of all processes of this test run."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    (folder / "shared").mkdir(exist_ok=True)
    return folder / "shared"


@pytest.fixture(scope="session")
def tiny_root(shared) -> Path:
    """Folder below which `data_flags` finds its data sets."""
    with locked(shared / "lock"):
        data_flags(shared / "tiny")
    return shared / "tiny"


@pytest.fixture(scope="session")
def trained_run(tiny_root, shared) -> Iterator[Path]:
    """Run folder of a finished two-epoch training on the tiny data. Many tests read it, so none may write into it."""
    with locked(shared / "lock"):
        if not (shared / "runs").exists():
            before = os.getcwd()
            os.chdir(shared)
            try:
                assert main.main([*data_flags(tiny_root), *SMALL_RUN, "--exp_name", "first"]) == 0
            finally:
                os.chdir(before)
    (folder,) = (shared / "runs" / "first").iterdir()
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    yield folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == finished, "a test wrote into the shared run"
