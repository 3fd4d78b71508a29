"""How a command line ends: one line and a status, never a traceback for what the user can mend."""

import sys
from collections.abc import Callable

from utils.logs import LOGGER, stop_logging

USER_ERROR = 2


def run_command(name: str, command: Callable[[], None]) -> int:
    """Run a command; ValueError and OSError become one line on stderr and status 2, the traceback goes to the log file."""
    try:
        command()
        return 0
    except (ValueError, OSError) as error:
        line = " ".join(str(error).split())
        LOGGER.debug("failed: %s", line, exc_info=True)
        print(f"{name}: error: {line}", file=sys.stderr)
        return USER_ERROR
    finally:
        stop_logging()
