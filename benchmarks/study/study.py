"""Train each part of the method on the town with several seeds, and measure what it changes.

    python3 -m benchmarks.study --preset small [--seeds 0 1 2] [--variants place segmentation] [--dry_run] [flags of main.py ...]

Every run is a run folder of main.py under `runs/<name>/<variant>/seed<seed>`. You may stop the command at any moment; the same
command skips finished runs and continues the others. The report has what is finished so far.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.demo import words
from benchmarks.harness import jobs as runs_of
from benchmarks.harness.machine import machine
from benchmarks.study.attention import some_of
from benchmarks.study.photos import Photos
from benchmarks.study.presets import PRESETS, Preset
from benchmarks.study.report import Finished, gather, markdown, write_report
from benchmarks.study.variants import Variant, job, with_untrained
from datasets.command_line import OneLineParser, positive
from datasets.naming import KINDS
from datasets.town import make_town
from datasets.town.world.difficulty import PRESETS as KNOBS
from datasets.town.world.difficulty import STANDARD
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.command import run_command
from utils.system.compute import resolve_compute
from utils.system.logs import LOGGER, start_logging

DECIDED = ("exp_name", "resume", "seed", "no_report")
"""Flags of main.py that this program sets."""


def build_parser() -> OneLineParser:
    """Command line of `python3 -m benchmarks.study`; flags that it does not know go to main.py."""
    parser = OneLineParser(
        "benchmarks.study",
        description=__doc__.splitlines()[0],
        epilog="Other flags go to main.py and replace the preset's (--arch resnet50 --pretrain PATH --lr 0.00025).",
    )
    add = parser.add_argument
    preset = "smoke: seconds, the figures mean nothing; small: ResNet-18, hours on 2 cores; full: ResNet-50, for GPUs; "
    preset += "photos: from ImageNet weights to real photos, which --photos, --labelled and --target name"
    add("--preset", choices=PRESETS, default="small", help=preset)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="train once per seed")
    add("--variants", nargs="+", metavar="NAME", help="which to train (default: all of the preset)")
    add("--data", type=Path, metavar="DIR", help="the town (default: data/study_<preset>)")
    add("--difficulty", choices=tuple(KNOBS), default=STANDARD, help="of the town")
    add("--places", type=positive, metavar="N", help="of the town (default: the preset's)")
    add("--size", type=positive, nargs=2, metavar=("W", "H"), help="of the town's pictures (default: the preset's)")
    add("--photos", type=Path, metavar="DIR", help="gallery and queries, as benchmarks.altered_queries writes them")
    add("--labelled", type=Path, metavar="DIR", help="root with labelled photos in gallery/front and queries/front")
    add("--target", type=Path, metavar="DIR", help="unlabelled photos, the target domain")
    add("--name", help="runs go to runs/NAME: one for each set of flags of main.py (default: study_<preset>)")
    add("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="where to compute")
    at_once = (
        "runs at once on each device; on a CPU they share its cores, and one run per core takes the least time in all"
    )
    add("--at_once", type=positive, default=1, metavar="N", help=at_once)
    add("--dry_run", action="store_true", help="print the runs, their states and commands, and stop")
    add("--report_only", action="store_true", help="train nothing; report what is finished")
    add("--write", type=Path, metavar="FILE", help="write the report there (default: runs/NAME/report/study.md)")
    return parser


def photos_of(args: argparse.Namespace, preset: Preset) -> Photos | None:
    """Where the photos are; ValueError if the preset needs some that are not named, or none that are."""
    given = {name: getattr(args, name) for name in ("photos", "labelled", "target")}
    for name, path in given.items():
        if preset.on_photos and path is None:
            raise ValueError(f"--{name}: the preset needs it; give the folder")
        if not preset.on_photos and path is not None:
            raise ValueError(f"--{name}: belongs to --preset photos; leave it out")
    return Photos(*given.values()) if preset.on_photos else None


def shared_flags(
    preset: Preset, args: argparse.Namespace, extra: Sequence[str], data: dict[str, str]
) -> dict[str, str]:
    """The preset's flags, replaced by those of the command line, and the data's; the precision as it will be recorded."""
    own = runs_of.own_flags(extra, "benchmarks.study", {*DECIDED, *data})
    for name in own:
        if name.removeprefix("no-") in preset.decided:
            raise ValueError(f"--{name}: the variants of benchmarks.study set this flag, see --dry_run; leave it out")
    flags = {**preset.flags, **own}
    flags["precision"] = resolve_compute(args.device, flags["precision"]).precision
    return {**flags, "device": args.device, **data}


def head(
    command: Sequence[str],
    args: argparse.Namespace,
    preset: Preset,
    flags: dict[str, str],
    town: Path,
    finished: Sequence[Finished],
) -> str:
    """Settings, commands and variants, above the tables."""
    rows = [["variant", "what it adds", "flags of main.py", "seeds"]]
    for f in finished:
        rows.append([f"`{f.variant.name}`", f.variant.title, f"`{f.variant.flags}`", " ".join(map(str, f.runs))])
    size = " ".join(map(str, preset.size))
    rest = "" if args.difficulty == STANDARD else f" --difficulty {args.difficulty}"
    rest += f" --seed {preset.seed} --passes {' '.join(preset.passes)}" if preset.on_photos else ""
    warning = (
        "**The smoke preset only shows that the program works. Its figures mean nothing.** "
        if args.preset == "smoke"
        else ""
    )
    return f"""# Tables of the study: what each part of the method changes

{warning}Written by

```
{shlex.join(["python3", "-m", "benchmarks.study", *command])}
```

The town: `python3 -m datasets.town --out {town} --size {size} --places {preset.places}{rest}`. Each run is
`python3 main.py` with these flags, its seed and the flags of its variant. All other flags are as released:

```
{" ".join(words(flags))}
```

Report written on {machine()}.

{markdown(rows)}
"""


def name_of(args: argparse.Namespace) -> str:
    return args.name or f"study_{args.preset}"


class Plan(NamedTuple):
    """What one call trains and compares: shared flags of main.py, and jobs by (variant, seed), seed after seed."""

    preset: Preset
    photos: Photos | None
    town: Path
    flags: dict[str, str]
    variants: list[Variant]
    jobs: dict[tuple[str, int], runs_of.Job]


def plan(args: argparse.Namespace, extra: Sequence[str]) -> Plan:
    preset = PRESETS[args.preset]
    preset = replace(preset, places=args.places or preset.places, size=tuple(args.size or preset.size))
    photos = photos_of(args, preset)
    town = args.data or Path("data", f"study_{args.preset}")
    flags = shared_flags(preset, args, extra, preset.data(town, photos))
    unknown = [name for name in args.variants or () if name not in preset.variants]
    if unknown:
        raise ValueError(f"--variants {unknown[0]}: the preset has {', '.join(preset.variants)}")
    variants = [v for v in preset.variants.values() if not args.variants or v.name in args.variants]
    if not preset.on_photos:
        variants = with_untrained(variants)
    seeds = list(dict.fromkeys(args.seeds))
    jobs = {(v.name, seed): job(name_of(args), flags, v, seed) for seed in seeds for v in variants}
    return Plan(preset, photos, town, flags, variants, jobs)


def main(argv: Sequence[str] | None = None) -> int:
    command = list(sys.argv[1:] if argv is None else argv)
    args, extra = build_parser().parse_known_args(command)
    return run_command("benchmarks.study", lambda: study(args, extra, command))


def study(args: argparse.Namespace, extra: Sequence[str], command: Sequence[str]) -> None:
    """Train what is missing, then report."""
    start_logging()
    preset, photos, town, flags, variants, jobs = plan(args, extra)
    if args.dry_run:
        for j in dict.fromkeys(jobs.values()):
            LOGGER.info("%-8s python3 main.py %s", runs_of.state(j), " ".join(j.command))
        return
    make_town(town, preset.size, preset.places, preset.seed, knobs=KNOBS[args.difficulty], passes=preset.passes)
    if not args.report_only:
        runs_of.run_jobs(list(dict.fromkeys(jobs.values())), runs_of.devices(args.device, args.at_once))
    finished = gather(jobs, variants, preset.conditions)
    if not finished:
        raise ValueError(f"runs/{name_of(args)}: no run is finished yet; leave out --report_only")
    target = args.write or Path("runs", name_of(args), "report", "study.md")
    pictures = target.parent / "images"
    scale = float(flags.get("eval_scale", KINDS["iddav2"].eval_scale))
    options = EmbeddingOptions(num_workers=0, compute=resolve_compute(args.device, flags["precision"]))
    text = head(command, args, preset, flags, town, finished)
    images = some_of(preset.labelled(town, photos))
    write_report(target, pictures, text, finished, preset.note, images, scale, options)
    LOGGER.info("report: %s", os.path.relpath(target))


if __name__ == "__main__":
    sys.exit(main())
