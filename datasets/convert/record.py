"""What a converter has written, so that a later run leaves nothing stale and nothing twice."""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.files import write_text
from datasets.naming import IMAGE_SUFFIXES, is_no_data

RECORD, VERSION = ".converted.json", 1
STALE = ".stale"
"""Hidden folder below OUT for images of an earlier run whose source is gone."""
REMEDY = "remove the images of that run, or give another --out"


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

    def _save(self) -> None:
        text = json.dumps({"version": VERSION, "images": self.made})
        if not self.file.is_file() or self.file.read_text() != text:
            write_text(self.file, text)

    def sources(self, folder: str, below: bool = True) -> dict[str, str]:
        """Images that exist and were made from files below a folder (a real path), or else outside of it.

        Returns
        -------
        path below OUT -> source.
        """
        start = os.path.join(folder, "")
        return {
            target: made.source
            for target, made in self.made.items()
            if made.source.startswith(start) == below and os.path.lexists(self.out / target)
        }

    def plan(self, jobs: dict[str, str]) -> None:
        """Note images that are about to be written, path below OUT -> source, before an interruption can come."""
        self.made.update({target: Made(source) for target, source in jobs.items()})
        self._save()

    def finish(self, images: dict[str, str]) -> None:
        """Note images that are now what their sources are."""
        self.made.update({target: _stamped(source) for target, source in images.items()})
        self._save()

    def is_current(self, target: str, source: str) -> bool | None:
        """Whether the source has not changed since the image was made from it; None if that is not known."""
        made = self.made.get(target)
        if made is None or made.size is None or made.source != source:
            return None
        return made == _stamped(source)

    def set_aside(self, targets: Iterable[str]) -> None:
        """Move images to the hidden folder `OUT/.stale`, or remove those that are links; `plan` or `finish` must follow."""
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


def _stamped(source: str) -> Made:
    status = os.stat(source)
    return Made(source, status.st_size, status.st_mtime_ns)


def refuse_leftovers(folder: Path, wanted: Collection[str], subjects: Collection[str]) -> None:
    """ValueError if `folder` holds images of some of the `subjects` at positions that are not wanted.

    A run with other settings left them. They would show one picture at two positions.

    Parameters
    ----------
    wanted : file names `@east@north@<subject>` that belong there.
    subjects : what follows the position in the names.
    """
    odd = []
    for entry in sorted(os.listdir(folder)) if folder.is_dir() else []:
        fields = entry.split("@", 3)
        if len(fields) == 4 and fields[0] == "" and fields[3] in subjects and entry not in wanted:
            odd.append(entry)
    if odd:
        raise ValueError(leftovers(folder, odd))


def leftovers(folder: Path, names: Sequence[str], why: str = "") -> str:
    """What is wrong with images of an earlier run that show again what this run would write."""
    others = f" (and {len(names) - 1} others)" if len(names) > 1 else ""
    return f"{folder / names[0]}{others}: made from the same images with other settings or positions; {why}{REMEDY}"


def about_earlier(stale: Sequence[str], others: Sequence[str]) -> str:
    """What a summary says about images of earlier runs, names relative to OUT."""
    text = ""
    if stale:
        text += (
            f"; {len(stale)} of an earlier run moved to OUT/{STALE}, because their source is gone (first: {stale[0]})"
        )
    if others:
        text += f"; {len(others)} others stay in OUT, of unknown source (first: {others[0]}): remove what is stale"
    return text
