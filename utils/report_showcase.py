"""One picture that shows the method at work: queries, attention, and what was retrieved."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from models.segvpr import SegVPR
from utils.embedding import EmbeddingOptions
from utils.evaluation import SetResult
from utils.figures import found_at_1
from utils.report_attention import attention_span, look_at, overlay, shrink
from utils.report_cases import Case, describe_case
from utils.report_panels import FOUND, INK, MISSED, MUTED, PAPER, fitted, font, framed, load_thumbnail, tile_size
from utils.seeding import generator
from utils.tables import printable

WIDTH, MARGIN, GAP, RETRIEVED = 1200, 26, 12, 3
TILE = (WIDTH - 2 * MARGIN - (1 + RETRIEVED) * GAP) // (2 + RETRIEVED)
HEAD, FOOT = 30, 40
MAX_BYTES = 300_000


def showcase(
    path: Path,
    model: SegVPR,
    results: Sequence[SetResult],
    options: EmbeddingOptions,
    seed: int = 0,
    rows: int = 3,
) -> Path:
    """Write a JPEG of `WIDTH` px and at most 300 kB: queries with attention and the first three retrieved, framed by verdict.

    Rows come from sets that differ where there are enough: queries found at rank 1, and last, where there is one, a query whose
    first correct image stands at rank 2 or 3. Queries are drawn by `seed`.

    Raises
    ------
    ValueError : no query of `results` can be shown.
    """
    shown = []
    for name, case, scale in _choose(results, seed, rows):
        look = look_at(model, case.query.path, scale, options)
        if look is not None:
            shown.append((name, case, shrink(look, TILE)))
    if not shown:
        raise ValueError("showcase: there is no query to show whose photo can be read")
    span = attention_span([look for _, _, look in shown])
    sizes = [tile_size(Image.fromarray(look.photo), TILE) for _, _, look in shown]
    sheet = Image.new("RGB", (WIDTH, 2 * MARGIN + HEAD + sum(size[1] + FOOT for size in sizes) - 10), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(["query", "attention", *(f"retrieved {k + 1}" for k in range(RETRIEVED))]):
        draw.text((_left(column), MARGIN - 6), head, INK, font(16, True))
    top = MARGIN + HEAD - 6
    for (name, case, look), size in zip(shown, sizes):
        tiles = [(Image.fromarray(look.photo), None), (overlay(look, span), None)]
        tiles += [(load_thumbnail(tile.path), tile.correct) for tile in case.retrieved[:RETRIEVED]]
        for column, (photo, correct) in enumerate(tiles):
            sheet.paste(framed(fitted(photo, size), correct), (_left(column), top))
        below = top + size[1] + 6
        draw.text((_left(0), below), printable(name), INK, font(15, True))
        for column, tile in enumerate(case.retrieved[:RETRIEVED], 2):
            colour = FOUND if tile.correct else MISSED
            draw.text((_left(column), below), "✓" if tile.correct else "✗", colour, font(15, True))
            draw.text((_left(column) + 20, below), tile.caption.split(", but")[0], MUTED, font(15))
        top += size[1] + FOOT
    for quality in range(93, 30, -4):
        sheet.save(path, "JPEG", quality=quality, optimize=True, subsampling=0)
        if path.stat().st_size <= MAX_BYTES:
            break
    return path


def _left(column: int) -> int:
    return MARGIN + column * (TILE + GAP)


def _choose(results: Sequence[SetResult], seed: int, rows: int) -> list[tuple[str, Case, float]]:
    """Set name, case and scale of `rows` queries: hits of different sets, and a near miss last."""
    rng = generator(seed, "showcase")
    order = [results[i] for i in rng.permutation(len(results))]
    hits, near = [], []
    for r in order:
        correct, found = r.correct[r.set.thresholds_m[0]], found_at_1(r)
        late = ~found & correct[:, 1:RETRIEVED].any(axis=1)
        hits.append([(r, int(q)) for q in rng.permutation(np.flatnonzero(found))])
        near += [(r, int(q)) for q in rng.permutation(np.flatnonzero(late))[:1]]
    last = near[-1:] if rows > 1 else []
    # of every set its first hit, then of every set its second, and so on
    turns = [pick[k] for k in range(rows) for pick in hits if k < len(pick)]
    used = {r.set.name for r, _ in last}
    turns.sort(key=lambda pick: pick[0].set.name in used)
    chosen = turns[: rows - len(last)] + last
    return [(r.set.name, describe_case(r, q), r.set.scale) for r, q in chosen]
