"""How a command ends: one line and a status, and no traceback for what the user can fix."""

import errno
import signal
import sys
import time
from collections.abc import Callable

from datasets.command_line import USER_ERROR, one_line
from utils.system.failures import PeerFailed, RunFailed
from utils.system.interrupts import Interrupts, StopRequested
from utils.system.launch import launched
from utils.system.logs import LOGGER, stop_logging

RUN_FAILED = 1
COMPILERS = ("torch._dynamo", "torch._inductor")
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
GRACE_S = 2.0
"""Processes other than the first wait so long before they report an error: if all find the same, torchrun ends them first."""


def run_command(name: str, command: Callable[[], None]) -> int:
    """Run a command; ValueError and OSError become one line on stderr and status 2. Their traceback goes to the log file.

    A signal ends the command at once with status 128 + its number; training saves the run first.
    """
    rank, processes = launched()
    try:
        with Interrupts(repeated=processes > 1, at_once=True):
            command()
        return 0
    except (ValueError, OSError) as error:
        line = one_line(error)
        if isinstance(error, OSError) and error.filename is None and error.errno in DISK_FULL:
            line = f"{error.strerror}: make room where results are written, then start again (training: with --resume)"
        LOGGER.debug("failed: %s", line, exc_info=True)
        _say(name, f"error: {line}")
        return USER_ERROR
    except RuntimeError as error:
        line = describe(error)
        if line is None:
            raise
        LOGGER.debug("failed: %s", line)
        _say(name, f"error: {line}", at_once=isinstance(error, PeerFailed))
        return RUN_FAILED
    except StopRequested as stop:
        if rank == 0:
            print(f"{name}: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        _say(name, "stopped by SIGINT")
        return 128 + signal.SIGINT
    finally:
        stop_logging()


def _say(name: str, line: str, at_once: bool = False) -> None:
    """Print the last line of a command on stderr; of several processes, with the number of this one."""
    rank, processes = launched()
    if rank and not at_once:
        time.sleep(GRACE_S)
    print(f"{name}: rank {rank}: {line}" if processes > 1 else f"{name}: {line}", file=sys.stderr, flush=True)


def describe(error: RuntimeError) -> str | None:
    """The message of an error that a user can act on; None for a fault of the program."""
    if isinstance(error, RunFailed):
        return str(error)
    if type(error).__module__.startswith(COMPILERS):
        return f"--compile: torch.compile failed here, try without it: {' '.join(str(error).split())[:300]}"
    return None
