"""What the study trains in each of its presets, on which town, and what it evaluates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.demo import SIZE, SMALL
from benchmarks.study.photos import NOTE as PHOTO_NOTE
from benchmarks.study.photos import PHOTO_CONDITIONS, PHOTO_FLAGS, PHOTO_VARIANTS, Photos
from benchmarks.study.variants import CONDITIONS, VARIANTS, Variant, town_flags
from benchmarks.train_town import TRAINING_PASSES
from datasets.town.passes import STANDARD_PASSES

TOWN_NOTE = """Percent, mean ± standard deviation over seeds. `fresh rain` is a rain pass of the training town that was never
trained on. `town3 rain` is a town that was never seen. The other sets are from the second camera. mIoU is measured on town3's
gallery; a dash means that no head was trained.
"""


@dataclass(frozen=True)
class Preset:
    """A town, what is compared on it, and where.

    Attributes
    ----------
    size, places, seed, passes : of the town.
    flags : what all variants share.
    conditions : the evaluated sets and their titles.
    note : text above the table of recalls.
    """

    size: tuple[int, int]
    places: int
    flags: dict[str, str]
    seed: int = 0
    passes: tuple[str, ...] = tuple(STANDARD_PASSES)
    variants: Mapping[str, Variant] = field(default_factory=lambda: VARIANTS)
    conditions: Mapping[str, str] = field(default_factory=lambda: CONDITIONS)
    note: str = TOWN_NOTE

    @property
    def on_photos(self) -> bool:
        return self.conditions is PHOTO_CONDITIONS

    @property
    def decided(self) -> set[str]:
        """Flags of main.py that variants set."""
        words = (word for v in self.variants.values() for word in v.flags.split())
        return {word[2:].removeprefix("no-") for word in words if word.startswith("--")}

    def data(self, town: Path, photos: Photos | None) -> dict[str, str]:
        """Flags of main.py that name the data."""
        return photos.flags(town) if photos else town_flags(town)

    def labelled(self, town: Path, photos: Photos | None) -> Path:
        """Labelled images that no run trains on."""
        return photos.labelled_images if photos else town / "idda/town3/queries_rain/left_right"


PRESETS = {
    # seconds: only shows that the program works
    "smoke": Preset(
        (136, 128),
        5,
        {
            **SMALL,
            "target_size": "112 104",
            "cache_refresh_rate": "4",
            "queries_per_epoch": "8",
            "num_workers": "0",
            "precision": "fp32",
        },
    ),
    # the demo's settings (docs/protocol.md), but 600 steps
    "small": Preset(SIZE, 150, {**SMALL, "queries_per_epoch": "1200", "lr_triplets": "1200"}),
    # the protocol's own settings; an epoch takes each query about four times, because the town is smaller than IDDAv2
    "full": Preset(
        (768, 432), 600, {"arch": "resnet50", "pretrain": "imagenet", "num_workers": "8", "precision": "auto"}
    ),
    # from ImageNet weights, on pictures as small as two cores can train in minutes
    "photos": Preset((320, 180), 120, PHOTO_FLAGS, 1000, TRAINING_PASSES, PHOTO_VARIANTS, PHOTO_CONDITIONS, PHOTO_NOTE),
}
