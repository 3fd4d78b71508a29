"""Which folders are read, as flags."""

from dataclasses import dataclass
from pathlib import Path

from datasets.command_line import flag
from datasets.naming import KINDS

_KINDS = ("auto", *KINDS)


@dataclass(frozen=True)
class TrainingFolders:
    """The training set and the target domain."""

    dataset_root: Path | None = flag(None, "root of the training set", may_change=True)
    train_g: str = flag("town10/gallery/front_rear", "training gallery, below the root", metavar="DIR")
    train_q: str = flag("town10/queries_rain/front_rear", "training queries, below the root", metavar="DIR")
    kind: str = flag("auto", "layout of the training set; auto looks at its folders", choices=_KINDS)
    DA_datasets: str | None = flag(
        None, "folder of target-domain images, no positions needed", metavar="DIR", may_change=True
    )
    train_pos_dist_threshold: float | None = flag(
        None, "same place in training within M metres (default: 3 for iddav2, 10 for utm)", above=0, metavar="M"
    )


@dataclass(frozen=True)
class EvaluationFolders:
    """The validation set and the test sets."""

    dataset_root_val: Path | None = flag(None, "root of the validation set", may_change=True)
    val_g: str = flag("town3/gallery/left_right", "validation gallery, below the root", metavar="DIR")
    val_q: str = flag("town3/queries_rain/left_right", "validation queries, below the root", metavar="DIR")
    dataset_root_test: Path | None = flag(None, "root of the test sets", may_change=True)
    test_g: str = flag(
        "overcast+overcast+overcast+overcast", "test galleries, one per query set or one for all", metavar="DIRS"
    )
    test_q: str = flag("rain+snow+sun+night", "test query sets", metavar="DIRS")
    kind_val: str = flag("auto", "layout of the validation set; auto looks at its folders", choices=_KINDS)
    kind_test: str = flag("auto", "layout of the test sets; auto looks at their folders", choices=_KINDS)
    eval_scale: float | None = flag(
        None,
        "factor on image sides for evaluation and mining (default: 0.5 for iddav2, 1 for utm)",
        above=0,
        most=4,
    )
