"""Images on disk -> descriptors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.loading import ImageBatches, SizedBatch
from datasets.notes import WorkerNotes
from datasets.triplets import LoadFailure
from models.segvpr import SegVPR
from utils.compute import Compute
from utils.failures import RunFailed, dead_worker, died_on
from utils.interrupts import ignore_in_worker
from utils.logs import progress_bar


@dataclass(frozen=True)
class EmbeddingOptions:
    """How images are read and embedded: images per batch, reading processes, machine."""

    batch_size: int = 24
    num_workers: int = 3
    compute: Compute = field(default_factory=Compute)


DEFAULTS = EmbeddingOptions()


def iterate_batches(dataset: ImageBatches, batch_size: int, num_workers: int, description: str) -> Iterator[SizedBatch]:
    """Batches of equal-sized images in the order of the list, under a progress bar; ValueError names an unreadable file."""
    chunks = [list(range(i, min(i + batch_size, len(dataset.paths)))) for i in range(0, len(dataset.paths), batch_size)]
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=chunks,
        num_workers=min(num_workers, len(chunks)),
        worker_init_fn=ignore_in_worker,
    )
    batches = iter(loader)
    with progress_bar(total=len(dataset.paths), desc=description, unit="image") as bar:
        for _ in chunks:
            for batch in next_batch(batches):
                yield batch
                bar.update(len(batch.indexes))


def next_batch(batches: Iterator):
    """The loader's next item; ValueError where a file of it could not be read."""
    batch = next(batches)
    if isinstance(batch, LoadFailure):
        raise ValueError(batch.message)
    return batch


@contextmanager
def worker_deaths_named(notes: WorkerNotes) -> Iterator[None]:
    """Turn the death of a loader worker, which torch raises wherever the main process is, into a line with its file.

    Raises
    ------
    RunFailed : a worker died; the file it was on is named.
    """
    try:
        yield
    except RuntimeError as error:
        pid = dead_worker(error)
        if pid is None:
            raise
        raise RunFailed(died_on(notes.file_of(pid) or "its first file", error)) from error


@torch.inference_mode()
def embed_images(
    model: SegVPR,
    paths: Sequence[str],
    scale: float = 1.0,
    options: EmbeddingOptions = DEFAULTS,
    description: str = "embed",
    descriptor_dtype: str = "float32",
) -> np.ndarray:
    """Descriptors of image files, (N, D) in `descriptor_dtype`, in the order of `paths`; the model is used in eval mode.

    Raises
    ------
    ValueError : an image cannot be read, is too small, or its descriptor is all zero or not finite; the file is named.
    """
    was_training = model.training
    model.eval()
    compute = options.compute
    descriptors = np.empty((len(paths), model.descriptor_dim), descriptor_dtype)
    dataset = ImageBatches(paths, scale)
    with worker_deaths_named(dataset.notes):
        for batch in iterate_batches(dataset, options.batch_size, options.num_workers, description):
            try:
                with compute.autocast():
                    descriptors[batch.indexes] = model.embed(compute.images(batch.images)).float().cpu().numpy()
            except ValueError as error:
                raise ValueError(f"{paths[batch.indexes[0]]}: {error} (after scaling by {scale:g})") from error
    model.train(was_training)
    check_descriptors(descriptors, paths)
    return descriptors


def check_descriptors(descriptors: np.ndarray, paths: Sequence[str]) -> None:
    """ValueError, naming the first file, where a descriptor is all zero or not finite."""
    norms = np.einsum("ij,ij->i", descriptors, descriptors, dtype=np.float32)
    odd = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(odd):
        what = "all zero" if norms[odd[0]] == 0 else "not finite"
        raise ValueError(f"{paths[odd[0]]}: its descriptor is {what} ({len(odd)} of {len(paths)} images are so)")
