"""Mining of hard triplets, and the batches that training reads from disk."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datasets.naming import label_path
from datasets.notes import WorkerNotes
from datasets.places import ImageSet, Neighbours
from datasets.transforms import crop_and_flip, read_image, read_label, resize_image, stack_images, two_sizes


@dataclass(frozen=True)
class Triplets:
    """T mined triplets: `queries` (T,) query indexes, `positives` (T,) and `negatives` (T, N) gallery indexes, int64."""

    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)


def draw_negatives(
    rng: np.random.Generator, gallery_size: int, excluded: np.ndarray, count: int, keep: np.ndarray
) -> np.ndarray:
    """Candidates for one query's negatives.

    `count` gallery indexes drawn uniformly without replacement from those not in `excluded` (all of them, where there are
    fewer), joined with the indexes `keep` that were its hardest the time before.
    """
    surplus = min(gallery_size, count + len(excluded))
    drawn = rng.choice(gallery_size, surplus, replace=False)
    drawn = drawn[~np.isin(drawn, excluded)][:count]
    return np.union1d(drawn, keep)


def _nearest(
    query: np.ndarray, gallery: np.ndarray, candidates: np.ndarray, rough: np.ndarray, count: int
) -> np.ndarray:
    """The `count` candidates nearest to a query, nearest first: a shortlist by rough distance, then exact ones."""
    shortlist = candidates
    if len(candidates) > count + 16:
        shortlist = candidates[np.argpartition(rough[candidates], count + 15)[: count + 16]]
    exact = np.linalg.norm(gallery[shortlist] - query, axis=1)
    return shortlist[np.argsort(exact, kind="stable")[:count]]


def mine_triplets(
    queries: np.ndarray,
    query_descriptors: np.ndarray,
    gallery_descriptors: np.ndarray,
    positives: Neighbours,
    not_negative: Neighbours,
    hardest: np.ndarray,
    rng: np.random.Generator,
    neg_samples: int = 1000,
    block: int = 256,
) -> Triplets:
    """Choose each query's positive and negatives by descriptor distance (protocol, section 5).

    Parameters
    ----------
    queries : (T,) indexes of the drawn queries.
    query_descriptors, gallery_descriptors : (T, D) and (G, D) float32.
    positives, not_negative : per query of the whole set, the gallery images of the same place, and those too near to be negatives.
    hardest : (all queries, N) gallery indexes of the negatives chosen the last time, -1 for none; UPDATED in place.
    neg_samples : random negatives among which, with the remembered ones, the N nearest are taken.

    Notes
    -----
    Distances to the whole gallery come from one matrix product per block of queries, on centred descriptors so that little
    is lost to cancellation; the choice itself is made on exact distances of a shortlist.
    """
    num_negatives = hardest.shape[1]
    chosen_positive = np.empty(len(queries), np.int64)
    chosen_negatives = np.empty((len(queries), num_negatives), np.int64)
    centre = gallery_descriptors.mean(axis=0)
    gallery = gallery_descriptors - centre
    gallery_norms = np.einsum("ij,ij->i", gallery, gallery)
    for start in range(0, len(queries), block):
        part = query_descriptors[start : start + block] - centre
        rough = gallery_norms - 2 * (part @ gallery.T)
        for row, query in enumerate(queries[start : start + block]):
            t = start + row
            chosen_positive[t] = _nearest(part[row], gallery, positives[query], rough[row], 1)[0]
            remembered = hardest[query][hardest[query] >= 0]
            candidates = draw_negatives(rng, len(gallery), not_negative[query], neg_samples, remembered)
            found = _nearest(part[row], gallery, candidates, rough[row], num_negatives)
            chosen_negatives[t] = hardest[query] = np.resize(found, num_negatives)  # repeats where there are too few
    return Triplets(np.asarray(queries, np.int64), chosen_positive, chosen_negatives)


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
    target (T, 3, H, W) or None; and the files of both."""

    images: Tensor
    labels: Tensor | None
    target: Tensor | None
    files: list[str]


class LoadFailure(NamedTuple):
    """Why a batch could not be read, carried out of a loader worker as one line."""

    message: str


class TrainingBatches(Dataset):
    """Reads a `StepPlan`'s images: the plan itself is the key, so that workers hold no state.

    Parameters
    ----------
    target_paths, target_size : target-domain images and the (width, height) they are resized to.
    with_labels : whether source labels are read.
    """

    def __init__(
        self,
        gallery: ImageSet,
        queries: ImageSet,
        target_paths: tuple[str, ...] = (),
        target_size: tuple[int, int] = (768, 432),
        with_labels: bool = True,
    ) -> None:
        self.gallery, self.queries = gallery.paths, queries.paths
        self.target_paths, self.target_size, self.with_labels = target_paths, target_size, with_labels
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
        triplet_of = [*range(len(plan.queries))] * 2
        triplet_of += [triplet for triplet, negatives in enumerate(plan.negatives) for _ in negatives]
        cuts, images, labels, size = {}, [], [], None
        for path, triplet in zip(files, triplet_of):
            image = self._read_image(path)
            size = _size(image) if size is None else size
            if _size(image) != size:
                raise ValueError(two_sizes(files[0], size, path, _size(image)))
            if triplet not in cuts:
                rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(plan.keys[triplet])))
                cuts[triplet] = crop_and_flip(rng, *image.shape[-2:])
            images.append(_cut(image, *cuts[triplet]))
            if self.with_labels:
                label = read_label(label_path(path))
                if _size(label) != size:
                    raise ValueError(two_sizes(path, size, label_path(path), _size(label)))
                labels.append(_cut(label, *cuts[triplet]))
        targets = [self.target_paths[i] for i in plan.targets]
        width, height = self.target_size
        target = (
            stack_images([resize_image(self._read_image(path), (height, width)) for path in targets])
            if targets
            else None
        )
        return StepBatch(stack_images(images), default_collate(labels) if labels else None, target, files + targets)


def _size(x: Tensor) -> tuple[int, int]:
    """Width and height in pixels."""
    return x.shape[-1], x.shape[-2]


def _cut(x: Tensor, rows: slice, columns: slice, flip: bool) -> Tensor:
    x = x[..., rows, columns]
    return x.flip(-1) if flip else x
