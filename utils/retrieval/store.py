"""Descriptors kept on disk, so that a gallery is embedded once per checkpoint, and an interruption costs one shard."""

import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datasets.files import locked, write_text
from datasets.jobs import run_jobs
from datasets.reading.transforms import image_size
from datasets.sizes import Scale, scale_text, scaled_size
from models.segvpr import SegVPR
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.system.distributed import from_first, is_first, world_size
from utils.system.logs import LOGGER

FORMAT = "descriptors-2"
"""Part of every key: raise the number where the way from an image to its descriptor changes."""
SHARD, SHARD_SECONDS = 512, 60.0
"""Images per process between two points at which an interrupted run can resume; doubled while they take less than half of
these seconds, since starting to read takes time too."""
PIXELS_PER_BATCH = 32_000_000
"""Bound on an embedding batch, so that photos of many megapixels fit in memory."""
BESIDE_CHECKPOINT, ELSEWHERE = "descriptors_store", Path("data/descriptors")
DESCRIPTORS, ABOUT, LOCK = "descriptors.npy", "about.json", "lock"
PARTIAL, FINISHED_ROWS = "descriptors.npy.partial", "finished_rows"


def weights_digest(model: SegVPR) -> str:
    """Digest of what descriptors depend on: part of a network's configuration and of its weights.

    It is taken of the loaded network, since a run may replace the file. Head and discriminator do not count: a small
    checkpoint has no discriminator, and the network then has a random one.
    """
    digest = hashlib.sha256(json.dumps(model.embedding_config(), sort_keys=True).encode())
    for name, value in model.embedding_state().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def default_folder(checkpoint: Path) -> Path:
    """`descriptors_store` beside a checkpoint, or `data/descriptors` here where that cannot be written; made on the way."""
    folders = Path(checkpoint).parent / BESIDE_CHECKPOINT, ELSEWHERE
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # a folder that exists may still be read-only
                return folder
    raise OSError(f"cannot keep descriptors in {folders[0]}, nor in {folders[1]}; run where you may write")


def _key(about: dict, images: Sequence[str]) -> str:
    """Name of a store: a digest of all that the descriptors follow from, images by path, size and time of change."""
    digest = hashlib.sha256(json.dumps(about).encode())
    for path in images:
        status = os.stat(path)
        digest.update(os.fsencode(os.path.abspath(path)) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def stored_descriptors(
    model: SegVPR,
    checkpoint_digest: str,
    images: Sequence[str],
    scale: Scale,
    options: EmbeddingOptions,
    folder: str | Path,
    dtype: str = "float32",
    description: str = "gallery",
) -> np.ndarray:
    """Descriptors of images, taken from the store below `folder`; they are embedded into it first where it lacks them.

    Parameters
    ----------
    checkpoint_digest : of the model's weights, see `weights_digest`.
    folder : of all stores; this one is `folder/<key>`. Two processes may share it: one waits.
    dtype : in which they are kept, `float32` or `float16`.

    Returns
    -------
    (N, D) of that type, memory-mapped and read-only, in the order of `images`. Where several processes share the run, all call
    this with the same arguments and embed, the first writes and returns all rows, the others return none.

    Raises
    ------
    ValueError, OSError : no images, one that cannot be embedded, or a store that cannot be written; the file is named.
    """
    if not images:
        raise ValueError("no images to embed")
    about = _about(checkpoint_digest, images, model.embedding_config(), scale, options, dtype)
    shape = len(images), model.descriptor_dim

    def kept() -> np.ndarray | None:
        return _open(store / DESCRIPTORS, shape, dtype)

    def usable() -> bool:
        return from_first(lambda: kept() is not None)

    store = from_first(lambda: Path(folder) / _key(about, images))
    if usable():
        LOGGER.info("descriptors of %d images are taken from %s", len(images), store)
    else:
        from_first(lambda: _make_folder(store, about))
        with locked(store / LOCK) if is_first() else nullcontext():
            if not usable():  # another run may have made it meanwhile
                _embed_into(store, model, images, scale, options, np.dtype(dtype), description)
        LOGGER.info("descriptors of %d images are kept in %s", len(images), store)
    if not is_first():
        return np.empty((0, shape[1]), dtype)
    descriptors = kept()
    if descriptors is None:
        raise OSError(f"{store / DESCRIPTORS}: was written, but cannot be read back; check the disk")
    return descriptors


def _make_folder(store: Path, about: dict) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
        write_text(store / ABOUT, json.dumps(about) + "\n")
    except OSError as error:
        raise OSError(f"{store}: cannot keep descriptors here ({error.strerror}); give --store DIR") from error


def folder_of(descriptors: np.ndarray) -> Path | None:
    """The store that descriptors were taken from; what is derived from them is kept there too. None for those in memory."""
    return Path(descriptors.filename).parent if isinstance(descriptors, np.memmap) else None


def bounded_batches(options: EmbeddingOptions, paths: Sequence[str], scale: Scale) -> EmbeddingOptions:
    """The options with few enough images per batch that the largest of `paths` fit in memory."""
    sizes = run_jobs(image_size, paths, 8, processes=False)
    pixels = max(np.prod(scaled_size(height, width, scale)) for width, height in sizes)
    return replace(options, batch_size=max(1, min(options.batch_size, int(PIXELS_PER_BATCH // pixels))))


def _about(
    digest: str, images: Sequence[str], config: dict, scale: Scale, options: EmbeddingOptions, dtype: str
) -> dict:
    """What a store holds: for its key, and for a reader of `about.json`."""
    return {
        "format": FORMAT,
        "checkpoint": digest,
        "config": config,
        "images": scale_text(scale),
        "precision": str(options.compute.dtype or torch.float32),
        "dtype": dtype,
        "decode": options.decode,
        "count": len(images),
        "first": images[0],
    }


def _open(path: Path, shape: tuple[int, int], dtype: str) -> np.ndarray | None:
    """The finished file, or None where there is none or it is damaged."""
    try:
        descriptors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError) as error:
        LOGGER.warning("%s: cannot be read (%s); embedding anew", path, error)
        return None
    if descriptors.shape != shape or descriptors.dtype != dtype:
        LOGGER.warning("%s: holds %s of %s; embedding anew", path, descriptors.dtype, descriptors.shape)
        return None
    return descriptors


def _embed_into(
    store: Path,
    model: SegVPR,
    images: Sequence[str],
    scale: Scale,
    options: EmbeddingOptions,
    dtype: np.dtype,
    description: str,
) -> None:
    """Embed what is missing, shard by shard, and give the file its name once it is whole."""
    header = _header(len(images), model.descriptor_dim, dtype)
    row_bytes = dtype.itemsize * model.descriptor_dim
    unfinished = store / PARTIAL
    done = from_first(lambda: _finished_rows(store, header, row_bytes, len(images)))
    if done:
        LOGGER.info("%s: resuming after %d of %d images", store, done, len(images))
    if is_first():
        with open(unfinished, "r+b" if done else "wb") as file:
            if not done:
                _append(file, unfinished, header)
            file.truncate(len(header) + done * row_bytes)
    size = SHARD * world_size()
    while done < len(images):
        began = time.monotonic()
        shard = images[done : done + size]
        label = f"{description} from {done + 1} of {len(images)}"
        fitting = from_first(partial(bounded_batches, options, shard, scale))
        descriptors = embed_images(model, shard, scale, fitting, label, dtype.name)
        done += len(shard)
        if is_first():
            with open(unfinished, "ab") as file:
                _append(file, unfinished, descriptors.tobytes())
            write_text(store / FINISHED_ROWS, f"{done}\n")  # only after the rows are on the disk
        seconds = from_first(lambda began=began: time.monotonic() - began)
        size *= 2 if seconds < SHARD_SECONDS / 2 else 1
    if is_first():
        os.replace(unfinished, store / DESCRIPTORS)
        (store / FINISHED_ROWS).unlink(missing_ok=True)


def _header(rows: int, columns: int, dtype: np.dtype) -> bytes:
    """The beginning of an .npy file of shape (rows, columns)."""
    header = io.BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def _finished_rows(store: Path, header: bytes, row_bytes: int, rows: int) -> int:
    """Rows that an interrupted run left on the disk; 0 where they cannot be trusted."""
    try:
        done = int((store / FINISHED_ROWS).read_text())
        with open(store / PARTIAL, "rb") as file:
            whole = file.read(len(header)) == header
            whole &= os.fstat(file.fileno()).st_size >= len(header) + done * row_bytes
    except (OSError, ValueError):
        return 0
    return done if whole and 0 < done <= rows else 0


def _append(file: io.BufferedWriter, path: Path, content: bytes) -> None:
    try:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"{path}: cannot write ({error.strerror}); make room, then start the same command again: it resumes here"
        ) from error
