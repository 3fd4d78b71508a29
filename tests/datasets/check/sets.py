"""Data sets to check, some of them spoiled."""

from pathlib import Path

from PIL import Image

from datasets.check.__main__ import main
from datasets.check.check import check_dataset
from tests.tiny import place_picture

FRONT = Path("town10/queries_rain/front_rear/front")
FRONT_LABELS = Path("town10/queries_labels_rain/front_rear/front")
GALLERY_FRONT = Path("town10/gallery/front_rear/front")


def second(folder: Path) -> Path:
    """The file of the second place."""
    return sorted(folder.iterdir())[1]


def run(*argv, capsys) -> tuple[int, str]:
    """Exit status and what was printed on stdout, of one process."""
    status = main([*map(str, argv), "--workers", "1"])
    return status, capsys.readouterr().out


def problems_of(root: Path, **options) -> list[str]:
    return check_dataset(root, workers=1, progress=False, **options).problems


def truncate(root: Path) -> str:
    file = second(root / FRONT).with_suffix(".jpg")
    second(root / FRONT).unlink()
    Image.fromarray(place_picture(1, 8, 0)).save(file)
    file.write_bytes(file.read_bytes()[:-400])
    return file.name


def remove_label(root: Path) -> str:
    file = second(root / FRONT_LABELS)
    file.unlink()
    return file.name
