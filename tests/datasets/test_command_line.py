"""Flags made from dataclasses, and errors in one line."""

import argparse
import errno
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasets.command_line import (
    HelpFormatter,
    OneLineParser,
    add_flags,
    flag,
    flags_of,
    positive,
    read_flags,
    run_tool,
)


@dataclass(frozen=True)
class Oven:
    heat: int = flag(180, "degrees", least=0, most=300)
    share: float = flag(0.5, "of the oven", above=0.0, name="oven_share")
    trays: tuple[int, ...] = flag((1, 2), "used", least=1)
    size: tuple[int, int] | None = flag(None, "of a tray", metavar=("W", "H"), group="trays")
    recipe: Path | None = flag(None, "file", metavar="FILE")
    kind: str = flag("fan", "of heat", choices=("fan", "grill"))
    light: bool = flag(False, "on")
    timer: bool = flag(True, "rings")
    serial: int = 7


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="oven", formatter_class=HelpFormatter, allow_abbrev=False)
    add_flags(made, Oven, "oven")
    return made


def test_no_flag_gives_the_defaults():
    assert read_flags(Oven, parser().parse_args([])) == Oven()


def test_each_flag_fills_its_field():
    text = "--heat 200 --oven_share 0.25 --trays 3 4 5 --size 30 40 --recipe a.txt --kind grill --light --no-timer"
    read = read_flags(Oven, parser().parse_args(text.split()), serial=9)
    assert read == Oven(200, 0.25, (3, 4, 5), (30, 40), Path("a.txt"), "grill", True, False, 9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--heat 301", "301 is not a whole number of at least 0 and of at most 300"),
        ("--heat -1", "-1 is not a whole number of at least 0"),
        ("--heat 1.5", "invalid int value: '1.5'"),
        ("--oven_share 0", "0 is not a finite number above 0.0"),
        ("--oven_share nan", "nan is not a finite number"),
        ("--oven_share inf", "inf is not a finite number"),
        ("--trays 1 0", "0 is not a whole number of at least 1"),
        ("--size 3", "expected 2 arguments"),
        ("--kind steam", "invalid choice"),
        ("--serial 3", "unrecognized arguments"),
    ],
)
def test_a_wrong_value_is_named(arguments: str, said: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(arguments.split())
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_help_shows_defaults_as_they_are_typed():
    text = " ".join(parser().format_help().split())
    assert "degrees (default: 180)" in text and "used (default: 1 2)" in text and "file --kind" in text


def test_flags_of_names_the_flags_alone():
    names = flags_of(Oven)
    assert "oven_share" in names and "share" not in names and "serial" not in names


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("a.jpg:\n too small"), 2, "oven: error: a.jpg: too small\n"),
        (OSError(errno.ENOSPC, "a.jpg: no space left"), 2, "oven: error: a.jpg: no space left\n"),
        (FileNotFoundError("a.jpg: no such file"), 2, "oven: error: a.jpg: no such file\n"),
        (KeyboardInterrupt(), 130, "oven: interrupted; give the same command again\n"),
        (1, 1, ""),
        (None, 0, ""),
    ],
)
def test_a_tool_ends_with_a_status_and_one_line(error, status: int, said: str, capsys: pytest.CaptureFixture):
    def command() -> int | None:
        if isinstance(error, BaseException):
            raise error
        return error

    assert run_tool("oven", command) == status and capsys.readouterr().err == said


def test_a_bad_command_line_is_one_line(capsys: pytest.CaptureFixture):
    made = OneLineParser(prog="oven")
    made.add_argument("--trays", type=positive)
    with pytest.raises(SystemExit) as stop:
        made.parse_args(["--trays", "0"])
    said = "oven: error: argument --trays: 0 is not a whole number of at least 1; see --help\n"
    assert stop.value.code == 2 and capsys.readouterr().err == said


def test_help_of_the_tools_loads_no_torch():
    tools = ", ".join(f"datasets.{name}.__main__" for name in ("check", "convert", "robotcar", "town"))
    code = f"import sys, {tools}; print({{'torch', 'PIL', 'sklearn'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
