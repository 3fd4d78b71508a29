"""Train a SegVPR on many drawn towns, a new one in every leg, into one file that ships.

    python3 -m benchmarks.train_town [--legs 24] [--out segvpr_town.pth] [flags of main.py ...]
    python3 -m benchmarks.train_town --recipe photos --pretrain imagenet|PATH [--out segvpr_photos.pth] [flags of main.py ...]

A leg is a run of main.py on a town of its own that starts from the weights of the leg before. All legs have one synthetic camera,
queries in rain, snow, sun and at night, and labels. Evaluation uses other towns, and another camera in them too. You may stop the
command at any moment; the same command continues. At the end it writes the weights in half precision, with history and command
beside them (`.json`), and evaluates them next to the untrained network.
"""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import eval as evaluation_script
from benchmarks.demo import SIZE, SMALL, run, words
from benchmarks.harness.jobs import Job, arguments_of, changed, devices, newest_run, own_flags, run_jobs
from benchmarks.harness.machine import machine
from benchmarks.study.variants import CONDITIONS, town_flags
from datasets.command_line import OneLineParser, number, positive, read_flags
from datasets.files import write_text
from datasets.town import DONE, make_town
from datasets.town.passes import MORE, STANDARD_PASSES
from datasets.town.world.difficulty import PRESETS, STANDARD
from models.segvpr import SegVPR
from utils.options.parsers import main_parser
from utils.runs.checkpoints import TRAINING_ONLY, content_of, load_checkpoint, save_checkpoint, write_atomically
from utils.runs.folders import LAST, weights_of_run
from utils.summarize import RESULTS
from utils.system.command import run_command
from utils.system.compute import resolve_compute
from utils.system.logs import LOGGER, start_logging
from utils.system.tables import align
from utils.training.optimizers import poly
from utils.training.settings import LossSettings

VALIDATION_SEED, FIRST_EVALUATION_SEED, FIRST_TRAINING_SEED = 90_000, 91_000, 1_000
"""Seeds of towns. Training counts up from its first seed and must stay below the others."""
TRAINED_IN = ("rain", *MORE)
"""Conditions of the training queries, which the synthetic camera takes."""
TRAINING_PASSES = tuple(f"town10/{name}" for name in ("gallery", *TRAINED_IN))
TRAINING_QUERIES = "+".join(f"town10/queries_{name}/front_rear" for name in TRAINED_IN)
FEWEST, MOST = 5, 80
"""Random negatives among which the nearest are taken: in the first leg, and at most. A trained network can use harder ones."""


@dataclass(frozen=True)
class Recipe:
    """How one of the networks that ship is trained.

    Attributes
    ----------
    flags : where its legs differ from the demo's run; docs/study.md gives the reasons.
    size, places, legs, evaluation_towns : defaults of the flags of these names.
    tested_places : most places of the towns on which the network is validated and evaluated.
    difficulties : presets of the training towns, in turn.
    kept : share of the encoder's first weights in the result (Wortsman et al., CVPR 2022, section 3); 0 keeps none.
    head_legs : further legs, of the head alone, which has to learn what the averaged encoder gives.
    largest_bytes : of the file.
    """

    flags: Mapping[str, str]
    size: tuple[int, int]
    places: int
    legs: int
    evaluation_towns: int
    difficulties: tuple[str, ...]
    kept: float
    head_legs: int
    tested_places: int
    largest_bytes: int


SHARED = {"da_method": "none", "train_q": TRAINING_QUERIES}
RECIPES = {
    "town": Recipe(
        SHARED | {"attention": "after_norm", "input": "imagenet", "lr": "0.001"},
        SIZE,
        places=150,
        legs=24,
        evaluation_towns=2,
        difficulties=(STANDARD,),
        kept=0.0,
        head_legs=0,
        tested_places=150,
        largest_bytes=25 * 2**20,
    ),
    "photos": Recipe(
        SHARED
        | {
            "arch": "resnet50",
            "semnet": "fcn",
            "attention": "none",
            "input": "balanced",
            "train_enc_from": "3",
            "freeze_bn": "",
            "loss": "pairs",
            "n_neg": "0",
            "mining": "random",
            "batch_size": "10",
            "optimizer": "adamw",
            "weight_decay": "0.01",
            "lr": "1e-6",
            "warmup_steps": "20",
            "queries_per_epoch": "960",
            "cache_refresh_rate": "960",
            "train_pos_dist_threshold": "12",
            "augment": "all",
            "augment_zoom": "0.6",
            "class_weights": "",
            "eval_scale": "0.5",
        },
        (480, 270),
        places=120,
        legs=6,
        evaluation_towns=1,
        difficulties=(STANDARD, "hard-1"),
        kept=0.5,
        head_legs=2,
        tested_places=40,
        largest_bytes=64 * 2**20,
    ),
}

DECIDED = "exp_name resume dataset_root dataset_root_val dataset_root_test DA_datasets seed lr_triplets".split()
"""Flags of main.py that this program sets."""


def build_parser(name: str = "town") -> OneLineParser:
    """Command line of `python3 -m benchmarks.train_town` for one recipe; flags that it does not know go to main.py."""
    recipe = RECIPES[name]
    parser = OneLineParser(
        "benchmarks.train_town",
        description=__doc__.splitlines()[0],
        epilog="Other flags go to main.py (--lr is the rate of the first leg).",
    )
    add = parser.add_argument
    legs = "towns to train on; the learning rate falls from leg to leg, so give the same number to continue"
    add("--recipe", choices=tuple(RECIPES), default=name, help="town: a small network; photos: one for real streets")
    add("--legs", type=positive, default=recipe.legs, metavar="N", help=legs)
    add("--places", type=positive, default=recipe.places, metavar="N", help="per town")
    add("--size", type=positive, nargs=2, default=recipe.size, metavar=("W", "H"), help="of the pictures")
    add("--evaluation_towns", type=positive, default=recipe.evaluation_towns, metavar="N", help="unseen towns")
    add("--name", default=f"train_{name}", help="runs go to runs/NAME")
    add("--data", type=Path, default=Path(f"data/train_{name}"), metavar="DIR", help="folder of the towns")
    add("--pretrain", default="none", metavar="imagenet|none|PATH", help="encoder weights of the first leg")
    seed = number(int, {"least": 0})
    add("--seed", type=seed, default=0, metavar="N", help="of weights and of training")
    add("--out", type=Path, metavar="FILE", help=f"the result (default: segvpr_{name}.pth in the folder of the runs)")
    return parser


def parse(command: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, with the defaults of the recipe that is named, and what is left for main.py."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", choices=tuple(RECIPES), default="town")
    return build_parser(first.parse_known_args(command)[0].recipe).parse_known_args(command)


def shared_flags(args: argparse.Namespace, extra: Sequence[str], leg: int = 0) -> dict[str, str]:
    """Flags of a leg except rate and town; those of the command line replace ours."""
    own = own_flags(extra, "benchmarks.train_town", DECIDED)
    ours = {"target_size": " ".join(map(str, args.size)), "pretrain": args.pretrain}
    flags = {**SMALL, **RECIPES[args.recipe].flags, "neg_samples": str(min(MOST, FEWEST * 4**leg)), **ours, **own}
    return {**flags, "precision": resolve_compute(own.get("device", "auto"), flags["precision"]).precision}


def leg_job(args: argparse.Namespace, extra: Sequence[str], leg: int, weights: Path | None) -> Job:
    """The run of one leg. One curve of the learning rate runs through all legs and reaches zero at the end of the last, and
    another through the legs of the head.
    """
    flags = shared_flags(args, extra, leg)
    parsed = main_parser().parse_args(words(flags))
    done, legs = leg, args.legs
    if leg >= args.legs:
        flags["train_enc_from"] = "none"
        done, legs = leg - args.legs, RECIPES[args.recipe].head_legs
    flags["lr"] = repr(poly(parsed.lr, done, legs))
    flags["lr_triplets"] = str(max(1, parsed.n_epochs * parsed.queries_per_epoch * (legs - done)))
    town, validation = town_folder(args, FIRST_TRAINING_SEED + leg), town_folder(args, VALIDATION_SEED)
    flags |= {"dataset_root": f"{town}/idda", "dataset_root_val": f"{validation}/idda"}
    if read_flags(LossSettings, parsed).uses_target:
        flags["DA_datasets"] = f"{town}/robotcar_all"
    flags |= {"seed": str(args.seed + leg), "no_report": ""}
    return Job(f"{args.name}/leg_{leg:03d}", tuple(words(flags)), weights)


def town_folder(args: argparse.Namespace, seed: int) -> Path:
    return args.data / f"town_{seed}"


def draw(
    args: argparse.Namespace, seed: int, passes: Sequence[str] = tuple(STANDARD_PASSES), places: int | None = None
) -> Path:
    presets = RECIPES[args.recipe].difficulties
    knobs = PRESETS[presets[seed % len(presets)]]
    return make_town(town_folder(args, seed), tuple(args.size), places or args.places, seed, knobs=knobs, passes=passes)


def draw_training(args: argparse.Namespace, leg: int, job: Job) -> None:
    """Draw the town of a leg: only pictures that its run trains on."""
    passes = [*TRAINING_PASSES]
    if "--DA_datasets" in job.flags:
        passes += [name for name, one in STANDARD_PASSES.items() if one.town == "robotcar"]
    draw(args, FIRST_TRAINING_SEED + leg, passes)


def draw_validation(args: argparse.Namespace) -> Path:
    passes = [f"{town}/{name}" for town in ("town10", "town3") for name in ("gallery", "rain")]
    return draw(args, VALIDATION_SEED, passes, min(args.places, RECIPES[args.recipe].tested_places))


MIXED = "mixed.pth"
"""The average of the first and the last weights, with which the legs of the head start."""


def weights_of(folder: Path, leg: int) -> Path:
    return folder / f"leg_{leg:03d}.pth"


def record_of(folder: Path, leg: int) -> Path:
    return folder / f"leg_{leg:03d}.json"


def train_leg(args: argparse.Namespace, extra: Sequence[str], leg: int) -> dict:
    """Train one leg unless it is on record; returns the record: flags and history.

    The town of a finished leg is deleted, and its weights once the next leg is finished.
    """
    folder = Path("runs", args.name)
    before = folder / MIXED if leg == args.legs else weights_of(folder, leg - 1) if leg else None
    job = leg_job(args, extra, leg, before)
    if record_of(folder, leg).is_file():
        record = json.loads(record_of(folder, leg).read_text())
        odd = changed(arguments_of(record["flags"]), arguments_of(job.flags))
        if odd:
            raise ValueError(
                f"{record_of(folder, leg)}: this leg was trained with other arguments ({'; '.join(odd)}); give those, or "
                "another --name"
            )
        clean_up(args, leg)
        return record
    draw_training(args, leg, job)
    draw_validation(args)
    run_jobs([job], devices(main_parser().parse_args(list(extra)).device)[:1])
    finished = newest_run(job)
    checkpoint = load_checkpoint(weights_of_run(finished))
    history = checkpoint.training["run"]["history"]
    save_checkpoint(weights_of(folder, leg), checkpoint.build(), {})
    record = {"leg": leg, "town_seed": FIRST_TRAINING_SEED + leg, "flags": list(job.flags), "history": history}
    write_text(record_of(folder, leg), json.dumps(record, indent=1) + "\n")
    clean_up(args, leg)
    return record


def clean_up(args: argparse.Namespace, leg: int) -> None:
    """Free the disk space that a leg on record no longer needs."""
    folder, town = Path("runs", args.name), town_folder(args, FIRST_TRAINING_SEED + leg)
    for path in (folder / f"leg_{leg:03d}").glob("*/*.pth"):
        path.unlink()
    if leg:
        weights_of(folder, leg - 1).unlink(missing_ok=True)
    if (town / DONE).is_file():
        shutil.rmtree(town)


def mixed(start: Path, last: Path, kept: float) -> SegVPR:
    """The last network, its encoder's weights averaged with those that it started from; `kept` is their share."""
    model, encoder = load_checkpoint(last).build(), load_checkpoint(start).build().encoder
    with torch.no_grad():
        for own, first in zip(model.encoder.parameters(), encoder.parameters(), strict=True):
            own.lerp_(first, kept)
    return model


def untrained_weights(args: argparse.Namespace, extra: Sequence[str]) -> Path:
    """The network with which the first leg starts."""
    town = draw_validation(args)
    job = leg_job(args, extra, 0, None)
    flags = {"dataset_root": f"{town}/idda", "train_q": "town10/queries_rain/front_rear"}
    job = Job(f"{args.name}/untrained", (*job.flags, *words({**flags, "da_method": "none", "n_epochs": "0"})))
    run_jobs([job], devices(main_parser().parse_args(list(extra)).device)[:1])
    return newest_run(job) / LAST


def evaluate(
    args: argparse.Namespace, checkpoints: dict[str, Path], extra: Sequence[str]
) -> dict[str, dict[str, dict]]:
    """`results.json` of each checkpoint on each unseen town, by checkpoint and town; results on disk are kept."""
    own = main_parser().parse_args(list(extra))
    found: dict[str, dict[str, dict]] = {name: {} for name in checkpoints}
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + args.evaluation_towns):
        data = town_flags(draw(args, seed, places=min(args.places, RECIPES[args.recipe].tested_places)))
        for name, path in checkpoints.items():
            folder = Path("runs", args.name, "evaluation", f"{name}_town_{seed}")
            if not (folder / RESULTS).is_file():
                flags = {key: data[key] for key in ("dataset_root_val", "dataset_root_test", "test_g", "test_q")}
                machine_flags = {"device": own.device, "num_workers": str(own.num_workers), "no_report": ""}
                flags |= {"resume": str(path), "eval_scale": "1", "output_dir": str(folder), **machine_flags}
                run(evaluation_script, flags)
            found[name][f"town_{seed}"] = json.loads((folder / RESULTS).read_text())
    return found


def evaluation_table(found: dict[str, dict[str, dict]]) -> str:
    """Recall@1 in percent by condition: the mean over towns of each checkpoint, and each town of the last."""
    rows = [["recall@1 in percent", *found, "per town (last)"]]
    for name, title in CONDITIONS.items():
        values = {
            checkpoint: [
                100 * s["recall"]["1"] for content in towns.values() for s in content["sets"] if s["name"] == name
            ]
            for checkpoint, towns in found.items()
        }
        each = " ".join(f"{value:.1f}" for value in list(values.values())[-1])
        rows.append([title, *(f"{sum(v) / len(v):.1f}" for v in values.values()), each])
    return "\n".join(align(rows))


def train(args: argparse.Namespace, extra: Sequence[str], command: Sequence[str]) -> None:
    """Train all legs, write the file that ships, and evaluate it."""
    start_logging()
    recipe, folder = RECIPES[args.recipe], Path("runs", args.name)
    most = VALIDATION_SEED - FIRST_TRAINING_SEED - recipe.head_legs
    if args.legs > most:
        raise ValueError(f"--legs {args.legs}: more than there are training towns; give at most {most}")
    if recipe.head_legs and main_parser().parse_args(list(extra)).sem_loss_weight == 0:
        raise ValueError(f"--sem_loss_weight 0: the last {recipe.head_legs} legs train the head alone; leave it out")
    folder.mkdir(parents=True, exist_ok=True)
    out = args.out or folder / f"segvpr_{args.recipe}.pth"
    out.parent.mkdir(parents=True, exist_ok=True)
    before = untrained_weights(args, extra)
    legs, count = [], args.legs + recipe.head_legs
    for leg in range(count):
        if leg == args.legs and not record_of(folder, leg).is_file():
            save_checkpoint(folder / MIXED, mixed(before, weights_of(folder, leg - 1), recipe.kept), {})
        legs.append(train_leg(args, extra, leg))
        LOGGER.info("leg %d of %d: %s", leg + 1, count, summary(legs[-1]["history"]))
    last = weights_of(folder, count - 1)
    model = load_checkpoint(last).build() if recipe.head_legs else mixed(before, last, recipe.kept)
    write_atomically(out, content_of(model.config, half_precision(model.state_dict()), {}, max(args.size)))
    size = out.stat().st_size
    found = evaluate(args, {"untrained": before, f"after_{count}_legs": out}, extra)
    start_logging()  # again: eval.py has closed the log
    record = {"command": shlex.join(["python3", "-m", "benchmarks.train_town", *command]), "machine": machine()}
    record |= {"bytes": size, "legs": legs, "evaluation": found}
    write_text(out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    LOGGER.info("%s: %.1f MiB, history beside it\n%s", out, size / 2**20, evaluation_table(found))
    if size > recipe.largest_bytes:
        raise ValueError(
            f"{out}: {size} bytes; a file that ships has at most {recipe.largest_bytes}, so train a smaller --arch"
        )


def half_precision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels as float16, without the discriminator, which only training asks.

    Vectors stay as they are: they weigh nothing, and running variances can leave the range of float16.

    Raises
    ------
    ValueError : a kernel does; it is named.
    """
    kept = {name: value for name, value in state_dict.items() if not name.startswith(TRAINING_ONLY)}
    half = {name: value.half() if value.ndim > 1 else value for name, value in kept.items()}
    odd = next((name for name, value in half.items() if not torch.isfinite(value).all()), None)
    if odd is not None:
        raise ValueError(f"{odd} has values that float16 cannot hold, or that are not finite; keep full precision")
    return half


def summary(history: Sequence[dict]) -> str:
    """A leg's last figures in one line."""
    row = history[-1] if history else {}
    shown = {"val_recall@1": "validation recall@1 %.1f", "miou": "mIoU %.1f"}
    return ", ".join(text % row[key] for key, text in shown.items() if key in row) or "no figures"


def main(argv: Sequence[str] | None = None) -> int:
    command = list(sys.argv[1:] if argv is None else argv)
    args, extra = parse(command)
    return run_command("benchmarks.train_town", lambda: train(args, extra, command))


if __name__ == "__main__":
    sys.exit(main())
