"""Images read for embedding and segmentation, any mixture of sizes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.naming import label_path
from datasets.notes import WorkerNotes
from datasets.transforms import read_image, read_label, scale_image
from datasets.triplets import LoadFailure


class SizedBatch(NamedTuple):
    """Images of one size: their places in the list, uint8 (B, 3, H, W), and labels (B, H, W) if asked for."""

    indexes: list[int]
    images: Tensor
    labels: Tensor | None


class ImageBatches(Dataset):
    """Reads images by lists of indexes, and splits each list into batches of equal size.

    Parameters
    ----------
    scale : factor on both sides of the image (labels are read at full size only, where `scale` is 1).
    """

    def __init__(self, paths: Sequence[str], scale: float = 1.0, with_labels: bool = False) -> None:
        self.paths, self.scale, self.with_labels = tuple(paths), scale, with_labels
        self.notes = WorkerNotes()

    def __getitem__(self, indexes: Sequence[int]) -> list[SizedBatch] | LoadFailure:
        try:
            return self._read(indexes)
        except (ValueError, OSError) as error:
            return LoadFailure(str(error))

    def _read(self, indexes: Sequence[int]) -> list[SizedBatch]:
        by_size: dict[tuple[int, ...], list[tuple[int, Tensor, Tensor | None]]] = {}
        for index in indexes:
            self.notes.reading(self.paths[index])
            image = scale_image(read_image(self.paths[index]), self.scale)
            label = self._label(self.paths[index], image) if self.with_labels else None
            by_size.setdefault(tuple(image.shape), []).append((index, image, label))
        batches = []
        for items in by_size.values():
            places, images, labels = zip(*items)
            batches.append(
                SizedBatch([*places], torch.stack(images), torch.stack(labels) if self.with_labels else None)
            )
        return batches

    @staticmethod
    def _label(path: str, image: Tensor) -> Tensor:
        label = read_label(label_path(path))
        if label.shape != image.shape[-2:]:
            raise ValueError(
                f"{label_path(path)}: {label.shape[1]}x{label.shape[0]} px, but its image has another size; replace or remove it"
            )
        return label


def find_unusable(
    paths: Sequence[str], min_side: int, with_labels: bool = False, threads: int = 8
) -> Iterator[tuple[str, str]]:
    """Read every image (and its label) once, in parallel; for each, its path and what is wrong with it, "" where nothing is.

    Parameters
    ----------
    min_side : least number of pixels on either side.
    """
    with ThreadPoolExecutor(threads) as pool:
        yield from zip(paths, pool.map(lambda path: _fault(path, min_side, with_labels), paths))


def _fault(path: str, min_side: int, with_labels: bool) -> str:
    try:
        image = read_image(path)
        if min(image.shape[-2:]) < min_side:
            return (
                f"{path}: {image.shape[2]}x{image.shape[1]} px is too small: both sides must be at least {min_side} px"
            )
        if with_labels:
            ImageBatches._label(path, image)
    except (ValueError, OSError) as error:
        return str(error)
    return ""
