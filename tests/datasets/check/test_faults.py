"""Every fault of a data set on its own: it fails and is named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.check.sets import (
    FRONT,
    FRONT_LABELS,
    GALLERY_FRONT,
    problems_of,
    remove_label,
    run,
    second,
    truncate,
)
from tests.tiny import SIDE, place_label, place_picture


def empty_file(root: Path) -> str:
    second(root / FRONT).write_bytes(b"")
    return second(root / FRONT).name


def resize_label(root: Path) -> str:
    Image.fromarray(place_label(1, (SIDE[0], SIDE[1] - 2))).save(second(root / FRONT_LABELS))
    return second(root / FRONT_LABELS).name


def unknown_id(root: Path) -> str:
    raw = place_label(1)
    raw[5, 7, 0] = 27
    Image.fromarray(raw).save(second(root / FRONT_LABELS))
    return second(root / FRONT_LABELS).name


def jpeg_content(root: Path) -> str:
    label = second(root / FRONT_LABELS)
    Image.open(label).convert("RGB").save(label, format="JPEG", quality=100)
    return label.name


def palette(root: Path) -> str:
    label = second(root / FRONT_LABELS)
    Image.open(label).convert("RGB").quantize(4).save(label)
    return label.name


def sixteen_bits(root: Path) -> str:
    """An RGB PNG of 16 bits per channel, which Pillow cannot write: ids in the lower byte."""
    label = second(root / FRONT_LABELS)
    ids = np.asarray(Image.open(label))[..., :3].astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in ids)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], 16, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    label.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
    return label.name


def single_channel(root: Path) -> str:
    Image.fromarray(place_label(1)[..., 0]).save(second(root / FRONT_LABELS))
    return second(root / FRONT_LABELS).name


def rename(root: Path, name: str) -> str:
    for folder in (FRONT, FRONT_LABELS):
        second(root / folder).rename(root / folder / name)
    return name


def no_position(root: Path) -> str:
    return rename(root, "frame_17.png")


def no_positive(root: Path) -> str:
    return rename(root, "@277020.000@110000.000@1@.png")


def resize(root: Path, folder: Path, size: tuple[int, int]) -> None:
    labels = Path(str(folder).replace("gallery", "gallery_labels").replace("queries", "queries_labels"))
    for file in sorted((root / folder).iterdir()):
        Image.fromarray(place_picture(1, 8, 0, size)).save(file)
        Image.fromarray(place_label(1, size)).save(root / labels / file.name)


def mixed_sizes(root: Path) -> str:
    size = (SIDE[0] + 2, SIDE[1])
    Image.fromarray(place_picture(1, 8, 0, size)).save(second(root / FRONT))
    Image.fromarray(place_label(1, size)).save(second(root / FRONT_LABELS))
    return second(root / FRONT).name


def too_small(root: Path) -> str:
    # 80% of 121 px is 96.8, floored to 96
    for part in ("gallery", "queries_rain"):
        for camera in ("front", "rear"):
            resize(root, Path("town10", part, "front_rear", camera), (136, 121))
    return second(root / GALLERY_FRONT).name


def no_negative(root: Path) -> str:
    for folder in (*root.glob("town10/*/front_rear/*"),):
        for file in sorted(folder.iterdir())[1:]:
            file.unlink()
    return sorted((root / FRONT).iterdir())[0].name


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, "unreadable images: 1 "),
        (empty_file, "unreadable images: 1 "),
        (resize_label, "odd labels: 1 "),
        (remove_label, "missing labels: 1 "),
        (unknown_id, "raw id 27"),
        (single_channel, "its mode is L"),
        (jpeg_content, "its content is JPEG, which may change ids"),
        (palette, "its mode is P"),
        (sixteen_bits, "it has 16 bits per channel"),
        (no_position, "names without position: 1 "),
        (no_positive, "1 of 6 queries have no gallery image of the same camera within 3 m"),
        (mixed_sizes, "2 sizes in one training set"),
        (too_small, "12 of 12 images are too small (sides must be at least 122 px)"),
        (no_negative, "2 of 2 queries have no gallery image beyond 25 m"),
    ],
)
def test_each_fault_fails_and_is_named(idda, spoil, words, capsys):
    name = spoil(idda)
    status, text = run(idda, capsys=capsys)
    assert status == 1
    problems = problems_of(idda)
    assert len(problems) == 1, problems
    assert words in problems[0] and name in problems[0]
    assert "problems: 1" in text and name in text.split("problems: 1")[1]


def test_sides_that_just_suffice(idda):
    for part in ("gallery", "queries_rain"):
        for camera in ("front", "rear"):
            resize(idda, Path("town10", part, "front_rear", camera), (136, 122))
    assert problems_of(idda) == []  # 80% of 122 is 97.6
