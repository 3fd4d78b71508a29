"""One picture that shows the method at work: queries drawn at random, attention, and the first image retrieved."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw

from datasets.files import write_whole
from models.segvpr import SegVPR
from utils.evaluation.recall import SetResult
from utils.report.attention import Look, attention_span, look_at, overlay, shrink
from utils.report.cases import Case, describe_case
from utils.report.panels import FOUND, INK, MISSED, MUTED, PAPER, fitted, font, framed, load_thumbnail, tile_size
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.seeding import generator
from utils.system.tables import printable

WIDTH, MARGIN, GAP, BETWEEN = 1200, 26, 8, 28
PER_ROW, PARTS = 2, ("query", "attention", "first retrieved")
BLOCK = (WIDTH - 2 * MARGIN - (PER_ROW - 1) * BETWEEN) // PER_ROW
TILE = (BLOCK - (len(PARTS) - 1) * GAP) // len(PARTS)
HEAD, FOOT = 30, 38
MAX_BYTES = 300_000


def showcase(
    path: Path,
    model: SegVPR,
    results: Sequence[SetResult],
    options: EmbeddingOptions,
    seed: int = 0,
    rows: int = 3,
) -> Path:
    """Write a JPEG of `WIDTH` px and at most 300 kB: queries with attention and the first image retrieved, framed by verdict.

    A row shows two queries of one set. They are drawn by `seed` alone, whatever was found.

    Raises
    ------
    ValueError : no query of `results` can be shown.
    """
    shown = []
    for row in _draw_queries(results, seed, rows):
        looks = [(name, case, look_at(model, case.query.path, scale, options)) for name, case, scale in row]
        looks = [(name, case, shrink(look, TILE)) for name, case, look in looks if look is not None]
        shown += [looks] if looks else []
    if not shown:
        raise ValueError("showcase: there is no query to show whose photo can be read")
    span = attention_span([look for row in shown for _, _, look in row])
    blocks = [[_block(*query, span) for query in row] for row in shown]
    sheet = Image.new("RGB", (WIDTH, 2 * MARGIN + HEAD + sum(row[0].height for row in blocks) - 10), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(max(map(len, blocks))):
        for part, title in enumerate(PARTS):
            left = MARGIN + column * (BLOCK + BETWEEN) + part * (TILE + GAP)
            draw.text((left, MARGIN - 6), title, INK, font(16, True))
    top = MARGIN + HEAD - 6
    for row in blocks:
        for column, block in enumerate(row):
            sheet.paste(block, (MARGIN + column * (BLOCK + BETWEEN), top))
        top += row[0].height
    write_whole(path, partial(_save_small, sheet))
    return path


def _save_small(sheet: Image.Image, path: Path) -> None:
    for quality in range(93, 30, -4):
        sheet.save(path, "JPEG", quality=quality, optimize=True, subsampling=0)
        if path.stat().st_size <= MAX_BYTES:
            break


def _block(name: str, case: Case, look: Look, span: float) -> Image.Image:
    """One query: its photo, its attention, and the first image retrieved, with words below."""
    photo, first = Image.fromarray(look.photo), case.retrieved[0]
    size = tile_size(photo, TILE)
    block = Image.new("RGB", (BLOCK, size[1] + FOOT), PAPER)
    tiles = [(photo, None), (overlay(look, span), None), (load_thumbnail(first.path), first.correct)]
    for part, (picture, correct) in enumerate(tiles):
        block.paste(framed(fitted(picture, size), correct), (part * (TILE + GAP), 0))
    draw, below, left = ImageDraw.Draw(block), size[1] + 6, 2 * (TILE + GAP)
    draw.text((0, below), printable(name), INK, font(15, True))
    draw.text((left, below), "✓" if first.correct else "✗", FOUND if first.correct else MISSED, font(15, True))
    draw.text((left + 20, below), first.caption.split(", but")[0], MUTED, font(15))
    return block


def _draw_queries(results: Sequence[SetResult], seed: int, rows: int) -> list[list[tuple[str, Case, float]]]:
    """Set name, case and scale of the queries of each row: the sets in turns, and within a set at random."""
    rng = generator(seed, "showcase")
    orders = [rng.permutation(len(r.set.queries)) for r in results]
    drawn = []
    for row in range(rows if results else 0):
        r, start = results[row % len(results)], row // len(results) * PER_ROW
        queries = orders[row % len(results)][start : start + PER_ROW]
        drawn.append([(r.set.name, describe_case(r, int(q)), r.set.scale) for q in queries])
    return [row for row in drawn if row]
