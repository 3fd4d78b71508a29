"""How hard the town is: its knobs, and presets with fixed values.

A preset never changes: a better one gets the next number (``standard-2``). Recall can be compared across time if the
preset, the version of the drawing, the size, the number of places and the seed are the same; ``town.json`` records them.
"""

from dataclasses import dataclass

from datasets.command_line import check_flags, flag


def _knob(default: float, most: float, text: str) -> float:
    return flag(default, text, least=0, most=most)


@dataclass(frozen=True)
class Knobs:
    """What makes the town hard or easy, each from 0 to ``metadata["most"]``; the defaults are ``standard-1``.

    The displacement of a query stays below 3 m, so that every query keeps its place as its positive.
    """

    repetition: float = _knob(
        0.35, 1.0, "chance that a facade repeats one on the same side of the street, slightly changed"
    )
    traffic: float = _knob(1.0, 3.0, "density of vehicles and people; 1 is a normal day, 0 leaves the streets empty")
    occluder: float = _knob(0.16, 1.0, "chance of a vehicle close to the camera; no effect if traffic is 0")
    jitter_along: float = _knob(1.0, 1.9, "largest displacement of a query along the street, metres")
    jitter_side: float = _knob(
        1.0, 1.9, "largest displacement of a query across the street, metres; at most 1 beside parked cars"
    )
    jitter_height: float = _knob(0.12, 0.6, "largest change of camera height of a query, metres")
    jitter_heading: float = _knob(4.0, 15.0, "largest turn of a query, degrees")
    jitter_tilt: float = _knob(1.2, 5.0, "largest pitch of a query, degrees; its roll reaches 0.6 of it")
    domain_gap: float = _knob(
        1.0, 2.0, 'distance between the "real" camera and the synthetic one; 0 is the same camera'
    )

    def __post_init__(self) -> None:
        check_flags(self)


PRESETS = {
    "easy-1": Knobs(
        repetition=0.0,
        traffic=0.4,
        occluder=0.0,
        jitter_along=0.5,
        jitter_side=0.4,
        jitter_height=0.05,
        jitter_heading=2.0,
        jitter_tilt=0.5,
        domain_gap=0.5,
    ),
    "standard-1": Knobs(),
    "hard-1": Knobs(
        repetition=0.7,
        traffic=2.0,
        occluder=0.5,
        jitter_along=1.8,
        jitter_side=1.8,
        jitter_height=0.35,
        jitter_heading=10.0,
        jitter_tilt=2.5,
        domain_gap=1.5,
    ),
}
STANDARD, CUSTOM = "standard-1", "custom"


def difficulty_of(knobs: Knobs) -> str:
    """Return the name of the preset that has these values, or ``custom``."""
    return next((name for name, preset in PRESETS.items() if preset == knobs), CUSTOM)
