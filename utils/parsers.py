"""The command lines of main.py and eval.py: flags, defaults and units."""

import argparse
from pathlib import Path
from typing import IO

from datasets.mining import DESCRIPTOR_DTYPES, MINING_MODES
from datasets.naming import KINDS
from models import ARCHITECTURES, ATTENTIONS, HEADS, INPUTS, OPTIONS
from utils.compute import PRECISIONS
from utils.distributed import launched
from utils.embedding import DECODERS
from utils.fit import FitSettings
from utils.index_settings import FLAT, SUPPORTED, RetrievalSettings
from utils.screening import ON_BAD_IMAGE
from utils.training import DA_METHODS, GRL_SCHEDULES, TOTAL_TRIPLETS, LossSettings


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, save those that are None or absent."""

    def _get_help_string(self, action: argparse.Action) -> str:
        hidden = action.default is None or action.default is False or action.default == argparse.SUPPRESS
        if hidden or "default" in (action.help or ""):
            return action.help or ""
        if isinstance(action.default, list):  # as it is typed, not as Python shows it
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Speaks once, however many processes torchrun launched."""

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:
        if launched()[0] == 0:
            super()._print_message(message, file)


def _parser(description: str) -> argparse.ArgumentParser:
    return _Parser(description=description, formatter_class=_Formatter, allow_abbrev=False)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return value


def _metres(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a distance above 0 m")
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return value


def _scale(text: str) -> float:
    value = float(text)
    if not 0 < value <= 4:
        raise argparse.ArgumentTypeError(f"{text} is not a factor above 0 and at most 4")
    return value


def _add_evaluation_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "evaluation data", "Folders; '+' separates paired lists of galleries and queries."
    )
    group.add_argument("--dataset_root_val", type=Path, metavar="DIR", help="root of the validation set")
    group.add_argument(
        "--val_g", default="town3/gallery/left_right", metavar="DIR", help="validation gallery, below the root"
    )
    group.add_argument(
        "--val_q", default="town3/queries_rain/left_right", metavar="DIR", help="validation queries, below the root"
    )
    group.add_argument("--dataset_root_test", type=Path, metavar="DIR", help="root of the test sets")
    group.add_argument(
        "--test_g",
        default="overcast+overcast+overcast+overcast",
        metavar="DIRS",
        help="test galleries, one per query set or one for all",
    )
    group.add_argument("--test_q", default="rain+snow+sun+night", metavar="DIRS", help="test query sets")
    group.add_argument(
        "--kind_val",
        choices=["auto", *KINDS],
        default="auto",
        help="layout of the validation set; auto looks at its folders",
    )
    group.add_argument(
        "--kind_test",
        choices=["auto", *KINDS],
        default="auto",
        help="layout of the test sets; auto looks at their folders",
    )
    group.add_argument(
        "--eval_scale",
        type=_scale,
        metavar="F",
        help="factor on image sides for evaluation and mining (default: 0.5 for iddav2, 1 for utm)",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine and output")
    group.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="where to compute")
    group.add_argument(
        "--precision",
        default="fp32",
        choices=PRECISIONS,
        help="numbers of the convolutions; auto is bf16 where the hardware is fast at it, else fp32",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the network first (torch.compile): minutes at the start, then faster",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="on a GPU: no TF32 and, where PyTorch has them, kernels that repeat to the bit; slower (a CPU always repeats)",
    )
    group.add_argument(
        "--num_workers", type=_count, default=3, metavar="N", help="processes that read images; 0 reads in the main one"
    )
    group.add_argument(
        "--decode",
        default="cpu",
        choices=DECODERS,
        help="where JPEGs are decoded for embedding and mining; gpu needs CUDA and may differ from cpu by a few grey levels. "
        "Other files, training triplets and labels are always decoded on the CPU",
    )
    group.add_argument("--cache_batch_size", type=_positive, default=24, metavar="N", help="images per embedding batch")
    group.add_argument(
        "--on_bad_image",
        default="error",
        choices=ON_BAD_IMAGE,
        help="images that cannot be used end the run, or are left out",
    )
    group.add_argument("--seed", type=_count, default=0, metavar="N", help="of every random choice")
    group.add_argument("--no_report", action="store_true", help="do not write report.html and figures/")
    group.add_argument("--exp_name", default="default", metavar="NAME", help="results go to runs/NAME/<timestamp>/")


def main_parser() -> argparse.ArgumentParser:
    """Command line of main.py."""
    parser = _parser("Train SegVPR. With no data set flag it trains on the town that ships with the project.")
    released = LossSettings()
    fit = FitSettings()
    group = parser.add_argument_group("network")
    group.add_argument("--arch", default="resnet50", choices=ARCHITECTURES, help="encoder")
    group.add_argument("--semnet", default="deeplab", choices=HEADS, help="semantic head")
    group.add_argument("--num_classes", type=_positive, default=17, metavar="N", help="semantic classes")
    group.add_argument(
        "--scale_indexes",
        type=int,
        nargs="*",
        default=[3, 4],
        metavar="STAGE",
        help="encoder stages to pool, ascending",
    )
    group.add_argument(
        "--pretrain",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="encoder weights: downloaded, random, or a .pth state_dict",
    )
    group.add_argument(
        "--train_enc_from",
        default="all",
        choices=["all", "1", "2", "3", "4"],
        help="first encoder stage that is trained",
    )

    group.add_argument(
        "--attention",
        default=OPTIONS["attention"],
        choices=ATTENTIONS,
        help="where the map acts: before the norm, which cancels it, as released; after the norm, on what GeM averages; or no map",
    )
    group.add_argument(
        "--guidance",
        action=argparse.BooleanOptionalAction,
        default=OPTIONS["guidance"],
        help="the map multiplies the source logits (guided segmentation)",
    )
    group.add_argument(
        "--input",
        default=OPTIONS["input"],
        choices=INPUTS,
        help="what the network is fed: BGR 0..255 less small means as released, or RGB with ImageNet's mean and deviation",
    )

    group = parser.add_argument_group("training data")
    group.add_argument("--dataset_root", type=Path, metavar="DIR", help="root of the training set")
    group.add_argument(
        "--train_g", default="town10/gallery/front_rear", metavar="DIR", help="training gallery, below the root"
    )
    group.add_argument(
        "--train_q", default="town10/queries_rain/front_rear", metavar="DIR", help="training queries, below the root"
    )
    group.add_argument(
        "--kind", choices=["auto", *KINDS], default="auto", help="layout of the training set; auto looks at its folders"
    )
    group.add_argument("--DA_datasets", metavar="DIR", help="folder of target-domain images, no positions needed")
    group.add_argument(
        "--target_size",
        type=_positive,
        nargs=2,
        default=list(fit.target_size),
        metavar=("W", "H"),
        help="of target-domain images, in pixels",
    )
    group.add_argument(
        "--train_pos_dist_threshold",
        type=_metres,
        metavar="M",
        help="same place in training within M metres (default: 3 for iddav2, 10 for utm)",
    )
    _add_evaluation_data(parser)
    parser.add_argument_group("evaluation").add_argument(
        "--val_pos_dist_threshold",
        type=_metres,
        metavar="M",
        help="same place in validation within M metres (default: 5 for iddav2, 25 for utm)",
    )

    group = parser.add_argument_group("protocol")
    group.add_argument("--batch_size", type=_positive, default=fit.batch_size, metavar="N", help="triplets per step")
    group.add_argument("--n_neg", type=_positive, default=fit.n_neg, metavar="N", help="negatives per triplet")
    group.add_argument(
        "--neg_samples",
        type=_positive,
        default=fit.neg_samples,
        metavar="N",
        help="random negatives among which the nearest are taken",
    )
    group.add_argument(
        "--mining",
        default=fit.mining,
        choices=MINING_MODES,
        help="what is embedded for it: the gallery, a part (positives and --cache_negatives images), or nothing",
    )
    group.add_argument(
        "--cache_negatives",
        type=_positive,
        default=fit.cache_negatives,
        metavar="N",
        help="random gallery images that partial mining embeds and draws negatives from",
    )
    group.add_argument(
        "--descriptor_dtype",
        default=fit.descriptor_dtype,
        choices=DESCRIPTOR_DTYPES,
        help="numbers that descriptors are kept in for mining",
    )
    group.add_argument(
        "--cache_refresh_rate",
        type=_positive,
        default=fit.cache_refresh_rate,
        metavar="N",
        help="queries between two minings",
    )
    group.add_argument(
        "--queries_per_epoch",
        type=_positive,
        default=fit.queries_per_epoch,
        metavar="N",
        help="queries per epoch, a multiple of --cache_refresh_rate",
    )
    group.add_argument(
        "--n_epochs",
        type=_count,
        default=fit.n_epochs,
        metavar="N",
        help="epochs; 0 saves and evaluates the network as it starts",
    )
    group.add_argument(
        "--patience",
        type=_count,
        default=fit.patience,
        metavar="N",
        help="epochs in a row without a better validation recall@1 that are borne",
    )
    group.add_argument(
        "--lr",
        type=_amount,
        default=2.5e-4,
        metavar="F",
        help="rate of encoder and attention per triplet, doubled; the head takes ten times it",
    )
    group.add_argument(
        "--lr_triplets",
        type=_positive,
        default=TOTAL_TRIPLETS,
        metavar="N",
        help="triplets after which all rates reach zero; for a short run give --n_epochs times --queries_per_epoch",
    )
    group.add_argument(
        "--d_lr", type=_amount, default=1e-4, metavar="F", help="rate of the discriminator per triplet, doubled"
    )
    group.add_argument("--momentum", type=_amount, default=0.9, metavar="F", help="of SGD")
    group.add_argument("--weight_decay", type=_amount, default=0.005, metavar="F", help="of SGD")
    group.add_argument(
        "--margin",
        type=_amount,
        default=released.margin,
        metavar="F",
        help="its square root is the margin of the triplet loss",
    )
    group.add_argument(
        "--sem_loss_weight",
        type=_amount,
        default=released.sem_weight,
        metavar="F",
        help="weight of the semantic loss; 0 trains without labels, head and domain adaptation",
    )
    group.add_argument(
        "--adv_loss_weight",
        type=_amount,
        default=released.adv_weight,
        metavar="F",
        help="weight of the adversarial gradient, times --sem_loss_weight",
    )
    group.add_argument(
        "--da_loss_weight",
        type=_amount,
        default=released.da_weight,
        metavar="F",
        help="weight of the discriminator's own loss",
    )
    group.add_argument(
        "--da_method",
        default=released.da_method,
        choices=DA_METHODS,
        help="domain adaptation: gradient reversal, alternating as released, or none",
    )
    group.add_argument(
        "--grl_schedule",
        default=released.grl_schedule,
        choices=GRL_SCHEDULES,
        help="of the reversed gradient: constant, or growing from 0 over the planned epochs (DANN)",
    )
    _add_machine(parser)
    parser.add_argument_group("several GPUs").add_argument(
        "--sync_bn", action="store_true", help="batch norm over the images of all processes, on GPUs under torchrun"
    )
    group = parser.add_argument_group("saving and resuming")
    group.add_argument(
        "--save_every_min",
        type=_amount,
        default=0.0,
        metavar="MIN",
        help="minutes at least between two saves at mining refreshes; 0 saves at each",
    )
    group.add_argument(
        "--resume",
        metavar="CKPT",
        help="a run (folder or last.pth) to go on with, auto for the newest of --exp_name, or a released file to start from",
    )
    return parser


def eval_parser() -> argparse.ArgumentParser:
    """Command line of eval.py."""
    parser = _parser("Evaluate a SegVPR checkpoint, ours or a released one. With no data set flag it uses the town.")
    parser.add_argument("--resume", type=Path, required=True, metavar="CKPT", help="the checkpoint to evaluate")
    _add_evaluation_data(parser)
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--threshold_m",
        type=_metres,
        nargs="+",
        metavar="M",
        help="same place within M metres, for all sets; several are scored at once (default: 5 for iddav2, 25 for utm)",
    )
    group.add_argument(
        "--scale_indexes",
        type=int,
        nargs="+",
        metavar="STAGE",
        help="pooled stages of a released checkpoint, which does not say (default: 3 4)",
    )
    group.add_argument("--save_descriptors", action="store_true", help="write descriptors/<set>.npz")
    group = parser.add_argument_group("retrieval", "For evaluation and own photos; docs/scaling.md helps to choose.")
    group.add_argument(
        "--index",
        default=FLAT,
        metavar="FACTORY",
        help=f"faiss index of the gallery: {SUPPORTED}; Flat searches exactly",
    )
    group.add_argument(
        "--nprobe",
        type=_positive,
        metavar="N",
        help="lists of an IVF index that a query looks into (default: one in 64, at least 8)",
    )
    group.add_argument(
        "--pca_dim", type=_positive, metavar="N", help="shorten descriptors to N numbers by PCA, fitted to the gallery"
    )
    group.add_argument("--pca_whiten", action="store_true", help="scale the PCA's components to variance 1")
    group.add_argument(
        "--descriptor_dtype",
        default=RetrievalSettings.dtype,
        choices=DESCRIPTOR_DTYPES,
        help="numbers that descriptors are kept in",
    )
    group.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="keep descriptors and indexes here, and use those that are (default: beside CKPT for own photos and for an "
        "index other than Flat, else in memory)",
    )
    group = parser.add_argument_group(
        "own photos", "Instead of evaluating: where were these photos taken? Only the gallery needs positions."
    )
    group.add_argument("--localize", type=Path, metavar="PHOTO", help="a photo, or a folder of photos, to look up")
    group.add_argument("--gallery", type=Path, metavar="DIR", help="folder of images to look them up in")
    group.add_argument(
        "--positions",
        type=Path,
        metavar="CSV",
        help="the gallery's positions, path,latitude,longitude or path,easting,northing (default: from names or EXIF)",
    )
    group.add_argument(
        "--zone",
        metavar="ZONE",
        help="UTM zone of the gallery's positions, as 30N or 30S (hemisphere; default: that of most of its latitudes and "
        "longitudes)",
    )
    group.add_argument(
        "--allow_missing_rows", action="store_true", help="the CSV file may list images that are not in the gallery"
    )
    group.add_argument("--top", type=_positive, default=5, metavar="N", help="matches per photo")
    group.add_argument("--json", action="store_true", help="print JSON and nothing else")
    _add_machine(parser)
    parser.add_argument_group("output").add_argument(
        "--output_dir", type=Path, metavar="DIR", help="results go here instead"
    )
    return parser
