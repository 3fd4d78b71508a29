"""Kill a small training run (SIGKILL) at random moments, resume it, and compare with the run that nobody touched.

    python3 -m benchmarks.checks.crash [--kills 50] [--seed 0] [--out docs/crash.json]

Every trial is a run of its own: killed once at a moment drawn uniformly over the length of the uninterrupted run, then continued
with `--resume auto` until its end. Weights, optimiser states and history must be equal bit for bit.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

import main as training_script
from benchmarks.harness.small_run import FLAGS, data_flags, small_town
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
    """Start a run in a child forked from this process, which has torch imported already."""
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_train, args=(folder, flags))
    process.start()
    return process


def final(folder: Path) -> dict:
    """What must be equal of the finished run below `folder`."""
    (last,) = folder.glob(f"runs/default/*/{LAST}")
    checkpoint = load_checkpoint(last)
    run, optimizers = checkpoint.training["run"], checkpoint.training["optimizers"]
    return {
        "weights": checkpoint.state_dict,
        "optimizers": optimizers,
        "history": run["history"],
        "epoch": run["epoch"],
    }


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
    """Kill a run `moment` seconds after its start, resume it to the end; what was found on disk in between."""
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
    """Give back the disk space of a finished trial."""
    for file in folder.rglob("*.pth*"):
        file.unlink()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="trials (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--num_workers", type=int, default=1, help="loader processes of the runs (default: 1)")
    parser.add_argument("--out", type=Path, help="write the record here as JSON")
    args = parser.parse_args(argv)
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        flags = [*data_flags(small_town(work / "town")), *FLAGS, "--num_workers", str(args.num_workers)]
        begin = time.monotonic()
        start(work / "whole", flags).join()
        length = time.monotonic() - begin
        expected = final(work / "whole")
        trials = []
        bar = progress_bar(range(args.kills), desc="kills", unit="kill")
        for i in bar:
            # two runs of one folder and second would get different names, so each trial has a folder of its own
            record = trial(work / str(i), flags, moments.uniform(0, length))
            record["equal"] = record["status"] == 0 and same(final(work / str(i)), expected)
            if not record["equal"]:
                print((work / str(i) / "console.txt").read_text()[-2000:])
            clean_up(work / str(i))
            trials.append(record)
            bar.set_postfix(equal=sum(t["equal"] for t in trials))
    equal, killed = sum(t["equal"] for t in trials), sum(t["killed"] for t in trials)
    begun = sum(LAST in t["files"] for t in trials)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    summary = {
        "trials": args.kills,
        "killed": killed,
        "equal": equal,
        "run_length_s": round(length, 2),
        "versions": versions,
    }
    print(
        f"{equal} of {args.kills} runs ended equal to the uninterrupted one ({killed} were killed before their end, ",
        end="",
    )
    print(f"{begun} of them with a checkpoint on disk; the uninterrupted run took {length:.1f} s)")
    if args.out:
        args.out.write_text(json.dumps({**summary, "each": trials}, indent=1) + "\n")
    return 0 if equal == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
