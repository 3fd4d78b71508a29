"""What a converter has written, so that a later run leaves nothing stale and nothing twice."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from datasets.convert.files import STALE, write_whole
from datasets.naming import IMAGE_SUFFIXES, is_no_data

RECORD = ".converted.json"
VERSION = 1


class Made(NamedTuple):
    """Where an image came from: the source's path, and its bytes and time of change when the image was written.

    Both are None while the image is still to be written.
    """

    source: str
    size: int | None = None
    mtime_ns: int | None = None


class Record:
    """The images that converters wrote into a folder, by path below it; kept in the hidden file `.converted.json`.

    Raises
    ------
    ValueError, OSError : the file is damaged or cannot be read; it is named.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.file = out, out / RECORD
        self.made: dict[str, Made] = {}
        if self.file.is_file():
            try:
                content = json.loads(self.file.read_text())
                self.made = {target: Made(*made) for target, made in content["images"].items()}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{self.file}: the record of earlier conversions is damaged; remove it, and look for images in {out} "
                    "that are there twice"
                ) from error

    def save(self) -> None:
        text = json.dumps({"version": VERSION, "images": self.made})
        if not self.file.is_file() or self.file.read_text() != text:
            write_whole(self.file, lambda part: part.write_text(text))

    def below(self, folder: str) -> dict[str, str]:
        """Images that are there and were made from files below a folder (a real path): path below OUT -> source."""
        return {t: m.source for t, m in self.made.items() if _is_below(m.source, folder) and _is_there(self.out / t)}

    def elsewhere(self, folder: str) -> dict[str, str]:
        """The same for those made from files that lie elsewhere."""
        return {
            t: m.source for t, m in self.made.items() if not _is_below(m.source, folder) and _is_there(self.out / t)
        }

    def plan(self, jobs: dict[str, str]) -> None:
        """Note images that are about to be written, path below OUT -> source, before an interruption can come."""
        self.made.update({target: Made(source) for target, source in jobs.items()})
        self.save()

    def finish(self, images: dict[str, str]) -> None:
        """Note images that are now what their sources are."""
        self.made.update({target: _stamped(source) for target, source in images.items()})
        self.save()

    def is_current(self, target: str, source: str) -> bool | None:
        """Whether the source has not changed since the image was made from it; None where that is not known."""
        made = self.made.get(target)
        if made is None or made.size is None or made.source != source:
            return None
        return made == _stamped(source)

    def set_aside(self, targets: Iterable[str]) -> None:
        """Move images to the hidden folder `OUT/.stale`; links are removed. The record must be saved afterwards."""
        for target in targets:
            image, place = self.out / target, self.out / STALE / target
            if image.is_symlink():
                image.unlink()
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(image, place)
            del self.made[target]

    def others(self, folder: Path, wanted: Iterable[str]) -> list[str]:
        """Images below a folder of OUT that are neither `wanted` nor made from a file that still exists, sorted."""
        known = {*wanted, *(target for target, made in self.made.items() if os.path.exists(made.source))}
        found = set()
        for directory, subfolders, names in os.walk(folder):
            subfolders[:] = [name for name in subfolders if not is_no_data(name)]
            images = (n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not is_no_data(n))
            found.update(os.path.relpath(os.path.join(directory, name), self.out) for name in images)
        return sorted(found - known)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _stamped(source: str) -> Made:
    status = os.stat(source)
    return Made(source, status.st_size, status.st_mtime_ns)
