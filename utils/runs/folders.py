"""Run folders: `runs/<exp_name>/<timestamp>/`, one process at a time, and what may change on resume."""

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from difflib import SequenceMatcher
from itertools import count
from pathlib import Path
from typing import Any

from datasets import files
from utils.runs.checkpoints import FORMAT, Checkpoint, load_checkpoint
from utils.system.logs import LOGGER

LAST, PREVIOUS, BEST, START = "last.pth", "previous.pth", "best.pth", "start.pth"
"""Checkpoints of a run: the last, the one before, the best, and the weights that training started from."""
RESULTS, REPORT = "results.json", "report.html"
LOCK = "run.lock"
WRITTEN_AT_START = ("log.txt", LOCK, START, f"{LAST}.tmp", f".{LAST}", f".{START}", "events.out.tfevents")
"""Beginnings of the names of files that a start writes, and that are no results."""
NAMES_SHOWN = 10


def check_exp_name(exp_name: str) -> None:
    """ValueError unless `runs/<exp_name>` is a folder below `runs`."""
    path = Path(exp_name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in exp_name:
        raise ValueError(
            f"--exp_name {exp_name!r}: results go to a folder below runs/; give a name, such as segvpr or night/seed1"
        )


@contextmanager
def fresh_folder(folder: Path, exist_ok: bool = False) -> Iterator[Path]:
    """Make a folder and its parents; after an error before there are results, remove what was made."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
        yield folder
    except BaseException:
        _remove_unused(made)
        raise


def _remove_unused(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, down to the first that holds more than a start writes."""
    with suppress(OSError):
        for folder in filter(Path.exists, folders):
            found = list(folder.iterdir())
            if any(file.is_dir() or not file.name.startswith(WRITTEN_AT_START) for file in found):
                return
            for file in found:
                file.unlink()
            folder.rmdir()


@contextmanager
def new_run_folder(exp_name: str) -> Iterator[Path]:
    """A `fresh_folder` `runs/<exp_name>/<timestamp>/`, with a number if another run started in the same second."""
    check_exp_name(exp_name)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with ExitStack() as held:
        for number in count(1):
            folder = Path("runs", exp_name, stamp if number == 1 else f"{stamp}-{number}")
            try:
                held.enter_context(fresh_folder(folder))
                break
            except OSError as error:
                if not folder.exists():
                    raise OSError(
                        f"--exp_name {exp_name}: cannot make {folder} ({error.strerror}); run where you may write"
                    ) from error
        yield folder


def newest(folders: Iterable[Path]) -> Path | None:
    """The run folder whose checkpoints were written last, whatever its name; None if there are none."""
    return max(folders, key=_saved_at, default=None)


def _saved_at(folder: Path) -> tuple:
    """When a run's checkpoints were written; at equal times the names decide: `-10` follows `-2`."""
    checkpoints = [folder / name for name in (LAST, PREVIOUS, BEST)]
    times = [file.stat().st_mtime_ns for file in checkpoints if file.exists()]
    return max(times, default=0), len(folder.name), folder.name


def find_checkpoint(resume: str | None, exp_name: str) -> Path | None:
    """The file that `--resume` names: a file, a run folder, or `auto`, the newest run of `exp_name` (None if it has none)."""
    if resume is None:
        return None
    if resume == "auto":
        check_exp_name(exp_name)
        run = newest(path.parent for name in (LAST, PREVIOUS) for path in Path("runs", exp_name).glob(f"*/{name}"))
        return run / LAST if run else None
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


def nothing_found(exp_name: str) -> str:
    """The message when `--resume auto` finds no run; names similar to `exp_name` come first."""
    runs = {path.parent.parent for name in (LAST, PREVIOUS) for path in Path("runs").glob(f"*/*/**/{name}")}
    names = sorted(path.relative_to("runs").as_posix() for path in runs)
    names.sort(key=lambda name: SequenceMatcher(None, name.lower(), exp_name.lower()).ratio(), reverse=True)
    there = (
        f"runs that exist: {', '.join(names[:NAMES_SHOWN])}" if names else f"no run exists in {Path('runs').resolve()}"
    )
    if len(names) > NAMES_SHOWN:
        there += f" and {len(names) - NAMES_SHOWN} more"
    return f"--resume auto: found no run named {exp_name}, so this is a new one; {there}"


def weights_of_run(folder: Path) -> Path:
    """The best checkpoint of a run folder, or the last if it has no best."""
    return folder / BEST if (folder / BEST).is_file() else folder / LAST


def load_newest(path: Path) -> Checkpoint:
    """Read a checkpoint; if `last.pth` is damaged or missing, read the `previous.pth` beside it, with a warning."""
    try:
        return load_checkpoint(path)
    except (ValueError, OSError) as error:
        previous = path.with_name(PREVIOUS)
        if path.name != LAST or not previous.is_file():
            raise
        LOGGER.warning("%s; going back to %s", error, previous)
        return load_checkpoint(previous)


def replace_damaged(used: Path, folder: Path) -> None:
    """Rename a `previous.pth` that was read instead of the `last.pth` of this run to `last.pth`.

    Otherwise the next save would keep the damaged file and drop the whole one.
    """
    if used.name == PREVIOUS and used.resolve().parent == folder.resolve():
        os.replace(used, folder / LAST)


def own_folder(exp_name: str, checkpoint: Path | None) -> Path | None:
    """The folder in which a resumed run goes on: that of its `last.pth` if it is one of `exp_name`; None for a new folder."""
    if checkpoint is not None and checkpoint.name == LAST:
        folder = checkpoint.resolve().parent
        if folder.parent == Path("runs", exp_name).resolve():
            return folder
    return None


def bring_along(checkpoint: Path, folder: Path) -> None:
    """Copy the best checkpoint so far and the first weights, if a run goes on in another folder."""
    for file in (checkpoint.with_name(name) for name in (BEST, START)):
        if file.is_file() and file.resolve().parent != folder.resolve():
            files.copy_file(file, folder / file.name)


def has_results(folder: Path, reported: bool) -> bool:
    """Whether a run's results, and its report if wanted, are those of its last checkpoint."""
    wanted = [folder / name for name in ((RESULTS, REPORT) if reported else (RESULTS,))]
    last = folder / LAST
    return last.is_file() and all(
        file.is_file() and file.stat().st_mtime_ns >= last.stat().st_mtime_ns for file in wanted
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; ValueError if one trains in it. The lock ends with the process."""
    with ExitStack() as held:
        try:
            held.enter_context(files.locked(folder / LOCK, wait=False))
        except BlockingIOError as error:
            raise ValueError(
                f"{folder}: another process is training in this run folder; wait for it, or stop it"
            ) from error
        yield


def check_format(checkpoint: Checkpoint) -> None:
    """ValueError if an older version wrote the state of this run: it would go on with other triplets."""
    if checkpoint.format != FORMAT:
        raise ValueError(
            f"--resume {checkpoint.path}: an older version of this program started this run, and drew other triplets, so "
            "it cannot go on here. To start a new run from its weights, write them to a file of their own "
            f"(python3 -m utils.export --resume {checkpoint.path} --out weights.pth) and give --resume weights.pth"
        )


def check_record(saved: Mapping[str, Any], now: Mapping[str, Any], may_change: Container[str]) -> None:
    """Check that a run goes on with the arguments and data that it was started with, as far as they matter.

    Parameters
    ----------
    saved, now : `arguments` (name -> plain value) and `data` (part -> fingerprint of its relative file list).
    may_change : arguments that may have another value.

    Raises
    ------
    ValueError : what differs would make it another run; all such differences are listed. Others are logged.
    """
    changed = dict(_differences(saved.get("arguments", {}), now["arguments"]))
    refused = [f"--{name} was {a}, is {b}" for name, (a, b) in changed.items() if name not in may_change]
    refused += [f"the files of {part} differ" for part, _ in _differences(saved.get("data", {}), now["data"])]
    if refused:
        raise ValueError(
            f"--resume: this would be another run: {'; '.join(refused)} (leave these as they were, or start a new run)"
        )
    for name, (a, b) in changed.items():
        if name != "resume":
            LOGGER.info("changed on resume: --%s was %s, is %s", name, a, b)


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[tuple[str, tuple[Any, Any]]]:
    for name in dict.fromkeys([*saved, *now]):
        if saved.get(name) != now.get(name):
            yield name, (saved.get(name), now.get(name))
