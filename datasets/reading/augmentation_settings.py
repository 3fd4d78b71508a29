"""What training images may go through, as flags. Importing it does not import torch."""

from dataclasses import dataclass

from datasets.command_line import check_flags, flag

FAMILY_NAMES = ("fog", "colour", "equalize", "night", "grey", "blur", "noise", "jpeg")
"""Families of photometric changes, see `datasets.reading.augmentation`, in the order in which they act."""
ALL = "all"


@dataclass(frozen=True)
class AugmentationSettings:
    """What a training picture may go through.

    Attributes
    ----------
    families : names out of `FAMILY_NAMES`, or `all`; none leaves the pixels as they are.
    strength : above 0, at most 2; scales how far a family goes, not how often it comes.
    zoom : smallest share of the crop's sides that a random window keeps; 1 keeps all.
    """

    families: tuple[str, ...] = flag(
        (),
        "photometric changes of training images, each image its own draw: all, or some of " + ", ".join(FAMILY_NAMES),
        name="augment",
        choices=(ALL, *FAMILY_NAMES),
        nargs="+",
        metavar="FAMILY",
    )
    strength: float = flag(
        1.0, "how far the changes of --augment go", name="augment_strength", above=0, most=2, metavar="X"
    )
    zoom: float = flag(
        1.0,
        "smallest share of a training crop's sides that is kept and enlarged, each image its own draw; 1: the whole crop",
        name="augment_zoom",
        least=0.1,
        most=1,
        metavar="X",
    )

    def __post_init__(self) -> None:
        check_flags(self)
        if ALL in self.families:
            object.__setattr__(self, "families", FAMILY_NAMES)
