"""Plots: colours that survive, numbers that can be read, histories with gaps."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from PIL import Image, ImageColor

from utils.evaluation.metrics import ConfusionMatrix, recall_at
from utils.report.figures import (
    class_iou_bars,
    confusion_heatmap,
    precision_recall_curves,
    query_map,
    recall_curves,
    unseen_predictions,
    zero_iou,
)
from utils.report.history import HEAD_PARTS, history_plots
from utils.report.theme import DARK, LIGHT, save_plot


def test_screen_plots_keep_the_colours_of_thin_lines(tmp_path):
    """One line lies below another, so that its colour is left in the legend alone."""
    values = {"val": 8, "rain": 13, "snow": 30, "sun": 13, "night": 7}
    history = [{"epoch": e, **{f"{n}_recall@1": v + e for n, v in values.items()}} for e in (1, 2, 3)]
    plot = save_plot(history_plots(history)["training_recall"][0], tmp_path / "recall.png")
    for data, theme in ((plot.light, LIGHT), (plot.dark, DARK)):
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int).reshape(-1, 3)
        for colour, name in zip(theme.series, values):
            assert np.abs(pixels - ImageColor.getrgb(colour)).max(axis=1).min() <= 12, name


def luminance(colour) -> float:
    """Relative luminance of WCAG 2.2."""
    rgb = np.array(to_rgb(colour))
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


def test_numbers_of_the_confusion_matrix_can_be_read():
    confusion = ConfusionMatrix(12)
    shares = np.arange(5, 100, 8)
    confusion.counts = torch.tensor([[p, 100 - p] + [0] * 10 for p in shares])
    for theme in (LIGHT, DARK):
        (axes,) = confusion_heatmap(confusion, theme).axes
        ramp = LinearSegmentedColormap.from_list("share", [theme.paper, theme.series[0]])
        assert len(axes.texts) == 2 * len(shares)
        for text in axes.texts:
            dark, light = sorted(map(luminance, (ramp(int(text.get_text()) / 100)[:3], text.get_color())))
            assert (light + 0.05) / (dark + 0.05) >= 3.6, (text.get_text(), theme.paper)


def test_zeros_of_segmentation_are_folded():
    """Labels 0, 1 and 3; 2 is predicted for 0.6% of one label, 3 for 0.4%, 4 by neither side."""
    confusion = ConfusionMatrix(5)
    confusion.counts = torch.tensor([[990, 0, 6, 4, 0], [0, 500, 0, 0, 0], [0] * 5, [3, 0, 0, 0, 0], [0] * 5])
    assert unseen_predictions(confusion) == [3] and zero_iou(confusion) == [3]
    (axes,) = confusion_heatmap(confusion, LIGHT).axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["class 0", "class 1", "class 2"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["class 0", "class 1", "class 3"]
    assert sorted(t.get_text() for t in axes.texts) == ["1", "100", "100", "99"]
    (bars,) = class_iou_bars(confusion, LIGHT).axes
    assert [t.get_text() for t in bars.get_yticklabels()] == ["class 0", "class 1"]
    confusion.counts = torch.tensor([[0, 9, 0, 0, 0], [9, 0, 0, 0, 0], [0] * 5, [0] * 5, [0] * 5])
    assert zero_iou(confusion) == [] and len(class_iou_bars(confusion, DARK).axes[0].get_yticklabels()) == 2


def test_history_as_text_with_gaps():
    rows = [{"epoch": "1", "loss_a": "0.5", "val_recall@1": ""}, {"epoch": "2", "loss_a": "0.4", "miou": "3"}]
    plots = history_plots(rows)
    assert list(plots) == ["training_losses", "training_recall", "training_miou"]
    assert plots["training_losses"][0](LIGHT).axes[0].lines[0].get_ydata().tolist() == [0.5, 0.4]
    assert history_plots([]) == {}


RATES = ("encoder", "head", "attention", "pyramid", "discriminator")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("epochs", "rates"),
    [
        (1, (0.0,) * 5),
        (2, (1e-3, 1e-2, 1e-3, 0.0, 4e-4)),
        (10, (1e-3, 1e-2, 1e-3, 0.0, 4e-4)),
        (100, (1e-30, 1e-12, 3e9, 1.0, 0.1)),
    ],
)
def test_learning_rates_are_drawn_from_zero_with_a_tick_at_whole_epochs_alone(tmp_path, epochs, rates):
    history = [
        {"epoch": e, "loss_discriminator_source": 0.5, "miou": 0.0}
        | {f"lr_{name}": rate * (1 - (e / epochs)) for name, rate in zip(RATES, rates)}
        for e in range(1, epochs + 1)
    ]
    plots = history_plots(history)
    save_plot(plots["training_learning_rates"][0], tmp_path / "rates.png")
    panels = plots["training_learning_rates"][0](DARK).axes
    assert [a.get_title(loc="left") for a in panels] == list(RATES)
    for axes, name in zip([*panels, plots["training_miou"][0](LIGHT).axes[0]], RATES):
        assert axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0 < axes.get_ylim()[1]
        ticks = axes.get_xticks()
        assert 1 <= len(ticks) <= 8 and all(tick in range(1, epochs + 1) for tick in ticks) and ticks[0] == 1, name


def test_rates_of_parts_that_are_not_trained_are_left_out():
    row = {"epoch": 1, "loss_triplet": 0.1, "miou": 3.0, **{f"lr_{name}": 0.1 for name in RATES}}

    def panels(history, untrained=()):
        draw, _ = history_plots(history, untrained)["training_learning_rates"]
        return [axes.get_title(loc="left") for axes in draw(LIGHT).axes]

    assert panels([row], HEAD_PARTS) == ["encoder", "attention"]
    assert "training_miou" not in history_plots([row], HEAD_PARTS) and "training_miou" in history_plots([row])
    assert panels([row]) == ["encoder", "head", "attention", "pyramid"], "there is no loss of a discriminator"
    assert panels([row | {"loss_discriminator_target": 0.3}], {"attention"}) == [
        "encoder",
        "head",
        "pyramid",
        "discriminator",
    ]


def test_map_splits_districts_that_lie_far_apart(results):
    result = results[1]
    assert len(query_map(result, LIGHT).axes) == 1
    far = [
        replace(i, positions=np.where(np.arange(5)[:, None] < 2, i.positions, i.positions + 9000.0))
        for i in (result.set.gallery, result.set.queries)
    ]
    split = replace(result, set=replace(result.set, gallery=far[0], queries=far[1]))
    axes = query_map(split, LIGHT).axes
    assert len(axes) == 2
    found = result.found.sum()
    assert sum(len(a.collections[0].get_offsets()) for a in axes) == found
    assert sum(len(a.collections[1].get_offsets()) for a in axes) == 5 - found


def test_recall_curves_hold_every_recall(results):
    (axes,) = recall_curves(results, DARK).axes
    assert len(axes.lines) == 3  # one set has two thresholds
    first = recall_at(results[0].correct[5.0], range(1, 11))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 100 * np.array(list(first.values())))


def test_precision_and_recall_end_at_recall_at_1(results):
    (axes,) = precision_recall_curves(results, DARK).axes
    assert len(axes.lines) == 2  # a curve per set
    for line, result in zip(axes.lines, results):
        recall, precision = line.get_xdata(), line.get_ydata()
        assert recall[-1] == precision[-1] == pytest.approx(100 * result.recall[1])  # every query is answered
