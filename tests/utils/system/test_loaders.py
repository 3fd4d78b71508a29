"""Processes that read ahead: they ignore signals, and a death is named."""

import os
import signal
import time

import pytest
from torch.utils.data import Dataset

from datasets.reading.notes import WorkerNotes
from datasets.reading.triplets import LoadFailure
from utils.system.failures import RunFailed
from utils.system.loaders import read_ahead


class Files(Dataset):
    """Key `n` gives the signals that its reader ignores; `deadly` kills the reader, `bad` cannot be read."""

    def __init__(self, deadly: int = -1, bad: int = -1) -> None:
        self.notes, self.deadly, self.bad = WorkerNotes(), deadly, bad

    def __getitem__(self, key: int):
        self.notes.reading(f"{key}.png")
        if key == self.deadly:
            time.sleep(0.3)  # the one before is on its way
            os.kill(os.getpid(), signal.SIGKILL)
        if key == self.bad:
            return LoadFailure(f"{key}.png: bad")
        ignored = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) == signal.SIG_IGN]
        return [key, ignored]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_come_in_order_and_workers_ignore_signals(workers):
    both = (signal.SIGINT, signal.SIGTERM)
    # without workers this process reads, which as a shell's background job ignores SIGINT itself
    ignored = [n for n in both if workers or signal.getsignal(n) == signal.SIG_IGN]
    assert list(read_ahead(Files(), range(5), workers)) == [[key, ignored] for key in range(5)]
    with pytest.raises(ValueError, match=r"3\.png: bad"):
        list(read_ahead(Files(bad=3), range(5), workers))


def test_a_reader_that_dies_is_named_by_the_next_wait_for_it():
    before = signal.getsignal(signal.SIGCHLD)
    reader = read_ahead(Files(deadly=1), range(4), 1)
    assert next(reader)[0] == 0
    time.sleep(1)  # it is dead by now: the step that is being made goes on
    assert signal.getsignal(signal.SIGCHLD) == before
    with pytest.raises(RunFailed, match=r"a process that reads images died on 1\.png \(out of memory\?"):
        next(reader)
