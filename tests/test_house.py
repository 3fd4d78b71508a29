"""The rules of the house: sizes of modules, functions and folders, and imports that run one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ("main", "eval", "hubconf")
PACKAGES = ("models", "datasets", "utils", "benchmarks")
MOST_LINES, MOST_FUNCTION_LINES, MOST_MODULES = 400, 60, 10

FLOORS = ("system", "runs", "retrieval", "evaluation", "report", "training", "options")
"""Rooms of `utils`; each imports only from those before it. The programs of `utils` stand above them all."""
MAY_IMPORT = {
    "models": {"models"},
    "datasets": {"datasets", "models.config"},
    "utils": {"utils", "datasets", "models"},
    "main": {"utils", "datasets", "models"},
    "eval": {"utils", "datasets", "models"},
    "hubconf": {"utils", "models"},
    "benchmarks": {"benchmarks", "main", "eval", "utils", "datasets", "models"},
}
"""Program or package -> packages and modules of this project that it may import."""


def name_of(path: Path) -> str:
    """`utils/runs/__init__.py` -> `utils.runs`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PRODUCT = {name_of(path): path for path in (ROOT / f"{name}.py" for name in PROGRAMS)}
PRODUCT |= {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
TESTS = {name_of(path): path for path in sorted((ROOT / "tests").rglob("*.py"))}
OURS = (*PROGRAMS, *PACKAGES, "tests")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> set[str]:
    """Modules of this project that a file imports, at its top or within a function."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module_of(name) for name in found if name.split(".")[0] in OURS}


def module_of(name: str) -> str:
    """`datasets.files.replacing` -> `datasets.files`."""
    while name not in PRODUCT and name not in TESTS:
        name = name.rpartition(".")[0]
        assert name, "an import of this project leads nowhere"
    return name


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def test_modules_functions_and_folders_are_short():
    long = [name for name, path in PRODUCT.items() if len(path.read_text().splitlines()) > MOST_LINES]
    assert not long, f"modules of more than {MOST_LINES} lines"
    long = [f"{name}.{f}" for name, path in PRODUCT.items() for f, n in functions(path) if n > MOST_FUNCTION_LINES]
    assert not long, f"functions of more than {MOST_FUNCTION_LINES} lines"
    for folder in {path.parent for path in PRODUCT.values()} - {ROOT}:
        modules = [path for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__")]
        assert len(modules) <= MOST_MODULES, f"{folder}: {len(modules)} modules"


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_imports_run_one_way(place):
    for name, path in PRODUCT.items():
        if within(name, {place}):
            others = {other for other in imports(path) if not within(other, MAY_IMPORT[place])}
            assert not others, f"{name} imports {others}"


def test_rooms_of_utils_import_only_from_those_below():
    assert {path.name for path in (ROOT / "utils").iterdir() if (path / "__init__.py").exists()} == set(FLOORS)
    for floor, own in enumerate(FLOORS):
        below = {f"utils.{other}" for other in FLOORS[: floor + 1]}
        for name, path in PRODUCT.items():
            if within(name, {f"utils.{own}"}):
                above = {other for other in imports(path) if within(other, {"utils"}) and not within(other, below)}
                assert not above, f"{name} imports {above}, which is not below {own}"


def test_no_circle_of_imports():
    """No module imports itself over any number of steps."""
    arrows = {name: imports(path) - {name} for name, path in PRODUCT.items()}
    while arrows:
        lowest = [name for name, targets in arrows.items() if not targets & arrows.keys()]
        assert lowest, f"a circle among {sorted(arrows)}"
        for name in lowest:
            del arrows[name]


def test_tests_and_benchmarks_stay_apart():
    """Product code and benchmarks work without the tests."""
    for name, path in PRODUCT.items():
        assert not any(within(other, {"tests"}) for other in imports(path)), name


@pytest.mark.parametrize("program", ["main", "eval", "utils.export", "utils.summarize"])
def test_help_does_not_import_torch(program):
    code = f"""
import runpy, sys
sys.argv = ["{program}", "--help"]
try:
    runpy.run_module("{program}", run_name="__main__", alter_sys=True)
except SystemExit:
    sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


def test_evaluation_starts_without_what_it_may_not_need():
    """Each of these packages takes half a second or more to import."""
    code = 'import sys, eval; sys.exit(", ".join({"sklearn", "matplotlib", "scipy.stats"} & sys.modules.keys()) or 0)'
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_that_is_imported_from_ours_is_there():
    """Every module can be found, and has every name that another file of ours imports from it."""
    for path in [*PRODUCT.values(), *TESTS.values()]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
                target = module_of(node.module)
                assert target == node.module and find_spec(target), f"{path} imports {node.module}"
                names = {alias.name for alias in node.names}
                submodules = {name for name in names if f"{target}.{name}" in {**PRODUCT, **TESTS}}
                assert names - submodules <= defined(target), f"{path} imports {names - submodules} from {target}"


@cache
def defined(module: str) -> frozenset[str]:
    """Names that a module binds, or offers in `__all__`."""
    found = set()
    for node in ast.walk(tree({**PRODUCT, **TESTS}[module])):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            found |= set(ast.literal_eval(node.value))
    return frozenset(found)
