"""Every benchmark named in a docstring, in docs/ or in the README exists and has the flags that are given to it."""

import importlib
import re
from pathlib import Path

import pytest

from utils.options.parsers import main_parser

ROOT = Path(__file__).parents[2]
PASS_ON = ("benchmarks.study", "benchmarks.train_town")
"""Programs that hand other flags to main.py."""


def parser_of(module: str):
    return importlib.import_module("benchmarks.study.study" if module == "benchmarks.study" else module).build_parser()


def modules() -> list[str]:
    files = (path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "benchmarks").rglob("*.py")))
    names = [".".join(path.parts) for path in files if "__main__" in (ROOT / path).with_suffix(".py").read_text()]
    return [name for name in names if not name.startswith("benchmarks.study.")] + ["benchmarks.study"]


def named_commands() -> dict[str, set[str]]:
    """Module -> the flags that any text gives to it."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile", *(ROOT / "benchmarks").rglob("*.py")]
    found: dict[str, set[str]] = {}
    for path in texts:
        for module, words in re.findall(r"-m (benchmarks\.[\w.]+)([^`\n]*)", path.read_text()):
            found.setdefault(module, set()).update(re.findall(r"--\w+", words))
    return found


@pytest.mark.parametrize("module", modules())
def test_every_benchmark_explains_itself(module, capsys):
    with pytest.raises(SystemExit) as stop:
        parser_of(module).parse_args(["--help"])
    assert stop.value.code == 0 and f"usage: {module} " in capsys.readouterr().out
    assert module in named_commands(), "no text shows how to start it"


@pytest.mark.parametrize("module, flags", named_commands().items())
def test_named_commands_exist(module, flags):
    known = set(parser_of(module)._option_string_actions)
    if module in PASS_ON:
        known |= set(main_parser()._option_string_actions)
    assert flags <= known
