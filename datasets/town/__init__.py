"""The procedural town: a synthetic data set that the project draws itself."""

from datasets.town.make import DONE, make_town

__all__ = ["DONE", "make_town"]
