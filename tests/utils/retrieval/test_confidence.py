"""How sure a match is: ratios by hand, Platt's curve against a known one, and files that are not of this network."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.retrieval.confidence import Calibration, apart, calibration_file, fit_curve, place_ratios, read_calibration
from utils.retrieval.exact import search
from utils.retrieval.settings import RetrievalSettings

MADE = Calibration(-20.0, 12.0, 25.0, 25.0, "abc", None, False, 100, 60, {"1": 0.9, "0.99": None})


def ratios(gallery, positions, queries, k, apart_m=25.0) -> list[float]:
    rows, looked_up = np.array(gallery, np.float32)[:, None], np.array(queries, np.float32)[:, None]
    places = np.array(positions, float)[:, None] * [1.0, 0.0]
    found = search(rows, looked_up, k)
    return place_ratios(partial(search, rows), places, looked_up, apart_m, found).tolist()


def test_ratios_by_hand():
    # descriptors are numbers: 0 and 1 lie at one place, 4 and 10 elsewhere
    gallery, positions = [0, 1, 4, 10], [0, 20, 100, 200]
    assert ratios(gallery, positions, [1.0, 3.0, 2.5, 7.0], 4) == pytest.approx([0, 0.5, 1, 1])
    assert ratios(gallery, positions, [3.5], 4) == pytest.approx([0.5 / 2.5])
    assert ratios(gallery, positions, [3.5], 4, apart_m=90) == pytest.approx([0.5 / 3.5])  # 1 is now too near to 4


def test_equal_images_of_two_places_are_not_sure():
    assert ratios([5, 5], [0, 100], [5.0, 6.0], 2) == [1, 1]


def test_a_gallery_of_one_place_says_nothing():
    assert np.isnan(ratios([0, 1, 2], [0, 10, 20], [0.5], 2)).all()


def test_the_search_goes_deeper_where_the_first_matches_are_of_one_place():
    gallery, positions = [*np.linspace(0, 1, 50), 9.0], [*range(20), *range(20), *range(10), 500]
    deep = ratios(gallery, positions, [0.0, 5.0, 8.9], 2)
    assert deep == pytest.approx([0, 1, 0.1 / 7.9], rel=1e-4)
    assert deep == pytest.approx(ratios(gallery, positions, [0.0, 5.0, 8.9], 51))


@given(st.floats(-40, -5), st.floats(0.3, 0.8))
def test_the_curve_is_found_again(slope, middle):
    rng = np.random.default_rng(0)
    shown = rng.uniform(0, 1, 4000)
    right = rng.uniform(size=4000) < 1 / (1 + np.exp(-slope * (shown - middle)))
    found, intercept = fit_curve(np.append(shown, np.nan), np.append(right, False))
    made = replace(MADE, slope=found, intercept=intercept)
    assert found == pytest.approx(slope, rel=0.15) and -intercept / found == pytest.approx(middle, abs=0.03)
    assert made.probability(shown).mean() == pytest.approx(right.mean(), abs=0.01)


def test_no_sample_makes_it_certain():
    assert fit_curve(np.array([0.2, 0.4]), np.array([True, True])) == (0, pytest.approx(np.log(3)))  # 3 of 4
    slope, intercept = fit_curve(np.linspace(0, 1, 20), np.arange(20) < 10)
    assert slope < 0 and np.isfinite([slope, intercept]).all()
    made = replace(MADE, slope=slope, intercept=intercept)
    assert 0.9 < made.probability(np.float64(0)) < 1 and np.isnan(made.probability(np.float64("nan")))


def test_where_large_ratios_are_better_they_say_nothing():
    slope, intercept = fit_curve(np.linspace(0, 1, 20), np.arange(20) >= 10)
    assert slope == 0 and intercept == pytest.approx(0)
    assert fit_curve(np.full(4, 0.5), np.array([True, True, True, False]))[0] == 0
    with pytest.raises(ValueError, match="lies at one place"):
        fit_curve(np.array([np.nan]), np.array([True]))


def test_files(tmp_path):
    file = calibration_file(tmp_path / "best.pth")
    assert file == tmp_path / "best.confidence.json" and apart(5.0) == 25.0 and apart(40.0) == 40.0
    with pytest.raises(FileNotFoundError, match=r"best\.confidence\.json: no such file.*--calibrate"):
        read_calibration(file)
    MADE.save(file)
    assert read_calibration(file) == MADE
    MADE.check(file, "abc", RetrievalSettings())
    with pytest.raises(ValueError, match="other weights"):
        MADE.check(file, "def", RetrievalSettings())
    with pytest.raises(ValueError, match="--pca_dim None"):
        MADE.check(file, "abc", RetrievalSettings(pca_dim=8))
    for text in ("{", "[]", '{"slope": 1}', "3"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"best\.confidence\.json: no calibration"):
            read_calibration(file)
