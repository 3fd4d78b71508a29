"""Images on disk -> descriptors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from datasets.reading.batches import EncodedImages, ImageBatches, SizedBatch, full_batches
from datasets.sizes import Scale, scale_text
from models.segvpr import SegVPR
from utils.retrieval.settings import DECODERS
from utils.system.compute import CPU, Compute
from utils.system.distributed import gather_rows, is_first, share
from utils.system.interrupts import stop_if_requested
from utils.system.launch import default_workers
from utils.system.loaders import read_ahead
from utils.system.logs import progress_bar


@dataclass(frozen=True)
class EmbeddingOptions:
    """How images are read and embedded: images per batch, reading processes, machine.

    Attributes
    ----------
    decode : `cpu`, or `gpu` to decode JPEGs for embedding on the device.
    """

    batch_size: int = 24
    num_workers: int = field(default_factory=default_workers)
    compute: Compute = field(default_factory=Compute)
    decode: str = "cpu"

    def __post_init__(self) -> None:
        if self.decode not in DECODERS:
            raise ValueError(f"decode: {self.decode!r} is not one of {', '.join(DECODERS)}")


DEFAULTS = EmbeddingOptions()
WAITING_BATCHES = 4
"""Batches' worth of images of odd sizes that may wait for others of their size."""
LEAST_IMAGES = 8
"""Fewest images that are worth a process of their own."""


def iterate_batches(
    dataset: ImageBatches, batch_size: int, num_workers: int, description: str, device: torch.device = CPU
) -> Iterator[SizedBatch]:
    """Batches of equal-sized images under a progress bar, full ones as far as sizes allow.

    Which images share a batch does not depend on `num_workers`.

    Parameters
    ----------
    device : where the batches will go. For a CUDA device they are in pinned memory, so that copying does not wait, and encoded
        images are decoded on it.

    Raises
    ------
    ValueError, RunFailed : a file cannot be used, or a process that read it died; it is named.
    StopRequested : a signal came; the batch before is done.
    """
    chunks = _chunks(len(dataset.paths), batch_size, num_workers)
    pinned = device.type == "cuda" and not dataset.encoded
    pieces = (
        dataset.decode(chunk, device) if isinstance(chunk, EncodedImages) else chunk
        for chunk in read_ahead(dataset, chunks, min(num_workers, len(chunks)), pinned)
    )
    with progress_bar(total=len(dataset.paths), desc=description, unit="image") as bar:
        for batch in full_batches(pieces, batch_size, WAITING_BATCHES * batch_size):
            yield batch
            bar.update(len(batch.indexes))
            stop_if_requested()


def _chunks(images: int, batch_size: int, num_workers: int) -> list[list[int]]:
    """What a worker reads at a time: a batch, or less where that would leave workers idle."""
    size = min(batch_size, max(LEAST_IMAGES, -(-images // max(1, num_workers))))
    return [list(range(i, min(i + size, images))) for i in range(0, images, size)]


@torch.inference_mode()
def embed_images(
    model: SegVPR,
    paths: Sequence[str],
    scale: Scale = 1.0,
    options: EmbeddingOptions = DEFAULTS,
    description: str = "embed",
    descriptor_dtype: str = "float32",
) -> np.ndarray:
    """Descriptors of image files, (N, D) in `descriptor_dtype`, in the order of `paths`; the model is used in eval mode.

    Where several processes share the run, all call this with the same arguments, and each embeds its share. The first returns
    all rows, the others none. Descriptors of images of one size are those of a single process, since the batches are.

    Raises
    ------
    ValueError : an image cannot be read, is too small, or its descriptor is all zero or not finite; the file is named.
    """
    own = share(len(paths), options.batch_size)
    rows = _embed_share(model, paths[own.start : own.stop], scale, options, description, descriptor_dtype)
    descriptors = gather_rows(rows, len(paths), options.batch_size)
    if is_first():
        check_descriptors(descriptors, paths)
    return descriptors


def _embed_share(
    model: SegVPR, paths: Sequence[str], scale: Scale, options: EmbeddingOptions, description: str, dtype: str
) -> np.ndarray:
    """The descriptors of this process's images."""
    was_training = model.training
    model.eval()
    compute, embedder = options.compute, options.compute.embedder(model)
    descriptors = np.empty((len(paths), model.descriptor_dim), dtype)
    dataset = ImageBatches(paths, scale, encoded=options.decode == "gpu")
    before: tuple[list[int], torch.Tensor] | None = None
    for batch in iterate_batches(dataset, options.batch_size, options.num_workers, description, compute.device):
        try:
            with compute.autocast():
                found = embedder.embed(embedder.prepare(batch.images)).float()
        except ValueError as error:
            raise ValueError(
                f"{paths[batch.indexes[0]]}: {error} ({scale_text(scale)}; give a larger --eval_scale, or remove it)"
            ) from error
        if before:  # one batch late, so that the device has work while the host waits for a result
            descriptors[before[0]] = before[1].cpu().numpy()
        before = batch.indexes, found
    if before:
        descriptors[before[0]] = before[1].cpu().numpy()
    model.train(was_training)
    return descriptors


def check_descriptors(descriptors: np.ndarray, paths: Sequence[str]) -> None:
    """ValueError, naming the first file, where a descriptor is all zero or not finite."""
    wide = np.result_type(descriptors, np.float32)
    norms = np.einsum("ij,ij->i", descriptors, descriptors, dtype=wide)
    odd = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(odd):
        what = "all zero" if norms[odd[0]] == 0 else "not finite"
        raise ValueError(
            f"{paths[odd[0]]}: its descriptor is {what}, as of {len(odd)} of {len(paths)} images; remove it, or use other weights"
        )
