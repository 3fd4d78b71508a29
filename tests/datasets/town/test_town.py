"""The procedural town: layout, names, labels, positives, determinism, refusals, resuming."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.naming import RAW_TO_CLASS
from datasets.town import DONE, make_town
from datasets.town.__main__ import main
from datasets.town.make import STARTED, parameters
from datasets.town.passes import CONDITIONS, Settings
from datasets.town.world.difficulty import Knobs

SIZE, PLACES = (112, 98), 12
SMALL_FLAGS = ["--size", "124", "122", "--places", "4", "--seed", "7"]
TOWNS = {"town10": ("front_rear", ("front", "rear"), 3.0), "town3": ("left_right", ("left", "right"), 5.0)}


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    return make_town(tmp_path_factory.mktemp("town") / "a", SIZE, PLACES, workers=1, progress=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return make_town(tmp_path_factory.mktemp("town") / "b", (124, 122), 4, seed=7, workers=1, progress=False)


def position(path: Path) -> tuple[float, float]:
    fields = path.name.split("@")
    assert fields[0] == "" and len(fields) > 3 and all(len(f.split(".")[1]) == 3 for f in fields[1:3])
    return float(fields[1]), float(fields[2])


def positions(folder: Path) -> list[tuple[float, float]]:
    return [position(p) for p in sorted(folder.glob("*.jpg"))]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def distances(queries, gallery) -> np.ndarray:
    q, g = np.array(queries), np.array(gallery)
    return np.hypot(*(q[:, None] - g[None]).transpose(2, 0, 1))


def test_folders_and_counts(town):
    for name, (group, cameras, _) in TOWNS.items():
        for images, labels in (
            ("gallery", "gallery_labels"),
            ("queries_rain", "queries_labels_rain"),
            ("queries_rain_fresh", "queries_labels_rain_fresh"),
        ):
            for camera in cameras:
                photos = sorted((town / "idda" / name / images / group / camera).iterdir())
                masks = sorted((town / "idda" / name / labels / group / camera).iterdir())
                assert len(photos) == PLACES
                assert [p.stem for p in photos] == [m.stem for m in masks]
                assert {p.suffix for p in photos} == {".jpg"} and {m.suffix for m in masks} == {".png"}
    for condition in CONDITIONS:
        assert len(list((town / "robotcar" / condition).iterdir())) == PLACES
    merged = sorted((town / "robotcar_all").iterdir())
    assert len(merged) == PLACES * len(CONDITIONS) and not any(p.is_symlink() for p in merged)
    assert sorted(p.name for p in town.iterdir()) == ["idda", "robotcar", "robotcar_all", DONE]


def test_parameters_are_recorded(town):
    assert json.loads((town / DONE).read_text()) == parameters(Settings(SIZE, PLACES, 0, Knobs()))


def test_positions_are_unique_in_each_folder(town):
    for folder in {p.parent for p in town.rglob("*.jpg")}:
        found = positions(folder)
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", TOWNS)
@pytest.mark.parametrize("queries", ["queries_rain", "queries_rain_fresh"])
def test_every_query_of_a_synthetic_town_has_its_positive(town, name, queries):
    group, cameras, threshold = TOWNS[name]
    for camera in cameras:
        gallery = positions(town / "idda" / name / "gallery" / group / camera)
        d = distances(positions(town / "idda" / name / queries / group / camera), gallery)
        assert ((d <= threshold).sum(1) == 1).all()
        assert (d.min(1) < 2.0).all() and (d > 25.0).any(1).all()


def test_every_real_query_has_positives_and_negatives(town):
    gallery = positions(town / "robotcar" / "overcast")
    for condition in CONDITIONS[1:]:
        d = distances(positions(town / "robotcar" / condition), gallery)
        near = (d <= 25.0).sum(1)
        assert near.min() >= 2 and near.max() <= 6
        assert (d.min(1) < 2.0).all() and (d > 25.0).any(1).all()


def test_towns_lie_apart(town):
    firsts = [
        positions(f)[0]
        for f in (
            town / "idda/town10/gallery/front_rear/front",
            town / "idda/town3/gallery/left_right/left",
            town / "robotcar/overcast",
        )
    ]
    assert all(math.dist(a, b) > 2000 for i, a in enumerate(firsts) for b in firsts[:i])


@pytest.mark.parametrize("name", TOWNS)
def test_labels_are_exact_pictures_of_known_classes(town, name):
    seen = np.zeros(256, int)
    for path in sorted((town / "idda" / name).rglob("*.png")):
        with Image.open(path) as mask:
            assert mask.mode == "RGBA" and mask.size == SIZE
            rgba = np.asarray(mask)
        assert (rgba[..., 3] == 255).all() and rgba[..., 0].max() <= 26
        seen += np.bincount(RAW_TO_CLASS[rgba[..., 0]].ravel(), minlength=256)
    assert (seen[:17] > 20).all(), seen[:17]
    for path in (town / "idda" / name).rglob("*.jpg"):
        with Image.open(path) as photo:
            assert photo.mode == "RGB" and photo.size == SIZE


def test_fresh_pass_differs_from_the_training_pass(town):
    for name, (group, cameras, _) in TOWNS.items():
        for camera in cameras:
            one = sorted((town / "idda" / name / "queries_rain" / group / camera).iterdir())
            two = sorted((town / "idda" / name / "queries_rain_fresh" / group / camera).iterdir())
            assert not {p.name for p in one} & {p.name for p in two}
            assert not {p.read_bytes() for p in one} & {p.read_bytes() for p in two}


def test_conditions_look_as_they_should(town):
    def mean(condition):
        return np.mean([np.asarray(Image.open(p), float).mean() for p in (town / "robotcar" / condition).iterdir()])

    assert mean("night") < 0.6 * mean("overcast") < 0.6 * mean("snow")


def test_same_bytes_with_other_workers(small, tmp_path):
    again = make_town(tmp_path / "again", (124, 122), 4, seed=7, workers=2, progress=False)
    assert content(again) == content(small)


def test_passes_are_drawn_on_request_and_change_no_other(small, tmp_path):
    wanted = ["town3/night", "town3/gallery", "robotcar/snow"]
    some = make_town(tmp_path / "some", (124, 122), 4, seed=7, workers=1, progress=False, passes=wanted)
    found, standard = content(some), content(small)
    night = {name for name in found if "_night/" in name}
    assert {n: found[n] for n in found if n not in night and n != DONE} == {
        n: standard[n]
        for n in standard
        if n.startswith(("idda/town3/gallery", "robotcar/snow")) or (n.startswith("robotcar_all") and "@snow@" in n)
    }
    photos, masks = (sorted((some / "idda/town3" / f).rglob("*.*")) for f in ("queries_night", "queries_labels_night"))
    assert len(photos) == len(masks) == len(night) / 2 == 8 and [p.stem for p in photos] == [m.stem for m in masks]
    assert np.mean([np.asarray(Image.open(p)).mean() for p in photos]) < 80
    assert json.loads((some / DONE).read_text())["passes"] == ["town3/gallery", "robotcar/snow", "town3/night"]
    with pytest.raises(ValueError, match="parameters"):
        make_town(some, (124, 122), 4, seed=7, workers=1, progress=False)
    with pytest.raises(ValueError, match="--passes: 'town3/fog' is not one of town10/gallery"):
        make_town(tmp_path / "no", (124, 122), 4, passes=["town3/fog"])


def test_a_town_of_before_the_passes_is_known_again(small, tmp_path):
    record = json.loads((small / DONE).read_text())
    del record["passes"]
    (tmp_path / DONE).write_text(json.dumps(record))
    make_town(tmp_path, (124, 122), 4, seed=7, workers=1, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == [DONE]


def test_interrupted_run_goes_on(small, tmp_path):
    part, whole = tmp_path / "part", content(small)
    kept = [n for i, n in enumerate(whole) if i % 9 and n != DONE]
    for name in kept:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_bytes(whole[name])
    (part / STARTED).write_bytes(whole[DONE])
    stamp = (part / kept[0]).stat().st_mtime_ns
    make_town(part, (124, 122), 4, seed=7, workers=1, progress=False)
    assert content(part) == whole and (part / kept[0]).stat().st_mtime_ns == stamp


def test_an_interrupt_ends_the_drawing_at_once_in_one_line(tmp_path):
    flags = ["--out", "town", "--size", "124", "122", "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.Popen(
        [sys.executable, "-m", "datasets.town", *flags],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a shell's background job ignores it
    )
    while run.poll() is None and not any(tmp_path.rglob("*.jpg")):
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does: the workers get it too
    _, errors = run.communicate()
    assert run.returncode == 130 and errors.count("interrupted; give the same command again\n") == 1
    assert "Traceback" not in errors and not (tmp_path / "town" / DONE).exists()
    assert len(list(tmp_path.rglob("*.jpg"))) < 84  # images of one job: none was waited for


def test_complete_town_is_left_alone(small, capsys):
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    assert main(["--out", str(small), *SMALL_FLAGS]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 1
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


def test_refusals(small, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    for argv in (
        ["--out", str(small), "--places", "5"],
        ["--out", str(other)],
        ["--out", str(other / "letter.txt")],
        ["--out", str(other / "letter.txt" / "town")],
        ["--out", str(small), *SMALL_FLAGS, "--preview", str(other / "letter.txt" / "sheet.png")],
        ["--out", str(tmp_path / "new"), "--passes", "town3/fog"],
        ["--out", str(tmp_path / "new"), "--size", "96", "200"],
        ["--out", str(tmp_path / "new"), "--size", "200", "121"],
        ["--out", str(tmp_path / "new"), "--places", "3"],
        ["--out", str(tmp_path / "new"), "--seed", "-1"],
        ["--out", str(tmp_path / "new"), "--workers", "0"],
    ):
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
        assert status == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists() and [p.name for p in other.iterdir()] == ["letter.txt"]


def test_preview(small, tmp_path):
    assert main(["--out", str(small), *SMALL_FLAGS, "--preview", str(tmp_path / "p.png")]) == 0
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.width > 1000
