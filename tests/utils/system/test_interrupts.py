"""Signals, and how a command ends."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.system.command import run_command
from utils.system.interrupts import Interrupts, StopRequested, stop_if_requested
from utils.system.logs import start_logging

ROOT = Path(__file__).parents[3]


def test_a_second_signal_leaves_at_once(tmp_path):
    code = (
        "import os, signal, time; from utils.system.interrupts import Interrupts\n"
        "with Interrupts():\n  print('ready', flush=True)\n  for _ in range(600): time.sleep(0.1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None  # noted
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143


def test_a_signal_is_noted_until_the_next_look():
    done, before = [], signal.getsignal(signal.SIGINT)  # a shell's background job starts with the signal ignored
    with pytest.raises(StopRequested) as stop, Interrupts():
        stop_if_requested()
        os.kill(os.getpid(), signal.SIGINT)
        done.append("finished")
        stop_if_requested()
    assert done == ["finished"] and stop.value.status == 130
    assert signal.getsignal(signal.SIGINT) is before
    stop_if_requested()  # outside, nothing is asked


def test_a_signal_that_a_destructor_swallows_is_obeyed_at_the_next_look(recwarn):
    with pytest.raises(StopRequested) as stop, Interrupts(at_once=True):
        with contextlib.suppress(StopRequested):  # what Python does with all that is raised in a destructor
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        stop_if_requested()
    assert stop.value.status == 143


def test_the_inner_of_two_takes_the_signal_and_leaves_the_outer_in_charge():
    with Interrupts(at_once=True) as outer:
        with contextlib.suppress(StopRequested), Interrupts() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            stop_if_requested()
        assert inner.requested == signal.SIGTERM and outer.requested is None
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_outside_training_ends_the_command_with_its_status(capsys, number, status):
    def work():
        os.kill(os.getpid(), number)
        time.sleep(10)

    assert run_command("some.py", work) == status
    assert capsys.readouterr().err == f"some.py: stopped by {number.name}\n"


def test_a_disk_so_full_that_the_log_cannot_be_written_is_one_line(capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")

    def work():
        start_logging(Path("/dev/full"))
        raise OSError(errno.ENOSPC, "No space left on device")

    assert run_command("some.py", work) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "No space left on device: make room" in lines[0]
