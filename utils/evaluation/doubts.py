"""What a recall hides: queries that no answer can be right for, and queries that find themselves."""

from datasets.pairs import shared_files, without_positive
from datasets.places import ImageSet


def count_doubts(gallery: ImageSet, queries: ImageSet, threshold_m: float, same_camera: bool) -> dict[str, int]:
    """How many queries have no gallery image of their place, and how many are in the gallery; nothing where none is."""
    counts = {
        "queries_without_positive": len(without_positive(gallery, queries, threshold_m, same_camera)),
        "queries_in_gallery": len(shared_files(gallery.paths, queries.paths)),
    }
    return {name: count for name, count in counts.items() if count}


def doubt_lines(entry: dict) -> list[str]:
    """The same as text, for a set's entry in `results.json`."""
    lines, of = [], f"of {entry['num_queries']} queries"
    if lacking := entry.get("queries_without_positive"):
        where = f"no gallery image of their place within {entry['threshold_m']:g} m"
        lines.append(f"{entry['name']}: {lacking} {of} have {where}: no answer to them counts")
    if shared := entry.get("queries_in_gallery"):
        lines.append(
            f"{entry['name']}: {shared} {of} are in the gallery too: each finds itself, so recall says nothing of it"
        )
    return lines
