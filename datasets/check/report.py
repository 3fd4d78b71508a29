"""What a scan of a data set found, as values and as text."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass

QUANTILES = (0, 25, 50, 75, 95, 100)
COLUMNS, SHOWN_FILES, SHOWN_SIZES = 100, 3, 6


@dataclass(frozen=True)
class PairReport:
    """Queries and the gallery in which they are looked up.

    Attributes
    ----------
    gallery, queries : their folders below the root.
    train_threshold_m, eval_threshold_m : same place within so many metres, of the same camera if the kind asks for it.
    no_positive_train, no_positive_eval : files of the queries that have no gallery image of their place.
    no_negative : files of the queries that have every gallery image within `NEGATIVE_DISTANCE_M`.
    nearest_m : distance from a query to the nearest gallery image that could be its positive, in metres: the quantiles
        of `QUANTILES`, in percent, over the queries that have one; None if none has.
    """

    gallery: str
    queries: str
    kind: str
    num_gallery: int
    num_queries: int
    train_threshold_m: float
    eval_threshold_m: float
    no_positive_train: tuple[str, ...]
    no_positive_eval: tuple[str, ...]
    no_negative: tuple[str, ...]
    nearest_m: dict[str, float] | None


@dataclass(frozen=True)
class Report:
    """What a scan found.

    Attributes
    ----------
    root : as given.
    layout, kind : in words, how galleries and queries were recognised, and of what kind they are and why.
    folders : folder below the root -> `images` and `labels` (sound ones) in it.
    sizes : `1920x1080`, in pixels -> number of images, most frequent first.
    faults : `unreadable images`, `missing labels`, `odd labels`, `names without position` -> one message per file.
    class_pixels : class name, or `ignored`, -> pixels over all sound labels.
    pairs : galleries with their queries.
    notes, problems : what is odd but stops nothing, and what would make training or evaluation fail.
    """

    root: str
    layout: str
    kind: str
    folders: dict[str, dict[str, int]]
    sizes: dict[str, int]
    faults: dict[str, list[str]]
    class_pixels: dict[str, int]
    pairs: tuple[PairReport, ...]
    notes: list[str]
    problems: list[str]

    @property
    def class_fractions(self) -> dict[str, float]:
        """Share of each class, and of `ignored`, in all labels' pixels; empty without labels."""
        total = sum(self.class_pixels.values())
        return {name: pixels / total for name, pixels in self.class_pixels.items()} if total else {}

    def count(self, what: str) -> int:
        """Number of `images` or of sound `labels`."""
        return sum(folder[what] for folder in self.folders.values())

    def to_dict(self) -> dict:
        """For JSON: the attributes of this class and of `PairReport`, and `ok`, `images`, `labels`, `class_fractions`."""
        totals = {what: self.count(what) for what in ("images", "labels")}
        return {"ok": not self.problems, **totals, **asdict(self), "class_fractions": self.class_fractions}


def first_few(texts: Sequence[str], shown: int = SHOWN_FILES) -> str:
    """Some texts in one line, and how many more there are."""
    more = [f"and {len(texts) - shown} more"] if len(texts) > shown else []
    return "; ".join([*texts[:shown], *more])


def format_report(report: Report) -> str:
    """The report as text of about 100 columns, files as paths below the root; problems come last."""
    faults = ", ".join(f"{what} {len(messages)}" for what, messages in report.faults.items())
    sizes = [f"{size} ({images})" for size, images in report.sizes.items()]
    head = {
        "layout": report.layout,
        "kind": report.kind,
        "files": f"{report.count('images')} images, {report.count('labels')} sound labels; faults: {faults or 'none'}",
        "sizes": first_few(sizes, SHOWN_SIZES) or "none",
    }
    lines = [report.root]
    for name, text in head.items():
        lines += _wrap(text, f"  {name:<8}", " " * 10)
    width = max(map(len, [*report.folders, "folder"]))
    lines += ["", f"  {'folder':<{width}}   images   labels"]
    lines += [f"  {name:<{width}}{n['images']:>9}{n['labels']:>9}" for name, n in report.folders.items()]
    for p in report.pairs:
        lines += ["", f"  {p.queries} in {p.gallery}: {p.num_queries} queries, {p.num_gallery} gallery images"]
        lines.append(
            f"    without positive: {len(p.no_positive_train)} within {p.train_threshold_m:g} m (training), "
            f"{len(p.no_positive_eval)} within {p.eval_threshold_m:g} m (evaluation); without negative: {len(p.no_negative)}"
        )
        lines.append("    nearest in metres: " + ", ".join(f"{q}% {m:.2f}" for q, m in (p.nearest_m or {}).items()))
    cells = [f"{name:<11}{100 * share:8.3f}%" for name, share in report.class_fractions.items()]
    lines += ["", "  pixels of the labels"] if cells else []
    lines += ["  " + "    ".join(cells[i : i + 4]) for i in range(0, len(cells), 4)]
    for title, texts in (("notes", report.notes), ("problems", report.problems)):
        lines += ["", f"  {title}: {len(texts)}"] if texts else []
        for text in texts:
            lines += _wrap(text.replace(f"{os.path.abspath(report.root)}{os.sep}", ""), "  - ", "    ")
    return "\n".join(lines if report.problems else [*lines, "", "  no problems"])


def _wrap(text: str, first: str, others: str) -> list[str]:
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, COLUMNS, initial_indent=first, subsequent_indent=others, **options)
