"""Plots of a training run: what each epoch of its history says."""

from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.report.theme import Draw, Theme, blank_figure, curve, dress, legend

HEAD_PARTS = frozenset({"head", "pyramid", "discriminator"})
"""Parts of the network that learn from classes alone: without a semantic loss they stay as they were."""
MOST_TICKS = 8


def history_plots(history: Sequence[dict], untrained: Collection[str] = ()) -> dict[str, tuple[Draw, str]]:
    """Plots of a training run and what each shows in words, by figure name, as far as the history has them.

    Parameters
    ----------
    untrained : parts of the network that this run did not train: their learning rates mean nothing, nor does mIoU if the
        head is among them.
    """
    keys = list(dict.fromkeys(key for row in history for key in row))
    losses = {_words(key, "loss_"): key for key in keys if key.startswith("loss_")}
    idle = set(untrained)
    if losses and not any(name.startswith("discriminator") for name in losses):
        idle.add("discriminator")
    rates = {_words(key, "lr_"): key for key in keys if key.startswith("lr_")}
    rates = {name: key for name, key in rates.items() if name not in idle}
    sets = list(dict.fromkeys(k.rsplit("_recall@", 1)[0] for k in keys if "_recall@" in k))
    plots: dict[str, tuple[Draw, str]] = {}
    if losses:
        draw = partial(_small_multiples, history, losses, "Losses, mean over an epoch")
        plots["training_losses"] = draw, "Every loss, its mean over each epoch"
    if sets:
        draw = partial(_recall_history, history, sets)
        plots["training_recall"] = draw, "Recall@1 and recall@5 of every set after each epoch"
    if "miou" in keys and "head" not in idle:
        draw = partial(_small_multiples, history, {"mIoU (%) per epoch": "miou"}, "")
        plots["training_miou"] = draw, "mIoU on the validation gallery after each epoch"
    if rates:
        draw = partial(_small_multiples, history, rates, "Learning rates after an epoch")
        plots["training_learning_rates"] = draw, "Learning rates at the end of each epoch"
    return plots


def _column(history: Sequence[dict], key: str) -> np.ndarray:
    """One value per epoch, NaN if it is absent; a history read back from its file holds text."""
    values = [row.get(key) for row in history]
    return np.array([np.nan if v is None or v == "" else float(v) for v in values])


def _words(key: str, prefix: str) -> str:
    return key.removeprefix(prefix).replace("_", " ")


def _epoch_axis(axes: Axes, epochs: np.ndarray) -> None:
    """A tick at whole epochs alone, and no more than fit."""
    first, last = int(epochs.min()), int(epochs.max())
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_xticks(range(first, last + 1, -(-(last - first + 1) // MOST_TICKS)))


def _value_axis(axes: Axes, values: np.ndarray) -> None:
    """Linear from 0, which rates reach at the end of a schedule."""
    largest = np.nanmax(values, initial=0)
    axes.set_ylim(0, 1.1 * largest if largest > 0 else 1)
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def _small_multiples(history: Sequence[dict], named: dict[str, str], title: str, theme: Theme) -> Figure:
    """A panel per column of the history, each with an axis of its own: their sizes differ by powers of ten."""
    epochs = _column(history, "epoch")
    columns = min(2, len(named))
    rows = -(-len(named) // columns)
    figure = blank_figure(theme, 0.7 + 1.6 * rows, title=title)
    for i, (name, key) in enumerate(named.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        values = _column(history, key)
        curve(axes, theme, i, epochs, values, markersize=4)
        dress(axes, theme, name, "epoch" if i >= len(named) - columns else "")
        _value_axis(axes, values)
        _epoch_axis(axes, epochs)
    return figure


def _recall_history(history: Sequence[dict], sets: list[str], theme: Theme) -> Figure:
    """Recall@1 drawn strong and, in the same colour, recall@5 faint."""
    epochs = _column(history, "epoch")
    figure = blank_figure(theme, 3.3 + 0.2 * -(-len(sets) // 2))
    axes = figure.add_subplot()
    handles = []
    faint = {"marker": "", "linestyle": (0, (1, 1.6)), "linewidth": 1.2, "alpha": 0.75, "zorder": 2, "clip_on": True}
    for i, name in enumerate(sets):
        handles += curve(axes, theme, i, epochs, _column(history, f"{name}_recall@1"))
        curve(axes, theme, i, epochs, _column(history, f"{name}_recall@5"), **faint)
    dress(axes, theme, "Recall@1 per epoch (dotted: recall@5)", "epoch", "queries found (%)")
    axes.set_ylim(0, 101)
    _epoch_axis(axes, epochs)
    legend(figure, theme, handles, sets)
    return figure
