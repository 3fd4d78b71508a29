"""The study's variants as flags of main.py, and their runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo import words
from benchmarks.harness.jobs import Job
from utils.options.parsers import main_parser


@dataclass(frozen=True)
class Variant:
    """One row of the study.

    Attributes
    ----------
    flags : of main.py; all others are as released.
    against : variants to compare it with, seed by seed. It differs from the first by the one thing that `title` names.
    drawn : whether its runs depend on the seed; if not, one run stands for all.
    """

    name: str
    title: str
    flags: str
    against: tuple[str, ...] = ()
    drawn: bool = True

    def parsed(self) -> dict:
        """The flags as main.py understands them."""
        return vars(main_parser().parse_args(self.flags.split()))


VARIANTS = {
    v.name: v
    for v in (
        Variant(
            "place",
            "place recognition only",
            "--sem_loss_weight 0 --attention none --no-guidance --scale_indexes 4 --da_method none",
        ),
        Variant(
            "segmentation",
            "+ segmentation",
            "--attention none --no-guidance --scale_indexes 4 --da_method none",
            ("place",),
        ),
        Variant(
            "attention_released",
            "+ attention as released",
            "--attention released --no-guidance --scale_indexes 4 --da_method none",
            ("segmentation",),
        ),
        Variant(
            "attention_after_norm",
            "+ attention after the norm",
            "--attention after_norm --no-guidance --scale_indexes 4 --da_method none",
            ("attention_released", "segmentation"),
        ),
        Variant(
            "guidance",
            "+ guidance",
            "--attention after_norm --guidance --scale_indexes 4 --da_method none",
            ("attention_after_norm",),
        ),
        Variant(
            "multi_scale",
            "+ multi-scale pooling",
            "--attention after_norm --guidance --scale_indexes 3 4 --da_method none",
            ("guidance",),
        ),
        Variant(
            "grl",
            "+ gradient reversal",
            "--attention after_norm --guidance --scale_indexes 3 4 --da_method grl",
            ("multi_scale", "place"),
        ),
        Variant(
            "alternating",
            "+ alternating, for reversal",
            "--attention after_norm --guidance --scale_indexes 3 4 --da_method alternating",
            ("grl", "multi_scale"),
        ),
        Variant(
            "imagenet_input",
            "+ ImageNet input, with reversal",
            "--attention after_norm --guidance --scale_indexes 3 4 --da_method grl --input imagenet",
            ("grl",),
        ),
    )
}
"""In the order of the paper; each builds on the first one in its `against`."""


FRESH = "idda/town10/queries_rain_fresh/front_rear"
CONDITIONS = {
    FRESH: "fresh rain",
    "val": "town3 rain",
    "robotcar/rain": "rain",
    "robotcar/snow": "snow",
    "robotcar/sun": "sun",
    "robotcar/night": "night",
}
"""Names of the evaluated sets, in `results.json` and in tables. The first is a new pass of the training town."""


def town_flags(town: Path) -> dict[str, str]:
    """Training on town10, evaluation of everything else in one go."""
    test = [name for name in CONDITIONS if name != "val"]
    galleries = {name: "robotcar/overcast" for name in test} | {FRESH: "idda/town10/gallery/front_rear"}
    return {
        "dataset_root": f"{town}/idda",
        "dataset_root_val": f"{town}/idda",
        "dataset_root_test": f"{town}",
        "DA_datasets": f"{town}/robotcar_all",
        "test_g": "+".join(galleries[name] for name in test),
        "test_q": "+".join(test),
    }


def untrained(variant: Variant) -> Variant:
    """The network that a variant starts from. Variants that differ only in their losses share it."""
    parsed = variant.parsed()
    stages = parsed["scale_indexes"]
    name = f"untrained_{parsed['attention']}_{''.join(map(str, stages))}_{parsed['input']}"
    flags = (
        f"--attention {parsed['attention']} --scale_indexes {' '.join(map(str, stages))} --input {parsed['input']} "
        "--no-guidance --sem_loss_weight 0 --da_method none --n_epochs 0"
    )
    title = f"untrained, attention {parsed['attention']}, stages {'+'.join(map(str, stages))}, {parsed['input']} input"
    return Variant(name, title, flags)


def with_untrained(variants: Sequence[Variant]) -> list[Variant]:
    """What the variants start from, each once, then the variants."""
    starts = {start.name: start for start in map(untrained, variants)}
    return [*starts.values(), *variants]


def job(name: str, shared: dict[str, str], variant: Variant, seed: int) -> Job:
    """One run, below `runs/<name>`, with the flags of all (`shared`) and the variant's own."""
    seed = seed if variant.drawn else 0
    flags = words({**shared, "seed": str(seed), "no_report": ""})
    return Job(f"{name}/{variant.name}/seed{seed}", (*flags, *variant.flags.split()), same_data=True)
