"""What backs the figures of the README: each module is one command."""

import datasets  # noqa: F401  names a missing package in one line
