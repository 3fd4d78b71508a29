"""The tables of the town (styles.toml) are complete, and give the streets that they always gave."""

import hashlib
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from datasets.naming import CLASS_COLOURS, CLASS_NAMES, RAW_TO_CLASS
from datasets.town.passes import PASSES
from datasets.town.preview import colour_label
from datasets.town.world.difficulty import Knobs
from datasets.town.world.plan import build_street
from datasets.town.world.styles import TABLES, colours, real_optics, street_style, synthetic_optics, town, weather

TOWNS = ("town10", "town3", "robotcar")
STREETS = {  # digests of what the first version of the drawing built; raise VERSION in passes.py if they must change
    "high street": "cb0ddeace313affe",
    "new quarter": "27470c063dff65c7",
    "brick terrace": "00daa11f22b4d3ca",
    "boulevard": "11e37e11c95539aa",
    "suburb": "21badc1acac3dd7b",
    "works": "b139b9037dd95b0b",
    "village": "68c9caf729d340e4",
    "old stone": "30cb8fe03555abf8",
}


def plain(value):
    """Numbers rounded to a millimetre, so that no processor differs, within lists."""
    if is_dataclass(value):
        return [plain(getattr(value, f.name)) for f in fields(value)]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return round(float(value), 3) + 0.0 if number else str(value)


def digest(name: str, index: int) -> str:
    """What stands in a street, where, and in which colours."""
    street = build_street(3, name, index, 4, Knobs())
    things = [(t.faces, t.points, t.shadow, t.lights, t.front, t.off, t.reach) for t in street.things]
    rest = street.crossings, street.lots, street.lamps, street.skyline, street.grass, street.slabs, street.asphalt
    return hashlib.sha256(repr(plain([things, rest])).encode()).hexdigest()[:16]


@pytest.mark.parametrize("style", STREETS)
def test_every_style_builds_the_street_it_always_built(style):
    name, index = next((t, town(t).streets.index(style)) for t in TOWNS if style in town(t).streets)
    assert digest(name, index) == STREETS[style]


def test_tables_are_complete():
    tables = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    assert {style for name in tables["town"] for style in town(name).streets} == set(tables["street"]) == set(STREETS)
    assert {run.town for run in PASSES.values()} == set(tables["town"]) == set(TOWNS)
    assert {run.weather for run in PASSES.values()} == set(tables["weather"])
    for row in [*map(weather, tables["weather"]), *map(street_style, tables["street"])]:
        hash(row)  # every list became a tuple, every name of a field is known
    for group in tables["colours"]:
        assert all(len(rgb) == 3 and min(rgb) >= 0 and max(rgb) <= 255 for rgb in colours(group))
    assert street_style("suburb").palette == (*colours("pastels"), (146, 92, 74), (158, 104, 82))


def test_the_real_camera_moves_from_the_synthetic_one_with_the_gap():
    assert real_optics(0.0) == synthetic_optics()
    assert real_optics(1.0).field_of_view == 66.0 and real_optics(0.5).field_of_view == 78.0


def test_naming_a_town_loads_no_drawing():
    code = (
        "import sys, datasets.town.__main__ as m; m.build_parser(); print({'numpy', 'PIL', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_each_class_has_its_colour():
    assert len(set(CLASS_COLOURS)) == len(CLASS_COLOURS) == len(CLASS_NAMES)
    raw = np.arange(256, dtype=np.uint8)[None]
    shown = np.asarray(colour_label(raw))[0]
    for value, rgb in zip(RAW_TO_CLASS, shown):
        assert tuple(rgb) == (CLASS_COLOURS[value] if value < len(CLASS_COLOURS) else (0, 0, 0))
