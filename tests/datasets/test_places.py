"""Positives against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.places import ImageSet, Neighbours, correct_matches, load_image_set, neighbours_within
from tests.tiny import SPACING_M, write_pass


def image_set(positions, cameras) -> ImageSet:
    return ImageSet("made", tuple(f"{i}" for i in range(len(positions))), np.array(positions, float), np.array(cameras))


POINTS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from(["front", "rear"])), min_size=1, max_size=40
)


@settings(deadline=None)
@given(gallery=POINTS, queries=POINTS, radius=st.integers(1, 15), same=st.booleans(), block=st.integers(1, 7))
def test_neighbours_against_brute_force(gallery, queries, radius, same, block):
    sets = [image_set([p[:2] for p in points], [p[2] for p in points]) for points in (gallery, queries)]
    found = neighbours_within(*sets, radius, same, block)
    retrieved = np.tile(np.arange(len(gallery)), (len(queries), 1))
    correct, distance = correct_matches(*sets, retrieved, radius, same)
    for q, (x, y, camera) in enumerate(queries):
        expected = [
            g
            for g, (u, v, c) in enumerate(gallery)
            if (u - x) ** 2 + (v - y) ** 2 <= radius**2 and (c == camera or not same)
        ]
        assert found[q].tolist() == expected == np.flatnonzero(correct[q]).tolist()
        assert distance[q] == pytest.approx([np.hypot(u - x, v - y) for u, v, _ in gallery])
    assert found.counts.tolist() == [len(found[q]) for q in range(len(queries))]


@given(rows=st.lists(st.sets(st.integers(0, 20)), min_size=1, max_size=8), data=st.data())
def test_lists_taken_and_restricted(rows, data):
    rows = [sorted(row) for row in rows]
    lists = Neighbours(np.cumsum([0, *map(len, rows)]), np.array([i for row in rows for i in row], np.int32))
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10)))
    images = np.array(sorted(data.draw(st.sets(st.integers(0, 20), min_size=1))))
    assert [row.tolist() for row in map(lists.of(chosen).__getitem__, range(len(chosen)))] == [rows[i] for i in chosen]
    within = lists.within(images)
    for i, row in enumerate(rows):
        assert images[within[i]].tolist() == [image for image in row if image in images]


def test_thresholds_are_inclusive_and_nothing_retrieved_is_wrong():
    gallery, query = image_set([(0, 0), (3, 4)], ["front", "rear"]), image_set([(0, 0)], ["front"])
    correct, distance = correct_matches(gallery, query, np.array([[1, 0, -1]]), 5.0, False)
    assert correct.tolist() == [[True, True, False]] and np.isnan(distance[0, 2])
    assert correct_matches(gallery, query, np.array([[1, 0]]), 5.0, True)[0].tolist() == [[False, True]]


def test_a_folder_is_read_with_its_positions(tmp_path):
    write_pass(tmp_path / "front", 3, 0, suffix=".JPG")
    images = load_image_set([tmp_path])
    assert len(images) == 3 and set(images.cameras) == {"front"}
    assert images.positions[:, 0].tolist() == [277000 + SPACING_M * i for i in range(3)]
    assert repr(images) == f"{tmp_path}: 3 images"
