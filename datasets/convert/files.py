"""What the converters share: one-line errors, work spread over processes, files that are whole wherever they exist."""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import NoReturn, TypeVar

from tqdm import tqdm

USER_ERROR, INTERRUPTED = 2, 130
STALE = ".stale"
"""Hidden folder below OUT for images of an earlier run whose source is gone."""
REMEDY = "remove the images of that run, or give another --out"

Job = TypeVar("Job")
Result = TypeVar("Result")


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: error: {message}; see --help\n")


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def run_converter(name: str, command: Callable[[], None]) -> int:
    """Run a command; ValueError and OSError become one line on stderr and status 2."""
    try:
        command()
        return 0
    except (ValueError, OSError) as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    label: str,
    processes: bool,
    sizes: Sequence[int] | None = None,
    quiet: bool = False,
) -> list[Result]:
    """Results of `function` on each job, in order, with a progress bar.

    Parameters
    ----------
    function : defined at the top of a module, so that new processes find it.
    processes : whether the workers are processes (started afresh, never forked) or threads.
    sizes : images in each job, by default one.
    quiet : show no progress bar.
    """
    images = sizes or [1] * len(jobs)
    with tqdm(
        total=sum(images), desc=label, unit="image", dynamic_ncols=True, delay=0.5, leave=False, disable=quiet
    ) as bar:

        def watched(results: Iterable[Result]) -> list[Result]:
            done = []
            for result, size in zip(results, images):
                done.append(result)
                bar.update(size)
            return done

        workers = min(workers, len(jobs))
        if workers <= 1:
            return watched(map(function, jobs))
        pool: Executor
        if processes:
            # Ctrl-C reaches the workers too: they leave it to this process, which ends them
            ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), **ignore)
        else:
            pool = ThreadPoolExecutor(workers)
        others = set(active_children())
        try:
            with pool:
                try:
                    return watched(pool.map(function, jobs, chunksize=1 if sizes else 8))
                except BaseException:  # the pool would wait for the jobs that run
                    for worker in set(active_children()) - others:
                        worker.terminate()
                    raise
        except BrokenProcessPool as error:
            raise OSError("a worker process was ended from outside (out of memory?): give fewer --workers") from error


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `target`, then rename it: a file that exists is whole."""
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        write(part)
        os.replace(part, target)
    except OSError as error:
        raise OSError(f"{target}: cannot write it ({error.strerror or error})") from error


def copy_file(source: Path, target: Path) -> None:
    """Copy contents and times."""
    write_whole(target, lambda part: shutil.copy2(source, part))


def link_file(source: Path, target: Path) -> None:
    """Relative symbolic link to `source`, or a hard link, or a copy, whatever the file system allows first."""
    real = os.path.realpath(source)

    def write(part: Path) -> None:
        try:
            # part is made, and so resolved, in the real folder: `..` of a linked one leads elsewhere
            os.symlink(os.path.relpath(real, os.path.realpath(part.parent)), part)
            return
        except (OSError, ValueError):
            part.unlink(missing_ok=True)
        try:
            os.link(real, part)
        except OSError:
            shutil.copy2(real, part)

    write_whole(target, write)


def refuse_leftovers(folder: Path, wanted: set[str], subjects: set[str], remedy: str) -> None:
    """ValueError where `folder` holds images of some of the `subjects` at positions that are not wanted.

    Such files stem from a run with other settings, and would show one picture at two positions.

    Parameters
    ----------
    wanted : file names `@east@north@<subject>` that belong there.
    subjects : what follows the position in the names.
    """
    odd = []
    for entry in sorted(os.listdir(folder)) if folder.is_dir() else []:
        fields = entry.split("@", 3)
        if len(fields) == 4 and fields[0] == "" and fields[3] in subjects and entry not in wanted:
            odd.append(entry)
    if odd:
        raise ValueError(leftovers(folder, odd, remedy))


def leftovers(folder: Path, names: Sequence[str], remedy: str) -> str:
    """What is wrong with images of an earlier run that show again what this run would write."""
    others = f" (and {len(names) - 1} others)" if len(names) > 1 else ""
    return f"{folder / names[0]}{others}: made from the same images with other settings or positions; {remedy}"


def told(stale: Sequence[str], others: Sequence[str]) -> str:
    """What a summary says of images of earlier runs, names relative to OUT."""
    text = ""
    if stale:
        text += f"; {len(stale)} of an earlier run moved to OUT/{STALE}, for their source is gone (first: {stale[0]})"
    if others:
        text += f"; {len(others)} others stay in OUT, of unknown source (first: {others[0]}): remove what is stale"
    return text
