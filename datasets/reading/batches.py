"""Images read for embedding and segmentation, any mixture of sizes."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datasets.jobs import run_jobs
from datasets.reading.notes import WorkerNotes
from datasets.reading.transforms import (
    decode_images,
    read_encoded,
    read_image,
    read_label_of,
    scale_image,
    size_of,
    stack_images,
)
from datasets.reading.triplets import LoadFailure
from datasets.sizes import LongerSide, Scale, size_fault


class SizedBatch(NamedTuple):
    """Images of one size: their places in the list, uint8 (B, 3, H, W), and labels (B, H, W) if asked for."""

    indexes: list[int]
    images: Tensor
    labels: Tensor | None


class EncodedImages(NamedTuple):
    """Files not yet decoded: their places in the list, and what `read_encoded` gave for each."""

    indexes: list[int]
    files: list[Tensor]


class ImageBatches(Dataset):
    """Reads images by lists of indexes, and splits each list into batches of equal size.

    Parameters
    ----------
    scale : see `datasets.sizes.Scale`; 1 with labels, which are read at full size.
    encoded : give JPEG files as they are, `EncodedImages`; `decode` makes batches of them on the device.
    """

    def __init__(
        self, paths: Sequence[str], scale: Scale = 1.0, with_labels: bool = False, encoded: bool = False
    ) -> None:
        self.paths, self.scale, self.with_labels, self.encoded = tuple(paths), scale, with_labels, encoded
        self.notes = WorkerNotes()

    def __getitem__(self, indexes: Sequence[int]) -> list[SizedBatch] | EncodedImages | LoadFailure:
        try:
            return self._read_encoded(indexes) if self.encoded else self._read(indexes)
        except (ValueError, OSError) as error:
            return LoadFailure(str(error))

    def _read(self, indexes: Sequence[int]) -> list[SizedBatch]:
        by_size: dict[tuple[int, ...], list[tuple[int, Tensor, Tensor | None]]] = {}
        for index in indexes:
            self.notes.reading(self.paths[index])
            image = scale_image(read_image(self.paths[index]), self.scale)
            label = read_label_of(self.paths[index], size_of(image)) if self.with_labels else None
            by_size.setdefault(tuple(image.shape), []).append((index, image, label))
        batches = []
        for items in by_size.values():
            places, images, labels = zip(*items)
            batches.append(
                SizedBatch([*places], stack_images(images), default_collate([*labels]) if self.with_labels else None)
            )
        return batches

    def _read_encoded(self, indexes: Sequence[int]) -> EncodedImages:
        files = []
        for index in indexes:
            self.notes.reading(self.paths[index])
            files.append(read_encoded(self.paths[index]))
        return EncodedImages([*indexes], files)

    def decode(self, chunk: EncodedImages, device: torch.device) -> list[SizedBatch]:
        """Decode and scale on a device what a worker read; one image per batch. ValueError names an unusable file."""
        images = decode_images(chunk.files, [self.paths[i] for i in chunk.indexes], device)
        return [SizedBatch([i], scale_image(image, self.scale)[None], None) for i, image in zip(chunk.indexes, images)]


def full_batches(chunks: Iterable[list[SizedBatch]], batch_size: int, most_waiting: int) -> Iterator[SizedBatch]:
    """Regroup batches into full ones: sizes that alternate in the list are collected, each on its own.

    Which images share a batch depends on their order and sizes alone. It does not depend on the chunks, and so not on
    the number of workers.

    Parameters
    ----------
    chunks : batches that hold consecutive images of the list, see `ImageBatches`.
    most_waiting : most images held back; beyond it, those of the most frequent size are given as a smaller batch.
    """
    waiting: dict[tuple[int, ...], list[tuple[SizedBatch, int]]] = {}
    for pieces in chunks:
        rows = sorted((index, p, row) for p, piece in enumerate(pieces) for row, index in enumerate(piece.indexes))
        for _, p, row in rows:
            size = tuple(pieces[p].images.shape[1:])
            waiting.setdefault(size, []).append((pieces[p], row))
            if len(waiting[size]) == batch_size:
                yield _joined(waiting.pop(size))
            elif sum(map(len, waiting.values())) > most_waiting:
                yield _joined(waiting.pop(max(waiting, key=lambda size: len(waiting[size]))))
    for rows in waiting.values():
        yield _joined(rows)


def _joined(rows: list[tuple[SizedBatch, int]]) -> SizedBatch:
    """One batch of some rows of others; a whole one is passed on without a copy."""
    first = rows[0][0]
    if len(rows) == len(first.indexes) and all(piece is first for piece, _ in rows):
        return first
    labels = None if first.labels is None else torch.stack([piece.labels[row] for piece, row in rows])
    images = stack_images([piece.images[row] for piece, row in rows])
    return SizedBatch([piece.indexes[row] for piece, row in rows], images, labels)


def find_unusable(
    paths: Sequence[str], least: int | LongerSide, with_labels: bool = False, threads: int = 8
) -> Iterator[tuple[str, str]]:
    """Read every image (and its label) once, in parallel; for each, its path and what is wrong with it, or "".

    Parameters
    ----------
    least : see `datasets.sizes.size_fault`.
    """
    yield from zip(paths, run_jobs(partial(_fault, least, with_labels), paths, threads, processes=False))


def _fault(least: int | LongerSide, with_labels: bool, path: str) -> str:
    try:
        size = size_of(read_image(path))
        if fault := size_fault(*size, least):
            return f"{path}: {fault}"
        if with_labels:
            read_label_of(path, size)
    except (ValueError, OSError) as error:
        return str(error)
    return ""
