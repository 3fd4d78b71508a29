"""One table of several runs: a row per configuration, mean and standard deviation over its seeds.

python3 -m utils.summarize runs/first runs/second [--label first second] [--out summary] [--threshold_m 25]
"""

from utils.options.parsers import summarize_parser

if __name__ == "__main__":
    summarize_parser().parse_args()  # before torch is imported: --help and a mistyped flag are answered at once

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.options.arguments import recorded_arguments
from utils.runs.checkpoints import load_checkpoint
from utils.runs.folders import BEST, LAST, PREVIOUS
from utils.summary_table import SHOWN_AT, Cell, Condition, Row, Summary, to_markdown, write_summary
from utils.system.command import run_command
from utils.system.logs import LOGGER, start_logging
from utils.system.tables import printable

RESULTS = "results.json"
ROOTS = ("dataset_root", "dataset_root_val", "dataset_root_test", "DA_datasets")
NOT_CONFIGURATION = {
    *("seed", "exp_name", "device", "num_workers", "cache_batch_size", "save_every_min"),
    *("compile", "deterministic", "decode"),
    *("resume", "output_dir", "no_report", "on_bad_image", *ROOTS),
}
"""Arguments that may differ within a configuration. Of data sets, their content counts, not their place; of `resume`,
only whether training started from the weights of another run."""


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    Attributes
    ----------
    recalls : percent by condition and N (as text).
    miou : percent, None if it was not measured.
    arguments : those that make its configuration; None if no checkpoint has them.
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


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The run folders that are given, or all below them, each once, in order; ValueError for a folder without any."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        inside = [folder / RESULTS] if (folder / RESULTS).is_file() else sorted(folder.rglob(RESULTS))
        if not inside:
            raise ValueError(f"{folder}: no {RESULTS} in it or below; name a finished run, or a folder that holds some")
        for path in inside:
            found.setdefault(path.parent.resolve(), path.parent)
    return list(found.values())


def read_run(folder: Path) -> Run:
    """Results and arguments of a run; ValueError, naming the file, if it is not what this project writes."""
    path = folder / RESULTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recalls = {
            (str(s["name"]), float(s["threshold_m"])): {n: _percent(s["recall"][n]) for n in SHOWN_AT}
            for s in content["sets"]
        }
        segmentation = content["segmentation"]
        miou = None if segmentation is None or segmentation["miou"] is None else _percent(segmentation["miou"])
        network = f"{content['arch']}, {content['semnet']}" if content["arch"] else "descriptors"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not results of this project ({type(error).__name__}: {error})") from error
    record = read_record(folder, content.get("checkpoint")) if content["arch"] else {}
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
    """Arguments and data of a run, from a checkpoint in its folder, else from the one that was evaluated; {} if both lack."""
    named = [Path(checkpoint)] if isinstance(checkpoint, str) else []
    for path in [*(folder / name for name in (LAST, PREVIOUS, BEST)), *named]:
        if path.is_file():
            record = load_checkpoint(path).training.get("record") or {}
            return record if isinstance(record.get("arguments"), dict) else {}
    return {}


def starting_weights(resume: str | None) -> str | None:
    """The weights of `--resume` that training started from; None if it continued a run, which has the same arguments."""
    if resume is None or Path(resume).suffix == "" or Path(resume).name in (LAST, PREVIOUS, BEST):
        return None
    return resume


def summarize(runs: Sequence[Run], threshold_m: float | None = None, names: Mapping[str, str] | None = None) -> Summary:
    """Group runs by configuration.

    Parameters
    ----------
    threshold_m : show results within this many metres alone; by default all, a condition for each.
    names : labels by `Run.key`, see `given_labels`; other configurations are named by what sets them apart.

    Raises
    ------
    ValueError : there are no such results.
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
    with_miou = any(run.miou is not None for run in runs)
    named = dict(zip(groups, labels(list(groups.values())))) | (names or {})
    rows = []
    for key, group in groups.items():
        counted, note = one_per_seed(group)
        rows.append(replace(row_of(named[key], counted, conditions, with_miou), note=note))
    return Summary(conditions, with_miou, rows)


def row_of(label: str, runs: Sequence[Run], conditions: Sequence[Condition], with_miou: bool) -> Row:
    """Mean and deviation over the runs of one configuration, for each column of the table."""
    cells = [Cell.of([r.recalls[c][n] for r in runs if c in r.recalls]) for c in conditions for n in SHOWN_AT]
    if with_miou:
        cells.append(Cell.of([run.miou for run in runs if run.miou is not None]))
    return Row(label, [run.folder for run in runs], cells)


def one_per_seed(group: Sequence[Run]) -> tuple[list[Run], str]:
    """Of every seed the first run, and a note on the others: a run counted twice would make the deviation too small."""
    first: dict[int | None, Run] = {}
    notes = []
    for run in group:
        if first.setdefault(run.seed, run) is not run:
            kept = printable(first[run.seed].folder)
            notes.append(f"seed {run.seed} again in {printable(run.folder)}, not counted beside {kept}")
    return list(first.values()), "; ".join(notes)


def given_labels(given: Sequence[str], folders: Sequence[Path], runs: Sequence[Run]) -> dict[str, str]:
    """The user's name of each configuration, by `Run.key`.

    Parameters
    ----------
    given : one name per folder, in their order.
    folders : as given on the command line; all runs below one must be of one configuration.

    Raises
    ------
    ValueError : names and configurations do not go together.
    """
    if len(given) != len(folders):
        raise ValueError(f"--label: {len(given)} names for {len(folders)} RUN; give one for each RUN, in their order")
    names: dict[str, str] = {}
    for name, folder in zip(given, folders):
        keys = {run.key for run in runs if run.folder.resolve().is_relative_to(folder.resolve())}
        if len(keys) > 1:
            raise ValueError(f"--label {name}: {folder} has runs of {len(keys)} configurations; give each its own RUN")
        for key in keys:
            if names.setdefault(key, printable(name)) != printable(name):
                raise ValueError(f"--label {name}: {folder} is of the configuration named {names[key]}; give one name")
    twice = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"--label {twice}: two configurations have this name; give each its own")
    return names


def labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name per group: network, and what sets it apart from the others and is not the default.

    A folder is added if that does not tell two groups apart.
    """
    firsts = [group[0] for group in groups]
    known = [run for run in firsts if run.arguments is not None]
    names = _differing([run.arguments for run in known], apart={"arch", "semnet"})
    roots = []
    if len({json.dumps(run.data, sort_keys=True) for run in known}) > 1:
        roots = _differing([run.roots for run in known])
    defaults = recorded_arguments({})
    made = []
    for run in firsts:
        if run.arguments is None:
            made.append(f"{run.network} ({run.folder})")
            continue
        parts = [_part(n, run.arguments.get(n)) for n in names if run.arguments.get(n) != defaults.get(n)]
        made.append(", ".join([run.network, *parts, *(_part(n, run.roots[n]) for n in roots)]))
    return [
        printable(label if made.count(label) == 1 else f"{label} ({run.folder})") for label, run in zip(made, firsts)
    ]


def _differing(values: Sequence[Mapping[str, Any]], apart: Iterable[str] = ()) -> list[str]:
    names = dict.fromkeys(name for row in values for name in row)
    return [name for name in names if name not in apart and any(row.get(name) != values[0].get(name) for row in values)]


def _part(name: str, value: Any) -> str:
    """An argument in a label: `da method none`, `scale indexes 3+4`, `no guidance`, and of a path its last part."""
    short = name.replace("_", " ")
    if isinstance(value, bool):
        return short if value else f"no {short}"
    if isinstance(value, list | tuple):
        return f"{short} {'+'.join(map(str, value))}"
    text = "none" if value is None else str(value)
    return f"{short} {text.rstrip('/').rsplit('/', 1)[-1] or text}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = summarize_parser().parse_args(argv)

    def command() -> None:
        start_logging()
        runs = [read_run(folder) for folder in find_runs(args.runs)]
        names = given_labels(args.label, args.runs, runs) if args.label else {}
        summary = summarize(runs, args.threshold_m, names)
        if args.out:
            write_summary(summary, args.out)
        LOGGER.info("%s", to_markdown(summary).rstrip("\n"))

    return run_command("utils.summarize", command)


if __name__ == "__main__":
    sys.exit(main())
