"""Train a small SegVPR on many drawn towns, a new one in every leg, into one file that ships.

    python3 -m benchmarks.train_town [--legs 24] [--pretrain PATH] [--out segvpr_town.pth] [flags of main.py ...]

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

LARGEST_BYTES = 25 * 2**20
VALIDATION_SEED, FIRST_EVALUATION_SEED, FIRST_TRAINING_SEED = 90_000, 91_000, 1_000
"""Seeds of towns. Training counts up from its first seed and must stay below the others."""
TRAINED_IN = ("rain", *MORE)
"""Conditions of the training queries, which the synthetic camera takes."""
NETWORK = {
    "attention": "after_norm",
    "input": "imagenet",
    "da_method": "none",
    "train_q": "+".join(f"town10/queries_{name}/front_rear" for name in TRAINED_IN),
    "lr": "0.001",
}
"""Where it differs from the demo's network; docs/study.md gives the reasons."""
FEWEST, MOST = 5, 80
"""Random negatives among which the nearest are taken: in the first leg, and at most. A trained network can use harder ones."""

DECIDED = "exp_name resume dataset_root dataset_root_val dataset_root_test DA_datasets seed lr_triplets".split()
"""Flags of main.py that this program sets."""


def build_parser() -> OneLineParser:
    """Command line of `python3 -m benchmarks.train_town`; flags that it does not know go to main.py."""
    parser = OneLineParser(
        "benchmarks.train_town",
        description=__doc__.splitlines()[0],
        epilog="Other flags go to main.py (--lr is the rate of the first leg).",
    )
    add = parser.add_argument
    legs = "towns to train on; the learning rate falls from leg to leg, so give the same number to continue"
    add("--legs", type=positive, default=24, metavar="N", help=legs)
    add("--places", type=positive, default=150, metavar="N", help="per town")
    add("--size", type=positive, nargs=2, default=SIZE, metavar=("W", "H"), help="of the pictures")
    add("--evaluation_towns", type=positive, default=2, metavar="N", help="unseen towns")
    add("--name", default="train_town", help="runs go to runs/NAME")
    add("--data", type=Path, default=Path("data/train_town"), metavar="DIR", help="folder of the towns")
    add("--pretrain", default="none", metavar="imagenet|none|PATH", help="encoder weights of the first leg")
    seed = number(int, {"least": 0})
    add("--seed", type=seed, default=0, metavar="N", help="of weights and of training")
    add("--out", type=Path, metavar="FILE", help="the result (default: segvpr_town.pth in the folder of the runs)")
    return parser


def shared_flags(args: argparse.Namespace, extra: Sequence[str], leg: int = 0) -> dict[str, str]:
    """Flags of a leg except rate and town; those of the command line replace ours."""
    own = own_flags(extra, "benchmarks.train_town", DECIDED)
    ours = {"target_size": " ".join(map(str, args.size)), "pretrain": args.pretrain}
    flags = {**SMALL, **NETWORK, "neg_samples": str(min(MOST, FEWEST * 4**leg)), **ours, **own}
    return {**flags, "precision": resolve_compute(own.get("device", "auto"), flags["precision"]).precision}


def leg_job(args: argparse.Namespace, extra: Sequence[str], leg: int, weights: Path | None) -> Job:
    """The run of one leg. One curve of the learning rate runs through all legs and reaches zero at the end of the last."""
    flags = shared_flags(args, extra, leg)
    parsed = main_parser().parse_args(words(flags))
    flags["lr"] = repr(poly(parsed.lr, leg, args.legs))
    flags["lr_triplets"] = str(max(1, parsed.n_epochs * parsed.queries_per_epoch * (args.legs - leg)))
    town, validation = town_folder(args, FIRST_TRAINING_SEED + leg), town_folder(args, VALIDATION_SEED)
    flags |= {"dataset_root": f"{town}/idda", "dataset_root_val": f"{validation}/idda"}
    if read_flags(LossSettings, parsed).uses_target:
        flags["DA_datasets"] = f"{town}/robotcar_all"
    flags |= {"seed": str(args.seed + leg), "no_report": ""}
    return Job(f"{args.name}/leg_{leg:03d}", tuple(words(flags)), weights)


def town_folder(args: argparse.Namespace, seed: int) -> Path:
    return args.data / f"town_{seed}"


def draw(args: argparse.Namespace, seed: int, passes: Sequence[str] = tuple(STANDARD_PASSES)) -> Path:
    return make_town(town_folder(args, seed), tuple(args.size), args.places, seed, passes=passes)


def draw_training(args: argparse.Namespace, leg: int, job: Job) -> None:
    """Draw the town of a leg: only pictures that its run trains on."""
    passes = [f"town10/{name}" for name in ("gallery", *TRAINED_IN)]
    if "--DA_datasets" in job.flags:
        passes += [name for name, one in STANDARD_PASSES.items() if one.town == "robotcar"]
    draw(args, FIRST_TRAINING_SEED + leg, passes)


def draw_validation(args: argparse.Namespace) -> Path:
    return draw(
        args, VALIDATION_SEED, [f"{town}/{name}" for town in ("town10", "town3") for name in ("gallery", "rain")]
    )


def weights_of(folder: Path, leg: int) -> Path:
    return folder / f"leg_{leg:03d}.pth"


def record_of(folder: Path, leg: int) -> Path:
    return folder / f"leg_{leg:03d}.json"


def train_leg(args: argparse.Namespace, extra: Sequence[str], leg: int) -> dict:
    """Train one leg unless it is on record; returns the record: flags and history.

    The town of a finished leg is deleted, and its weights once the next leg is finished.
    """
    folder = Path("runs", args.name)
    before = weights_of(folder, leg - 1) if leg else None
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
        data = town_flags(draw(args, seed))
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
    if args.legs > VALIDATION_SEED - FIRST_TRAINING_SEED:
        raise ValueError(
            f"--legs {args.legs}: more than there are training towns; give at most {VALIDATION_SEED - FIRST_TRAINING_SEED}"
        )
    folder = Path("runs", args.name)
    folder.mkdir(parents=True, exist_ok=True)
    out = args.out or folder / "segvpr_town.pth"
    out.parent.mkdir(parents=True, exist_ok=True)
    before = untrained_weights(args, extra)
    legs = []
    for leg in range(args.legs):
        legs.append(train_leg(args, extra, leg))
        LOGGER.info("leg %d of %d: %s", leg + 1, args.legs, summary(legs[-1]["history"]))
    last = load_checkpoint(weights_of(folder, args.legs - 1))
    write_atomically(out, content_of(last.config, half_precision(last.state_dict), {}))
    size = out.stat().st_size
    found = evaluate(args, {"untrained": before, f"after_{args.legs}_legs": out}, extra)
    start_logging()  # again: eval.py has closed the log
    record = {"command": shlex.join(["python3", "-m", "benchmarks.train_town", *command]), "machine": machine()}
    record |= {"bytes": size, "legs": legs, "evaluation": found}
    write_text(out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    LOGGER.info("%s: %.1f MiB, history beside it\n%s", out, size / 2**20, evaluation_table(found))
    if size > LARGEST_BYTES:
        raise ValueError(
            f"{out}: {size} bytes; a file that ships has at most {LARGEST_BYTES}, so train a smaller --arch"
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
    args, extra = build_parser().parse_known_args(command)
    return run_command("benchmarks.train_town", lambda: train(args, extra, command))


if __name__ == "__main__":
    sys.exit(main())
