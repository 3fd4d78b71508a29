"""Small data sets in the layouts of IDDAv2 and RobotCar: every place has a picture of its own."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = (136, 128)
SPACING_M = 40.0


def place_picture(place: int, noise: float, seed: int, size: tuple[int, int] = SIDE) -> np.ndarray:
    """Coloured blocks that belong to a place, with noise of one pass: uint8 (H, W, 3)."""
    width, height = size
    blocks = np.random.default_rng(place).integers(0, 256, (4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    picture = blocks[rows][:, columns] + np.random.default_rng([place, seed]).normal(0, noise, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


def place_label(place: int, size: tuple[int, int] = SIDE) -> np.ndarray:
    """Raw ids in the red channel of an RGBA label: uint8 (H, W, 4)."""
    width, height = size
    raw = np.zeros((height, width, 4), np.uint8)
    raw[..., 0] = np.where(np.arange(width) < width // 2, 7, 1 + place % 2)
    raw[..., 3] = 255
    return raw


def write_pass(
    folder: Path,
    places: int,
    seed: int,
    label_dir: Path | None = None,
    origin=(277000.0, 110000.0),
    shift=0.0,
    size=SIDE,
    suffix=".png",
) -> None:
    """One picture per place, and its label."""
    folder.mkdir(parents=True, exist_ok=True)
    if label_dir:
        label_dir.mkdir(parents=True, exist_ok=True)
    for place in range(places):
        name = f"@{origin[0] + SPACING_M * place + shift:.3f}@{origin[1]:.3f}@{seed}@"
        Image.fromarray(place_picture(place, 8, seed, size)).save(folder / f"{name}{suffix}")
        if label_dir:
            Image.fromarray(place_label(place, size), "RGBA").save(label_dir / f"{name}.png")


def write_idda(root: Path, places: int = 6, size=SIDE) -> Path:
    """town10 with front and rear, town3 with left and right."""
    for town, pair, cameras in (
        ("town10", "front_rear", ("front", "rear")),
        ("town3", "left_right", ("left", "right")),
    ):
        for c, camera in enumerate(cameras):
            for p, (images, labels) in enumerate(
                (("gallery", "gallery_labels"), ("queries_rain", "queries_labels_rain"))
            ):
                below = Path(pair, camera)
                write_pass(
                    root / town / images / below, places, 10 * c + p, root / town / labels / below, shift=p, size=size
                )
    return root


def write_robotcar(root: Path, places: int = 6, size=SIDE) -> Path:
    """Five conditions of one street."""
    for c, condition in enumerate(("overcast", "rain", "snow", "sun", "night")):
        write_pass(root / condition, places, 100 + c, origin=(620000.0, 5735000.0), shift=2.0 * c, size=size)
    return root


def data_flags(root: Path) -> list[str]:
    """The released flags that name both tiny data sets below `root`, written there on first use."""
    if not (root / "idda").exists():
        write_idda(root / "idda")
        write_robotcar(root / "robotcar")
    flags = {
        "dataset_root": "idda",
        "dataset_root_val": "idda",
        "dataset_root_test": "robotcar",
        "DA_datasets": "robotcar",
    }
    return [word for flag, folder in flags.items() for word in (f"--{flag}", str(root / folder))]


SMALL_RUN = (
    "--arch resnet18 --pretrain none --eval_scale 1 --target_size 128 112 --cache_refresh_rate 4 --queries_per_epoch 8 "
    "--n_epochs 2 --num_workers 0 --device cpu --no_report"
).split()
"""Flags of a training run of seconds."""
