"""SIGINT and SIGTERM: noted when they come, obeyed between two steps or batches."""

import os
import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no handler of errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Interrupts:
    """While entered, the first signal is noted for `check`, and a second one ends the process.

    Parameters
    ----------
    decides : whether a signal stops this process; if not, another process decides for all.
    repeated : whether one request may arrive as several signals. torchrun passes on signals that a scheduler has sent to all;
        a second one is then ignored (torchrun kills processes that have not ended after half a minute).
    at_once : raise `StopRequested` when the signal comes. Python swallows it in a destructor; the next `check` then raises
        it again.

    Attributes
    ----------
    requested : the signal that came, or None.
    """

    def __init__(self, decides: bool = True, repeated: bool = False, at_once: bool = False) -> None:
        self.decides, self.repeated, self.at_once = decides, repeated, at_once
        self.requested: int | None = None
        self._process = os.getpid()
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        _entered.append(self)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _entered.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `StopRequested` if a signal came."""
        if self.requested is not None and self.decides:
            raise StopRequested(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # a forked child has nothing to save
        if os.getpid() != self._process or (self.requested is not None and not self.repeated):
            os._exit(128 + number)
        if self.requested is None:
            self.requested = number
            if self.at_once:
                self.check()


_entered: list[Interrupts] = []
"""A process has one set of signal handlers, and so this is global; the innermost is the last."""


def stop_if_requested() -> None:
    """Raise `StopRequested` if a signal came: called after every step and every batch of images."""
    if _entered:
        _entered[-1].check()


def ignore_in_worker(_: int = 0) -> None:
    """Let a loader process ignore signals, which reach the whole process group: it ends when the main process does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
