"""SIGINT and SIGTERM: work that must not be cut short is finished first, and the run is saved."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHILD = getattr(signal, "SIGCHLD", None)
ALARM = getattr(signal, "SIGALRM", None)
RETRY_S = 0.05


class StopRequested(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no handler of errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Interrupts:
    """While entered, a signal raises `StopRequested`: at once, or at the end of a `hold`. A second one leaves the process.

    Python swallows what is raised in a destructor, such as that of a loader, so there it is put off for a moment; should
    it be swallowed elsewhere, the next `hold` raises it again.

    Parameters
    ----------
    decides : whether a signal stops this process; where not, it is noted alone: another process decides for all.
    repeated : whether one request may arrive as several signals, as under torchrun, which passes on what a scheduler has
        sent to all; a second one is then ignored (torchrun itself kills what has not ended after half a minute).

    Attributes
    ----------
    requested : the signal that came, or None.
    obeyed : set by whoever caught `StopRequested`, so that it may `hold` once more.
    """

    def __init__(self, decides: bool = True, repeated: bool = False) -> None:
        self.repeated = repeated
        self.requested: int | None = None
        self.obeyed = not decides
        self._process = os.getpid()
        self._holds = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        if ALARM:
            self._before[ALARM] = signal.signal(ALARM, self._retry)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if ALARM:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # a forked child that has not set handlers of its own has nothing to save
        if os.getpid() != self._process or (self.requested is not None and not self.repeated):
            os._exit(128 + number)
        if self.requested is None:
            self.requested = number
            self._retry(number, frame)

    def _retry(self, _: int, frame: FrameType | None) -> None:
        if self.requested is None or self.obeyed or self._holds:
            return
        if ALARM and _in_destructor(frame):
            signal.setitimer(signal.ITIMER_REAL, RETRY_S)
            return
        raise StopRequested(self.requested)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Finish what is within before a signal takes effect; what torch raises when a loader worker dies waits as well."""
        outermost = not self._holds
        self._holds += 1
        child_handler = _later_child_deaths() if outermost else None
        try:
            yield
        finally:
            self._holds -= 1
            if child_handler:
                seen = signal.getsignal(CHILD)
                signal.signal(CHILD, child_handler)
        if not self._holds and self.requested is not None and not self.obeyed:
            raise StopRequested(self.requested)
        if child_handler and seen.happened:
            child_handler(CHILD, None)


def _in_destructor(frame: FrameType | None) -> bool:
    """Whether a destructor is at work in this frame or in one that called it."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


class _Noted:
    """A signal handler that only remembers."""

    def __init__(self) -> None:
        self.happened = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.happened = True


def _later_child_deaths() -> Callable | None:
    """Put off the handler of dead children that torch installs; returns it, or None where there is none."""
    handler = signal.getsignal(CHILD) if CHILD else None
    if not callable(handler):
        return None
    signal.signal(CHILD, _Noted())
    return handler


def forget_children() -> None:
    """From now on, take no notice of loader workers that die: the process is about to end, and they with it."""
    if CHILD:
        signal.signal(CHILD, signal.SIG_DFL)


def ignore_in_worker(_: int = 0) -> None:
    """Start a loader worker deaf to Ctrl-C, which reaches the whole process group, and mortal to SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
