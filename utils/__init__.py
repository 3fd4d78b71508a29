"""What runs the method: training, evaluation, checkpoints and the command line."""

import datasets  # noqa: F401  names a missing package in one line
