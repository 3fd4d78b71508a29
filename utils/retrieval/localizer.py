"""A gallery that is opened once, asked many times, and may grow."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.files import write_whole
from datasets.jobs import run_jobs
from datasets.naming import camera_of, detect_kind
from datasets.places import ImageSet
from datasets.positions.find import Zone, listed_images, locate, located_images, require_positions
from datasets.positions.zones import LIMITS
from datasets.reading.transforms import rgb_image, scale_image, size_of, stack_images
from datasets.sizes import LongerSide, Scale, scale_text, size_fault, smallest_scaled
from utils.retrieval.confidence import Search, find_calibration, place_ratios
from utils.retrieval.embedding import EmbeddingOptions, check_descriptors
from utils.retrieval.engines.choice import searchable
from utils.retrieval.localize import SPREAD_AT, Localisation, Match, spread
from utils.retrieval.settings import EXACT, RetrievalSettings, check_settings
from utils.retrieval.store import PIXELS_PER_BATCH, DescriptorStore, default_folder, weights_digest
from utils.runs.checkpoints import Checkpoint, find_weights, load_checkpoint
from utils.system.compute import compute_on, resolve_device
from utils.system.logs import LOGGER

Photo = str | os.PathLike | Image.Image | np.ndarray
"""A file, a Pillow image, or an RGB array (H, W, 3) of type uint8."""


class Localizer:
    """Says where photos were taken, by a gallery of images whose positions are known. Threads may share it.

    Parameters
    ----------
    checkpoint : a file, `photos` or `town` (networks that ship), or what `load_checkpoint` made of a file.
    gallery : a folder of images; a CSV file that lists them, as `save` writes it; or images at hand.
    positions : CSV file of the folder's positions, by default from names or EXIF data.
    store : folder in which descriptors are kept; by default beside the checkpoint.
    image_size : longer side in pixels that photos and gallery are brought to; by default the one that the checkpoint records.
    scale : a factor instead.
    zone : UTM zone of the gallery's positions, as `30N`; by default that of its latitudes and longitudes. Answers are then
        given in degrees too.
    retrieval : how the gallery is searched.
    engine : where it is searched, in place of what `retrieval` says: by default here; or a Milvus server or file.
    reject : answers are `unknown` where the probability that the first match is right is below this; it needs a calibration
        beside the checkpoint (`eval.py --calibrate`).
    precision : `fp32` (default), `bf16`, `fp16`, or `auto` for bf16 where it is faster; descriptors of each are stored apart.
    options : machine, precision and batch size in one; by default the first GPU, or else the CPU.

    Attributes
    ----------
    images : the gallery as it is now.
    zone : UTM zone of its positions, None if it is not known.
    scale : how photos and gallery are resized.

    Raises
    ------
    ValueError, OSError : a checkpoint or an image that cannot be used, or that has no position; it is named.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint,
        gallery: str | Path | ImageSet,
        positions: str | Path | None = None,
        store: str | Path | None = None,
        *,
        image_size: int | None = None,
        scale: Scale | None = None,
        zone: str | Zone | None = None,
        retrieval: RetrievalSettings = EXACT,
        precision: str | None = None,
        engine: str | None = None,
        options: EmbeddingOptions | None = None,
        reject: float | None = None,
    ) -> None:
        checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(find_weights(checkpoint))
        zone = Zone.parse(zone) if isinstance(zone, str) else zone
        retrieval = retrieval if engine is None else replace(retrieval, engine=engine)
        self.images, self.zone = open_gallery(gallery, positions, zone)
        self.scale = photo_scale(checkpoint, lambda: self.images.paths, image_size, scale)
        if options is not None and precision is not None:
            raise ValueError("precision: options.compute has one already; give one of the two")
        self._options = options or EmbeddingOptions(compute=compute_on(resolve_device(), precision or "fp32"))
        self._model = self._options.compute.place(checkpoint.build())
        self._embedder = self._options.compute.embedder(self._model)
        self._retrieval, digest = retrieval, weights_digest(self._model)
        self._reject, self._calibration = reject, find_calibration(checkpoint.path, digest, retrieval, reject)
        folder = Path(store) if store is not None else default_folder(checkpoint.path)
        self._store = DescriptorStore(self._model, digest, self.scale, self._options, folder, retrieval.dtype)
        check_settings(retrieval, self._model.descriptor_dim, self.images.folder, len(self.images))
        descriptors = self._store.descriptors(self.images.paths)
        self._engine = searchable(descriptors, retrieval, self.images)
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self.images)

    def locate(
        self,
        photos: Photo | Sequence[Photo],
        k: int = SPREAD_AT,
        near: tuple[float, float, float] | None = None,
        near_latlon: tuple[float, float, float] | None = None,
        camera: str | None = None,
    ) -> Localisation | list[Localisation]:
        """Look up a photo, or each of a list.

        Parameters
        ----------
        k : matches per photo (fewer if the gallery is smaller).
        near, near_latlon, camera : what is known beforehand, see `allowed`. `matches` is empty if no image is allowed.

        Raises
        ------
        ValueError, OSError : a photo cannot be used, or an argument; it is named.
        """
        if k < 1:
            raise ValueError(f"k: {k} matches were asked for; it must be at least 1")
        many = isinstance(photos, Sequence) and not isinstance(photos, str)
        asked, found = list(photos) if many else [photos], []
        for start in range(0, len(asked), self._options.batch_size):
            some = asked[start : start + self._options.batch_size]
            pixels = list(run_jobs(self._read, some, 8, processes=False))
            names = [_name(photo) for photo in some]
            with self._lock:
                descriptors = self._embed(pixels, names)
                allowed = self.allowed(near, near_latlon, camera)
                search = partial(self._engine.search, allowed=allowed)
                matches = search(descriptors, max(k, SPREAD_AT))
                sure = self._probabilities(search, descriptors, matches)
                found += [self._answer(*row, k) for row in zip(names, *matches, sure)]
        return found if many else found[0]

    def allowed(
        self,
        near: tuple[float, float, float] | None = None,
        near_latlon: tuple[float, float, float] | None = None,
        camera: str | None = None,
    ) -> np.ndarray | None:
        """Which gallery images agree with what is known beforehand, (G,) bool; None for all if nothing is.

        Parameters
        ----------
        near : UTM east and north in metres, and how many metres around them.
        near_latlon : the same by latitude and longitude in degrees.
        camera : name of the camera folder.
        """
        if near is not None and near_latlon is not None:
            raise ValueError("--near and --near_latlon: give one of them")
        if near_latlon is not None:
            near = self._projected(*near_latlon)
        if near is None and camera is None:
            return None
        allowed = np.ones(len(self.images), bool)
        if near is not None:
            if not (np.isfinite(near).all() and near[2] > 0):
                raise ValueError(f"--near {near}: give finite numbers, and more than 0 metres")
            allowed &= np.linalg.norm(self.images.positions - near[:2], axis=1) <= near[2]
        if camera is not None:
            allowed &= self.images.cameras == camera
            if camera not in self.images.cameras:
                names = ", ".join(sorted(set(self.images.cameras.tolist()) - {""})) or "no camera folders"
                raise ValueError(f"--camera {camera}: the gallery {self.images.folder} has {names}")
        return allowed

    def add(
        self, paths: str | Path | Sequence[str | Path], positions: Sequence[Sequence[float]] | np.ndarray | None = None
    ) -> None:
        """Put images into the gallery; only these are embedded, and the store keeps their descriptors.

        Parameters
        ----------
        positions : (N, 2) UTM east and north in metres; by default from names or EXIF data.

        Raises
        ------
        ValueError, OSError : an image cannot be used, has no position or is in the gallery already; then none is added.
        """
        paths = _paths(paths)
        with self._lock:
            known = self._numbers()
            twice = next((p for i, p in enumerate(paths) if os.path.abspath(p) in known or p in paths[:i]), None)
            if twice is not None:
                raise ValueError(f"{twice}: is in the gallery already; remove it first")
            places = self._positions_of(paths) if positions is None else np.array(positions, np.float64).reshape(-1, 2)
            if len(places) != len(paths) or not np.isfinite(places).all():
                raise ValueError(f"{len(places)} positions for {len(paths)} images; give finite numbers for each")
            added = ImageSet(self.images.folder, tuple(paths), places, np.array([camera_of(path) for path in paths]))
            self._engine.add(self._store.descriptors(paths), added)
            self.images = replace(
                self.images,
                paths=(*self.images.paths, *added.paths),
                positions=np.concatenate([self.images.positions, added.positions]),
                cameras=np.concatenate([self.images.cameras, added.cameras]),
            )

    def remove(self, paths: str | Path | Sequence[str | Path]) -> None:
        """Take images out of the gallery; ValueError names one that is not in it. Their files stay, and their descriptors."""
        paths = _paths(paths)
        with self._lock:
            known = self._numbers()
            absent = next((path for path in paths if os.path.abspath(path) not in known), None)
            if absent is not None:
                raise ValueError(f"{absent}: is not in the gallery {self.images.folder}")
            numbers = np.array([known[os.path.abspath(path)] for path in paths], np.int64)
            remaining = self.images.without({self.images.paths[number] for number in numbers})
            self._engine.remove(numbers)
            self.images = remaining

    def save(self, file: str | Path) -> None:
        """Write the gallery's images and positions as a CSV file, which opens as `gallery` again.

        Positions are latitudes and longitudes if the zone is known, else metres. Descriptors are in the store already.
        """
        file = Path(file)
        with self._lock:
            images, zone = self.images, self.zone
        header = ("path", "latitude", "longitude") if zone else ("path", "easting", "northing")
        values = zone.unproject(images.positions) if zone else images.positions
        folder = os.path.abspath(file.parent)

        def write(part: Path) -> None:
            with open(part, "w", newline="", encoding="utf-8") as stream:
                rows = csv.writer(stream)
                rows.writerow(header)
                rows.writerows([os.path.relpath(p, folder), *v] for p, v in zip(images.paths, values.tolist()))

        write_whole(file, write)

    def prune(self) -> int:
        """Drop from the store what is not of this gallery as it is now; returns how many descriptors."""
        with self._lock:
            return self._store.prune(self.images.paths)

    def description(self) -> dict:
        """Images, sizes and search, as plain values."""
        return {"images": len(self), "scale": scale_text(self.scale), **self._engine.description()}

    def _read(self, photo: Photo) -> Tensor:
        pixels = rgb_image(photo)
        fault = size_fault(*size_of(pixels), smallest_scaled(self.scale))
        if fault:
            raise ValueError(f"{_name(photo)}: {fault}")
        return scale_image(pixels, self.scale)

    @torch.inference_mode()
    def _embed(self, images: Sequence[Tensor], names: Sequence[str]) -> np.ndarray:
        """Descriptors (N, D) of images (3, H, W), those of one size together."""
        compute = self._options.compute
        descriptors = np.empty((len(images), self._model.descriptor_dim), self._retrieval.dtype)
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault(size_of(image), []).append(number)
        for (width, height), numbers in by_size.items():
            most = max(1, PIXELS_PER_BATCH // (width * height))
            for some in (numbers[i : i + most] for i in range(0, len(numbers), most)):
                with compute.autocast():
                    batch = self._embedder.prepare(stack_images([images[number] for number in some]))
                    descriptors[some] = self._embedder.embed(batch).float().cpu().numpy()
        check_descriptors(descriptors, names)
        return descriptors

    def _probabilities(
        self, search: Search, descriptors: np.ndarray, found: tuple[np.ndarray, np.ndarray]
    ) -> list[float | None]:
        """That the first match of each photo is right; arguments as of `place_ratios`."""
        if self._calibration is None:
            return [None] * len(descriptors)
        ratios = place_ratios(search, self.images.positions, descriptors, self._calibration.apart_m, found)
        return [None if np.isnan(p) else float(p) for p in self._calibration.probability(ratios)]

    def _answer(
        self, photo: str, row: np.ndarray, distances: np.ndarray, probability: float | None, k: int
    ) -> Localisation:
        """What a search returned, nearest first, as an answer of k matches."""
        shown = self.images.positions[row[:k]]
        degrees = self.zone.unproject(shown).round(7).tolist() if self.zone else [(None, None)] * len(shown)
        matches = tuple(
            Match(self.images.paths[i], *map(float, self.images.positions[i]), float(distance), *pair)
            for i, distance, pair in zip(row[:k], distances, degrees)
        )
        first = self.images.positions[row[:SPREAD_AT]]
        agreement = spread(first) if len(first) == SPREAD_AT else None
        unknown = self._reject is not None and (probability is None or probability < self._reject)
        zone = str(self.zone) if self.zone else None
        return Localisation(photo, matches, agreement, zone, probability, unknown)

    def _numbers(self) -> dict[str, int]:
        """The gallery's images by whole path."""
        return {os.path.abspath(path): number for number, path in enumerate(self.images.paths)}

    def _positions_of(self, paths: Sequence[str]) -> np.ndarray:
        found = locate(paths, zone=self.zone)
        require_positions(paths, found.positions, found.faults)
        if found.zone is not None and self.zone is None:
            raise ValueError(
                f"{paths[0]}: has degrees, but the gallery's UTM zone is not known; give zone or positions"
            )
        return found.positions

    def _projected(self, latitude: float, longitude: float, metres: float) -> tuple[float, float, float]:
        for name, value in (("latitude", latitude), ("longitude", longitude)):
            low, high = LIMITS[name]
            if not low <= value <= high:
                raise ValueError(f"--near_latlon: {name} {value:g} does not lie in {low:g} to {high:g}")
        if self.zone is None:
            raise ValueError(
                "--near_latlon: the UTM zone of the gallery's positions is not known; give --zone, or --near in metres"
            )
        east, north = self.zone.project(np.array([latitude]), np.array([longitude]))[0].tolist()
        return east, north, metres


def open_gallery(
    gallery: str | Path | ImageSet, positions: str | Path | None, zone: Zone | None
) -> tuple[ImageSet, Zone | None]:
    """The images of a gallery and the UTM zone of their positions; arguments as of `Localizer`."""
    if isinstance(gallery, ImageSet):
        require_positions(gallery.paths, gallery.positions)
        return gallery, zone
    if os.path.isfile(gallery):
        return listed_images(gallery, zone)
    return located_images(gallery, positions, zone)


def photo_scale(
    checkpoint: Checkpoint,
    gallery: Callable[[], Sequence[str]],
    image_size: int | None = None,
    scale: Scale | None = None,
) -> Scale:
    """How photos and their gallery are resized: as asked for, else as the network was trained, else as the gallery's kind.

    Parameters
    ----------
    gallery : gives its paths; called only if the kind decides, since listing a large folder takes long.
    """
    if image_size is not None or scale is not None:
        return scale if image_size is None else LongerSide(image_size)
    if checkpoint.image_size is not None:
        return LongerSide(checkpoint.image_size)
    scale = detect_kind(list(gallery()))[0].eval_scale
    LOGGER.warning(
        "%s does not record the size of its training's images, so photos are %s; --image_size brings them to another",
        *(checkpoint.path, "used as they are" if scale == 1 else scale_text(scale)),
    )
    return scale


def _name(photo: Photo) -> str:
    """The path of a photo, "" for one that has none."""
    return str(getattr(photo, "filename", "") if isinstance(photo, Image.Image | np.ndarray) else photo)


def _paths(paths: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
