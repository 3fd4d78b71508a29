"""Where the galleries and queries of a data set lie below its root."""

import os
from pathlib import Path

from datasets.naming import CONDITIONS, is_no_data

PREVIEW = "preview.png"
"""The contact sheet of the town, no image of a data set."""
SPLITS = ("train", "val", "test")
DEEPEST = 3
"""How many levels below a root `roots_below` searches."""


def find_pairs(root: Path) -> tuple[str, list[tuple[Path, Path]]]:
    """The layout of a root in words, and its galleries with their queries; a plain folder has none."""
    pairs = []
    for town in subfolders(root):
        for part in subfolders(town / "gallery") or [town / "gallery"]:
            below = [queries / part.relative_to(town / "gallery") for queries in _query_folders(town)]
            pairs += [(part, queries) for queries in below if part.is_dir() and queries.is_dir()]
    if pairs:
        return "IDDAv2: <town>/gallery/<pair> with <town>/queries*/<pair>", pairs
    gallery, *queries = (root / condition for condition in CONDITIONS)
    if gallery.is_dir():
        pairs = [(gallery, folder) for folder in queries if folder.is_dir()]
    if pairs:
        return f"RobotCar: overcast with {', '.join(queries.name for _, queries in pairs)}", pairs
    for split in SPLITS:
        if field := field_pair(root, split):
            pairs += [(root / field[0], root / queries) for queries in field[1]]
    if pairs:
        return "VPR-datasets-downloader: {train,val,test}/database with queries*", pairs
    for parent in (root, *subfolders(root)):
        galleries = [parent / name for name in ("gallery", "database") if (parent / name).is_dir()]
        pairs += [(gallery, queries) for gallery in galleries for queries in _query_folders(parent)]
    return ("gallery or database with queries*" if pairs else "one plain set, no gallery with queries"), pairs


def field_pair(root: Path, split: str) -> tuple[str, list[str]] | None:
    """`<split>/database` and all `<split>/queries*` below a root, as VPR-datasets-downloader makes them; None without both."""
    queries = [f"{split}/{folder.name}" for folder in _query_folders(root / split)]
    return (f"{split}/database", queries) if queries and (root / split / "database").is_dir() else None


def roots_below(root: Path) -> list[Path]:
    """Folders below a root that are roots of data sets themselves: the nearest of each branch."""
    found, level = [], subfolders(root)
    for _ in range(DEEPEST):
        deeper = []
        for folder in level:
            if find_pairs(folder)[1]:
                found.append(folder)
            else:
                deeper += subfolders(folder)
        level = deeper
    return sorted(found)


def subfolders(folder: Path) -> list[Path]:
    """Visible folders in a folder, sorted; an empty list if it is missing."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir() and not is_no_data(entry.name))


def _query_folders(parent: Path) -> list[Path]:
    return [f for f in subfolders(parent) if f.name.startswith("queries") and "_labels" not in f.name]
