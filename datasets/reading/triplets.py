"""Triplets, and the batches of them that training reads from disk."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datasets.places import ImageSet
from datasets.reading.augmentation import augment
from datasets.reading.augmentation_settings import AugmentationSettings
from datasets.reading.notes import WorkerNotes
from datasets.reading.transforms import (
    crop_and_flip,
    read_image,
    read_label_of,
    resize_image,
    size_of,
    stack_images,
    two_sizes,
)


@dataclass(frozen=True)
class Triplets:
    """T mined triplets: `queries` (T,) query indexes, `positives` (T,) and `negatives` (T, N) gallery indexes, int64."""

    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)


class StepPlan(NamedTuple):
    """What one training step reads: B queries, their positives and negatives, and target images, as indexes.

    `keys` holds, per triplet, the numbers that its augmentation follows from.
    """

    queries: tuple[int, ...]
    positives: tuple[int, ...]
    negatives: tuple[tuple[int, ...], ...]
    targets: tuple[int, ...]
    keys: tuple[tuple[int, ...], ...]


class StepBatch(NamedTuple):
    """One training step's data, 8-bit: images (S, 3, h, w) ordered queries, positives, negatives; labels (S, h, w) or None;
    and target (T, 3, H, W) or None."""

    images: Tensor
    labels: Tensor | None
    target: Tensor | None


class LoadFailure(NamedTuple):
    """Why a batch could not be read, carried out of a loader worker as one line."""

    message: str


class TrainingBatches(Dataset):
    """Reads a `StepPlan`'s images: the plan itself is the key, so that workers hold no state.

    Parameters
    ----------
    target_paths, target_size : target-domain images and the (width, height) they are resized to.
    with_labels : whether source labels are read.
    augmentation : what each source image goes through after the crop of its triplet, by a draw of its own.
    """

    def __init__(
        self,
        gallery: ImageSet,
        queries: ImageSet,
        target_paths: tuple[str, ...] = (),
        target_size: tuple[int, int] = (768, 432),
        with_labels: bool = True,
        augmentation: AugmentationSettings | None = None,
    ) -> None:
        self.gallery, self.queries = gallery.paths, queries.paths
        self.target_paths, self.target_size, self.with_labels = target_paths, target_size, with_labels
        self.augmentation = augmentation or AugmentationSettings()
        self.notes = WorkerNotes()

    def __getitem__(self, plan: StepPlan) -> StepBatch | LoadFailure:
        try:
            return self._read(plan)
        except (ValueError, OSError) as error:
            return LoadFailure(str(error))

    def files(self, plan: StepPlan) -> list[str]:
        """The source and then the target images that a plan reads."""
        return self._sources(plan) + [self.target_paths[i] for i in plan.targets]

    def _sources(self, plan: StepPlan) -> list[str]:
        files = [self.queries[i] for i in plan.queries] + [self.gallery[i] for i in plan.positives]
        return files + [self.gallery[i] for negatives in plan.negatives for i in negatives]

    def _read_image(self, path: str) -> Tensor:
        self.notes.reading(path)
        return read_image(path)

    def _read(self, plan: StepPlan) -> StepBatch:
        files = self._sources(plan)
        triplets = range(len(plan.queries))
        place_of = [
            (triplet, part) for part in (1, 2) for triplet in triplets
        ]  # the triplet, and the image's number in it
        place_of += [(t, part) for t in triplets for part in range(3, 3 + len(plan.negatives[t]))]
        cuts, images, labels, size = {}, [], [], None
        for path, (triplet, part) in zip(files, place_of):
            image = self._read_image(path)
            size = size or size_of(image)
            if size_of(image) != size:
                raise ValueError(two_sizes(files[0], size, path, size_of(image)))
            if triplet not in cuts:
                rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(plan.keys[triplet])))
                cuts[triplet] = crop_and_flip(rng, *image.shape[-2:])
            image = _cut(image, *cuts[triplet])
            label = _cut(read_label_of(path, size), *cuts[triplet]) if self.with_labels else None
            image, label = augment(image, label, np.random.default_rng([*plan.keys[triplet], part]), self.augmentation)
            images.append(image)
            labels += [label] if label is not None else []
        width, height = self.target_size
        targets = [resize_image(self._read_image(self.target_paths[i]), (height, width)) for i in plan.targets]
        labelled, targeted = default_collate(labels) if labels else None, stack_images(targets) if targets else None
        return StepBatch(stack_images(images), labelled, targeted)


def _cut(x: Tensor, rows: slice, columns: slice, flip: bool) -> Tensor:
    x = x[..., rows, columns]
    return x.flip(-1) if flip else x
