"""The table that `utils.summarize` makes, as Markdown, CSV and LaTeX."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.files import write_text
from utils.system.tables import markdown, printable

SHOWN_AT = ("1", "5")

Condition = tuple[str, float]
"""A set's name and its threshold in metres."""


@dataclass(frozen=True)
class Cell:
    """Mean of `count` values, and their standard deviation (n - 1 below the line), None for a single one."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Cell | None":
        """None without values."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Row:
    """A configuration: its name, the folders of its runs, a cell (or None) per column, and what is odd about it."""

    label: str
    runs: list[Path]
    cells: list[Cell | None]
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The table: columns are R@1 and R@5 of each condition, then mIoU if it was measured."""

    conditions: list[Condition]
    with_miou: bool
    rows: list[Row]

    @property
    def columns(self) -> list[str]:
        names = [f"{shown(c)} R@{n}" for c in self.conditions for n in SHOWN_AT]
        return [*names, "mIoU"] if self.with_miou else names


def shown(condition: Condition) -> str:
    """A condition as a heading."""
    return f"{printable(condition[0])} ({condition[1]:g} m)"


def _text(cell: Cell | None, runs: int, plus_minus: str, none: str) -> str:
    """`61.2 ± 0.8`; with the number of runs if it is not that of the row."""
    if cell is None:
        return none
    value = f"{cell.mean:.1f}" if cell.std is None else f"{cell.mean:.1f} {plus_minus} {cell.std:.1f}"
    return value if cell.count == runs else f"{value} (of {cell.count})"


def to_markdown(summary: Summary) -> str:
    """The table in Markdown, in percent."""
    rows = [["configuration", "seeds", *map(escape_markdown, summary.columns)]]
    for row in summary.rows:
        texts = [_text(cell, len(row.runs), "±", "-") for cell in row.cells]
        rows.append([escape_markdown(row.label), str(len(row.runs)) + (r"\*" if row.note else ""), *texts])
    notes = [f"\n\\* {escape_markdown(f'{row.label}: {row.note}')}\n" for row in summary.rows if row.note]
    return markdown(rows) + "".join(notes)


def to_csv(summary: Summary) -> str:
    """The table as CSV, in percent: for each column its mean, deviation (empty for one seed) and number of runs.

    A last column holds notes if a row has one.
    """
    noted = ["note"] if any(row.note for row in summary.rows) else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("mean", "std", "runs")
    columns = [f"{column} {part}" for column in summary.columns for part in parts]
    writer.writerow(["configuration", "seeds", *columns, *noted])
    for row in summary.rows:
        values = [value for cell in row.cells for value in _csv_values(cell)]
        writer.writerow([row.label, len(row.runs), *values, *([row.note] if noted else [])])
    return stream.getvalue()


def _csv_values(cell: Cell | None) -> tuple[str, str, int]:
    if cell is None:
        return "", "", 0
    return f"{cell.mean:.4f}", "" if cell.std is None else f"{cell.std:.4f}", cell.count


def to_latex(summary: Summary) -> str:
    """The table as a LaTeX tabular for the package booktabs, in percent, conditions above their columns."""
    columns = len(SHOWN_AT) * len(summary.conditions) + summary.with_miou
    above = [rf"\multicolumn{{{len(SHOWN_AT)}}}{{c}}{{{escape_latex(shown(c))}}}" for c in summary.conditions]
    below = [f"R@{n}" for _ in summary.conditions for n in SHOWN_AT]
    if summary.with_miou:
        above, below = [*above, ""], [*below, "mIoU"]
    lines = [
        r"% needs \usepackage{booktabs}; percent, mean and standard deviation over seeds",
        rf"\begin{{tabular}}{{lr{'r' * columns}}}",
        r"\toprule",
        " & ".join(["", "", *above]).strip() + r" \\",
        " & ".join(["configuration", "seeds", *below]) + r" \\",
        r"\midrule",
    ]
    for row in summary.rows:
        texts = [_text(cell, len(row.runs), r"$\pm$", "--") for cell in row.cells]
        seeds = str(len(row.runs)) + ("$^{*}$" if row.note else "")
        lines.append(" & ".join([escape_latex(row.label), seeds, *texts]) + r" \\")
    notes = [f"% * {row.label}: {row.note}" for row in summary.rows if row.note]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
}


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(_LATEX.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it stands, within a cell of a table."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>|~#$&" else character for character in text)


def write_summary(summary: Summary, folder: Path) -> None:
    """`summary.md`, `summary.csv` and `summary.tex` in a folder, which is made."""
    for suffix, text in (("md", to_markdown), ("csv", to_csv), ("tex", to_latex)):
        write_text(folder / f"summary.{suffix}", text(summary))
