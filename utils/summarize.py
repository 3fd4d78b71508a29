"""One table of several runs: a row per configuration, mean and standard deviation over its seeds.

python3 -m utils.summarize runs/first runs/second [--out summary] [--threshold_m 25]
"""

import argparse
import csv
import io
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.convert_files import OneLineParser
from utils.arguments import recorded_arguments
from utils.checkpoints import load_checkpoint
from utils.command import run_command
from utils.logs import LOGGER, start_logging
from utils.runs import BEST, LAST, PREVIOUS
from utils.tables import printable

SHOWN_AT = ("1", "5")
RESULTS = "results.json"
ROOTS = ("dataset_root", "dataset_root_val", "dataset_root_test", "DA_datasets")
NOT_CONFIGURATION = {
    *("seed", "exp_name", "device", "num_workers", "cache_batch_size", "save_every_min"),
    *("compile", "deterministic", "decode"),
    *("resume", "output_dir", "no_report", "on_bad_image", *ROOTS),
}
"""Arguments that may differ within a configuration. Of data sets, what is in them counts, not where they lie; of
`resume`, whether training started from weights of another run."""

Condition = tuple[str, float]
"""A set's name and its threshold in metres."""


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    Attributes
    ----------
    recalls : percent by condition and N (as text).
    miou : percent, None where it was not measured.
    arguments : those that make its configuration; None where no checkpoint tells them.
    data : digests of its file lists.
    """

    folder: Path
    recalls: dict[Condition, dict[str, float]]
    miou: float | None
    network: str
    arguments: dict[str, Any] | None = None
    roots: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    seed: int | None = None

    @property
    def key(self) -> str:
        """Equal for runs of one configuration; a run whose arguments are unknown is like no other."""
        known = [self.arguments, self.data] if self.arguments is not None else str(self.folder.resolve())
        return json.dumps([self.network, known], sort_keys=True)


@dataclass(frozen=True)
class Cell:
    """Mean of `count` values, and their standard deviation (n - 1 below the line), None for a single one."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Cell | None":
        """None where there are no values."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Row:
    """A configuration: its name, its runs, and a cell (or None) per column of the table."""

    label: str
    runs: list[Run]
    cells: list[Cell | None]


@dataclass(frozen=True)
class Summary:
    """The table: columns are R@1 and R@5 of each condition, then, where it was measured, mIoU."""

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


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Run folders: those given, or all below them; each once, in order; ValueError where there is none."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        inside = [folder / RESULTS] if (folder / RESULTS).is_file() else sorted(folder.rglob(RESULTS))
        if not inside:
            raise ValueError(f"{folder}: no {RESULTS} in it or below: not a finished run, nor a folder of some")
        for path in inside:
            found.setdefault(path.parent.resolve(), path.parent)
    return list(found.values())


def read_run(folder: Path) -> Run:
    """Results and arguments of a run; ValueError, naming the file, where it is not what this project writes."""
    path = folder / RESULTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recalls = {
            (str(s["name"]), float(s["threshold_m"])): {n: _percent(s["recall"][n]) for n in SHOWN_AT}
            for s in content["sets"]
        }
        segmentation = content["segmentation"]
        miou = None if segmentation is None or segmentation["miou"] is None else _percent(segmentation["miou"])
        network = f"{content['arch']}, {content['semnet']}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not results of this project ({type(error).__name__}: {error})") from error
    record = read_record(folder, content.get("checkpoint"))
    if not record:
        return Run(folder, recalls, miou, network)
    given = recorded_arguments(record)
    arguments = {name: value for name, value in given.items() if name not in NOT_CONFIGURATION}
    arguments["started from"] = starting_weights(given["resume"])
    roots = {name: given[name] for name in ROOTS}
    return Run(folder, recalls, miou, network, arguments, roots, record.get("data", {}), given["seed"])


def _percent(value: Any) -> float:
    if not 0 <= float(value) <= 1:  # nor is NaN
        raise ValueError(f"{value} is not a fraction")
    return 100 * float(value)


def read_record(folder: Path, checkpoint: str | None) -> dict:
    """Arguments and data of a run, from a checkpoint in its folder, else from the one that was evaluated; {} without."""
    named = [Path(checkpoint)] if isinstance(checkpoint, str) else []
    for path in [*(folder / name for name in (LAST, PREVIOUS, BEST)), *named]:
        if path.is_file():
            record = load_checkpoint(path).training.get("record") or {}
            return record if isinstance(record.get("arguments"), dict) else {}
    return {}


def starting_weights(resume: str | None) -> str | None:
    """What `--resume` tells of the configuration: nothing where a run of the same arguments went on."""
    if resume is None or Path(resume).suffix == "" or Path(resume).name in (LAST, PREVIOUS, BEST):
        return None
    return resume


def summarize(runs: Sequence[Run], threshold_m: float | None = None) -> Summary:
    """Group runs by configuration.

    Parameters
    ----------
    threshold_m : show results within this many metres alone; by default all, a condition for each.

    Raises
    ------
    ValueError : there are no such results, or two runs of one configuration have the same seed.
    """
    found = dict.fromkeys(condition for run in runs for condition in run.recalls)
    conditions = [c for c in found if threshold_m is None or c[1] == threshold_m]
    if threshold_m is not None and not conditions:
        there = ", ".join(f"{m:g}" for m in sorted({c[1] for c in found})) or "none"
        raise ValueError(
            f"--threshold_m {threshold_m:g}: no run was scored within that distance (there are: {there} m)"
        )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    for group in groups.values():
        _check_seeds(group)
    with_miou = any(run.miou is not None for run in runs)
    rows = []
    for label, group in zip(labels(list(groups.values())), groups.values()):
        rows.append(row_of(label, group, conditions, with_miou))
    return Summary(conditions, with_miou, rows)


def row_of(label: str, runs: Sequence[Run], conditions: Sequence[Condition], with_miou: bool) -> Row:
    """Mean and deviation over the runs of one configuration, for each column of the table."""
    cells = [Cell.of([r.recalls[c][n] for r in runs if c in r.recalls]) for c in conditions for n in SHOWN_AT]
    if with_miou:
        cells.append(Cell.of([run.miou for run in runs if run.miou is not None]))
    return Row(label, list(runs), cells)


def _check_seeds(group: Sequence[Run]) -> None:
    """A run counted twice would make the deviation too small."""
    seen: dict[int | None, Run] = {}
    for run in group:
        if run.seed in seen:
            raise ValueError(
                f"{seen[run.seed].folder} and {run.folder} are of one configuration and seed ({run.seed}); give one of them"
            )
        seen[run.seed] = run


def labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name per group: network, and whatever else differs among the groups; a folder where that does not tell."""
    firsts = [group[0] for group in groups]
    known = [run.arguments for run in firsts if run.arguments is not None]
    names = _differing(known, apart={"arch", "semnet"})
    if len({json.dumps(run.data, sort_keys=True) for run in firsts if run.arguments is not None}) > 1:
        roots = _differing([run.roots for run in firsts if run.arguments is not None])
    else:
        roots = []
    made = []
    for run in firsts:
        if run.arguments is None:
            made.append(f"{run.network} ({run.folder})")
            continue
        parts = [run.network, *(f"{name} {_value(run.arguments.get(name))}" for name in names)]
        made.append(", ".join([*parts, *(f"{name} {_value(run.roots[name])}" for name in roots)]))
    return [
        printable(label if made.count(label) == 1 else f"{label} ({run.folder})") for label, run in zip(made, firsts)
    ]


def _differing(values: Sequence[Mapping[str, Any]], apart: Iterable[str] = ()) -> list[str]:
    names = dict.fromkeys(name for row in values for name in row)
    return [name for name in names if name not in apart and any(row.get(name) != values[0].get(name) for row in values)]


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _text(cell: Cell | None, runs: int, plus_minus: str, none: str) -> str:
    """`61.2 ± 0.8`; with the number of runs where it is not that of the row."""
    if cell is None:
        return none
    value = f"{cell.mean:.1f}" if cell.std is None else f"{cell.mean:.1f} {plus_minus} {cell.std:.1f}"
    return value if cell.count == runs else f"{value} (of {cell.count})"


def to_markdown(summary: Summary) -> str:
    """The table in Markdown, in percent."""
    rows = [["configuration", "seeds", *map(escape_markdown, summary.columns)]]
    for row in summary.rows:
        texts = [_text(cell, len(row.runs), "±", "-") for cell in row.cells]
        rows.append([escape_markdown(row.label), str(len(row.runs)), *texts])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))]
        for cells in [rows[0], rule, *rows[1:]]
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def to_csv(summary: Summary) -> str:
    """The table as CSV, in percent: for each column its mean, deviation (empty for one seed) and number of runs."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("mean", "std", "runs")
    writer.writerow(["configuration", "seeds", *(f"{column} {part}" for column in summary.columns for part in parts)])
    for row in summary.rows:
        values: list[str | int] = []
        for cell in row.cells:
            if cell is None:
                values += ["", "", 0]
            else:
                values += [f"{cell.mean:.4f}", "" if cell.std is None else f"{cell.std:.4f}", cell.count]
        writer.writerow([row.label, len(row.runs), *values])
    return stream.getvalue()


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
        lines.append(" & ".join([escape_latex(row.label), str(len(row.runs)), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in (("md", to_markdown), ("csv", to_csv), ("tex", to_latex)):
            (folder / f"summary.{suffix}").write_text(text(summary), encoding="utf-8")
    except OSError as error:
        raise OSError(f"--out {folder}: cannot write there ({error.strerror})") from error


def build_parser() -> argparse.ArgumentParser:
    """Command line of `python3 -m utils.summarize`."""
    parser = OneLineParser(
        prog="utils.summarize",
        description="Recalls and mIoU of runs in percent: a row per configuration, mean and standard deviation over seeds.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or one that holds several")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write summary.md, summary.csv and summary.tex there"
    )
    parser.add_argument(
        "--threshold_m", type=float, metavar="M", help="only what was scored within M metres (default: all there is)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        start_logging()
        if args.threshold_m is not None and not (math.isfinite(args.threshold_m) and args.threshold_m > 0):
            raise ValueError(f"--threshold_m {args.threshold_m:g} is not a distance above 0 m")
        summary = summarize([read_run(folder) for folder in find_runs(args.runs)], args.threshold_m)
        if args.out:
            write_summary(summary, args.out)
        LOGGER.info("%s", to_markdown(summary).rstrip("\n"))

    return run_command("utils.summarize", command)


if __name__ == "__main__":
    sys.exit(main())
