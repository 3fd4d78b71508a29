"""Data sets: folders of images, and the procedural town."""

from datasets.dependencies import exit_if_missing

exit_if_missing()
