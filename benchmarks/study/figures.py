"""Plots of the study in the style of the reports: recalls per condition, and differences with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.study.statistics import Difference
from utils.report.theme import Theme, blank_figure, dress

COLUMNS = 3
ROW_IN, HEAD_IN, WIDTH_IN = 0.22, 0.75, 8.0


def _panels(theme: Theme, titles: Sequence[str], labels: Sequence[str], x: str) -> tuple[Figure, list]:
    """A panel per condition; all have the same rows, the first on top."""
    rows = -(-len(titles) // COLUMNS)
    figure = blank_figure(theme, rows * (HEAD_IN + ROW_IN * len(labels)), WIDTH_IN)
    grid = figure.subplots(rows, min(COLUMNS, len(titles)), sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(titles) :]:
        axes.set_visible(False)
    for axes, title in zip(grid, titles):
        dress(axes, theme, title, x, grid="x")
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(labelbottom=True)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params(axis="y", colors=theme.ink)
    return figure, list(grid[: len(titles)])


def recall_dots(recalls: Mapping[str, Mapping[str, Sequence[float]]], theme: Theme) -> Figure:
    """Recall@1 in percent by condition, then variant: a small mark per seed, a large one for the mean."""
    labels = list(next(iter(recalls.values())))
    figure, panels = _panels(theme, list(recalls), labels, "recall@1 (%)")
    for axes, by_variant in zip(panels, recalls.values()):
        for y, label in enumerate(labels):
            values = list(by_variant[label])
            axes.plot(values, [y] * len(values), "o", color=theme.gallery, markersize=3.5, linestyle="", clip_on=False)
            axes.plot([np.mean(values)], [y], "D", color=theme.series[0], markersize=5.5, linestyle="", clip_on=False)
        axes.set_xlim(0, 100)
    return figure


def difference_bars(differences: Mapping[str, Mapping[str, Difference]], theme: Theme) -> Figure:
    """Differences of recall@1 by condition, then comparison, with Student's t interval over seeds, if there is one."""
    labels = list(next(iter(differences.values())))
    figure, panels = _panels(theme, list(differences), labels, "points of recall@1")
    for axes, by_comparison in zip(panels, differences.values()):
        axes.axvline(0, color=theme.ink, linewidth=1, zorder=2)
        for y, label in enumerate(labels):
            difference = by_comparison[label]
            if difference.over_seeds is not None:
                axes.plot(difference.over_seeds, [y, y], color=theme.series[0], linewidth=2, zorder=3)
            seeds = difference.per_seed
            axes.plot(seeds, [y] * len(seeds), "o", color=theme.gallery, markersize=3.5, linestyle="", zorder=4)
            axes.plot([difference.mean], [y], "D", color=theme.series[0], markersize=5, linestyle="", zorder=5)
    return figure
