"""The town's knobs do measurably what they say, its presets stay what they are, and the standard one draws what it always did."""

import hashlib
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.checks.town_presets import PLAN_ONLY, camera_gap, displacements, moving_share, own_types
from datasets.town import DONE, make_town
from datasets.town.__main__ import main
from datasets.town.drawing.camera import _sensor
from datasets.town.passes import Settings, chunks
from datasets.town.pictures import frames
from datasets.town.world.difficulty import PRESETS, Knobs, difficulty_of
from datasets.town.world.styles import real_optics, weather

GOLDEN = Path(__file__).parents[2] / "golden" / "town_standard_1.npz"
PLACES, SIZE, CLI_SIZE = 12, (112, 98), "--size 124 122 --places 4 --workers 1".split()
EXTREME = Knobs(**{f.name: f.metadata["most"] for f in fields(Knobs)})


def fingerprint(folder: Path) -> tuple[str, np.ndarray]:
    """Digest of all names and label pixels, and mean grey of blocks of 8 x 7 pixels of every photo."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as mask:
            digest.update(path.relative_to(folder).as_posix().encode() + np.asarray(mask).tobytes())
    names, blocks = [], []
    for path in sorted(folder.rglob("*.jpg")):
        if path.parent.name != "robotcar_all":
            with Image.open(path) as photo:
                grey = np.asarray(photo.convert("L"), np.float64)[:96, :98]
            names.append(path.relative_to(folder).as_posix())
            blocks.append(grey.reshape(12, 8, 14, 7).mean((1, 3)))
    digest.update("\n".join(names).encode())
    return digest.hexdigest(), np.array(blocks)


def test_standard_1_draws_what_the_town_was_before_it_had_presets(tmp_path):
    """Photos within a quarter of a grey level: vector units of other processors round a rare pixel differently."""
    digest, blocks = fingerprint(make_town(tmp_path / "t", (98, 97), 4, seed=7, workers=1, progress=False))
    with np.load(GOLDEN) as golden:
        assert digest == str(golden["digest"])
        assert np.abs(blocks - golden["blocks"] / 64.0).max() < 0.25


def test_presets_never_change():
    names = [f.name for f in fields(Knobs)]
    assert {name: [getattr(knobs, n) for n in names] for name, knobs in PRESETS.items()} == {
        "easy-1": [0.0, 0.4, 0.0, 0.5, 0.4, 0.05, 2.0, 0.5, 0.5],
        "standard-1": [0.35, 1.0, 0.16, 1.0, 1.0, 0.12, 4.0, 1.2, 1.0],
        "hard-1": [0.7, 2.0, 0.5, 1.8, 1.8, 0.35, 10.0, 2.5, 1.5],
    }
    assert [difficulty_of(knobs) for knobs in PRESETS.values()] == list(PRESETS)


def settings(size=SIZE, **knobs: float) -> Settings:
    return Settings(size, PLACES, 0, Knobs(**knobs))


def grows(values) -> bool:
    return bool(np.all(np.diff(values) > 0))


def test_repetition_makes_facades_alike():
    shares = [own_types(settings(PLAN_ONLY, repetition=r)) for r in (1.0, 0.7, 0.35, 0.0)]
    assert grows(shares) and shares[0] < 0.2 and shares[-1] > 0.95


def test_traffic_takes_more_of_the_view():
    shares = [moving_share(settings(PLAN_ONLY, traffic=t)) for t in (0.0, 0.5, 3.0)]
    assert shares[0] == 0.0 and grows(shares)


@pytest.mark.parametrize(
    ("knob", "figure"),
    [
        ("jitter_along", "distance_m"),
        ("jitter_side", "distance_m"),
        ("jitter_heading", "turn_degrees"),
        ("jitter_height", "height_m"),
    ],
)
def test_jitter_moves_the_cameras_of_two_passes_apart(knob, figure):
    high = getattr(EXTREME, knob)
    assert grows([displacements(settings(PLAN_ONLY, **{knob: share * high}))[figure] for share in (0.0, 0.3, 0.6, 1.0)])


def test_even_the_largest_jitter_leaves_every_query_one_positive():
    """3 m and 5 m are the thresholds within which validation counts a gallery image as correct."""
    for chunk in chunks(Settings(PLAN_ONLY, 60, 1, EXTREME)):
        if chunk.town == "robotcar":
            continue
        where = [
            (frame.run.name, np.array(frame.name.split("@")[1:3], float))
            for frame in frames(Settings(PLAN_ONLY, 60, 1, EXTREME), chunk)
        ]
        gallery = np.unique([at for name, at in where if name == "gallery"], axis=0)
        distance = np.array([np.hypot(*(gallery - at).T) for name, at in where if name != "gallery"])
        assert (distance.min(1) < 3.0).all() and ((distance < 5.0).sum(1) == 1).all()


def test_gap_moves_colour_and_blur_of_the_real_camera():
    changes, differences = zip(*(camera_gap(settings(domain_gap=g), places=3) for g in (0.0, 1.0, 2.0)))
    assert differences[0] == 0.0 and grows(differences)
    saturation, corners, _ = np.abs(changes).T
    assert grows(saturation) and grows(corners)


def test_gap_blurs_edges():
    """Slope of a step from black to grey, its rows averaged so that the sensor's noise does not count."""
    slopes = []
    for gap in (2.0, 1.0, 0.0):
        step = np.zeros((216, 384, 3), np.float32)
        step[:, 192:] = 150.0
        photo = np.asarray(_sensor(step, real_optics(gap), weather("overcast"), np.random.default_rng(0)), np.float64)
        profile = photo.mean((0, 2))
        slopes.append(np.diff(profile).max() / (profile[200:210].mean() - profile[170:180].mean()))
    assert grows(slopes)


def test_record_names_the_preset_and_a_changed_knob_makes_it_custom(tmp_path):
    few = [*CLI_SIZE, "--passes", "robotcar/overcast"]
    for argv, difficulty, knobs in (
        (["--difficulty", "hard-1"], "hard-1", PRESETS["hard-1"]),
        (["--difficulty", "easy-1", "--traffic", "0"], "custom", replace(PRESETS["easy-1"], traffic=0.0)),
    ):
        out = tmp_path / difficulty
        assert main(["--out", str(out), *few, *argv]) == 0
        record = json.loads((out / DONE).read_text())
        assert record["difficulty"] == difficulty and record["knobs"] == asdict(knobs)
    assert main(["--out", str(out), *few]) == 2  # drawn with other knobs


def test_records_from_before_the_presets_are_the_standard_town(tmp_path, capsys):
    record = {"version": 1, "size": [124, 122], "places": 4, "seed": 0, "knobs": asdict(Knobs())}
    (tmp_path / DONE).write_text(json.dumps(record))
    assert main(["--out", str(tmp_path), *CLI_SIZE]) == 0 and "complete" in capsys.readouterr().out
    assert main(["--out", str(tmp_path), *CLI_SIZE, "--difficulty", "hard-1"]) == 2


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--difficulty", "hard"], "hard-1"),
        (["--repetition", "1.5"], "--repetition"),
        (["--traffic", "nan"], "--traffic"),
        (["--domain_gap", "-1"], "--domain_gap"),
        (["--jitter_side", "3"], "--jitter_side"),
        (["--occluder", "much"], "--occluder"),
    ],
)
def test_bad_values_are_one_line_and_status_2(argv, named, tmp_path, capsys):
    try:
        status = main(["--out", str(tmp_path / "new"), *argv])
    except SystemExit as stop:
        status = stop.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(lines) == 1 and named in lines[0] and not (tmp_path / "new").exists()
