"""A start without packages: one line, status 2; and `pip install .`."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from datasets import dependencies
from datasets.dependencies import MODULES, ROOT, required, started_program

BARE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def start_bare(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """Start a Python that sees the standard library alone."""
    return subprocess.run([sys.executable, "-S", *words], cwd=folder, env=BARE, capture_output=True, text=True)


@pytest.mark.parametrize(
    "words, name",
    [
        (["main.py"], "main.py"),
        (["eval.py", "--help"], "eval.py"),
        (["-m", "datasets.check", "ROOT"], "datasets.check"),
        (["-m", "datasets.convert"], "datasets.convert"),
        (["-m", "datasets.robotcar"], "datasets.robotcar"),
        (["-m", "datasets.town"], "datasets.town"),
        (["-m", "utils.export"], "utils.export"),
        (["-m", "utils.summarize"], "utils.summarize"),
        (["-m", "benchmarks.demo"], "benchmarks.demo"),
        (["-m", "benchmarks.checks.fuzz"], "benchmarks.checks.fuzz"),
    ],
)
def test_a_program_without_its_packages_ends_with_one_line(words, name):
    done = start_bare(*words)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert line.startswith(f"{name}: error: missing packages: torch, ")
    assert "make setup" in line and ". .venv/bin/activate" in line and "pip install -r requirements.txt" in line


def test_it_says_so_in_another_folder_too(tmp_path):
    done = start_bare(str(ROOT / "main.py"), folder=tmp_path)
    assert done.returncode == 2 and f"in {ROOT}" in done.stderr and len(done.stderr.splitlines()) == 1


def test_only_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(dependencies, "find_spec", lambda name: None if name in ("faiss", "PIL") else find_spec(name))
    monkeypatch.setattr(sys, "argv", [str(ROOT / "eval.py")])
    with pytest.raises(SystemExit) as stop:
        dependencies.exit_if_missing()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("eval.py: error: missing packages: faiss-cpu, pillow: ")


def test_a_program_of_someone_else_may_import_a_part():
    code = "import sys; sys.argv = ['theirs.py']; import datasets; print('imported')"
    assert start_bare("-c", code).stdout == "imported\n"


@pytest.mark.parametrize(
    "argv0, original, name",
    [
        (str(ROOT / "main.py"), [], "main.py"),
        ("-m", ["python3", "-u", "-m", "datasets.town", "--out", "x"], "datasets.town"),
        (str(ROOT / "utils" / "summarize.py"), [], "utils.summarize"),
        (str(ROOT / ".venv/bin/pytest"), [], None),
        (str(ROOT), [], None),
        ("/elsewhere/main.py", [], None),
        ("", [], None),
    ],
)
def test_which_program_was_started(argv0, original, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert started_program(argv0, original) == name


def test_all_requirements_are_looked_for():
    assert len(required()) >= 12 and {"torch", "faiss-cpu", "jinja2"} <= set(required())
    assert all(importlib.import_module(MODULES.get(package, package)) for package in required())


# -- pip install . ---------------------------------------------------------------------------------------------------


def test_pip_installs_the_requirements_and_no_package_of_a_common_name(tmp_path):
    """`models`, `utils` and `datasets` in site-packages would hide packages of other projects."""
    pytest.importorskip("setuptools", minversion="77")
    for name in ("pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("models", "utils", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('wheels'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wheel = tmp_path / "wheels" / done.stdout.splitlines()[-1]
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    (installed,) = (tmp_path / "site").iterdir()
    assert installed.name == "segvpr-0.1.0.dist-info"
    metadata = (installed / "METADATA").read_text()
    assert all(f"Requires-Dist: {package}" in metadata for package in required())


def test_pip_is_told_to_install_no_packages():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert content["tool"]["setuptools"]["packages"] == []
    assert content["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert "dependencies" in content["project"]["dynamic"]
