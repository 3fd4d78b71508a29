"""Which queries are shown, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor

from benchmarks.showcase import _draw_queries, showcase
from datasets.places import correct_matches
from tests.utils.report.sets import OPTIONS, idda_set
from utils.evaluation.metrics import recall_at
from utils.evaluation.recall import EvaluationSet, SetResult
from utils.report import attention, write
from utils.report.attention import look_at_sets
from utils.report.cases import choose_cases, describe_case, metres
from utils.report.panels import FOUND, FRAME, MISSED, framed, load_thumbnail, retrieval_panel


def many(result: SetResult, count: int) -> list[SetResult]:
    return [replace(result, set=replace(result.set, name=f"set {i}")) for i in range(count)]


def test_bounded_for_many_sets(tmp_path, model, results, monkeypatch):
    calls = []
    monkeypatch.setattr("utils.report.attention.look_at", lambda *args: calls.append(args))
    look_at_sets(model, None, many(results[0], 50), OPTIONS)
    assert len(calls) == attention.MAX_LOOKS
    cases = write._cases(many(results[0], 50), 0)
    assert len(cases) == write.MAX_CASES // 2
    assert all([case.found for case in s.cases] == [True, False] for s in cases), "a hit, then a miss"


def retrieved_by_hand(s: EvaluationSet, order: list[list[int]], near: list[float]) -> SetResult:
    """A result whose retrieved images are given."""
    retrieved = np.array(order)
    correct, distance = correct_matches(s.gallery, s.queries, retrieved, s.thresholds_m[0], s.kind.same_camera)
    descriptor = np.array(near)[:, None] + np.arange(retrieved.shape[1]) * 0.01
    return SetResult(
        s,
        retrieved,
        descriptor,
        distance,
        np.ones(len(order)),
        {s.thresholds_m[0]: correct},
        {5.0: recall_at(correct)},
        None,
        None,
    )


@pytest.fixture
def by_hand(data) -> SetResult:
    """Gallery and queries are left 0..4, right 5..9. Queries 0, 5: hits; 1: true at rank 3; 2: true never; 3: other camera."""
    order = [
        [0, 1, 2],
        [0, 2, 1],
        [0, 1, 3],
        [8, 3, 1],
        [0, 1, 2],
        [5, 6, 7],
        [6, 7, 8],
        [7, 8, 9],
        [8, 9, 5],
        [9, 5, 6],
    ]
    return retrieved_by_hand(idda_set(data), order, [0.5, 0.5, 0.5, 0.5, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_hardest_misses_come_first_and_hits_are_drawn(by_hand):
    """Nothing right: 4, the more confident, then 2; right at rank 3: 1; at rank 2: 3."""
    cases = choose_cases(by_hand, 4, 2, seed=0)
    assert [case.index for case in cases if not case.found] == [4, 2, 1, 3]
    assert [case.index for case in choose_cases(by_hand, 2, 0)] == [4, 2]
    assert [case.found for case in cases] == [True, *[False] * 4, True]
    assert choose_cases(by_hand, 4, 2, seed=0) == cases
    drawn = {choose_cases(by_hand, 2, 2, seed)[-1].index for seed in range(8)}
    assert len(drawn) > 1
    everything = [case.index for case in choose_cases(by_hand, 100, 100)]
    assert sorted(everything) == list(range(10))


def test_the_first_case_is_a_typical_hit(by_hand):
    """Hits are 0 and 5 to 9; with these distances of their first images, 7 is in the middle."""
    near = by_hand.descriptor_distance.copy()
    near[[0, 5, 6, 7, 8], 0], near[9, 0] = (0.9, 0.1, 0.2, 0.3, 0.7), 0.8
    result = replace(by_hand, descriptor_distance=near)
    for seed in range(3):
        assert [case.index for case in choose_cases(result, 2, 1, seed)] == [7, 4, 2]


def test_what_a_case_says(by_hand):
    hit, late, never, camera = (describe_case(by_hand, q) for q in (0, 1, 2, 3))
    assert hit.found and hit.truth is None and hit.headline == "found at rank 1"
    assert hit.retrieved[0].correct and hit.retrieved[0].caption == "1.0 m" and hit.retrieved[1].caption == "39.0 m"
    assert late.headline == "missed, first correct at rank 3" and late.truth.caption == "1.0 m, rank 3"
    assert never.headline == "missed, nothing correct among the first 3"
    assert never.truth.path == by_hand.set.gallery.paths[2] and never.truth.caption == "1.0 m, not in first 3"
    assert camera.retrieved[0].caption == "1.0 m, but camera right, not left" and camera.retrieved[0].correct is False
    assert camera.headline == "missed, first correct at rank 2"
    assert hit.query.caption == "camera left" and metres(1234.5) == "1,234 m"


def test_a_query_without_any_positive_comes_last(by_hand):
    s = by_hand.set
    positions = s.queries.positions.copy()
    positions[4] += 5000
    result = retrieved_by_hand(
        replace(s, queries=replace(s.queries, positions=positions)), by_hand.retrieved.tolist(), [0.5] * 10
    )
    cases = [case for case in choose_cases(result, 10, 0) if not case.found]
    assert [case.index for case in cases] == [2, 1, 3, 4]
    assert cases[-1].truth is None and "no image of this place within 5 m" in cases[-1].headline


def test_frames_are_green_for_hits_and_red_for_misses(by_hand):
    found, missed = ImageColor.getrgb(FOUND), ImageColor.getrgb(MISSED)
    photo = Image.new("RGB", (120, 90), "white")
    for correct, colour in ((True, found), (False, missed)):
        image = framed(photo, correct)
        edges = [(60, 2), (60, 87), (2, 60), (117, 45)]
        assert {image.getpixel(at) for at in edges} == {colour}
        assert image.getpixel((60, 60)) == (255, 255, 255)
    assert framed(photo, True).crop((0, 0, 31, 31)).tobytes() != framed(photo, False).crop((0, 0, 31, 31)).tobytes()
    panel = retrieval_panel([describe_case(by_hand, 1)], load_thumbnail, "title")
    # query, three retrieved, the true one: the middle of the upper edge of each frame
    top = next(y for y in range(60, 160) if panel.getpixel((24 + 270 + 128, y)) == missed) + FRAME // 2
    colours = [panel.getpixel((24 + k * 270 + 128, top)) for k in range(5)]
    assert colours[1:] == [missed, missed, found, found] and colours[0] not in (found, missed)


def test_showcase(tmp_path, model, results):
    path = showcase(tmp_path / "picture.jpg", model, results, OPTIONS, rows=2)
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.width == 1200
    assert path.stat().st_size <= 300_000
    with pytest.raises(ValueError, match="no query"):
        showcase(tmp_path / "none.jpg", model, [], OPTIONS)


def test_showcase_draws_queries_whatever_was_found(results):
    """Two of each set, by the seed alone: neither hits nor misses are picked."""
    rows = _draw_queries(results, seed=3, rows=3)
    assert [[name for name, _, _ in row] for row in rows] == [["val"] * 2, ["robotcar/night"] * 2, ["val"] * 2]
    of_val = [case.index for row in rows for name, case, _ in row if name == "val"]
    assert len(set(of_val)) == 4
    wrong = [replace(r, correct={t: ~c for t, c in r.correct.items()}) for r in results]
    again = [[case.index for _, case, _ in row] for row in _draw_queries(wrong, seed=3, rows=3)]
    assert again == [[case.index for _, case, _ in row] for row in rows]
    everything = [case.index for row in _draw_queries(results, seed=3, rows=40) for _, case, _ in row]
    assert len(everything) == sum(len(r.set.queries) for r in results)  # each once, and then there are no more
