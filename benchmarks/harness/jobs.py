"""Many runs of main.py, spread over devices: finished runs are skipped, interrupted ones continue."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.options.arguments import plain_values
from utils.options.parsers import main_parser
from utils.runs.folders import BEST, LAST, PREVIOUS, load_newest, newest
from utils.summarize import NOT_CONFIGURATION, RESULTS, ROOTS
from utils.system.logs import LOGGER, progress_bar

SCRIPT = Path(__file__).parents[2] / "main.py"
NEW, BEGUN, FINISHED = "new", "begun", "finished"
CONSOLE = "console.txt"
POLL_S = 0.2
TAIL_LINES = 3


@dataclass(frozen=True)
class Job:
    """One run of main.py.

    Attributes
    ----------
    exp_name : its run folder is `runs/<exp_name>/<timestamp>`.
    flags : all flags but `--exp_name` and `--resume`.
    weights : a checkpoint to start from; None starts as the flags say.
    same_data : whether a run on other data folders is another run; if not, data may have moved.
    """

    exp_name: str
    flags: tuple[str, ...]
    weights: Path | None = None
    same_data: bool = False

    @property
    def folder(self) -> Path:
        return Path("runs", self.exp_name)

    @property
    def command(self) -> list[str]:
        """Words after `python3 main.py`; a run that has begun continues."""
        resume = "auto" if self.weights is None or newest_run(self) else str(self.weights)
        return [*self.flags, "--exp_name", self.exp_name, "--resume", resume]


def newest_run(job: Job) -> Path | None:
    """Folder of the newest run that has a checkpoint, or None."""
    names = (LAST, PREVIOUS, BEST)
    return newest(path.parent for name in names for path in job.folder.glob(f"*/{name}"))


def state(job: Job) -> str:
    """`new`, `begun` or `finished`; ValueError names all arguments in which a run on disk differs."""
    run = newest_run(job)
    if run is None:
        return NEW
    resumable = (run / LAST).exists() or (run / PREVIOUS).exists()
    recorded = load_newest(run / (LAST if resumable else BEST)).training["record"]["arguments"]
    wanted = arguments_of(job.flags)
    odd = changed(recorded, wanted)
    for name in ROOTS if job.same_data else ():
        was, now = (value and Path(value).resolve() for value in (recorded.get(name), wanted[name]))
        if was != now:
            raise ValueError(f"{job.folder}: was made with --{name} {was}, not {now}; give another --name")
    if odd:
        raise ValueError(
            f"{run}: was made with other arguments ({'; '.join(odd)}); give those, or move the folder away"
        )
    return FINISHED if (run / RESULTS).is_file() else BEGUN


def own_flags(line: Sequence[str], program: str, decided: Container[str]) -> dict[str, str]:
    """Words of a command line that go to main.py, as flags; ValueError for a flag that the program sets itself."""
    main_parser().parse_args(list(line))  # what main.py would refuse ends here
    flags: dict[str, str] = {}
    for word in line:
        if word.startswith("--"):
            name, _, flags[name] = word[2:].partition("=")
        else:
            flags[name] = f"{flags[name]} {word}".strip()
    for name in flags:
        if name in decided:
            raise ValueError(f"--{name}: {program} sets this flag itself; leave it out")
    return flags


def arguments_of(flags: Sequence[str]) -> dict:
    """The arguments that main.py would record of these flags."""
    return plain_values(main_parser().parse_args(list(flags)))


def changed(recorded: Mapping, wanted: Mapping) -> list[str]:
    """Arguments that make it another run, as `--name was a, is b`; data folders and devices may differ."""
    names = [name for name in wanted if name not in NOT_CONFIGURATION - {"seed"}]
    return [
        f"--{name} was {recorded.get(name)}, is {wanted[name]}" for name in names if recorded.get(name) != wanted[name]
    ]


def drop_training_state(job: Job) -> None:
    """Delete checkpoints of a finished run that only serve to continue it; `best.pth` stays."""
    run = newest_run(job)
    if run is not None and (run / RESULTS).is_file() and (run / BEST).is_file():
        for name in (LAST, PREVIOUS):
            (run / name).unlink(missing_ok=True)


def devices(name: str, at_once: int = 1) -> list[str]:
    """Each visible CUDA device (its number or id), or else the one device; each `at_once` times."""
    if name == "cpu" or not torch.cuda.is_available():
        return [name] * at_once
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]) * at_once


def launch(job: Job, device: str, share: int = 1) -> subprocess.Popen:
    """Start main.py in a session of its own, so that Ctrl-C reaches it only through us; its output goes to a file.

    `share` runs share the cores: each gets its part of the threads.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if torch.cuda.is_available() and device != "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = device
    if share > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // share)))
    with open(job.folder / CONSOLE, "ab") as console:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *job.command],
            stdout=console,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def run_jobs(jobs: Sequence[Job], on: Sequence[str]) -> None:
    """Finish all runs, one at a time on each entry of `on` (see `devices`).

    A signal is passed on to the runs, which save themselves; the same call continues them.

    Raises
    ------
    ValueError : a run has other arguments, or failed; the others are saved and stopped.
    """
    states = [state(job) for job in jobs]
    waiting = [job for job, s in zip(jobs, states) if s != FINISHED]
    for job, s in zip(jobs, states):
        if s == FINISHED:
            drop_training_state(job)
    LOGGER.info("%d of %d runs are finished, %d have begun", states.count(FINISHED), len(jobs), states.count(BEGUN))
    running: dict[int, tuple[Job, subprocess.Popen, float]] = {}
    bar = progress_bar(total=len(jobs), initial=states.count(FINISHED), desc="runs", unit="run")
    try:
        while waiting or running:
            for slot, device in enumerate(on):
                if waiting and slot not in running:
                    job = waiting.pop(0)
                    LOGGER.info("%s: starts on %s (output: %s)", job.exp_name, device, job.folder / CONSOLE)
                    running[slot] = job, launch(job, device, len(on)), time.monotonic()
            for slot, (job, process, begun) in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[slot]
                if status:
                    raise ValueError(f"{job.exp_name}: main.py ended with status {status}: {tail(job)}")
                drop_training_state(job)
                LOGGER.info("%s: finished after %.0f s", job.exp_name, time.monotonic() - begun)
                bar.update()
            if running:
                time.sleep(POLL_S)
    finally:
        bar.close()
        if running:
            LOGGER.warning("stopping %d runs; they save themselves, and the same command continues them", len(running))
        for _, process, _ in running.values():
            process.send_signal(signal.SIGTERM)
        for _, process, _ in running.values():
            process.wait()


def tail(job: Job) -> str:
    """The last lines that a run printed."""
    path = job.folder / CONSOLE
    lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
    return " / ".join([line.strip() for line in lines if line.strip()][-TAIL_LINES:]) + f" (all of it: {path})"
