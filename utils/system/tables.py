"""Text for people: tables, and names of any characters."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as text lines: the first column flush left, the others flush right, a rule below the first row."""
    head, *body = ["  ".join(row) for row in _padded(rows)]
    return [head, "-" * len(head), *body]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table; cells are text that is escaped already."""
    head, *body = _padded(rows)
    rule = ["-" * len(head[0]), *("-" * (len(cell) - 1) + ":" for cell in head[1:])]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *body])


def _padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))] for row in rows]


def printable(text: object) -> str:
    """Any name on one line that can be encoded: odd characters, and bytes that are no text, are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
