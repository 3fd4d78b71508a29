"""Galleries and queries as the flags name them: what is said of them, and what is refused."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import sizes
from datasets.reading.transforms import crop_and_flip, scaled_size
from datasets.sizes import smallest_cropped, smallest_scaled
from models.config import MIN_SIDE
from tests.tiny import write_idda, write_pass
from utils.evaluation.results import count_doubts, doubt_lines
from utils.options.evaluation_sets import evaluation_sets
from utils.options.pairs import split_folders
from utils.options.parsers import eval_parser, main_parser
from utils.options.training_set import check_size, training_data
from utils.retrieval.screening import Screening
from utils.system.logs import start_logging


def evaluated(root: Path, *flags: str):
    start_logging()
    argv = ["--resume", "x.pth", "--dataset_root_test", str(root), "--test_g", "gallery", "--test_q", "queries", *flags]
    return evaluation_sets(eval_parser().parse_args(argv), Screening())


def trained(root: Path, *flags: str):
    start_logging()
    args = main_parser().parse_args(["--dataset_root", str(root), "--da_method", "none", "--eval_scale", "1", *flags])
    return training_data(args, Screening(args.on_bad_image))


@pytest.fixture
def street(tmp_path) -> Path:
    """Three places of a gallery, and as many queries 9 m beside them."""
    write_pass(tmp_path / "gallery", 3, 1)
    write_pass(tmp_path / "queries", 3, 2, shift=9.0)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "kind utm (neither camera nor label folders): same place is within 25 m, any camera; images scaled by 1"),
        (
            ["--kind_test", "iddav2"],
            "kind iddav2 (as given): same place is within 5 m, the same camera; images scaled by 0.5",
        ),
        (
            ["--threshold_m", "7", "12", "--eval_scale", "0.8"],
            "same place is within 7 or 12 m, any camera; images scaled by 0.8",
        ),
    ],
)
def test_the_kind_s_line_says_what_follows(street, capsys, flags, said):
    evaluated(street, *flags)
    line = next(line for line in capsys.readouterr().out.splitlines() if ": kind " in line)
    other = "utm" if "iddav2" in flags else "iddav2"
    assert said in line and f"(to overrule: --kind_test {other}, --threshold_m M, --eval_scale F)" in line


def test_the_kind_s_line_of_training(tmp_path, capsys):
    trained(write_idda(tmp_path, 2))
    line = next(line for line in capsys.readouterr().out.splitlines() if ": kind " in line)
    assert "--dataset_root: kind iddav2 (camera folders front, rear): same place is within 3 m, the same camera" in line
    assert "(to overrule: --kind utm, --train_pos_dist_threshold M, --eval_scale F)" in line


def test_cameras_that_the_gallery_lacks(street, capsys):
    for side, camera in (("gallery", "front"), ("queries", "left")):
        for image in list((street / side).iterdir()):
            (street / side / camera).mkdir(exist_ok=True)
            image.rename(street / side / camera / image.name)
    evaluated(street, "--threshold_m", "10")
    warnings = capsys.readouterr().err.splitlines()
    assert (
        "3 of 3 queries come from folders of cameras that the gallery lacks (queries: left; gallery: front)"
        in warnings[0]
    )
    assert "--kind_test utm" in warnings[0]
    assert (
        "3 of 3 queries have no gallery image of the same camera within 10 m (are these the same streets" in warnings[1]
    )
    evaluated(street, "--threshold_m", "10", "--kind_test", "utm")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("metres", "lacking"), [("5", 3), ("10", 0), ("8.5", 2)])
def test_queries_without_a_positive_are_counted(street, capsys, metres, lacking):
    first = min((street / "queries").iterdir())
    first.rename(first.with_name(first.name.replace("@277009", "@277008")))
    (s,) = evaluated(street, "--threshold_m", metres)
    errors = capsys.readouterr().err
    remedy = {3: "are these the same streets, in the same metres?", 2: "they count as misses"}
    said = f"queries: {lacking} of 3 queries have no gallery image within {metres} m ({remedy.get(lacking)})"
    assert (said in errors) == (lacking > 0)
    counts = count_doubts(s.gallery, s.queries, float(metres), False)
    assert counts == ({"queries_without_positive": lacking} if lacking else {})
    lines = doubt_lines({"name": "night", "num_queries": 3, "threshold_m": float(metres), **counts})
    assert (
        lines
        == [
            f"night: {lacking} of 3 queries have no gallery image of their place within {metres} m: they count as misses"
        ][:lacking]
    )


@pytest.mark.parametrize("way", [os.symlink, os.link])
@pytest.mark.parametrize("count", [1, 3])
def test_queries_that_are_in_the_gallery_are_counted(street, capsys, way, count):
    shutil.rmtree(street / "queries")
    write_pass(street / "queries", 3 - count, 2, shift=9.0) if count < 3 else (street / "queries").mkdir()
    for image in sorted((street / "gallery").iterdir())[:count]:
        way(image, street / "queries" / image.name)
    (s,) = evaluated(street)
    assert f"{count} of 3 queries are in the gallery too, so each finds itself (first: " in capsys.readouterr().err
    counts = count_doubts(s.gallery, s.queries, 25.0, False)
    assert counts == {"queries_in_gallery": count}
    assert "are in the gallery too" in doubt_lines({"name": "q", "num_queries": 3, "threshold_m": 25.0, **counts})[0]


def test_a_link_to_the_whole_gallery(street, capsys):
    shutil.rmtree(street / "queries")
    os.symlink(street / "gallery", street / "queries")
    evaluated(street)
    assert "3 of 3 queries are in the gallery too" in capsys.readouterr().err


def test_training_refuses_queries_that_are_all_in_the_gallery(tmp_path):
    write_idda(tmp_path, 2)
    gallery = "town10/gallery/front_rear"
    with pytest.raises(ValueError, match=r"--dataset_root: 4 of 4 queries are in the gallery too"):
        trained(tmp_path, "--train_g", gallery, "--train_q", gallery)


def test_folders_with_a_plus_in_their_name(tmp_path):
    for folder in ("day+dusk", "night", "a", "b", "a+b", "x+y+z", "x+y"):
        (tmp_path / folder).mkdir()
    for text, folders in {
        "day+dusk": ["day+dusk"],
        "day+dusk+night": ["day+dusk", "night"],
        "night+day+dusk": ["night", "day+dusk"],
        "a+b": ["a+b"],
        "b+a": ["b", "a"],
        "x+y+z": ["x+y+z"],
        "x+y+x+y+z+night": ["x+y", "x+y+z", "night"],
        "rain+snow": ["rain", "snow"],
        "night": ["night"],
    }.items():
        assert split_folders(tmp_path, text) == folders


def test_a_test_set_with_a_plus_in_its_name(street, capsys):
    (street / "queries").rename(street / "day+dusk")
    (s,) = evaluated(street, "--test_q", "day+dusk")
    assert s.name == "day+dusk" and len(s.queries) == 3
    with pytest.raises(OSError, match=r"--dataset_root_val: .*/day: no such folder.*\(\+ stands between two folders\)"):
        evaluated(street, "--dataset_root_val", str(street), "--val_g", "gallery", "--val_q", "day+night")


@given(st.floats(0.01, 4))
def test_the_smallest_sides_are_those_of_what_reads_images(scale):
    side = smallest_scaled(scale)
    assert min(scaled_size(side, side, scale)) >= MIN_SIDE
    assert side == 1 or min(scaled_size(side - 1, side - 1, scale)) < MIN_SIDE


def test_the_smallest_side_of_training():
    import numpy as np

    def cropped(side):
        rows, _, _ = crop_and_flip(np.random.default_rng(0), side, side)
        return rows.stop - rows.start

    assert sizes.MIN_SIDE == MIN_SIDE and smallest_cropped() == 122
    assert cropped(122) == MIN_SIDE and cropped(121) < MIN_SIDE


@pytest.mark.parametrize(
    ("size", "scale", "said"),
    [
        ((121, 300), 1.0, "training crops 80% of each side, so sides must be at least 122 px; use larger images"),
        ((300, 100), 0.5, "must be at least 122 px, and 194 px for --eval_scale 0.5; use larger images"),
        ((150, 300), 0.5, "must be at least 194 px; give --eval_scale 0.65 or more"),
        ((122, 122), 1.0, None),
        ((150, 150), 0.65, None),
    ],
)
def test_images_too_small_for_training(size, scale, said):
    if said is None:
        return check_size("a.png", size, scale)
    with pytest.raises(ValueError) as error:
        check_size("a.png", size, scale)
    assert str(error.value).startswith(f"a.png: {size[0]}x{size[1]} px is too small") and said in str(error.value)
    assert ("give --eval_scale" in str(error.value)) == (min(size) >= 122)
    return None


WAYS = "--sem_loss_weight 0, which ends domain adaptation too (--da_method none, no --DA_datasets)"


def test_missing_labels_name_all_ways_out_at_once(tmp_path):
    write_idda(tmp_path, 2)
    label = min((tmp_path / "town10/queries_labels_rain/front_rear/front").iterdir())
    label.unlink()
    with pytest.raises(ValueError) as error:
        trained(tmp_path, "--da_method", "grl")
    assert f"{label}: label missing" in str(error.value) and "1 of 8 training images" in str(error.value)
    assert "--on_bad_image skip" in str(error.value) and WAYS in str(error.value)
    assert len(trained(tmp_path, "--on_bad_image", "skip").queries) == 3
    for folder in ("gallery_labels", "queries_labels_rain"):
        shutil.rmtree(tmp_path / "town10" / folder)
    for flags in ([], ["--on_bad_image", "skip"], ["--da_method", "grl"]):
        with pytest.raises(ValueError) as error:
            trained(tmp_path, *flags)
        assert "no label folder beside it" in str(error.value) and "8 of 8 training images" in str(error.value)
        assert WAYS in str(error.value) and "skip" not in str(error.value)
    assert len(trained(tmp_path, "--da_method", "grl", "--sem_loss_weight", "0").gallery) == 4
