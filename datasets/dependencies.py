"""A program that is started without its packages ends with one line, not with a traceback. Standard library only."""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from datasets.command_line import USER_ERROR

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("main.py", "eval.py", "datasets", "utils", "benchmarks")
MODULES = {"faiss-cpu": "faiss", "pillow": "PIL", "scikit-learn": "sklearn"}
"""Modules of packages that have another name."""


def exit_if_missing() -> None:
    """End a program of this project with one line and status 2 if required packages are not installed.

    Other programs that import this project go on: they may need only a part.
    """
    program = started_program(sys.argv[0], sys.orig_argv)
    absent = [name for name in required() if not _installed(MODULES.get(name, name))] if program else []
    if absent:
        print(f"{program}: error: {advice(absent)}", file=sys.stderr)
        sys.exit(USER_ERROR)


def required() -> list[str]:
    """Packages in `requirements.txt`."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [re.split("[<>=!]", line)[0] for line in lines if line and not line.startswith("#")]


def advice(absent: Sequence[str]) -> str:
    """Which packages are absent, and what to do, in one line."""
    return (
        f"missing packages: {', '.join(absent)}: run `make setup`, then `. .venv/bin/activate`, in {ROOT}; "
        f"or `pip install -r requirements.txt` for {sys.executable}"
    )


def started_program(argv0: str, original: Sequence[str]) -> str | None:
    """The program of this project that Python runs, such as `main.py` or `datasets.check.check`; None for any other.

    Parameters
    ----------
    argv0 : `sys.argv[0]`: a path, or `-m` while Python still looks for the module.
    original : `sys.orig_argv`.
    """
    if argv0 == "-m":  # only the search for a module of this project imports its packages this early
        return next((name for flag, name in pairwise(original) if flag == "-m"), None)
    path = Path(argv0).resolve()
    parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
    if not parts or parts[0] not in PROGRAMS:
        return None
    return path.name if len(parts) == 1 else ".".join(Path(*parts).with_suffix("").parts)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # in sys.modules, but without a spec
        return True
