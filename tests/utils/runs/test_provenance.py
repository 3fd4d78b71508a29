"""What `results.json` says about how it was made."""

import platform
import shutil
import subprocess
import tomllib
from importlib import metadata

import pytest

from utils.runs import provenance
from utils.runs.provenance import ROOT, source_state, versions

UNKNOWN = {"commit": None, "uncommitted_changes": None}
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def fresh():
    """Forget what was asked before, and afterwards what the test asked."""
    source_state.cache_clear()
    yield
    source_state.cache_clear()


def git(folder, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with one committed file."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "main.py").write_text("one\n")
    git(folder, "add", "main.py")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_versions_are_those_that_run():
    found = versions()
    assert found["segvpr"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert found["python"] == platform.python_version()
    assert {name: found[name] for name in ("torch", "torchvision", "numpy")} == {
        name: metadata.version(name) for name in ("torch", "torchvision", "numpy")
    }
    assert found["faiss"]


def test_an_absent_package_has_no_version():
    assert provenance._version(("no-such-package", "nor-this-one")) is None
    assert provenance._version(("no-such-package", "numpy")) == metadata.version("numpy")


@needs_git
def test_the_commit_is_that_of_the_checkout(checkout, fresh):
    assert source_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "uncommitted_changes": False}


@needs_git
def test_changes_of_tracked_files_are_told_and_others_are_not(checkout, fresh):
    (checkout / "notes.txt").write_text("mine\n")
    assert source_state(checkout)["uncommitted_changes"] is False
    source_state.cache_clear()
    (checkout / "main.py").write_text("two\n")
    assert source_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "uncommitted_changes": True}


@needs_git
def test_a_copy_inside_another_repository_has_no_commit(checkout, fresh):
    (checkout / "vendored").mkdir()
    assert source_state(checkout / "vendored") == UNKNOWN


@needs_git
def test_variables_of_git_do_not_lead_to_another_repository(checkout, tmp_path, fresh, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(checkout))
    (tmp_path / "plain").mkdir()
    assert source_state(tmp_path / "plain") == UNKNOWN


@pytest.mark.parametrize("fault", ["no git", "no repository", "no commit"])
def test_without_a_commit_it_is_unknown(fault, tmp_path, fresh, monkeypatch):
    if fault == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif shutil.which("git") is None:
        pytest.skip("git is not installed")
    elif fault == "no commit":
        git(tmp_path, "init", "-q")
    assert source_state(tmp_path) == UNKNOWN
