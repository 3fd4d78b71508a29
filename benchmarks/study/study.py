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
from pathlib import Path

from benchmarks.demo import words
from benchmarks.harness import jobs as runs_of
from benchmarks.harness.machine import machine
from benchmarks.study.report import Finished, gather, markdown, write_report
from benchmarks.study.variants import BY_VARIANT, PRESETS, VARIANTS, Preset, job, town_flags, with_untrained
from datasets.command_line import OneLineParser, positive
from datasets.naming import KINDS
from datasets.town import make_town
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
    preset = "smoke: seconds, the figures mean nothing; small: ResNet-18, hours on 2 cores; full: ResNet-50, for GPUs"
    add("--preset", choices=PRESETS, default="small", help=preset)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="train once per seed")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help="which to train")
    add("--data", type=Path, metavar="DIR", help="the town (default: data/study_<preset>)")
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


def shared_flags(preset: Preset, args: argparse.Namespace, extra: Sequence[str]) -> dict[str, str]:
    """The preset's flags, replaced by those of the command line; the precision as it will be recorded."""
    own = runs_of.own_flags(extra, "benchmarks.study", {*DECIDED, *town_flags(Path())})
    for name in own:
        if name.removeprefix("no-") in BY_VARIANT:
            raise ValueError(f"--{name}: the variants of benchmarks.study set this flag, see --dry_run; leave it out")
    flags = {**preset.flags, **own}
    flags["precision"] = resolve_compute(args.device, flags["precision"]).precision
    return {**flags, "device": args.device}


def head(
    command: Sequence[str],
    name: str,
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
    warning = (
        "**The smoke preset only shows that the program works. Its figures mean nothing.** " if name == "smoke" else ""
    )
    return f"""# Tables of the study: what each part of the method changes

{warning}Written by

```
{shlex.join(["python3", "-m", "benchmarks.study", *command])}
```

The town: `python3 -m datasets.town --out {town} --size {size} --places {preset.places}`. Each run is
`python3 main.py` with these flags, its seed and the flags of its variant. All other flags are as released:

```
{" ".join(words({**flags, **town_flags(town)}))}
```

Report written on {machine()}.

{markdown(rows)}
"""


def name_of(args: argparse.Namespace) -> str:
    return args.name or f"study_{args.preset}"


def plan(args: argparse.Namespace, extra: Sequence[str]) -> tuple[Preset, dict[str, str], Path, list, dict]:
    """Preset, shared flags, town, variants, and jobs by (variant, seed), seed after seed."""
    preset = PRESETS[args.preset]
    flags = shared_flags(preset, args, extra)
    town = args.data or Path("data", f"study_{args.preset}")
    variants = with_untrained([v for v in VARIANTS.values() if v.name in args.variants])
    seeds = list(dict.fromkeys(args.seeds))
    jobs = {(v.name, seed): job(name_of(args), flags, town, v, seed) for seed in seeds for v in variants}
    return preset, flags, town, variants, jobs


def main(argv: Sequence[str] | None = None) -> int:
    command = list(sys.argv[1:] if argv is None else argv)
    args, extra = build_parser().parse_known_args(command)
    return run_command("benchmarks.study", lambda: study(args, extra, command))


def study(args: argparse.Namespace, extra: Sequence[str], command: Sequence[str]) -> None:
    """Train what is missing, then report."""
    start_logging()
    preset, flags, town, variants, jobs = plan(args, extra)
    if args.dry_run:
        for j in jobs.values():
            LOGGER.info("%-8s python3 main.py %s", runs_of.state(j), " ".join(j.command))
        return
    make_town(town, preset.size, preset.places)
    if not args.report_only:
        runs_of.run_jobs(list(jobs.values()), runs_of.devices(args.device, args.at_once))
    finished = gather(jobs, variants)
    if not finished:
        raise ValueError(f"runs/{name_of(args)}: no run is finished yet; leave out --report_only")
    target = args.write or Path("runs", name_of(args), "report", "study.md")
    pictures = target.parent / "images"
    scale = float(flags.get("eval_scale", KINDS["iddav2"].eval_scale))
    options = EmbeddingOptions(num_workers=0, compute=resolve_compute(args.device, flags["precision"]))
    text = head(command, args.preset, preset, flags, town, finished)
    write_report(target, pictures, text, finished, town, scale, options)
    LOGGER.info("report: %s", os.path.relpath(target))


if __name__ == "__main__":
    sys.exit(main())
