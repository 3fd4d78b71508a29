"""The procedural town: the data set that SegVPR is trained and tested on if no recorded one is at hand.

Two synthetic towns with labels (``idda/town10``, ``idda/town3``) and a third place that another camera sees in five
conditions (``robotcar``), in the folder layout and with the file names of the recorded data sets::

    python3 -m datasets.town --out data/town

``world`` holds what stands in the streets, ``drawing`` how a camera sees it.
"""

from datasets.town.make import DONE, make_town

__all__ = ["DONE", "make_town"]
