"""Plots: colours that survive, numbers that can be read, histories with gaps."""

import io

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from PIL import Image, ImageColor

from utils.figures import DARK, LIGHT, confusion_heatmap, file_slugs, history_plots, save_plot
from utils.metrics import ConfusionMatrix
from utils.tables import printable


def test_screen_plots_keep_the_colours_of_thin_lines(tmp_path):
    """One line lies below another, so that its colour is left in the legend alone."""
    values = {"val": 8, "rain": 13, "snow": 30, "sun": 13, "night": 7}
    history = [{"epoch": e, **{f"{n}_recall@1": v + e for n, v in values.items()}} for e in (1, 2, 3)]
    plot = save_plot(history_plots(history)["training_recall"], tmp_path / "recall.png")
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


def test_history_as_text_with_gaps():
    rows = [{"epoch": "1", "loss_a": "0.5", "val_recall@1": ""}, {"epoch": "2", "loss_a": "0.4", "miou": "3"}]
    plots = history_plots(rows)
    assert list(plots) == ["training_losses", "training_recall", "training_miou"]
    assert plots["training_losses"](LIGHT).axes[0].lines[0].get_ydata().tolist() == [0.5, 0.4]
    assert history_plots([]) == {}


def test_learning_rates_of_zero():
    draw = history_plots([{"epoch": 1, "lr_encoder": 0.0}])["training_learning_rates"]
    assert draw(DARK).axes[0].get_yscale() == "linear"


def test_names_become_file_names():
    assert file_slugs(["a/b", "a b", "../..", "ü<"]) == ["a_b", "a_b_2", "set", "set_4"]
    assert printable("a\udcff\nb") == r"a\udcff\nb" and printable(3) == "3" and printable("é") == "é"
