"""A data set and a training run that take seconds, for benchmarks that repeat them many times."""

from pathlib import Path

from datasets.town import make_town

SIZE = (136, 128)
EVALUATION_FLAGS = "--eval_scale 1 --device cpu --test_q rain --test_g overcast --no_report".split()
FLAGS = [
    *"--arch resnet18 --pretrain none --target_size 112 104 --cache_refresh_rate 4 --queries_per_epoch 8 --n_epochs 2".split(),
    *EVALUATION_FLAGS,
]


def small_town(folder: Path, places: int = 5) -> Path:
    """Draw a town of a few places."""
    return make_town(folder, size=SIZE, places=places, workers=1, progress=False)


def data_flags(town: Path) -> list[str]:
    """The flags that point training and evaluation at a town."""
    idda = str(town / "idda")
    roots = {"dataset_root": idda, "dataset_root_val": idda, "dataset_root_test": str(town / "robotcar")}
    roots["DA_datasets"] = str(town / "robotcar_all")
    return [word for flag, folder in roots.items() for word in (f"--{flag}", folder)]
