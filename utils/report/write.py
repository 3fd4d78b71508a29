"""`report.html` and `figures/`: what an evaluation found, in one file that needs no network to be read."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from datasets.files import write_text
from datasets.naming import class_names
from models.segvpr import SegVPR
from utils.evaluation.metrics import ConfusionMatrix
from utils.evaluation.recall import SetResult
from utils.evaluation.results import file_name
from utils.report.attention import LEAST_EFFECT, NOTHING_SEEN, Seen, View, attention_span, class_attention, look_at_sets
from utils.report.cases import choose_cases
from utils.report.figures import (
    LEAST_CELL,
    class_attention_bars,
    class_iou_bars,
    confusion_heatmap,
    precision_recall_curves,
    query_map,
    recall_curves,
    unseen_predictions,
    zero_iou,
)
from utils.report.history import HEAD_PARTS, history_plots
from utils.report.page import Captioned, Page, SetCases, render
from utils.report.panels import Panels, Photos, attention_sheet, load_thumbnail, retrieval_panel
from utils.report.theme import save_plot, save_png
from utils.retrieval.embedding import EmbeddingOptions

MAX_CASES, CASES_PER_SET, MAX_MAPS = 24, 6, 12
"""Retrievals shown, over all sets and per set, and query maps."""
MAX_BYTES = 2_900_000
QUALITIES = (80, 65, 50, 35)
"""JPEG qualities that are tried until the page has at most `MAX_BYTES`."""


def write_report(
    folder: Path,
    model: SegVPR | None,
    content: dict,
    results: Sequence[SetResult],
    confusion: ConfusionMatrix | None,
    options: EmbeddingOptions,
    history: list[dict] | None = None,
    before: SegVPR | None = None,
    seed: int = 0,
    head_trained: bool = True,
) -> Path:
    """Write `report.html` into `folder` and every figure of it, as PNG, into `figures/` below; returns the report's path.

    Parameters
    ----------
    folder : the run folder; a time in its name is the report's date.
    model, before : the evaluated network and, optionally, the same before training, both placed by `options.compute`; used
        in eval mode. None: for descriptors that another program made, of which attention and classes are not known.
    content : the value of `utils.evaluation.results.results_dict` for `results` and `confusion`.
    history : one dict per epoch, as in `history.csv`.
    seed : decides which hits and which attention maps are shown.
    head_trained : whether training had a semantic loss; if not, classes and mIoU mean nothing and are left out.
    """
    figures = folder / "figures"
    photos: Photos = cache(load_thumbnail)
    panels = Panels(model.config.attention != "none", head_trained) if model else Panels(False, False)
    seen = look_at_sets(model, before, results, options, seed) if model and any(panels) else NOTHING_SEEN
    # of the evaluated model alone: the one from before is drawn on its scale
    span = attention_span([view.look for views in seen.views.values() for view in views])
    cases = _cases(results, seed)
    untrained = {*(() if head_trained else HEAD_PARTS), *(() if panels.attention else ("attention",))}
    _save_retrievals(figures, cases, photos)
    if model:
        _save_attention(figures, seen.views, span, model.config.num_classes, panels)
    page = Page(
        run=folder.resolve().name,
        content=content,
        config=model and model.config,
        panels=panels,
        confidence=_confidence(figures, content, results),
        recall=_recall(figures, content, results),
        maps=[_map(figures, r) for r in results[:MAX_MAPS]],
        cases=cases,
        seen=seen,
        span=span,
        rests=_rests(figures, seen) if all(panels) and seen.images else None,
        segmentation=_segmentation(figures, confusion) if head_trained else [],
        training=_training(figures, history or [], untrained),
        sets=len(results),
    )
    for quality in QUALITIES:
        html = render(page, photos, quality)
        if len(html) <= MAX_BYTES:
            break
    path = folder / "report.html"
    write_text(path, html)
    return path


def _cases(results: Sequence[SetResult], seed: int) -> list[SetCases]:
    """Of each set a hit and a miss at least."""
    shown = results[: MAX_CASES // 2]
    each = min(CASES_PER_SET, MAX_CASES // max(1, len(shown)))
    hits = max(1, each // 3)
    return [SetCases(r, choose_cases(r, each - hits, hits, seed)) for r in shown]


def _save_retrievals(figures: Path, shown: list[SetCases], photos: Photos) -> None:
    for result, all_cases in shown:
        name = result.set.name
        for sort, word, found in (("misses", "missed", False), ("hits", "found", True)):
            if cases := [case for case in all_cases if case.found == found]:
                sheet = retrieval_panel(cases, photos, f"{name}: {word} at rank 1")
                save_png(sheet, figures / f"retrieval_{sort}_{file_name(name)}.png")


def _save_attention(figures: Path, shown: dict[str, list[View]], span: float, num_classes: int, panels: Panels) -> None:
    what = " and ".join(name for name, drawn in zip(("attention", "predicted classes"), panels) if drawn)
    for name, views in shown.items():
        sheet = attention_sheet(views, span, num_classes, f"{name}: {what}", panels)
        save_png(sheet, figures / f"attention_{file_name(name)}.png")


def _recall(figures: Path, content: dict, results: Sequence[SetResult]) -> Captioned | None:
    if not results:
        return None
    parts = (f"{s['name']} {100 * s['recall']['1']:.1f}% to {100 * s['recall']['20']:.1f}%" for s in content["sets"])
    alt = f"Recall from N = 1 to 20: {'; '.join(parts)}"
    return Captioned(save_plot(partial(recall_curves, results), figures / "recall_curves.png"), alt)


def _confidence(figures: Path, content: dict, results: Sequence[SetResult]) -> Captioned | None:
    if not results:
        return None
    first = {result.set.name: result.set.thresholds_m[0] for result in results}
    entries = [s for s in content["sets"] if s["threshold_m"] == first[s["name"]]]
    shares = {
        precision: ", ".join(f"{s['name']} {100 * s['recall_at_precision'][precision]:.1f}%" for s in entries)
        for precision in entries[0]["recall_at_precision"]
    }
    caption = "Right answers, of all queries, " + "; ".join(
        f"at {100 * float(precision):g}% precision: {share}" for precision, share in shares.items()
    )
    plot = save_plot(partial(precision_recall_curves, results), figures / "precision_recall.png")
    return Captioned(plot, "Precision over recall where only the surest queries are answered", f"{caption}.")


def _map(figures: Path, result: SetResult) -> Captioned:
    name = result.set.name
    alt = f"Map of the queries of {name}: {result.found.sum()} of {len(result.set.queries)} found at rank 1"
    return Captioned(save_plot(partial(query_map, result), figures / f"map_{file_name(name)}.png"), alt, name=name)


def _rests(figures: Path, seen: Seen) -> Captioned:
    attention, share = class_attention(seen.sums)
    before = class_attention(seen.sums_before)[0] if seen.sums_before is not None else None
    plot = save_plot(partial(class_attention_bars, attention, share, before), figures / "attention_per_class.png")
    caption = (
        f"Over {seen.images} queries, by predicted class; beside each name the share of pixels. Bars to the right of 1 are "
        "classes that get more attention than an average pixel of their image."
    )
    if seen.effect < LEAST_EFFECT:
        caption += " Nothing taught this map (see the text), so neither were these differences learnt."
    return Captioned(plot, "Mean attention of every predicted class relative to the image mean", caption)


def _segmentation(figures: Path, confusion: ConfusionMatrix | None) -> list[Captioned]:
    if confusion is None or not confusion.matrix.any():
        return []
    bars = save_plot(partial(class_iou_bars, confusion), figures / "class_iou.png")
    matrix = save_plot(partial(confusion_heatmap, confusion), figures / "confusion_matrix.png")
    rare = f"Not drawn, each predicted for less than {LEAST_CELL:.1%} of every label's pixels"
    return [
        Captioned(bars, "IoU of every class in percent", _folded("IoU 0.0", zero_iou(confusion), confusion)),
        Captioned(
            matrix,
            "Confusion matrix: for every labelled class, how its pixels were predicted, in percent",
            _folded(rare, unseen_predictions(confusion), confusion),
        ),
    ]


def _training(figures: Path, history: list[dict], untrained: set[str]) -> list[Captioned]:
    plots = history_plots(history, untrained).items()
    return [Captioned(save_plot(draw, figures / f"{name}.png"), alt) for name, (draw, alt) in plots]


def _folded(what: str, classes: Sequence[int], confusion: ConfusionMatrix) -> str:
    names = class_names(len(confusion.matrix))
    return f"{what}: {', '.join(names[c] for c in classes)}." if classes else ""
