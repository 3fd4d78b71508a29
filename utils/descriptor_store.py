"""Descriptors kept on disk, so that a gallery is embedded once per checkpoint, and an interruption costs one shard."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.transforms import image_size, scaled_size
from models.segvpr import SegVPR
from utils.distributed import from_first, is_first
from utils.embedding import EmbeddingOptions, embed_images
from utils.logs import LOGGER

FORMAT = "descriptors-2"
"""Part of every key: raise the number where the way from an image to its descriptor changes."""
SHARD = 512
"""Images between two moments at which an interrupted run can go on."""
PIXELS_PER_BATCH = 32_000_000
"""Bound on an embedding batch, so that photos of many megapixels fit in memory."""
BESIDE_CHECKPOINT, ELSEWHERE = "descriptors_store", Path("data/descriptors")
DESCRIPTORS, ABOUT, LOCK = "descriptors.npy", "about.json", "lock"
PARTIAL, FINISHED_ROWS = "descriptors.npy.partial", "finished_rows"


def weights_digest(model: SegVPR) -> str:
    """Digest of a checkpoint's content as the model holds it: configuration and weights, wherever they lie.

    The file may change after it was read (a run that goes on replaces it); what was loaded may not.
    """
    digest = hashlib.sha256(json.dumps(model.config, sort_keys=True).encode())
    for name, value in model.state_dict().items():
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


def store_key(
    checkpoint_digest: str,
    images: Sequence[str],
    config: dict,
    scale: float,
    options: EmbeddingOptions,
    dtype: str = "float32",
) -> str:
    """Name of a store: a digest of all that the descriptors follow from, images by path, size and time of change."""
    digest = hashlib.sha256(json.dumps(_about(checkpoint_digest, images, config, scale, options, dtype)).encode())
    for path in images:
        status = os.stat(path)
        digest.update(os.fsencode(os.path.abspath(path)) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def stored_descriptors(
    model: SegVPR,
    checkpoint_digest: str,
    images: Sequence[str],
    scale: float,
    options: EmbeddingOptions,
    folder: str | Path,
    dtype: str = "float32",
    description: str = "gallery",
) -> np.ndarray:
    """Descriptors of images, from the store below `folder` where they are in it, else embedded into it.

    Parameters
    ----------
    checkpoint_digest : says which weights the model has, see `weights_digest`.
    folder : of all stores; this one is `folder/<key>`, see `store_key`. Two processes may share it: one waits.
    dtype : in which they are kept, `float32` or `float16`.

    Returns
    -------
    (N, D) of that type, memory-mapped and read-only, in the order of `images`; of several processes, on the first alone.

    Raises
    ------
    ValueError, OSError : no images, one that cannot be embedded, or a store that cannot be written; the file is named.
    """
    if not images:
        raise ValueError("no images to embed")
    about = _about(checkpoint_digest, images, model.config, scale, options, dtype)
    shape = len(images), model.descriptor_dim

    def whole() -> np.ndarray | None:
        return _open(store / DESCRIPTORS, shape, dtype)

    with ExitStack() as held:
        store = from_first(
            lambda: Path(folder) / store_key(checkpoint_digest, images, model.config, scale, options, dtype)
        )
        done = from_first(lambda: None if whole() is not None else _begin(store, about, shape, whole, held))
        if done is not None:
            _embed_rest(store, model, images, scale, options, np.dtype(dtype), description, done)
        if not is_first():
            return np.empty((0, model.descriptor_dim), dtype)
        kept = whole()
    if kept is None:
        raise OSError(f"{store / DESCRIPTORS}: was written, but cannot be read back")
    LOGGER.info("descriptors of %d images: %s (%.1f MB)", len(images), store, kept.nbytes / 1e6)
    return kept


def _begin(
    store: Path, about: dict, shape: tuple[int, int], whole: Callable[[], np.ndarray | None], held: ExitStack
) -> int | None:
    """Lock a store until `held` ends; how many of its rows need not be embedded again, None where it is whole."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        (store / ABOUT).write_text(json.dumps(about) + "\n")
    except OSError as error:
        raise OSError(
            f"{store}: cannot keep descriptors here ({error.strerror}); give a --store DIR that can be written"
        ) from error
    held.enter_context(locked(store))
    if whole() is not None:  # another process has made it meanwhile
        return None
    done = _finished_rows(store, *_layout(shape, np.dtype(about["dtype"])), shape[0])
    if done:
        LOGGER.info("%s: going on after %d of %d images", store, done, shape[0])
    return done


def folder_of(descriptors: np.ndarray) -> Path | None:
    """The store that descriptors were taken from, for whatever is derived from them alone; None for those in memory."""
    return Path(descriptors.filename).parent if isinstance(descriptors, np.memmap) else None


def bounded_batches(options: EmbeddingOptions, paths: Sequence[str], scale: float) -> EmbeddingOptions:
    """The options with so few images per batch that the largest of `paths` fit in memory."""
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(image_size, paths))
    pixels = max(np.prod(scaled_size(height, width, scale)) for width, height in sizes)
    return replace(options, batch_size=max(1, min(options.batch_size, int(PIXELS_PER_BATCH // pixels))))


def _about(
    digest: str, images: Sequence[str], config: dict, scale: float, options: EmbeddingOptions, dtype: str
) -> dict:
    """What a store holds, for its key and for whoever wonders whether it may be deleted."""
    return {
        "format": FORMAT,
        "checkpoint": digest,
        "config": config,
        "scale": scale,
        "precision": str(options.compute.dtype or torch.float32),
        "decode": options.decode,
        "dtype": dtype,
        "images": len(images),
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


def _embed_rest(
    store: Path,
    model: SegVPR,
    images: Sequence[str],
    scale: float,
    options: EmbeddingOptions,
    dtype: np.dtype,
    description: str,
    done: int,
) -> None:
    """Embed the images after the first `done`, shard by shard, and give the file its name once it is whole.

    Of several processes all embed, and the first writes.
    """
    header, row_bytes = _layout((len(images), model.descriptor_dim), dtype)
    partial = store / PARTIAL
    with open(partial, "r+b" if done else "wb") if is_first() else nullcontext() as file:
        if file:
            if not done:
                _append(file, partial, header)
            file.truncate(len(header) + done * row_bytes)
            file.seek(0, os.SEEK_END)
        for start in range(done, len(images), SHARD):
            shard = images[start : start + SHARD]
            label = f"{description} from {start + 1} of {len(images)}"
            descriptors = embed_images(model, shard, scale, bounded_batches(options, shard, scale), label)
            if file:
                _append(file, partial, descriptors.astype(dtype.newbyteorder("<")).tobytes())
                _note_rows(store, start + len(shard))
    if is_first():
        os.replace(partial, store / DESCRIPTORS)
        (store / FINISHED_ROWS).unlink(missing_ok=True)


def _layout(shape: tuple[int, int], dtype: np.dtype) -> tuple[bytes, int]:
    """The beginning of an .npy file of (rows, columns), and the bytes of each row behind it."""
    header = io.BytesIO()
    description = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue(), dtype.itemsize * shape[1]


def _finished_rows(store: Path, header: bytes, row_bytes: int, rows: int) -> int:
    """Rows that an interrupted run left for certain on the disk; 0 where anything about them is odd."""
    try:
        done = int((store / FINISHED_ROWS).read_text())
        with open(store / PARTIAL, "rb") as file:
            whole = (
                file.read(len(header)) == header and os.fstat(file.fileno()).st_size >= len(header) + done * row_bytes
            )
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
            f"{path}: cannot write ({error.strerror}); make room, the same command goes on from here"
        ) from error


def _note_rows(store: Path, rows: int) -> None:
    """Count rows only after they are on the disk, and in one step."""
    temporary = store / f"{FINISHED_ROWS}.tmp"
    temporary.write_text(f"{rows}\n")
    os.replace(temporary, store / FINISHED_ROWS)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process fills this store; a store that may only be read needs no waiting. Ends with the process,
    however it ends."""
    with ExitStack() as held:
        with suppress(ImportError, OSError):  # not a POSIX system, a file system without locks, or not ours to write
            import fcntl

            file = held.enter_context(open(folder / LOCK, "a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
