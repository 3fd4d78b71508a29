"""Descriptors that any program made, scored as our own are: a file holds those of one gallery and its queries."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.naming import camera_of, parse_position
from datasets.places import ImageSet
from utils.evaluation.recall import EvaluationSet, SetResult, retrieve
from utils.retrieval.embedding import check_descriptors
from utils.retrieval.engines.choice import searchable
from utils.retrieval.settings import RetrievalSettings, check_settings

SIDES = {"gallery": "gallery_paths", "queries": "query_paths"}
"""Arrays of a file: descriptors (N, D) and the paths (N,) of their images."""


class GivenSide(NamedTuple):
    """Images of one side, which need not exist, and their descriptors (N, D) float32."""

    images: ImageSet
    descriptors: np.ndarray


def read_given(file: str | Path) -> tuple[GivenSide, GivenSide]:
    """Gallery and queries of an `.npz` file; ValueError or OSError names the file and what is wrong with it."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            gallery, queries = (_read_side(arrays, *names) for names in SIDES.items())
        if gallery.descriptors.shape[1] != queries.descriptors.shape[1]:
            widths = f"{gallery.descriptors.shape[1]} and {queries.descriptors.shape[1]}"
            raise ValueError(f"descriptors of gallery and queries have {widths} numbers; they must have as many")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--descriptors {file}: no such file") from error
    except Exception as error:  # zipfile and numpy raise what they like for a file that is no .npz
        raise ValueError(f"--descriptors {file}: {error}") from error
    return gallery, queries


def _read_side(arrays: np.lib.npyio.NpzFile, name: str, paths_name: str) -> GivenSide:
    lacking = [wanted for wanted in (name, paths_name) if wanted not in arrays]
    if lacking:
        wanted = ", ".join(word for pair in SIDES.items() for word in pair)
        raise ValueError(f"no array {lacking[0]!r} in it (wanted: {wanted}; found: {', '.join(arrays) or 'none'})")
    rows, paths = arrays[name], arrays[paths_name]
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or paths.dtype.kind != "U" or paths.shape != rows.shape[:1]:
        raise ValueError(
            f"{name} is {rows.dtype} {rows.shape} and {paths_name} {paths.dtype} {paths.shape}; wanted are numbers (N, D) "
            "and N texts"
        )
    if not rows.size:
        raise ValueError(f"{name} is empty")
    paths, rows = paths.tolist(), np.ascontiguousarray(rows, np.float32)
    check_descriptors(rows, paths)
    positions = np.array([parse_position(path) for path in paths])
    folder = os.path.commonpath([os.path.dirname(path) or "." for path in paths])
    return GivenSide(ImageSet(folder, tuple(paths), positions, np.array([camera_of(path) for path in paths])), rows)


def evaluate_given(
    sets: Sequence[EvaluationSet],
    descriptors: Sequence[tuple[np.ndarray, np.ndarray]],
    retrieval: RetrievalSettings,
    keep_descriptors: bool = False,
) -> list[SetResult]:
    """Retrieve and score every set in its descriptors of gallery and queries."""
    for s, (gallery, _) in zip(sets, descriptors):
        check_settings(retrieval, gallery.shape[1], s.gallery.folder, len(gallery))
    results = []
    for s, sides in zip(sets, descriptors):
        gallery, queries = (rows.astype(retrieval.dtype, copy=False) for rows in sides)
        results.append(retrieve(s, searchable(gallery, retrieval, s.gallery), queries, keep_descriptors))
    return results
