"""Plots of an evaluation: one function each, drawn in a light or a dark theme."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from sklearn.cluster import DBSCAN

from datasets.naming import class_names
from utils.evaluation.metrics import ConfusionMatrix, precision_recall, recall_at
from utils.evaluation.recall import SetResult
from utils.report.theme import SMALL_TEXT, WIDTH_IN, Theme, blank_figure, curve, dress, legend

LEAST_SHARE = 0.001
"""Classes with a smaller share of the pixels are left out of what is said per class."""
LEAST_CELL = 0.005
"""A smaller share of a label's pixels is shown as nothing in the confusion matrix."""
FEWEST_COLUMNS = 8
"""Cells of a confusion matrix with fewer columns are no wider than with so many."""
DISTRICT_GAP_M, CELL_M = 300.0, 50.0


def recall_curves(results: Sequence[SetResult], theme: Theme) -> Figure:
    """Recall@N in percent for N = 1..20, a curve per set and threshold."""
    several = {r.set.name for r in results if len(r.set.thresholds_m) > 1}
    curves = [
        (f"{r.set.name}, {t:g} m" if r.set.name in several else r.set.name, correct)
        for r in results
        for t, correct in r.correct.items()
    ]
    figure = blank_figure(theme, 3.3 + 0.2 * -(-len(curves) // 2))
    axes = figure.add_subplot()
    handles = []
    for i, (_, correct) in enumerate(curves):
        recall = recall_at(correct, range(1, correct.shape[1] + 1))
        marked = [n - 1 for n in (1, 5, 10, 15, 20) if n in recall]
        handles += curve(axes, theme, i, list(recall), [100 * value for value in recall.values()], markevery=marked)
    dress(axes, theme, "Recall@N", "N, images retrieved", "queries found (%)")
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.set_xlim(0.5, 20.5)
    axes.set_ylim(0, 101)
    legend(figure, theme, handles, [name for name, _ in curves])
    return figure


def precision_recall_curves(results: Sequence[SetResult], theme: Theme) -> Figure:
    """Precision over recall in percent where only the surest queries are answered, a curve per set at its first threshold."""
    figure = blank_figure(theme, 3.3 + 0.2 * -(-len(results) // 2))
    axes = figure.add_subplot()
    handles = []
    for i, result in enumerate(results):
        precision, recall, _ = precision_recall(result.ratio, result.found)
        every = max(1, len(recall) // 6)
        handles += curve(axes, theme, i, 100 * recall, 100 * precision, markevery=every)
    dress(axes, theme, "Answering the surest queries alone", "right answers (% of all queries)", "right (% of answers)")
    axes.set_xlim(0, 101)
    axes.set_ylim(0, 101)
    legend(figure, theme, handles, [result.set.name for result in results])
    return figure


def query_map(result: SetResult, theme: Theme) -> Figure:
    """Queries of one set where they were taken, found (dot) or missed (cross) at rank 1; the gallery as grey dots.

    Districts that lie far apart get a panel each, all at one scale.
    """
    s, found = result.set, result.found
    queries = len(s.queries)
    positions = np.concatenate([s.queries.positions, s.gallery.positions])
    positions = positions - positions.min(0)
    districts = _districts(positions)
    count = districts.max() + 1
    columns = min(3, count)
    rows = -(-count // columns)
    span = np.max([np.ptp(positions[districts == d], axis=0) for d in range(count)], axis=0) * 1.14 + 10
    panel_in = WIDTH_IN / columns * span[1] / span[0] if count > 1 else (WIDTH_IN - 0.6) * span[1] / span[0] + 0.4
    figure = blank_figure(theme, 0.75 + float(np.clip(rows * panel_in, 1.2, 4.8)), title=s.name)
    size = 26 if queries <= 400 else 10
    is_hit, is_missed = np.zeros((2, len(positions)), bool)
    is_hit[:queries], is_missed[:queries] = found, ~found
    for d in range(count):
        axes = figure.add_subplot(rows, columns, d + 1)
        mine = districts == d
        hit, missed, gallery = (positions[mine & kind] for kind in (is_hit, is_missed, ~(is_hit | is_missed)))
        # dots and crosses differ without their colours too
        handles = [
            axes.scatter(*hit.T, s=size, color=theme.found, linewidths=0, zorder=3),
            axes.scatter(*missed.T, s=size, color=theme.missed, marker="x", linewidths=1.5, zorder=4),
            axes.scatter(*gallery.T, s=size / 2, color=theme.gallery, linewidths=0),
        ]
        low = positions[mine].min(0) / 2 + positions[mine].max(0) / 2 - span / 2
        axes.set_xlim(low[0], low[0] + span[0])
        axes.set_ylim(low[1], low[1] + span[1])
        axes.set_aspect("equal")
        if count == 1:
            dress(axes, theme, "", "east (m)", "north (m)")
            axes.locator_params(nbins=5)
            axes.ticklabel_format(useOffset=False, style="plain")
        else:
            _bare_panel(axes, theme, low, span, with_bar=d == 0)
    names = [f"found ({found.sum()})", f"missed ({(~found).sum()})", f"gallery ({len(s.gallery)})"]
    legend(figure, theme, handles, names, columns=3)
    return figure


def _bare_panel(axes: Axes, theme: Theme, low: np.ndarray, span: np.ndarray, with_bar: bool) -> None:
    """A panel without ticks, whose numbers would say nothing; a bar of a round length instead."""
    dress(axes, theme, grid="")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=theme.grid)
    if with_bar:
        metres = 10 ** int(np.log10(span[0] / 2))
        left, bottom = low + 0.06 * span
        axes.plot([left, left + metres], [bottom, bottom], color=theme.ink, linewidth=1.6, solid_capstyle="butt")
        axes.text(left, bottom + 0.03 * span[1], f"{metres} m", color=theme.ink, fontsize=SMALL_TEXT - 1.3)


def _districts(positions: np.ndarray) -> np.ndarray:
    """(N,) number of the district of each position: one for all, or 2 to 9 that are small against the gaps between them."""
    # by cells, so that the cost follows the area, not the number of images
    cells, cell_of = np.unique(np.floor(positions / CELL_M), axis=0, return_inverse=True)
    labels = DBSCAN(eps=DISTRICT_GAP_M / CELL_M, min_samples=1).fit_predict(cells)[cell_of.reshape(-1)]
    count = labels.max() + 1
    largest = max(np.ptp(positions[labels == d], axis=0).max() for d in range(count))
    if not 2 <= count <= 9 or largest > np.ptp(positions, axis=0).max() / 3:
        return np.zeros(len(positions), np.int64)
    # numbered as one reads: from the north west
    corners = np.array([positions[labels == d].mean(0) for d in range(count)])
    bands = np.round((corners[:, 1].max() - corners[:, 1]) / (3 * largest))
    return np.argsort(np.lexsort((corners[:, 0], bands)))[labels]


def class_attention_bars(attention: np.ndarray, share: np.ndarray, before: np.ndarray | None, theme: Theme) -> Figure:
    """Mean attention per predicted class, image mean = 1; classes below 0.1% of the pixels are left out.

    Parameters
    ----------
    attention, before : (C,) see `utils.report.attention.class_attention`; `before` is another model's, as open marks.
    share : (C,) fraction of the pixels.
    """
    shown = [c for c in np.argsort(attention, kind="stable") if share[c] >= LEAST_SHARE and np.isfinite(attention[c])]
    names, values = class_names(len(attention)), attention[shown]
    labels = [f"{names[c]}  {100 * share[c]:.1f}%" for c in shown]
    title, x = "Where attention rests", "mean attention (image mean = 1)"
    figure, axes, bars = _bars(theme, title, x, labels, values, "{:.2f}", left=1)
    everything = values
    if before is not None:
        style = {"mfc": theme.paper, "mec": theme.ink, "markersize": 4.5, "linestyle": "", "zorder": 5}
        marks = axes.plot(before[shown], range(len(shown)), "D", **style)
        legend(figure, theme, [bars, *marks], ["this model", "before training"])
        everything = np.concatenate([values, before[shown]])
    low, high = np.nanmin([*everything, 0.9]), np.nanmax([*everything, 1.1])
    room = 0.05 * (high - low)
    axes.axvline(1, color=theme.ink, linewidth=1, zorder=4)
    axes.set_xlim(low - room, high + room)
    return figure


def _bars(
    theme: Theme, title: str, x: str, labels: Sequence[str], values: np.ndarray, form: str, left: float = 0
) -> tuple[Figure, Axes, BarContainer]:
    """A horizontal bar per label, the first at the bottom; numbers in a column to their right, where no mark crosses them."""
    figure = blank_figure(theme, 0.95 + 0.25 * len(labels))
    axes = figure.add_subplot()
    bars = axes.barh(range(len(labels)), values - left, left=left, color=theme.series[0], height=0.66, zorder=3)
    at = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    for i, value in enumerate(values):
        axes.text(1.12, i, form.format(value), **at, fontsize=SMALL_TEXT, color=theme.ink)
    dress(axes, theme, title, x, grid="x")
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", colors=theme.ink)
    return figure, axes, bars


def zero_iou(confusion: ConfusionMatrix) -> list[int]:
    """Classes whose IoU is 0.0%; none if every class's is, for then there is nothing else to draw."""
    iou = confusion.class_iou()
    zero = np.flatnonzero(iou < 0.0005)
    return zero.tolist() if len(zero) < np.isfinite(iou).sum() else []


def class_iou_bars(confusion: ConfusionMatrix, theme: Theme) -> Figure:
    """IoU in percent per class that the labels show, and their mean as a line; classes of `zero_iou` are left out."""
    iou = 100 * confusion.class_iou()
    folded = zero_iou(confusion)
    present = [c for c in np.argsort(np.nan_to_num(iou), kind="stable") if np.isfinite(iou[c]) and c not in folded]
    names, mean = class_names(len(iou)), 100 * confusion.mean_iou()
    title, labels = f"IoU per class (mean {mean:.1f}%)", [names[c] for c in present]
    figure, axes, _ = _bars(theme, title, "IoU (%)", labels, iou[present], "{:.1f}")
    axes.axvline(mean, color=theme.missed, linewidth=1.4, linestyle="--", zorder=4)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    return figure


def _contrast(a: tuple[float, float, float], b: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    rgb = np.array([to_rgb(a), to_rgb(b)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    return float((light + 0.05) / (dark + 0.05))


def unseen_predictions(confusion: ConfusionMatrix) -> list[int]:
    """Classes of either side that are predicted for less than 0.5% of every label's pixels: columns of zeros."""
    matrix = confusion.matrix.astype(np.float64)
    labelled = np.maximum(matrix.sum(1, keepdims=True), 1)
    somewhere = matrix.sum(0) + matrix.sum(1) > 0
    return np.flatnonzero(somewhere & ((matrix / labelled).max(0) < LEAST_CELL)).tolist()


def confusion_heatmap(confusion: ConfusionMatrix, theme: Theme) -> Figure:
    """Confusion matrix, rows (labels) normalised to 100; without classes that no label has, and columns of zeros."""
    matrix = confusion.matrix.astype(np.float64)
    folded = unseen_predictions(confusion)
    rows = np.flatnonzero(matrix.sum(1))
    columns = [c for c in np.flatnonzero(matrix.sum(0) + matrix.sum(1)) if c not in folded]
    names = class_names(len(matrix))
    percent = 100 * matrix[rows][:, columns] / matrix[rows].sum(1, keepdims=True)
    # cells stay near their size with few classes, so that their text fits
    figure = blank_figure(theme, 1.35 + 0.24 * len(rows), max(WIDTH_IN, 1.2 + 0.27 * len(columns)))
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("share", [theme.paper, theme.series[0]])
    axes.pcolormesh(percent, cmap=colours, vmin=0, vmax=100, edgecolors=theme.grid, linewidth=0.4)
    for r, c in zip(*np.nonzero(percent >= 100 * LEAST_CELL)):
        ink = max(theme.paper, theme.ink, key=partial(_contrast, to_rgb(colours(percent[r, c] / 100))))
        axes.text(c + 0.5, r + 0.5, f"{percent[r, c]:.0f}", ha="center", va="center", fontsize=7, color=ink)
    dress(axes, theme, "Confusion, % of each label's pixels", "predicted", "label", grid="")
    axes.invert_yaxis()
    axes.set_xlim(0, max(len(columns), FEWEST_COLUMNS))
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [names[c] for c in columns], rotation=90)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [names[r] for r in rows])
    return figure
