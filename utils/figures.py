"""Plots of an evaluation and of a training run: one function each, drawn in a light or a dark theme."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from PIL import Image
from sklearn.cluster import DBSCAN

from utils.evaluation import SetResult, class_names
from utils.metrics import ConfusionMatrix, recall_at
from utils.tables import printable

LEAST_SHARE = 0.001
"""Classes with a smaller share of the pixels are left out of what is said per class."""
WIDTH_IN = 4.0
"""Narrow, so that text stays legible on a phone and in a column of a paper."""
PRINT_DPI, SCREEN_DPI = 300, 220
TITLE_TEXT, SMALL_TEXT = 10, 8.8
DISTRICT_GAP_M, CELL_M = 300.0, 50.0
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")


class Theme(NamedTuple):
    """Colours of a plot: paper, text, lines, and marks that colour-blind readers can tell apart."""

    paper: str
    ink: str
    muted: str
    grid: str
    gallery: str
    found: str
    missed: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#1d2126",
    "#59616b",
    "#e3e6ea",
    "#9aa3ad",
    "#009e73",
    "#cc3311",
    ("#0072b2", "#d55e00", "#009e73", "#b0508a", "#b67d00", "#3a9bdc", "#1d2126", "#7a5c3e"),
)
DARK = Theme(
    "#1a1e24",
    "#e9ebee",
    "#a5adb8",
    "#323942",
    "#77828f",
    "#1fc795",
    "#ff7557",
    ("#56b4e9", "#ff8a3c", "#1fc795", "#e79ac6", "#f0c05a", "#a9b8ff", "#e9ebee", "#c9a27e"),
)

Draw = Callable[[Theme], Figure]


class Plot(NamedTuple):
    """A plot as PNG bytes for screens, in both themes, and its size there in pixels."""

    light: bytes
    dark: bytes
    size: tuple[int, int]


def save_plot(draw: Draw, path: Path) -> Plot:
    """Write a plot in the light theme at print resolution; returns it for screens, in both themes."""
    images = []
    for theme, dpi in ((LIGHT, PRINT_DPI), (DARK, SCREEN_DPI)):
        figure = draw(theme)
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(dpi)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a set may be named in any script
            canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    images[0].save(path, dpi=(PRINT_DPI, PRINT_DPI))
    size = images[1].size
    light, dark = (_small_png(image.resize(size, Image.Resampling.LANCZOS)) for image in images)
    return Plot(light, dark, size)


def _small_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    # maximum coverage keeps thin lines' colours; the median cut gives those of few pixels to their neighbours
    palette = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(file, "PNG", optimize=True)
    return file.getvalue()


def _label(text: object) -> str:
    """A name as matplotlib shows it literally: `$` would begin a formula."""
    return printable(text).replace("$", r"\$")


def _figure(theme: Theme, height_in: float, width_in: float = WIDTH_IN) -> Figure:
    return Figure(figsize=(width_in, height_in), facecolor=theme.paper, layout="constrained")


def _dress(axes: Axes, theme: Theme, title: str = "", x: str = "", y: str = "", grid: str = "both") -> None:
    """The house style: no box, light grid, quiet text."""
    axes.set_facecolor(theme.paper)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.grid)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=theme.grid, linewidth=0.8)
    axes.tick_params(colors=theme.muted, labelsize=SMALL_TEXT, length=0, which="both")
    axes.set_title(title, loc="left", color=theme.ink, fontsize=TITLE_TEXT, fontweight="bold", pad=8)
    axes.set_xlabel(x, color=theme.muted, fontsize=SMALL_TEXT)
    axes.set_ylabel(y, color=theme.muted, fontsize=SMALL_TEXT)


def _legend(figure: Figure, theme: Theme, handles: list, labels: list[str], columns: int | None = None) -> None:
    columns = columns or (1 if max(map(len, labels)) > 22 else 2)
    figure.legend(
        handles,
        [_label(text) for text in labels],
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL_TEXT,
        frameon=False,
        labelcolor=theme.ink,
        handlelength=2.4,
    )


def _series(theme: Theme, i: int) -> dict:
    """Colour, marker and, where the colours are used up, line of the i-th series."""
    colours = len(theme.series)
    return {
        "color": theme.series[i % colours],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[i // colours % len(LINES)],
    }


def recall_curves(results: Sequence[SetResult], theme: Theme) -> Figure:
    """Recall@N in percent for N = 1..20, a curve per set and threshold."""
    curves = [
        (
            f"{r.set.name}, {t:g} m" if len(r.set.thresholds_m) > 1 else r.set.name,
            recall_at(c, range(1, c.shape[1] + 1)),
        )
        for r in results
        for t, c in r.correct.items()
    ]
    figure = _figure(theme, 3.3 + 0.2 * -(-len(curves) // 2))
    axes = figure.add_subplot()
    handles = []
    for i, (_, recall) in enumerate(curves):
        shown = 100 * np.array(list(recall.values()))
        marked = [n - 1 for n in (1, 5, 10, 15, 20) if n <= len(shown)]
        handles += axes.plot(
            list(recall),
            shown,
            **_series(theme, i),
            markevery=marked,
            linewidth=1.8,
            markersize=5,
            clip_on=False,
            zorder=3,
        )
    _dress(axes, theme, "Recall@N", "N, images retrieved", "queries found (%)")
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.set_xlim(0.5, 20.5)
    axes.set_ylim(0, 101)
    _legend(figure, theme, handles, [name for name, _ in curves])
    return figure


def query_map(result: SetResult, theme: Theme) -> Figure:
    """Queries of one set where they were taken, found (dot) or missed (cross) at rank 1; the gallery as grey dots.

    Districts that lie far apart get a panel each, all at one scale.
    """
    s = result.set
    queries, found = len(s.queries), found_at_1(result)
    positions = np.concatenate([s.queries.positions, s.gallery.positions])
    positions = positions - positions.min(0)
    districts = _districts(positions)
    count = districts.max() + 1
    columns = min(3, count)
    rows = -(-count // columns)
    extents = [np.ptp(positions[districts == d], axis=0) for d in range(count)]
    span = np.max(extents, axis=0) * 1.14 + 10
    panel_in = WIDTH_IN / columns * span[1] / span[0] if count > 1 else (WIDTH_IN - 0.6) * span[1] / span[0] + 0.4
    figure = _figure(theme, 0.75 + float(np.clip(rows * panel_in, 1.2, 4.8)))
    size = 26 if queries <= 400 else 10
    for d in range(count):
        axes = figure.add_subplot(rows, columns, d + 1)
        mine = districts == d
        of_query, of_gallery = np.flatnonzero(mine[:queries]), np.flatnonzero(mine[queries:]) + queries
        hit, missed = of_query[found[of_query]], of_query[~found[of_query]]
        # dots and crosses differ without their colours too
        handles = [
            axes.scatter(*positions[hit].T, s=size, color=theme.found, linewidths=0, zorder=3),
            axes.scatter(*positions[missed].T, s=size, color=theme.missed, marker="x", linewidths=1.5, zorder=4),
            axes.scatter(*positions[of_gallery].T, s=size / 2, color=theme.gallery, linewidths=0),
        ]
        low = positions[mine].min(0) / 2 + positions[mine].max(0) / 2 - span / 2
        axes.set_xlim(low[0], low[0] + span[0])
        axes.set_ylim(low[1], low[1] + span[1])
        axes.set_aspect("equal")
        if count == 1:
            _dress(axes, theme, "", "east (m)", "north (m)")
            axes.locator_params(nbins=5)
            axes.ticklabel_format(useOffset=False, style="plain")
        else:
            _bare_panel(axes, theme, low, span, with_bar=d == 0)
    figure.suptitle(_label(s.name), x=0.02, ha="left", color=theme.ink, fontsize=TITLE_TEXT, fontweight="bold")
    names = [f"found ({found.sum()})", f"missed ({(~found).sum()})", f"gallery ({len(s.gallery)})"]
    _legend(figure, theme, handles, names, columns=3)
    return figure


def _bare_panel(axes: Axes, theme: Theme, low: np.ndarray, span: np.ndarray, with_bar: bool) -> None:
    """A panel whose numbers say nothing: no ticks, and a bar of a round length instead."""
    _dress(axes, theme, grid="")
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


def found_at_1(result: SetResult) -> np.ndarray:
    """(Q,) bool: whether the first retrieved image is correct at the set's first threshold."""
    correct = result.correct[result.set.thresholds_m[0]]
    return correct[:, 0] if correct.shape[1] else np.zeros(len(correct), bool)


def class_attention_bars(attention: np.ndarray, share: np.ndarray, before: np.ndarray | None, theme: Theme) -> Figure:
    """Mean attention per predicted class, image mean = 1; classes below 0.1% of the pixels are left out.

    Parameters
    ----------
    attention, before : (C,) see `utils.report_attention.class_attention`; `before` is another model's, as open marks.
    share : (C,) fraction of the pixels.
    """
    shown = [c for c in np.argsort(attention, kind="stable") if share[c] >= LEAST_SHARE and np.isfinite(attention[c])]
    names, values = class_names(len(attention)), attention[shown]
    figure = _figure(theme, 0.95 + 0.25 * len(shown))
    axes = figure.add_subplot()
    handles = [axes.barh(range(len(shown)), values - 1, left=1, color=theme.series[0], height=0.66, zorder=3)]
    if before is not None:
        handles += axes.plot(
            before[shown],
            range(len(shown)),
            "D",
            mfc=theme.paper,
            mec=theme.ink,
            markersize=4.5,
            linestyle="",
            zorder=5,
        )
    everything = np.concatenate([values, before[shown]]) if before is not None else values
    everything = everything[np.isfinite(everything)]
    low, high = min(everything.min(initial=0.9), 0.9), max(everything.max(initial=1.1), 1.1)
    room = 0.05 * (high - low)
    _values_beside(axes, theme, [f"{value:.2f}" for value in values])
    axes.axvline(1, color=theme.ink, linewidth=1, zorder=4)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    _dress(axes, theme, "Where attention rests", "mean attention (image mean = 1)", grid="x")
    axes.set_yticks(range(len(shown)), [f"{names[c]}  {100 * share[c]:.1f}%" for c in shown])
    axes.tick_params(axis="y", colors=theme.ink)
    if before is not None:
        _legend(figure, theme, handles, ["this model", "before training"])
    return figure


def _values_beside(axes: Axes, theme: Theme, values: Sequence[str]) -> None:
    """Numbers of horizontal bars in a column to their right, where no mark can cross them."""
    for i, value in enumerate(values):
        at = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
        axes.text(1.12, i, value, **at, fontsize=SMALL_TEXT, color=theme.ink)


def class_iou_bars(confusion: ConfusionMatrix, theme: Theme) -> Figure:
    """IoU in percent per class that the labels show, and their mean as a line."""
    iou = 100 * confusion.class_iou()
    present = [c for c in np.argsort(np.nan_to_num(iou), kind="stable") if np.isfinite(iou[c])]
    names = class_names(len(iou))
    figure = _figure(theme, 0.95 + 0.25 * len(present))
    axes = figure.add_subplot()
    axes.barh(range(len(present)), iou[present], color=theme.series[0], height=0.66, zorder=3)
    _values_beside(axes, theme, [f"{iou[c]:.1f}" for c in present])
    mean = 100 * confusion.mean_iou()
    axes.axvline(mean, color=theme.missed, linewidth=1.4, linestyle="--", zorder=4)
    _dress(axes, theme, f"IoU per class (mean {mean:.1f}%)", "IoU (%)", grid="x")
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(present) - 0.4)
    axes.set_xticks(range(0, 101, 20))
    axes.set_yticks(range(len(present)), [names[c] for c in present])
    axes.tick_params(axis="y", colors=theme.ink)
    return figure


def _contrast(a: tuple[float, float, float], b: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    rgb = np.array([to_rgb(a), to_rgb(b)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    return float((light + 0.05) / (dark + 0.05))


def confusion_heatmap(confusion: ConfusionMatrix, theme: Theme) -> Figure:
    """Confusion matrix, rows (labels) normalised to 100; classes that neither side shows are left out."""
    matrix = confusion.matrix.astype(np.float64)
    rows, columns = np.flatnonzero(matrix.sum(1)), np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    names = class_names(len(matrix))
    percent = 100 * matrix[rows][:, columns] / matrix[rows].sum(1, keepdims=True)
    # cells stay near their size with few classes, so that their text fits
    figure = _figure(theme, 1.35 + 0.24 * len(rows), max(WIDTH_IN, 1.2 + 0.27 * len(columns)))
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("share", [theme.paper, theme.series[0]])
    axes.pcolormesh(percent, cmap=colours, vmin=0, vmax=100, edgecolors=theme.grid, linewidth=0.4)
    for r, c in zip(*np.nonzero(percent >= 0.5)):
        ink = max(theme.paper, theme.ink, key=partial(_contrast, to_rgb(colours(percent[r, c] / 100))))
        axes.text(c + 0.5, r + 0.5, f"{percent[r, c]:.0f}", ha="center", va="center", fontsize=7, color=ink)
    _dress(axes, theme, "Confusion, % of each label's pixels", "predicted", "label", grid="")
    axes.invert_yaxis()
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [names[c] for c in columns], rotation=90)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [names[r] for r in rows])
    return figure


def history_plots(history: Sequence[dict]) -> dict[str, Draw]:
    """Plots of a training run by figure name: losses, learning rates, recalls and mIoU, as far as the history has them."""
    keys = list(dict.fromkeys(key for row in history for key in row))
    losses, rates = ([k for k in keys if k.startswith(prefix)] for prefix in ("loss_", "lr_"))
    sets = list(dict.fromkeys(k.rsplit("_recall@", 1)[0] for k in keys if "_recall@" in k))
    plots: dict[str, Draw] = {}
    if losses:
        plots["training_losses"] = lambda theme: _small_multiples(history, losses, theme)
    if sets:
        plots["training_recall"] = lambda theme: _recall_history(history, sets, theme)
    if "miou" in keys:
        plots["training_miou"] = lambda theme: _lines(history, {"mIoU": "miou"}, theme, "mIoU per epoch", "mIoU (%)")
    if rates:
        named = {_words(key, "lr_"): key for key in rates}
        plots["training_learning_rates"] = lambda theme: _lines(
            history, named, theme, "Learning rates after an epoch", "learning rate", log=True
        )
    return plots


def _column(history: Sequence[dict], key: str) -> np.ndarray:
    """One value per epoch, NaN where there is none; a history read back from its file holds text."""
    values = [row.get(key) for row in history]
    return np.array([np.nan if v is None or v == "" else float(v) for v in values])


def _words(key: str, prefix: str) -> str:
    return key.removeprefix(prefix).replace("_", " ")


def _epoch_axis(axes: Axes, epochs: np.ndarray) -> None:
    axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=8)


def _small_multiples(history: Sequence[dict], keys: list[str], theme: Theme) -> Figure:
    epochs = _column(history, "epoch")
    rows = -(-len(keys) // 2)
    figure = _figure(theme, 0.4 + 1.6 * rows)
    for i, key in enumerate(keys):
        axes = figure.add_subplot(rows, 2, i + 1)
        style = {**_series(theme, i), "linewidth": 1.8, "markersize": 4, "zorder": 3, "clip_on": False}
        axes.plot(epochs, _column(history, key), **style)
        _dress(axes, theme, _words(key, "loss_"), "epoch" if i >= len(keys) - 2 else "")
        axes.set_ylim(bottom=0)
        _epoch_axis(axes, epochs)
    return figure


def _recall_history(history: Sequence[dict], sets: list[str], theme: Theme) -> Figure:
    """Recall@1 drawn strong and, in the same colour, recall@5 faint."""
    epochs = _column(history, "epoch")
    figure = _figure(theme, 3.3 + 0.2 * -(-len(sets) // 2))
    axes = figure.add_subplot()
    handles = []
    for i, name in enumerate(sets):
        style = _series(theme, i)
        handles += axes.plot(
            epochs, _column(history, f"{name}_recall@1"), **style, linewidth=1.8, markersize=5, zorder=3, clip_on=False
        )
        faint = {**style, "marker": "", "linestyle": (0, (1, 1.6))}
        axes.plot(epochs, _column(history, f"{name}_recall@5"), **faint, linewidth=1.2, alpha=0.75)
    _dress(axes, theme, "Recall@1 per epoch (dotted: recall@5)", "epoch", "queries found (%)")
    axes.set_ylim(0, 101)
    _epoch_axis(axes, epochs)
    _legend(figure, theme, handles, sets)
    return figure


def _lines(
    history: Sequence[dict], named: dict[str, str], theme: Theme, title: str, y: str, log: bool = False
) -> Figure:
    epochs = _column(history, "epoch")
    figure = _figure(theme, 2.7 + (0.2 * -(-len(named) // 2) if len(named) > 1 else 0))
    axes = figure.add_subplot()
    if log and any((_column(history, key) > 0).any() for key in named.values()):
        axes.set_yscale("log")
    handles = []
    for i, key in enumerate(named.values()):
        style = {**_series(theme, i), "linewidth": 1.8, "markersize": 5, "zorder": 3, "clip_on": False}
        handles += axes.plot(epochs, _column(history, key), **style)
    _dress(axes, theme, title, "epoch", y)
    if not log:
        axes.set_ylim(bottom=0)
    _epoch_axis(axes, epochs)
    if len(named) > 1:
        _legend(figure, theme, handles, list(named))
    return figure


def file_slugs(names: Sequence[str]) -> list[str]:
    """Set names as parts of file names, letters, digits, `.`, `_` and `-` alone, made unique."""
    slugs: list[str] = []
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60] or "set"
        slugs.append(slug if slug not in slugs else f"{slug}_{len(slugs) + 1}")
    return slugs
