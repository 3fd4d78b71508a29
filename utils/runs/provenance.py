"""Where a result comes from: the flags, the seed, the versions, and the commit of the source."""

import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from utils.system.logs import LOGGER

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "numpy": ("numpy",),
    "faiss": ("faiss-cpu", "faiss-gpu", "faiss"),
    "pillow": ("pillow",),
    "scikit-learn": ("scikit-learn",),
}
"""Packages that a result depends on, each with the names under which it is distributed."""
GIT_PATIENCE_S = 10


def log_environment(argv: list[str]) -> None:
    """Log the command line, and the versions and the commit that a result depends on."""
    LOGGER.info("command: %s", " ".join(argv))
    found = (f"{name} {version or 'absent'}" for name, version in versions().items())
    LOGGER.info("versions: %s", ", ".join(found))
    source = source_state()
    if source["commit"]:
        LOGGER.info("commit: %s%s", source["commit"], ", with changes" if source["uncommitted_changes"] else "")


def provenance(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `results.json` that say how a result was made.

    Parameters
    ----------
    flags : value of every flag by name, defaults included; plain values.
    """
    return {"flags": dict(flags), "seed": flags.get("seed"), "versions": versions(), **source_state()}


@cache
def versions() -> dict[str, str | None]:
    """Versions of the project, of Python, and of the packages; None for one that is not installed."""
    found = {"segvpr": project_version(), "python": platform.python_version()}
    return found | {name: _version(distributions) for name, distributions in PACKAGES.items()}


def project_version() -> str | None:
    """The version in `pyproject.toml`; None if the file is missing."""
    try:
        return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    except (OSError, KeyError, ValueError):
        return None


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


@cache
def source_state(root: Path = ROOT) -> dict[str, Any]:
    """The commit of `root`, and whether tracked files differ from it; both None if `root` is no git checkout.

    A copy of the source inside another repository has no commit of its own. The answer is kept: the code that runs is that of
    the start.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
    if not top or Path(top).resolve() != root.resolve() or not commit or changes is None:
        return {"commit": None, "uncommitted_changes": None}
    return {"commit": commit, "uncommitted_changes": bool(changes)}


def _git(root: Path, *words: str) -> str | None:
    """The output of git, or None if it fails or is not installed."""
    # variables such as GIT_DIR would lead to another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=GIT_PATIENCE_S,
            check=True,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
