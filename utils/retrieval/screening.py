"""Images that cannot be used: an error by default, or they are left out, logged and counted."""

from collections.abc import Sequence
from pathlib import Path

from datasets.places import ImageSet, load_image_set
from datasets.positions.report import PositionReport
from datasets.reading.batches import find_unusable
from datasets.sizes import LongerSide
from utils.system.logs import LOGGER, progress_bar


def log_positions(report: PositionReport) -> None:
    """Warnings about positions, then where they came from, in one line."""
    for warning in report.warnings:
        LOGGER.warning("%s", warning)
    LOGGER.info("%s", report.summary())


class Screening:
    """Left-out files of one command.

    By default nothing is left out: names are refused when listed, files when they are read. With `skip`, every file is read
    once before the work starts, so that what follows runs on a list that stays the same.

    Attributes
    ----------
    rejected : path -> why.
    """

    def __init__(self, on_bad_image: str = "error") -> None:
        self.skip = on_bad_image == "skip"
        self.rejected: dict[str, str] = {}
        self._screened: dict[tuple, tuple[ImageSet, ImageSet]] = {}

    def reject(self, path: str, reason: str) -> None:
        """Leave a file out, and say so once."""
        if path not in self.rejected:
            LOGGER.warning("left out: %s", reason)
        self.rejected[path] = reason

    def load(self, folders: Sequence[str | Path]) -> ImageSet:
        """List the images of some folders with their positions, and log where these came from."""
        images = load_image_set(folders, self.reject if self.skip else None)
        log_positions(images.report)
        return images

    def usable(self, images: ImageSet, least: int | LongerSide, with_labels: bool = False) -> ImageSet:
        """The set less the files that cannot be read, are too small (see `datasets.sizes.size_fault`), or have no good label.

        The same set gives the same object again, so that a gallery of several query sets is read and embedded once.
        """
        key = id(images), least, with_labels
        if key not in self._screened:
            kept = self.usable_paths(images.paths, least, with_labels)
            # with the set itself, which keeps its id from being given to another
            self._screened[key] = images, images if len(kept) == len(images) else images.without(self.rejected)
        return self._screened[key][1]

    def usable_paths(
        self, paths: Sequence[str], least: int | LongerSide = 1, with_labels: bool = False
    ) -> tuple[str, ...]:
        """The same for a plain list of files."""
        if not self.skip:
            return tuple(paths)
        found = find_unusable(paths, least, with_labels)
        for path, fault in progress_bar(found, total=len(paths), desc="screening", unit="image"):
            if fault:
                self.reject(path, fault)
        return tuple(path for path in paths if path not in self.rejected)

    def log_summary(self) -> None:
        if self.skip:
            LOGGER.info("--on_bad_image skip: %d files were left out", len(self.rejected))
