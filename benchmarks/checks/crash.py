"""Kill a small training run (SIGKILL) at random moments, resume it, and compare it with an uninterrupted run.

    python3 -m benchmarks.checks.crash [--kills 50] [--seed 0] [--out docs/crash.json]

Every trial is a run of its own. It is killed once, at a moment drawn uniformly over the length of the uninterrupted run, and
resumed with `--resume auto`. Weights, optimiser states and history must then be equal bit for bit.
"""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

import main as training_script
from benchmarks.harness.command_line import benchmark_parser, write_record
from benchmarks.harness.small_run import FLAGS, data_flags, small_town
from datasets.command_line import OneLineParser, positive
from utils.runs.checkpoints import load_checkpoint
from utils.runs.folders import LAST
from utils.system.logs import progress_bar


def _train(folder: Path, flags: list[str]) -> None:
    """Child process: one training run inside `folder`, silent; its own process group, so that workers die with it."""
    os.setsid()
    os.chdir(folder)
    torch.set_num_threads(1)
    with open("console.txt", "a") as console:
        os.dup2(console.fileno(), 1)
        os.dup2(console.fileno(), 2)
    sys.exit(training_script.main(flags))


def start(folder: Path, flags: list[str]) -> multiprocessing.Process:
    """Start a run in a forked child: this process has imported torch already."""
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_train, args=(folder, flags))
    process.start()
    return process


def final(folder: Path) -> dict:
    """What two equal runs share: the end of the run below `folder`."""
    (last,) = folder.glob(f"runs/default/*/{LAST}")
    checkpoint = load_checkpoint(last)
    run = {key: checkpoint.training["run"][key] for key in ("history", "epoch")}
    return {"weights": checkpoint.state_dict, "optimizers": checkpoint.training["optimizers"], **run}


def same(a, b) -> bool:
    """Equality to the last bit through dicts, lists and tensors."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def trial(folder: Path, flags: list[str], moment: float) -> dict:
    """Kill a run `moment` seconds after its start and resume it to the end; `files` are the checkpoints found in between."""
    process = start(folder, flags)
    process.join(moment)
    alive = process.is_alive()
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    files = sorted(path.name for path in folder.glob("runs/default/*/*.pth*"))
    resumed = start(folder, [*flags, "--resume", "auto"])
    resumed.join()
    return {"moment_s": round(moment, 3), "killed": alive, "files": files, "status": resumed.exitcode}


def clean_up(folder: Path) -> None:
    """Free the disk space of a finished trial."""
    for file in folder.rglob("*.pth*"):
        file.unlink()


def build_parser() -> OneLineParser:
    parser = benchmark_parser("checks.crash", __doc__)
    parser.add_argument("--kills", type=positive, default=50, metavar="N", help="trials")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
    parser.add_argument("--num_workers", type=int, default=1, metavar="N", help="loader processes of the runs")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    moments = random.Random(args.seed)
    trials = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        flags = [*data_flags(small_town(work / "town")), *FLAGS, "--num_workers", str(args.num_workers)]
        begin = time.monotonic()
        start(work / "whole", flags).join()
        length = time.monotonic() - begin
        expected = final(work / "whole")
        for i in progress_bar(range(args.kills), desc="kills", unit="kill"):
            folder = work / str(i)
            record = trial(folder, flags, moments.uniform(0, length))
            record["equal"] = record["status"] == 0 and same(final(folder), expected)
            if not record["equal"]:
                print((folder / "console.txt").read_text()[-2000:])
            clean_up(folder)
            trials.append(record)
    equal, killed = sum(t["equal"] for t in trials), sum(t["killed"] for t in trials)
    begun = sum(LAST in t["files"] for t in trials)
    print(
        f"{equal} of {args.kills} runs ended equal to the uninterrupted one ({killed} were killed before their end, {begun} of "
        f"them with a checkpoint on disk; the uninterrupted run took {length:.1f} s)"
    )
    summary = {"trials": args.kills, "killed": killed, "equal": equal, "run_length_s": round(length, 2)}
    write_record(args.out, {**summary, "each": trials})
    return 0 if equal == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
