"""Gallery and queries of one set, as flags name them."""

from dataclasses import dataclass
from pathlib import Path

from datasets.check.layout import field_pair
from datasets.naming import KINDS, Kind, detect_kind
from datasets.pairs import camera_text, kind_text, shared_files, shared_text
from datasets.places import ImageSet
from utils.options.data import EvaluationFolders, TrainingFolders
from utils.retrieval.screening import Screening
from utils.system.logs import LOGGER

RELEASED = {
    (TrainingFolders.train_g, TrainingFolders.train_q),
    (EvaluationFolders.val_g, EvaluationFolders.val_q),
    (EvaluationFolders.test_g, EvaluationFolders.test_q),
}
"""Galleries and queries where no flag names them."""


def folders_below(root: Path, split: str, galleries: str, queries: str) -> tuple[str, str]:
    """The folders that flags name; where none does and the root has VPR-datasets-downloader's layout, those of the split."""
    field = field_pair(root, split) if (galleries, queries) in RELEASED else None
    return (field[0], "+".join(field[1])) if field else (galleries, queries)


def split_folders(root: Path, folders: str) -> list[str]:
    """`a+b` -> [a, b]; a folder below the root that has a `+` in its name is taken as it is."""
    parts, found = folders.split("+"), []
    while parts:
        whole = next((n for n in range(len(parts), 1, -1) if (root / "+".join(parts[:n])).is_dir()), 1)
        found.append("+".join(parts[:whole]))
        del parts[:whole]
    return found


@dataclass(frozen=True)
class SetFlags:
    """The flags that name a set's root, its kind, and how far apart the same place may be ("" where there is none)."""

    root: str
    kind: str
    metres: str

    def overrule(self, kind: Kind) -> str:
        other = next(name for name in KINDS if name != kind.name)
        metres = f"{self.metres} M, " if self.metres else ""
        return f"to overrule: {self.kind} {other}, {metres}--eval_scale F"


TRAINING = SetFlags("--dataset_root", "--kind", "--train_pos_dist_threshold")


def load_pair(
    flags: SetFlags,
    galleries: list[Path],
    queries: list[Path],
    kind: str,
    metres: tuple[float, ...],
    scale: float | None,
    screening: Screening,
    loaded: dict[tuple, object] | None = None,
) -> tuple[ImageSet, ImageSet, Kind]:
    """Gallery and queries of one set and its kind, logged with the reason and what follows; errors name the flag.

    Parameters
    ----------
    metres, scale : what the user gave instead of the kind's own, if anything.
    loaded : keeps what was listed and said before, so that a gallery of several sets is listed once, and a kind told once.
    """
    loaded = {} if loaded is None else loaded
    try:
        for folders in (galleries, queries):
            if tuple(folders) not in loaded:
                loaded[tuple(folders)] = screening.load(folders)
    except (ValueError, OSError) as error:
        several = len(galleries) > 1 or len(queries) > 1
        raise type(error)(f"{flags.root}: {error}{' (+ stands between two folders)' if several else ''}") from error
    gallery, query_set = loaded[tuple(galleries)], loaded[tuple(queries)]
    return gallery, query_set, kind_of_pair(flags, gallery, query_set, kind, metres, scale, loaded)


def kind_of_pair(
    flags: SetFlags,
    gallery: ImageSet,
    query_set: ImageSet,
    kind: str,
    metres: tuple[float, ...],
    scale: float | None,
    loaded: dict[tuple, object],
) -> Kind:
    """The kind of a pair, logged, and doubts about the pair; arguments as of `load_pair`."""
    found, reason = detect_kind([*gallery.paths, *query_set.paths])
    found, reason = (found, reason) if kind == "auto" else (KINDS[kind], "as given")
    own = found.train_threshold_m if flags is TRAINING else found.eval_threshold_m
    follows = kind_text(found, metres or (own,), scale or found.eval_scale)
    said = f"{flags.root}: kind {found.name} ({reason}): {follows} ({flags.overrule(found)})"
    if said not in loaded.setdefault(("said",), set()):
        LOGGER.info("%s", said)
        loaded["said",].add(said)
    _check_pair(flags, gallery, query_set, found)
    return found


def _check_pair(flags: SetFlags, gallery: ImageSet, queries: ImageSet, kind: Kind) -> None:
    """Say how many queries are in the gallery too, or have no image of their camera there.

    ValueError where training would learn from nothing else than queries that find themselves.
    """
    shared = shared_files(gallery.paths, queries.paths)
    if shared:
        text = f"{flags.root}: {shared_text(shared, len(queries))}"
        if len(shared) == len(queries) and flags is TRAINING:
            raise ValueError(text)
        LOGGER.warning("%s", text)
    lacking = camera_text(gallery, queries) if kind.same_camera else ""
    if lacking:
        LOGGER.warning("%s: %s (%s)", flags.root, lacking, flags.overrule(kind))
