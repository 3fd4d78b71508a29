"""Run folders: `runs/<exp_name>/<timestamp>/`, one process at a time, and what may change when a run goes on."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.checkpoints import FORMAT, Checkpoint, load_checkpoint
from utils.logs import LOGGER

LAST, PREVIOUS, BEST = "last.pth", "previous.pth", "best.pth"

MAY_CHANGE = {
    *("resume", "exp_name", "device", "num_workers", "n_epochs", "patience", "save_every_min", "pretrain"),
    *("no_report", "compile", "deterministic", "decode"),  # like the device, the machine's matter
    "sync_bn",  # another number of processes may go on, and one process knows no synchronised BN
    *("dataset_root", "dataset_root_val", "dataset_root_test", "DA_datasets"),
}
"""Arguments that may differ when a run goes on; of the data sets, only where they lie."""


def new_run_folder(exp_name: str) -> Path:
    """`runs/<exp_name>/<timestamp>/`, made; a number is added where another run took the same second."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for extra in ["", *(f"-{i}" for i in range(2, 100))]:
        folder = Path("runs", exp_name, stamp + extra)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(
                f"--exp_name {exp_name}: cannot make {folder} ({error.strerror}); run where you may write"
            ) from error
    raise OSError(f"--exp_name {exp_name}: too many runs were started at {stamp}")


def find_checkpoint(resume: str | None, exp_name: str) -> Path | None:
    """The file that `--resume` means: a file, a run folder, or `auto`: the newest run of `exp_name` (None if there is none)."""
    if resume is None:
        return None
    if resume == "auto":
        runs = [path.parent for name in (LAST, PREVIOUS) for path in Path("runs", exp_name).glob(f"*/{name}")]
        if not runs:
            LOGGER.info("--resume auto: no run of %s yet, starting one", exp_name)
            return None
        return max(runs) / LAST
    path = Path(resume)
    if path.is_dir():
        if not (path / LAST).exists() and not (path / PREVIOUS).exists():
            raise FileNotFoundError(f"--resume {path}: no {LAST} in this folder; name the folder of a run, or auto")
        return path / LAST
    if not path.is_file():
        raise FileNotFoundError(
            f"--resume {path}: no such checkpoint file or run folder; correct the path, or give auto"
        )
    return path


def weights_of_run(folder: Path) -> Path:
    """The best checkpoint of a run folder, or the last where there is none."""
    return folder / BEST if (folder / BEST).is_file() else folder / LAST


def load_newest(path: Path) -> Checkpoint:
    """Read a checkpoint; a `last.pth` that is damaged or gone gives way to the `previous.pth` beside it, with a warning."""
    try:
        return load_checkpoint(path)
    except (ValueError, OSError) as error:
        previous = path.with_name(PREVIOUS)
        if path.name != LAST or not previous.is_file():
            raise
        LOGGER.warning("%s; going back to %s", error, previous)
        return load_checkpoint(previous)


def replace_damaged(used: Path, folder: Path) -> None:
    """Put a `previous.pth` that was gone back to in the place of the `last.pth` of the same run.

    Else the next save would keep the damaged file and drop the whole one.
    """
    if used.name == PREVIOUS and used.resolve().parent == folder.resolve():
        os.replace(used, folder / LAST)


def training_folder(exp_name: str, checkpoint: Path | None) -> Path:
    """Where training writes: the run of `exp_name` whose `last.pth` is resumed, else a new folder."""
    if checkpoint is not None and checkpoint.name == LAST:
        folder = checkpoint.resolve().parent
        if folder.parent == Path("runs", exp_name).resolve():
            return folder
    return new_run_folder(exp_name)


def bring_best(checkpoint: Path, folder: Path) -> None:
    """Take along the best checkpoint so far where a run goes on in another folder."""
    best = checkpoint.with_name(BEST)
    if best.is_file() and best.resolve().parent != folder.resolve():
        shutil.copyfile(best, folder / BEST)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes off a run folder; ValueError where one is at work in it. Ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: nothing to lock with
        yield
        return
    with open(folder / "run.lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by loader workers, as flock would be
        except OSError:
            raise ValueError(
                f"{folder}: another process is training in this run folder; wait for it, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_format(checkpoint: Checkpoint) -> None:
    """ValueError where an older version wrote the state of this run: it would go on with other triplets."""
    if checkpoint.format != FORMAT:
        raise ValueError(
            f"--resume {checkpoint.path}: an older version of this program started this run, and drew other triplets, so "
            "it cannot go on here. To start a new run from its weights, write them to a file of their own "
            f"(python3 -m utils.export --resume {checkpoint.path} --out weights.pth) and give --resume weights.pth"
        )


def check_record(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Whether a run may go on with other arguments or data than it was started with.

    Parameters
    ----------
    saved, now : `arguments` (name -> plain value) and `data` (part -> fingerprint of its relative file list).

    Raises
    ------
    ValueError : something differs that would make it another run; all differences are listed. Others are logged.
    """
    changed = dict(_differences(saved.get("arguments", {}), now["arguments"]))
    refused = [f"--{name} was {a}, is {b}" for name, (a, b) in changed.items() if name not in MAY_CHANGE]
    refused += [f"the files of {part} differ" for part, _ in _differences(saved.get("data", {}), now["data"])]
    if refused:
        raise ValueError(
            f"--resume: this would be another run: {'; '.join(refused)} (leave these as they were, or start anew)"
        )
    for name, (a, b) in changed.items():
        if name != "resume":
            LOGGER.info("changed on resume: --%s was %s, is %s", name, a, b)


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[tuple[str, tuple[Any, Any]]]:
    for name in dict.fromkeys([*saved, *now]):
        if saved.get(name) != now.get(name):
            yield name, (saved.get(name), now.get(name))
