"""What runs the method: training, evaluation, checkpoints and the command line."""

import datasets  # noqa: F401  says in one line which package is missing
