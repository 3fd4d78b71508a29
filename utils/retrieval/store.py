"""Descriptors kept on disk, image by image, so that each is embedded once per network, and an interruption costs one shard."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch

from datasets.files import locked, write_text, write_whole
from datasets.jobs import run_jobs
from datasets.reading.transforms import image_size
from datasets.sizes import Scale, scale_text, scaled_size
from models.segvpr import SegVPR
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.retrieval.exact import Rows
from utils.system.distributed import from_first, is_first, world_size
from utils.system.logs import LOGGER

FORMAT = "descriptors-3"
"""Part of every key: raise the number where the way from an image to its descriptor changes."""
SHARD, SHARD_SECONDS = 512, 60.0
"""Images per process between two points at which an interrupted run can resume; doubled while they take less than half of
these seconds, since starting to read takes time too."""
PIXELS_PER_BATCH = 32_000_000
"""Bound on an embedding batch, so that photos of many megapixels fit in memory."""
BESIDE_CHECKPOINT, ELSEWHERE = "descriptors_store", Path("data/descriptors")
IMAGES, ROWS, ABOUT, LOCK = "images.txt", "rows-", "about.json", "lock"
ROWS_AT_ONCE = 8192
_threads = Lock()  # a lock on a file does not part the threads of one process


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


class DescriptorStore:
    """Descriptors of image files by one network, at one size, in one type of number. All lists of images share them.

    Its folder holds one row per image in a file that only grows, and a list of images in the order of their rows: a line of
    JSON for each, `[row, bytes, nanoseconds of the last change, path]`. A line is written once its row is on the disk. A
    line that was cut short, or whose row is missing, does not count.

    Parameters
    ----------
    digest : of the model's weights, see `weights_digest`.
    folder : of all stores; this one is `folder/<key>`. Several processes may share it.
    dtype : in which descriptors are kept, `float32` or `float16`.
    """

    def __init__(
        self,
        model: SegVPR,
        digest: str,
        scale: Scale,
        options: EmbeddingOptions,
        folder: str | Path,
        dtype: str = "float32",
    ) -> None:
        self.model, self.scale, self.options, self.dtype = model, scale, options, np.dtype(dtype)
        self.row_bytes = self.dtype.itemsize * model.descriptor_dim
        self.about = {
            "format": FORMAT,
            "checkpoint": digest,
            "config": model.embedding_config(),
            "images": scale_text(scale),
            "precision": str(options.compute.dtype or torch.float32),
            "dtype": dtype,
            "numbers": model.descriptor_dim,
            "decode": options.decode,
        }
        self.folder = Path(folder) / hashlib.sha256(json.dumps(self.about).encode()).hexdigest()[:32]

    def descriptors(self, paths: Sequence[str], description: str = "gallery") -> Rows | np.ndarray:
        """Descriptors (N, D) of images, in their order, read from the disk when they are asked for.

        Images that are new, or have changed in size or time, are embedded first. Where several processes share the run, all
        call this with the same arguments and embed; the first writes and returns all rows, the others return none.

        Raises
        ------
        ValueError, OSError : no images, one that cannot be embedded, or a store that cannot be written; the file is named.
        """
        if not paths:
            raise ValueError("no images to embed")
        images = from_first(lambda: _statuses(paths))
        missing = from_first(lambda: len(self._missing(images)))
        if missing:
            LOGGER.info("%d of %d images are new, and are kept in %s", missing, len(paths), self.folder)
            from_first(self._make_folder)
            self._embed(images, description)
        else:
            LOGGER.info("descriptors of %d images are taken from %s", len(paths), self.folder)
        if not is_first():
            return np.empty((0, self.model.descriptor_dim), self.dtype)
        listing, rows = self._find(images)
        if (rows < 0).any():
            raise OSError(f"{self.folder}: was written, but cannot be read back; check the disk")
        place = {path: i for i, path in enumerate(images)}
        order = np.fromiter((place[os.path.abspath(path)] for path in paths), np.int64, len(paths))
        return Rows(self._mapped(listing), rows[order])

    def prune(self, paths: Sequence[str]) -> int:
        """Drop all rows but those of some images, and what was derived from any; returns how many.

        What is dropped is embedded again when it is asked for. Who has it open keeps it.
        """
        with self._held():
            listing, rows = self._find(_statuses(paths))
            kept = np.unique(rows[rows >= 0])
            dropped = listing.end - len(kept)
            if not dropped:
                return 0
            source, now = self._mapped(listing), dict(zip(kept.tolist(), range(len(kept))))

            def write_rows(part: Path) -> None:
                with open(part, "wb") as file:
                    for start in range(0, len(kept), ROWS_AT_ONCE):
                        file.write(source[kept[start : start + ROWS_AT_ONCE]].tobytes())

            name = _new_name()
            write_whole(self.folder / name, write_rows, durable=True)
            self._write_list(name, ((now[row], *rest) for row, *rest in self._listing() if row in now))
            for entry in self.folder.iterdir():
                if entry.is_dir():
                    rmtree(entry, ignore_errors=True)
                elif entry.name.startswith(ROWS) and entry.name != name:
                    with suppress(OSError):  # some systems do not delete a file that is open
                        entry.unlink()
        return dropped

    @contextmanager
    def _held(self) -> Iterator[None]:
        with _threads, locked(self.folder / LOCK):
            yield

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / ABOUT, json.dumps(self.about) + "\n")
        except OSError as error:
            raise OSError(
                f"{self.folder}: cannot keep descriptors here ({error.strerror}); give --store DIR"
            ) from error
        old = len(list(self.folder.parent.glob("*/descriptors.npy")))
        if old:
            LOGGER.info("%s: %d galleries of an older format are not read; delete them", self.folder.parent, old)

    def _embed(self, images: Mapping[str, "_Status"], description: str) -> None:
        """Embed what is missing, shard by shard. The lock is held for one shard, so that processes share the work."""
        size = SHARD * world_size()
        while True:
            with self._held() if is_first() else nullcontext():
                missing = from_first(lambda: self._missing(images))  # another process may have embedded some
                if not missing:
                    return
                began, shard = time.monotonic(), missing[:size]
                label = f"{description}, {len(missing)} images to go"
                fitting = from_first(lambda shard=shard: bounded_batches(self.options, shard, self.scale))
                found = embed_images(self.model, shard, self.scale, fitting, label, self.dtype.name)
                if is_first():
                    self._append([(path, images[os.path.abspath(path)]) for path in shard], found)
            seconds = from_first(lambda began=began: time.monotonic() - began)
            size *= 2 if seconds < SHARD_SECONDS / 2 else 1
            time.sleep(0.01)  # for another process that waits for the lock

    def _append(self, images: Sequence[tuple[str, "_Status"]], descriptors: np.ndarray) -> None:
        """Write rows, and only when they are on the disk, the lines that make them count."""
        listing, _ = self._find({})
        if listing.damaged or not listing.file:  # a line without its row must not count once the row is another's
            self._write_list(listing.file or _new_name(), list(self._listing()))
            listing, _ = self._find({})
        _write_at(self.folder / listing.file, listing.end * self.row_bytes, descriptors.tobytes())
        rows = range(listing.end, listing.end + len(images))
        entries = ((row, *status, os.path.abspath(path)) for row, (path, status) in zip(rows, images))
        _write_at(self.folder / IMAGES, listing.size, "".join(json.dumps(e) + "\n" for e in entries).encode())

    def _write_list(self, rows_file: str, entries: Iterable[tuple]) -> None:
        """The list of images as a whole; its first line names the file of their rows."""
        write_text(self.folder / IMAGES, "".join(json.dumps(line) + "\n" for line in (rows_file, *entries)))

    def _missing(self, images: Mapping[str, "_Status"]) -> list[str]:
        """The images that have no row."""
        return [path for path, row in zip(images, self._find(images)[1]) if row < 0]

    def _find(self, images: Mapping[str, "_Status"]) -> tuple["_Listing", np.ndarray]:
        """The list, read to its end, and the row of each image (N,), -1 for none."""
        found, listing = dict.fromkeys(images, -1), self._listing()
        for row, size, changed, path in listing:
            if images.get(path) == (size, changed):
                found[path] = row
        return listing, np.fromiter(found.values(), np.int64, len(found))

    def _listing(self) -> "_Listing":
        return _Listing(self.folder, self.row_bytes)

    def _mapped(self, listing: "_Listing") -> np.memmap:
        """All rows that a list names."""
        shape = listing.end, self.model.descriptor_dim
        return np.memmap(self.folder / listing.file, self.dtype, "r", shape=shape)


class _Status(NamedTuple):
    """Size of a file in bytes, and when it last changed, in nanoseconds."""

    size: int
    changed: int


class _Listing:
    """Reads the list of images of a store: what it yields counts, `(row, bytes, nanoseconds, path)`.

    Attributes
    ----------
    file : name of the file of rows, "" if there is no list.
    end : number of rows that count.
    size : bytes of the list's whole lines.
    damaged : whether it has lines that do not count.
    """

    def __init__(self, folder: Path, row_bytes: int) -> None:
        self.folder, self.row_bytes = folder, row_bytes
        self.file, self.end, self.size, self.damaged = "", 0, 0, False

    def __iter__(self) -> Iterator[tuple]:
        with suppress(FileNotFoundError), open(self.folder / IMAGES, "rb") as stream:
            on_disk = self._open(next(stream, b""))
            for line in stream if self.file else ():
                if not line.endswith(b"\n"):
                    return  # cut short, and written over by the next
                self.size += len(line)
                entry = _parsed(line)
                if _is_entry(entry) and entry[0] < on_disk:
                    self.end = max(self.end, entry[0] + 1)
                    yield tuple(entry)
                elif not self.damaged:
                    self.damaged = True
                    LOGGER.warning("%s: lacks descriptors that it had; they are embedded anew", self.folder)

    def _open(self, first: bytes) -> int:
        """Read the first line; returns how many rows are on the disk."""
        name = _parsed(first)
        if not (isinstance(name, str) and name.startswith(ROWS)):
            LOGGER.warning("%s: cannot be read; embedding anew", self.folder / IMAGES)
            return 0
        self.file, self.size = name, len(first)
        with suppress(FileNotFoundError):
            return os.path.getsize(self.folder / name) // self.row_bytes
        return 0


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_entry(line: Any) -> bool:
    return isinstance(line, list) and [type(part) for part in line] == [int, int, int, str]


def _statuses(paths: Sequence[str]) -> dict[str, _Status]:
    """By whole path, each once."""
    found = {}
    for path in dict.fromkeys(map(os.path.abspath, paths)):
        status = os.stat(path)
        found[path] = _Status(status.st_size, status.st_mtime_ns)
    return found


def _new_name() -> str:
    return f"{ROWS}{uuid4().hex[:8]}"


def _write_at(path: Path, position: int, content: bytes) -> None:
    """Write at a place in a file, to its new end, and on to the disk."""
    try:
        with open(path, "r+b" if path.exists() else "xb") as file:
            file.truncate(position)
            file.seek(position)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"{path}: cannot write ({error.strerror}); make room, then start the same command again: it resumes here"
        ) from error


def folder_of(descriptors: np.ndarray | Rows) -> Path | None:
    """Where what is derived from descriptors on a disk is kept: beside their file, by which rows they are. None for others."""
    array = descriptors.array if isinstance(descriptors, Rows) else descriptors
    if not isinstance(array, np.memmap):
        return None
    file = Path(array.filename)
    if array is descriptors:
        return file.parent
    return file.parent / hashlib.sha256(file.name.encode() + descriptors.order.tobytes()).hexdigest()[:32]


def bounded_batches(options: EmbeddingOptions, paths: Sequence[str], scale: Scale) -> EmbeddingOptions:
    """The options with few enough images per batch that the largest of `paths` fit in memory."""
    sizes = run_jobs(image_size, paths, 8, processes=False)
    pixels = max(np.prod(scaled_size(height, width, scale)) for width, height in sizes)
    return replace(options, batch_size=max(1, min(options.batch_size, int(PIXELS_PER_BATCH // pixels))))
