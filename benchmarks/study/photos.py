"""The study on photos: what training on a drawn town, from ImageNet weights, brings to real streets."""

from pathlib import Path
from typing import NamedTuple

from benchmarks.study.variants import Variant
from benchmarks.train_town import TRAINING_QUERIES
from datasets.reading.augmentation_settings import FAMILY_NAMES

PHOTO_CONDITIONS = {name: name for name in ("clean", "dark", "night", "noisy", "blurred", "grey", "fog")}
"""Folders of queries, as `benchmarks.altered_queries` writes them."""
PHOTO_FLAGS = {
    "arch": "resnet50",
    "pretrain": "imagenet",
    "train_enc_from": "3",
    "freeze_bn": "",
    "mining": "random",
    "batch_size": "10",
    "optimizer": "adamw",
    "weight_decay": "0.01",
    "lr": "1e-6",
    "warmup_steps": "15",
    "n_epochs": "1",
    "queries_per_epoch": "640",
    "cache_refresh_rate": "640",
    "lr_triplets": "640",
    "train_pos_dist_threshold": "12",
    "augment_zoom": "0.6",
    "class_weights": "",
    "target_size": "320 180",
    "eval_scale": "0.7",
    "num_workers": "1",
    "precision": "auto",
}
NOTE = """Percent, mean ± standard deviation over seeds. `clean` are photos as they were taken, the others altered copies of
them, all looked up in the same gallery of photos by day. mIoU is measured on labelled photos; a dash means that no head was
trained.
"""


BASE = {
    "augment": "all",
    "loss": "pairs",
    "n_neg": "0",
    "semnet": "fcn",
    "attention": "none",
    "input": "balanced",
    "da_method": "none",
}


def _variant(name: str, title: str, *against: str, **flags: str) -> Variant:
    """A variant that differs from `BASE` in some flags; an empty one is left out."""
    words = [f"--{key} {value}" for key, value in {**BASE, **flags}.items() if value]
    return Variant(name, title, " ".join(words), against, "n_epochs" not in flags)


UNTRAINED = {"n_epochs": "0", "sem_loss_weight": "0"}
MINED = {"loss": "triplet", "n_neg": "1", "neg_samples": "50", "mining": "partial"}

PHOTO_VARIANTS = {
    v.name: v
    for v in (
        _variant("start_imagenet", "ImageNet weights, their own input", input="imagenet", **UNTRAINED),
        _variant("start", "ImageNet weights, balanced exposure", "start_imagenet", **UNTRAINED),
        _variant("none", "no augmentation", "start", augment=""),
        _variant("all", "all families of augmentation", "none", "start"),
        _variant("triplet", "mined triplets, for pairs", "all", **MINED),
        _variant("deeplab", "deeplab, for fcn", "all", semnet="deeplab"),
        _variant("place", "no semantic loss", "all", sem_loss_weight="0"),
        _variant("released", "attention as released", "all", attention="released"),
        _variant("after_norm", "attention after the norm", "all", attention="after_norm"),
        _variant("grl", "gradient reversal on real frames", "all", da_method="grl"),
        _variant("imagenet_input", "ImageNet's input, for balanced", "all", "start_imagenet", input="imagenet"),
        *(_variant(f"only_{name}", f"{name} alone", "none", augment=name) for name in FAMILY_NAMES),
    )
}


class Photos(NamedTuple):
    """Real photos, which nothing but `target` is trained on.

    Attributes
    ----------
    places : folder with `gallery` and a folder of queries per condition, as `benchmarks.altered_queries` writes them.
    labelled : root with labelled photos in `gallery/front`, and some in `queries/front`, as a data set must have queries.
    target : folder of unlabelled frames, the target domain.
    """

    places: Path
    labelled: Path
    target: Path

    def flags(self, town: Path) -> dict[str, str]:
        """Training on the town, recall and mIoU on photos."""
        return {
            "dataset_root": f"{town}/idda",
            "train_q": TRAINING_QUERIES,
            "dataset_root_val": f"{self.labelled}",
            "val_g": "gallery/front",
            "val_q": "queries/front",
            "dataset_root_test": f"{self.places}",
            "test_g": "gallery",
            "test_q": "+".join(PHOTO_CONDITIONS),
            "DA_datasets": f"{self.target}",
        }

    @property
    def labelled_images(self) -> Path:
        return self.labelled / "gallery/front"
