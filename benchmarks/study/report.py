"""The study's report, one Markdown file with pictures: tables, paired differences, attention per class."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import jobs as runs_of
from benchmarks.study.attention import mean_over_seeds, measure_attention
from benchmarks.study.figures import difference_bars, recall_dots
from benchmarks.study.statistics import Difference, found_within, over_seeds_alone, paired, shown
from benchmarks.study.variants import CONDITIONS, Variant
from datasets.files import write_text
from datasets.naming import class_names
from utils.evaluation.results import file_name
from utils.report.figures import LEAST_SHARE, class_attention_bars
from utils.report.theme import save_plot
from utils.retrieval.embedding import EmbeddingOptions
from utils.summarize import Run, read_run, row_of
from utils.summary_table import Summary, to_csv, to_markdown
from utils.system.seeding import generator

MEAN, MIOU = "mean", "mIoU"
"""Columns beside those of the conditions: the mean over them, and segmentation."""

Comparison = tuple[str, str]
Differences = dict[Comparison, dict[str, Difference]]


@dataclass(frozen=True)
class Finished:
    """Finished runs of a variant, by seed; `conditions` are the evaluated sets and their titles."""

    variant: Variant
    runs: dict[int, Run]
    conditions: Mapping[str, str]


def gather(
    jobs: Mapping[tuple[str, int], runs_of.Job],
    variants: Sequence[Variant],
    conditions: Mapping[str, str] = CONDITIONS,
) -> list[Finished]:
    """Finished runs by variant, recalls under the tables' names; variants without any are left out."""
    found = []
    for variant in variants:
        runs = {}
        for (name, seed), job in jobs.items():
            if name == variant.name and runs_of.state(job) == runs_of.FINISHED:
                runs[seed] = named(read_run(runs_of.newest_run(job)), variant, conditions)
        if runs:
            found.append(Finished(variant, dict(sorted(runs.items())), conditions))
    return found


def named(run: Run, variant: Variant, conditions: Mapping[str, str]) -> Run:
    """The run with the conditions' short names, in their order; no mIoU if no head was trained."""
    recalls = {
        (title, m): values
        for name, title in conditions.items()
        for (found, m), values in run.recalls.items()
        if found == name
    }
    trained_head = variant.parsed()["sem_loss_weight"] > 0
    return replace(run, recalls=recalls, miou=run.miou if trained_head else None)


def table(finished: Sequence[Finished]) -> Summary:
    """The table of the paper: a row per variant."""
    conditions = list(dict.fromkeys(c for f in finished for run in f.runs.values() for c in run.recalls))
    with_miou = any(run.miou is not None for f in finished for run in f.runs.values())
    rows = [row_of(f.variant.title, list(f.runs.values()), conditions, with_miou) for f in finished]
    return Summary(conditions, with_miou, rows)


def compare(first: Finished, second: Finished, rank: int = 1) -> dict[str, Difference]:
    """`first` minus `second` on each condition and in mIoU, over the seeds that both have; {} without any."""
    seeds = [seed for seed in first.runs if seed in second.runs]
    if not seeds:
        return {}
    if not first.variant.drawn and not second.variant.drawn:
        seeds = seeds[:1]  # all are the same run, which would pass for certainty
    differences, means = {}, []
    for name, title in first.conditions.items():
        file = Path("predictions", f"{file_name(name)}.csv")
        sides = [[found_within(f.runs[seed].folder / file, rank) for seed in seeds] for f in (first, second)]
        rng = generator(0, "study bootstrap", first.variant.name, second.variant.name, name)
        differences[title] = paired(*sides, rng)
        means.append(differences[title].per_seed)
    differences[MEAN] = over_seeds_alone(np.mean(means, axis=0))
    miou = [[f.runs[seed].miou for seed in seeds] for f in (first, second)]
    if None not in miou[0] + miou[1]:
        differences[MIOU] = over_seeds_alone(np.subtract(*miou))
    return differences


def all_differences(finished: Sequence[Finished], rank: int = 1) -> Differences:
    """Every comparison that a variant names, if both have runs."""
    by_name = {f.variant.name: f for f in finished}
    found = {}
    for first in finished:
        for other in first.variant.against:
            if other in by_name:
                found[first.variant.name, other] = compare(first, by_name[other], rank)
    return {names: differences for names, differences in found.items() if differences}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def difference_table(differences: Differences, over: str) -> str:
    """Comparisons by condition; `over` is `over_seeds` or `over_queries`."""
    titles = dict.fromkeys(title for by_condition in differences.values() for title in by_condition)
    columns = [title for title in titles if over == "over_seeds" or title not in (MEAN, MIOU)]
    rows = [["variant minus variant", "seeds", *columns]]
    for (first, second), by_condition in differences.items():
        count = len(next(iter(by_condition.values())).per_seed)
        found = [by_condition.get(column) for column in columns]
        cells = [shown(d, None if d is None else getattr(d, over)) for d in found]
        rows.append([f"`{first}` - `{second}`", str(count), *cells])
    return markdown(rows)


def write_differences(path: Path, at: Mapping[int, Differences]) -> None:
    """All differences as CSV, recall@N by N."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        intervals = ["t_low", "t_high", "bootstrap_low", "bootstrap_high"]
        writer.writerow(["variant", "against", "figure", "condition", "difference", *intervals, "per_seed"])
        for rank, differences in at.items():
            for names, by_condition in differences.items():
                for condition, d in by_condition.items():
                    if condition == MIOU and rank != min(at):
                        continue
                    bounds = [*(d.over_seeds or ("", "")), *(d.over_queries or ("", ""))]
                    figure = MIOU if condition == MIOU else f"R@{rank}"
                    each = " ".join(f"{value:.4f}" for value in d.per_seed)
                    writer.writerow([*names, figure, condition, f"{d.mean:.4f}", *bounds, each])


def attention_table(attention: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> str:
    """Mean attention on each class by variant, by share of the pixels, and how far descriptors move with the map."""
    _, share, _ = next(iter(attention.values()))
    names = class_names(len(share))
    rows = [["class", "share", *(f"`{name}`" for name in attention)]]
    for c in np.argsort(-share, kind="stable"):
        if share[c] >= LEAST_SHARE:
            rows.append(
                [names[c], f"{100 * share[c]:.1f}%", *(f"{values[c]:.2f}" for values, _, _ in attention.values())]
            )
    rows.append(["effect on descriptors", "", *(f"{effect:.4f}" for _, _, effect in attention.values())])
    return markdown(rows)


def write_report(
    target: Path,
    pictures: Path,
    head: str,
    finished: Sequence[Finished],
    note: str,
    images: Sequence[str],
    scale: float,
    options: EmbeddingOptions,
) -> None:
    """Write `target` (Markdown), `<target>.csv`, `<target>_differences.csv`, and the plots as `pictures/<target>_*.png`.

    Parameters
    ----------
    head : text above the tables: settings and commands.
    finished : what is compared; at least one variant.
    note : text above the table of recalls.
    images : labelled images on which attention is measured.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    summary = table(finished)
    at = {rank: all_differences(finished, rank) for rank in (1, 5)}
    write_text(target.with_suffix(".csv"), to_csv(summary))
    write_differences(target.with_name(f"{target.stem}_differences.csv"), at)
    link = Path(pictures.relative_to(target.parent)) if pictures.is_relative_to(target.parent) else pictures

    def file_of(name: str) -> str:
        return f"{target.stem}_{name}.png"

    def picture(name: str, caption: str) -> str:
        return f"![{caption}]({(link / file_of(name)).as_posix()})\n"

    recalls = {
        title: {f.variant.name: [run.recalls[c]["1"] for run in f.runs.values()] for f in finished}
        for title, c in ((c[0], c) for c in summary.conditions)
    }
    save_plot(partial(recall_dots, recalls), pictures / file_of("recalls"))
    parts = [head, "## Recalls and mIoU\n", note, to_markdown(summary)]
    parts.append(picture("recalls", "Recall@1 per condition: small marks are seeds, large ones their means"))
    if at[1]:
        by_condition = {
            title: {f"{a} - {b}": by[title] for (a, b), by in at[1].items()}
            for title in finished[0].conditions.values()
        }
        save_plot(partial(difference_bars, by_condition), pictures / file_of("differences"))
        parts += ["## What each part changes\n", SEEDS_NOTE, difference_table(at[1], "over_seeds")]
        parts.append(picture("differences", "Differences of recall@1 with 95% intervals over seeds"))
        parts += [QUERIES_NOTE, difference_table(at[1], "over_queries")]
    attention = attention_of(finished, images, scale, options)
    if attention:
        parts += ["## Attention per class\n", ATTENTION_NOTE, attention_table(attention)]
        for name, (values, share, _) in attention.items():
            save_plot(partial(class_attention_bars, values, share, None), pictures / file_of(f"attention_{name}"))
            parts.append(picture(f"attention_{name}", f"Attention per class, {name}"))
    write_text(target, "\n".join(parts))


def attention_of(
    finished: Sequence[Finished], images: Sequence[str], scale: float, options: EmbeddingOptions
) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Attention per class of each trained variant that has a map, see `benchmarks.study.attention`."""
    with_map = [f for f in finished if f.variant.parsed()["attention"] != "none" and f.variant.parsed()["n_epochs"] > 0]
    found = {}
    for f in with_map:
        measured = [measure_attention(run.folder, images, scale, options) for run in f.runs.values()]
        found[f.variant.name] = mean_over_seeds(measured)
    return found


SEEDS_NOTE = """Percentage points of recall@1 (and mIoU), paired by seed, with the 95% interval of Student's t over seeds. The
interval includes what another training would change. It holds for these queries, because all seeds have the same. Bold
means that zero lies outside the interval. Of so many cells, one in twenty is bold by chance.
"""
QUERIES_NOTE = """The same differences with a bootstrap over queries (2000 resamples of the mean over seeds). This interval
takes the networks as given, so it is too narrow for a claim about the method. If it includes zero, there are too few queries
to decide.
"""
ATTENTION_NOTE = """Mean of the map over the labelled pixels of a class, relative to the image's mean, over at most 32
labelled images and all seeds. The last line says how far a descriptor moves, relative to its length, if its map is multiplied
by a ramp from 0.5 to 1.5. If that is near zero, descriptors do not depend on the map, and its values mean nothing.
"""
