"""What each epoch gave, as a table on disk."""

import csv
from pathlib import Path


def write_history(path: Path, history: list[dict]) -> None:
    """Write one row per epoch; columns are all keys, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)
    temporary.replace(path)
