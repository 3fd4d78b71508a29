"""Files that are whole, second names, locks; work spread over processes."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.files import copy_file, hard_link, locked, replacing, soft_link, write_text, write_whole
from datasets.jobs import run_jobs, with_progress

HOLDER = """
import sys
from pathlib import Path
from datasets.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_only_when_it_is_whole(tmp_path, durable):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), replacing(target, durable) as part:
        part.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]
    with replacing(target, durable) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and names(tmp_path) == ["a.txt"]


def test_a_failed_write_names_the_target_and_keeps_the_reason(tmp_path):
    def full(part: Path) -> None:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"a.txt: cannot write it \(No space left on device\)") as error:
        write_whole(tmp_path / "a.txt", full)
    assert error.value.errno == errno.ENOSPC and names(tmp_path) == []

    def odd(_: Path) -> None:
        raise OSError("encoder error")

    with pytest.raises(OSError, match=r"^/.*a.txt: cannot write it \(encoder error\)"):
        write_whole(tmp_path / "a.txt", odd)
    write_text(tmp_path / "new" / "deep" / "a.txt", "x")
    assert names(tmp_path / "new" / "deep") == ["a.txt"]
    with pytest.raises(OSError, match=r"a.txt/b.txt: cannot write it \(Not a directory|File exists\)"):
        write_text(tmp_path / "new" / "deep" / "a.txt" / "b.txt", "x")


def test_second_names_and_copies(tmp_path, monkeypatch):
    source = tmp_path / "a"
    source.write_text("text")
    hard_link(source, tmp_path / "hard")
    soft_link(source, tmp_path / "soft")
    copy_file(source, tmp_path / "copy")
    assert (tmp_path / "hard").samefile(source) and os.readlink(tmp_path / "soft") == "a"
    assert not (tmp_path / "copy").samefile(source)
    assert (tmp_path / "copy").stat().st_mtime == source.stat().st_mtime

    def refuse(*_) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    soft_link(source, tmp_path / "soft")
    assert not (tmp_path / "soft").is_symlink() and (tmp_path / "soft").samefile(source)
    monkeypatch.setattr(os, "link", refuse)
    hard_link(source, tmp_path / "hard")
    assert not (tmp_path / "hard").samefile(source) and (tmp_path / "hard").read_text() == "text"


def test_a_lock_keeps_another_process_out_until_it_ends(tmp_path):
    file = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match="another process"), locked(file, wait=False):
        pass
    holder.communicate("")
    with locked(file, wait=False):
        pass
    with locked(tmp_path / "missing" / "lock", wait=False):  # nothing to write there: no lock, no error
        pass


@pytest.mark.parametrize("workers, processes", [(1, True), (2, True), (3, False)])
def test_results_come_in_order_whoever_does_the_work(workers, processes):
    jobs = run_jobs(abs, [-3, 2, -1, 0], workers, processes, chunk=2)
    assert with_progress(jobs, [1, 2, 3, 4], "abs", quiet=not processes) == [3, 2, 1, 0]


def test_a_worker_that_is_ended_from_outside_is_one_clear_error():
    with pytest.raises(OSError, match="give fewer --workers"):
        list(run_jobs(os._exit, [1, 1], 2))


def interrupted(seconds: float) -> None:
    if not seconds:
        os.kill(os.getpid(), signal.SIGINT)  # ignored in a worker: Ctrl-C reaches it too
        raise KeyError("a fault")
    time.sleep(seconds)


def test_a_fault_ends_the_other_workers_at_once():
    began = time.monotonic()
    with pytest.raises(KeyError, match="a fault"):
        list(run_jobs(interrupted, [0, 600], 2))
    assert time.monotonic() - began < 300 and not multiprocessing.active_children()
