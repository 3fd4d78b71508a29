"""Command lines: flags made from dataclasses, each written once as the field that it fills, and errors in one line."""

import argparse
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

USER_ERROR, INTERRUPTED = 2, 130

Settings = TypeVar("Settings")


class OneLineParser(argparse.ArgumentParser):
    """Takes whole names of flags alone, shows defaults as they are typed, and reports an error in one line."""

    def __init__(self, prog: str, description: str = "", epilog: str = "") -> None:
        super().__init__(prog, None, description, epilog, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: error: {message}; see --help\n")


def run_tool(name: str, command: Callable[[], int | None]) -> int:
    """Run a small program and return its exit status; ValueError and OSError become one line on stderr and status 2."""
    try:
        return command() or 0
    except (ValueError, OSError) as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{name}: interrupted; give the same command again", file=sys.stderr)
        return INTERRUPTED


def one_line(error: Exception) -> str:
    """The message of an error in one line, without `[Errno 28]`."""
    plain = isinstance(error, OSError) and error.filename is None and error.strerror
    return " ".join(str(plain or error).split())


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default as it is typed, except None, False, and those that the help text names."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default is None or default is False or default == argparse.SUPPRESS or "default" in text:
            return text
        if isinstance(default, list | tuple):
            return f"{text} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action) or ""


def flag(default: Any, text: str, **details: Any) -> Any:
    """A dataclass field that a flag of its name fills.

    Parameters
    ----------
    default, text : the flag's default and help.
    details : `name` of the flag, if not that of the field; `choices`; `least`, `above` and `most`, the bounds of a number;
        `metavar`; `nargs`; `group`, a title in `--help`; `parse`, text -> value; `may_change`, whether a resumed run may
        be given another value.
    """
    return field(default=default, metadata={"help": text, **details})


def flags_of(settings: type) -> dict[str, Field]:
    """Name of the flag, without dashes -> the field that it fills."""
    return {f.metadata.get("name", f.name): f for f in fields(settings) if "help" in f.metadata}


def add_flags(
    parser: argparse.ArgumentParser, settings: type, title: str, about: Mapping[str, str] | None = None
) -> None:
    """Add a flag for each `flag` field of a dataclass, under a title; a field may name another. `about`: title -> a sentence."""
    hints = typing.get_type_hints(settings)
    for name, f in flags_of(settings).items():
        group = _group(parser, f.metadata.get("group", title), about or {})
        group.add_argument(f"--{name}", **_argument(f, hints[f.name]))


def read_flags(settings: type[Settings], args: argparse.Namespace, **others: Any) -> Settings:
    """The dataclass as parsed arguments fill it; `others` are fields that no flag fills."""
    given = {f.name: getattr(args, name) for name, f in flags_of(settings).items() if hasattr(args, name)}
    return settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}, **others)


def check_flags(settings: object) -> None:
    """ValueError, naming the flag, if a field holds what its flag would not take; for `__post_init__`."""
    for name, f in flags_of(type(settings)).items():
        value, choices = getattr(settings, f.name), f.metadata.get("choices")
        for part in value if isinstance(value, tuple) else (value,):
            if choices and part not in choices:
                raise ValueError(f"--{name}: {part!r} is not one of {', '.join(map(str, choices))}")
            try:
                if part is not None:
                    number(type(part), f.metadata)(part)
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"--{name}: {error}") from None


def _group(parser: argparse.ArgumentParser, title: str, about: Mapping[str, str]) -> argparse._ArgumentGroup:
    for group in parser._action_groups:
        if group.title == title:
            return group
    return parser.add_argument_group(title, about.get(title))


def _argument(f: Field, hint: Any) -> dict[str, Any]:
    """Keyword arguments of `add_argument` for a field of this type."""
    details: Mapping[str, Any] = f.metadata
    argument: dict[str, Any] = {"help": details["help"], "default": _default(f)}
    argument |= {key: details[key] for key in ("choices", "metavar", "nargs") if key in details}
    kind, nargs = _element(hint)
    if kind is bool:
        argument["action"] = argparse.BooleanOptionalAction if f.default else "store_true"
        return argument
    if nargs is not None:
        argument.setdefault("nargs", nargs)
    argument["type"] = details.get("parse") or number(kind, details)
    if "choices" not in details:
        argument.setdefault("metavar", {int: "N", float: "F", Path: "DIR"}.get(kind, "NAME"))
    return argument


def _default(f: Field) -> Any:
    default = f.default if f.default is not MISSING else f.default_factory()
    return list(default) if isinstance(default, tuple) else default


def _element(hint: Any) -> tuple[type, int | str | None]:
    """The type of one value of a flag and argparse's `nargs`: `tuple[int, int] | None` -> int, 2."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        return parts[0], "+" if parts[1:] == (...,) else len(parts)
    return hint, None


def number(kind: type, bounds: Mapping[str, Any]) -> Callable[[str], Any]:
    """A parser of values of `kind` within bounds, for argparse; `kind` itself if it is not a type of numbers."""
    if kind not in (int, float):
        return kind
    least, above, most = bounds.get("least"), bounds.get("above"), bounds.get("most")
    wanted = "a whole number" if kind is int else "a finite number"
    limits = [(least, f"of at least {least}"), (above, f"above {above}"), (most, f"of at most {most}")]

    def parse(text: str) -> Any:
        value = kind(text)
        inside = abs(value) < float("inf")  # not a number is outside as well
        inside &= (least is None or value >= least) and (above is None or value > above)
        if not (inside and (most is None or value <= most)):
            words = " and ".join(said for bound, said in limits if bound is not None)
            raise argparse.ArgumentTypeError(f"{text} is not {wanted} {words}".rstrip())
        return value

    parse.__name__ = kind.__name__  # argparse shows it if the text is no number
    return parse


positive = number(int, {"least": 1})
"""A whole number of at least 1, for argparse."""
