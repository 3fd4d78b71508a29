"""A gallery whose descriptors lie in a collection of Milvus, which also searches them."""

import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.places import ImageSet
from utils.retrieval.engines.client import connect, is_lite, milvus_errors, milvus_index
from utils.retrieval.exact import BLOCK_BYTES, Rows, as_float32
from utils.retrieval.index import SearchableGallery, projection_key
from utils.retrieval.settings import RetrievalSettings, default_nprobe
from utils.system.logs import LOGGER, progress_bar

FORMAT = "milvus-1"
"""Part of every collection's name: raise the number when its content changes."""
ID, VECTOR, LONGEST_TEXT = "row", "descriptor", 65_535
ROWS_PER_CALL, BYTES_PER_CALL, IDS_PER_CALL = 2000, 32_000_000, 8192
"""Milvus takes and returns 64 MB at a time."""
QUERIES_AT_ONCE = 100
MOST_FOUND = 16_384
"""Neighbours of a query that Milvus returns at most."""


class MilvusGallery(SearchableGallery):
    """A gallery that Milvus searches: what it finds is put into exact order by the descriptors at hand.

    The collection is named by store, gallery and settings. Opening adds what is new; `remove` alone deletes. An image has the same
    number in it as long as its descriptor is kept. What lies in the collection but not in this gallery is ignored.

    Parameters
    ----------
    descriptors, settings, folder : as of `SearchableGallery`.
    images : the gallery's G images; path, position and camera lie in the collection too, for other programs that ask it.

    Raises
    ------
    ValueError, OSError : Milvus cannot be reached, or refuses a request.
    """

    def __init__(
        self, descriptors: np.ndarray, settings: RetrievalSettings, folder: Path | None, images: ImageSet
    ) -> None:
        self._images = images
        super().__init__(descriptors, settings, folder)

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        count = min(count, len(self.rows))
        found = np.full((len(queries), count), -1, np.int64)
        if count > MOST_FOUND:
            return found  # none: then the search is exact
        at_once = QUERIES_AT_ONCE
        if is_lite(self.settings.engine):  # which copies all descriptors for each query of a call
            at_once = max(1, min(at_once, BLOCK_BYTES // (4 * self.rows.shape[1] * len(self.rows))))
        parameters = {"ef": count} if self._kind == "HNSW" else {"nprobe": self.nprobe} if self.nprobe else {}
        how = {"metric_type": "L2", "params": parameters}
        asked = {"limit": count, "search_params": how, "output_fields": [ID], "anns_field": VECTOR}
        asked["consistency_level"] = "Session"  # what this process has put in; to wait for others takes 0.2 s a call
        for start in range(0, len(queries), at_once):
            with milvus_errors(self.settings.engine):
                some = as_float32(queries[start : start + at_once])
                answers = self.index.search(self._collection, some, **asked)
            for row, answer in zip(found[start:], answers):
                row[: len(answer)] = self._numbers(np.array(answer.ids, np.int64))
        return found

    def description(self) -> dict:
        return super().description() | {"collection": self._collection}

    def _set_index(self, folder: Path | None) -> None:
        start, settings = time.perf_counter(), self.settings
        self.index = connect(settings.engine)
        self._kind, self._parameters = milvus_index(settings.index)
        if "nlist" in self._parameters:
            self.nprobe = settings.nprobe or default_nprobe(self._parameters["nlist"])
        key, file, ids = identity(self.descriptors)
        list_of_images = None if settings.pca_dim is None else [projection_key(settings), folder and folder.name]
        about = [FORMAT, file, os.path.abspath(self._images.folder), settings.index, list_of_images]
        self._collection = f"segvpr_{key}_{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}"
        with milvus_errors(settings.engine):
            missing = self._fill(ids)
        self._set_ids(ids)
        self.bytes_per_image = 4.0 * self.rows.shape[1]
        self.build_s += time.perf_counter() - start
        where = f"collection {self._collection} at {settings.engine}"
        LOGGER.info("%d of %d descriptors are new in %s", len(missing), len(ids), where)

    def _fill(self, ids: np.ndarray) -> np.ndarray:
        """Put into the collection what is not in it; returns which images that were."""
        new = not self.index.has_collection(self._collection)
        if new:
            self._create()
        else:
            self._load()
        missing = np.arange(len(ids)) if new else self._missing(ids, self._images)
        self._insert(ids, self.rows, self._images, missing)
        if len(missing):
            self.index.flush(self._collection)  # only what is flushed goes into the index
        if new:  # a collection that is loaded while it is filled has a coarser index for its first half minute
            self._load()
        return missing

    def _create(self) -> None:
        from pymilvus import DataType

        schema = self.index.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ID, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self.rows.shape[1])
        for name in ("path", "camera"):
            schema.add_field(name, DataType.VARCHAR, max_length=LONGEST_TEXT)
        for name in ("easting", "northing"):
            schema.add_field(name, DataType.DOUBLE)
        # weaker consistency does not find what another process put in a moment ago
        self.index.create_collection(self._collection, schema=schema, consistency_level="Strong")

    def _load(self) -> None:
        """Build the index if there is none, and load the collection."""
        if not self.index.list_indexes(self._collection):
            index = self.index.prepare_index_params()
            # one below the other: Lite does not see them otherwise, and a server takes both
            index.add_index(VECTOR, index_type=self._kind, metric_type="L2", params={"params": self._parameters})
            self.index.create_index(self._collection, index)
        self.index.load_collection(self._collection)

    def _missing(self, ids: np.ndarray, images: ImageSet) -> np.ndarray:
        """Which images (N,) do not lie in the collection, or at another position or camera: their numbers."""
        missing = []
        for start in range(0, len(ids), IDS_PER_CALL):
            some = ids[start : start + IDS_PER_CALL].tolist()
            fields = [ID, "easting", "northing", "camera"]
            held = {row[ID]: row for row in self.index.get(self._collection, some, output_fields=fields)}
            for number, one in enumerate(some, start):
                wanted = (*images.positions[number].tolist(), _text(images.cameras[number]))
                if one not in held or wanted != tuple(held[one][field] for field in fields[1:]):
                    missing.append(number)
        return np.array(missing, np.int64)

    def _insert(self, ids: np.ndarray, rows: np.ndarray, images: ImageSet, numbers: np.ndarray) -> None:
        """Put some images, by their numbers in all three, into the collection."""
        at_once = max(1, min(ROWS_PER_CALL, BYTES_PER_CALL // (4 * rows.shape[1])))
        for start in progress_bar(range(0, len(numbers), at_once), desc="Milvus", unit="call"):
            some = numbers[start : start + at_once]
            entries = [
                {
                    ID: int(ids[number]),
                    VECTOR: vector,
                    "path": _text(images.paths[number]),
                    "easting": float(images.positions[number, 0]),
                    "northing": float(images.positions[number, 1]),
                    "camera": _text(images.cameras[number]),
                }
                for number, vector in zip(some, as_float32(rows[some]))
            ]
            self.index.upsert(self._collection, entries)

    def _add_to_index(self, descriptors: np.ndarray, shortened: np.ndarray, images: ImageSet | None) -> None:
        if images is None:
            raise ValueError("images: Milvus keeps their positions; give them")
        ids = identity(descriptors).ids
        with milvus_errors(self.settings.engine):
            self._insert(ids, shortened, images, np.arange(len(ids)))
        self._set_ids(np.concatenate([self._ids, ids]))

    def _remove_from_index(self, places: np.ndarray, kept: np.ndarray) -> None:
        removed = self._ids[places]
        with milvus_errors(self.settings.engine):
            for start in range(0, len(removed), IDS_PER_CALL):
                self.index.delete(self._collection, ids=removed[start : start + IDS_PER_CALL].tolist())
        self._set_ids(self._ids[kept])

    def _set_ids(self, ids: np.ndarray) -> None:
        self._ids, self._order = ids, np.argsort(ids)

    def _numbers(self, found: np.ndarray) -> np.ndarray:
        """The gallery's numbers of what Milvus found, -1 for what is not of this gallery."""
        places = np.searchsorted(self._ids, found, sorter=self._order).clip(max=len(self._ids) - 1)
        numbers = self._order[places]
        return np.where(self._ids[numbers] == found, numbers, -1)


class Identity(NamedTuple):
    """What descriptors are: the store that they lie in, a digest of their file's name, and a number for each, (N,) int64.

    A number has the file in its upper half and the row in its lower half, so that rows of two files do not share one.
    """

    store: str
    file: str
    ids: np.ndarray


def identity(descriptors: np.ndarray | Rows) -> Identity:
    """Of descriptors (N, D); those in memory are known by their content."""
    array = descriptors.array if isinstance(descriptors, Rows) else descriptors
    rows = np.arange(len(descriptors))
    if isinstance(array, np.memmap):
        file = Path(array.filename)
        digest = hashlib.sha256(file.name.encode())
        store = re.sub(r"\W", "_", file.parent.name, flags=re.ASCII)
        rows = rows if array is descriptors else descriptors.order
    else:
        digest = hashlib.sha256(as_float32(descriptors).tobytes())
        store = digest.hexdigest()[:32]
    high = int.from_bytes(digest.digest()[:4]) >> 1
    return Identity(store, digest.hexdigest(), (high << 32) + rows.astype(np.int64))


def _text(value: str) -> str:
    """Without what UTF-8 cannot hold."""
    return os.fsencode(str(value)).decode("utf-8", "replace")
