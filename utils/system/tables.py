"""Text for people: tables, and names of any characters."""


def align(rows: list[list[str]]) -> list[str]:
    """Rows of cells as text lines: the first column flush left, the others flush right, a rule below the first row."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def printable(text: object) -> str:
    """Any name on one line that can be encoded: odd characters, and bytes that are no text, are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
