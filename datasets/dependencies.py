"""A program that is started without its packages ends with one line, not with a traceback. Standard library only."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("main.py", "eval.py", "datasets", "utils", "benchmarks")
REQUIRED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "faiss": "faiss-cpu",
    "PIL": "pillow",
    "tqdm": "tqdm",
    "sklearn": "scikit-learn",
    "utm": "utm",
    "matplotlib": "matplotlib",
    "threadpoolctl": "threadpoolctl",
    "scipy": "scipy",
    "jinja2": "jinja2",
}
"""Modules of the packages in `requirements.txt`."""
USER_ERROR = 2


def exit_if_missing() -> None:
    """End a program of this project with one line and status 2 where required packages are not installed.

    A program of someone else who imports ours is left alone: it may need a part only.
    """
    program = started_program(sys.argv[0], sys.orig_argv)
    absent = [package for module, package in REQUIRED.items() if not _installed(module)] if program else []
    if absent:
        print(f"{program}: error: {advice(absent)}", file=sys.stderr)
        sys.exit(USER_ERROR)


def advice(absent: Sequence[str]) -> str:
    """Which packages are absent, and what to do, in one line."""
    return (
        f"missing packages: {', '.join(absent)}: run `make setup`, then `. .venv/bin/activate`, in {ROOT}; "
        f"or `pip install -r requirements.txt` for {sys.executable}"
    )


def started_program(argv0: str, original: Sequence[str]) -> str | None:
    """The program of ours that Python runs, such as `main.py` or `datasets.check.check`; None for any other.

    Parameters
    ----------
    argv0 : `sys.argv[0]`: a path, or `-m` while Python still looks for the module.
    original : `sys.orig_argv`.
    """
    if argv0 == "-m":
        # only the search for a module of ours imports our packages this early
        after = list(original)[list(original).index("-m") + 1 :] if "-m" in original else []
        return after[0] if after else None
    path = Path(argv0).resolve()
    if not path.is_relative_to(ROOT) or path == ROOT:
        return None
    parts = path.relative_to(ROOT).with_suffix("").parts
    if path.relative_to(ROOT).parts[0] not in PROGRAMS:
        return None
    return path.name if len(parts) == 1 else ".".join(parts)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
    except ValueError:  # in sys.modules, but without a spec
        return True
