"""What backs the figures of the README: each module is one command."""

import datasets  # noqa: F401  says in one line which package is missing
