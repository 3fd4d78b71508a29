"""Mining against the protocol's per-query search, and what a training batch reads."""

import numpy as np
import pytest
import torch

from datasets.places import ImageSet, load_image_set, neighbours_within
from datasets.transforms import read_image
from datasets.triplets import LoadFailure, StepPlan, TrainingBatches, draw_negatives, mine_triplets
from tests.tiny import write_idda


def street(count: int, spacing: float, seed: int) -> ImageSet:
    positions = np.stack([np.arange(count) * spacing, np.zeros(count)], 1)
    return ImageSet("street", tuple(map(str, range(count))), positions, np.array(["front"] * count))


def brute_force(q, g, positives, excluded, candidates, n):
    """The positive and the negatives of one query, by loops."""
    distance = [float(np.linalg.norm(g[i].astype(np.float64) - q)) for i in range(len(g))]
    positive = min(positives, key=lambda i: distance[i])
    assert not set(candidates) & set(excluded)
    return positive, sorted(candidates, key=lambda i: distance[i])[:n]


@pytest.mark.parametrize("neg_samples", [5, 40, 10_000])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_mining_equals_the_search_query_by_query(neg_samples, offset):
    gallery, queries = street(120, 4.0, 0), street(60, 8.0, 1)
    rng = np.random.default_rng(0)
    g = (rng.normal(size=(120, 32)) + offset).astype(np.float32)
    q = (rng.normal(size=(60, 32)) + offset).astype(np.float32)
    positives, excluded = neighbours_within(gallery, queries, 9), neighbours_within(gallery, queries, 25)
    hardest = np.full((60, 3), -1, np.int64)
    for refresh in range(3):
        drawn = np.random.default_rng(refresh).choice(60, 50, replace=False)
        before = hardest.copy()
        triplets = mine_triplets(
            drawn, q[drawn], g, positives, excluded, hardest, np.random.default_rng(7), neg_samples, block=16
        )
        again = np.random.default_rng(7)
        for t, query in enumerate(drawn):
            remembered = before[query][before[query] >= 0]
            candidates = draw_negatives(again, 120, excluded[query], neg_samples, remembered)
            assert set(remembered) <= set(candidates)
            positive, negatives = brute_force(q[query], g, positives[query], excluded[query], candidates.tolist(), 3)
            assert triplets.positives[t] == positive
            assert triplets.negatives[t].tolist() == negatives == hardest[query].tolist()
        untouched = np.setdiff1d(np.arange(60), drawn)
        assert np.array_equal(hardest[untouched], before[untouched])


def test_negatives_are_drawn_without_replacement_outside_the_excluded():
    excluded = np.arange(30, 60)
    counts = np.zeros(100)
    for seed in range(2000):
        drawn = draw_negatives(np.random.default_rng(seed), 100, excluded, 10, np.array([], np.int64))
        assert len(set(drawn)) == 10 and not set(drawn) & set(excluded)
        counts[drawn] += 1
    allowed = np.delete(counts, excluded)
    assert abs(allowed / 2000 - 10 / 70).max() < 0.04  # uniform: five standard deviations


def test_fewer_negatives_than_wanted_are_all_taken():
    drawn = draw_negatives(np.random.default_rng(0), 20, np.arange(15), 1000, np.array([], np.int64))
    assert sorted(drawn) == [15, 16, 17, 18, 19]


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    root = write_idda(tmp_path_factory.mktemp("idda"))
    return load_image_set([root / "town10/gallery"]), load_image_set([root / "town10/queries_rain"])


def plan(**changes) -> StepPlan:
    return StepPlan(
        **{
            "queries": (0, 3),
            "positives": (0, 3),
            "negatives": ((2, 4), (1, 5)),
            "targets": (),
            "keys": ((0, 1), (0, 2)),
            **changes,
        }
    )


def test_a_batch_is_ordered_cropped_alike_and_repeatable(town):
    dataset = TrainingBatches(*town)
    batch, again = dataset[plan()], dataset[plan()]
    assert batch.images.shape == (8, 3, 102, 108) and batch.labels.shape == (8, 102, 108) and batch.target is None
    assert torch.equal(batch.images, again.images) and torch.equal(batch.labels, again.labels)
    gallery, queries = town
    expected = [queries.paths[0], queries.paths[3], *(gallery.paths[i] for i in (0, 3, 2, 4, 1, 5))]
    assert batch.files == expected
    for triplet, rows in ((0, (0, 2, 4, 5)), (1, (1, 3, 6, 7))):
        offsets = {find_crop(read_image(batch.files[row]), batch.images[row]) for row in rows}
        assert len(offsets) == 1, f"triplet {triplet} was cut in several ways"
    assert not torch.equal(dataset[plan(keys=((0, 9), (0, 8)))].images, batch.images)


def find_crop(full: torch.Tensor, crop: torch.Tensor) -> tuple[int, int, bool]:
    """Where a crop was cut, and whether it was flipped."""
    h, w = crop.shape[-2:]
    for flip in (False, True):
        wanted = crop.flip(-1) if flip else crop
        for top in range(full.shape[-2] - h):
            for left in range(full.shape[-1] - w):
                if torch.equal(full[:, top, left : left + 1], wanted[:, 0, :1]) and torch.equal(
                    full[:, top : top + h, left : left + w], wanted
                ):
                    return top, left, flip
    raise AssertionError("the crop is not a part of its image")


def test_target_images_are_resized(town):
    dataset = TrainingBatches(*town, target_paths=town[0].paths, target_size=(120, 100))
    assert dataset[plan(targets=(1, 2, 3))].target.shape == (3, 3, 100, 120)


def test_two_sizes_in_a_batch_are_named(tmp_path, town):
    from PIL import Image

    odd = tmp_path / "@1@2@.png"
    Image.new("RGB", (50, 60)).save(odd)
    gallery = ImageSet("made", (str(odd), *town[0].paths[1:]), town[0].positions, town[0].cameras)
    outcome = TrainingBatches(gallery, town[1])[plan()]
    assert isinstance(outcome, LoadFailure)
    assert str(odd) in outcome.message and town[1].paths[0] in outcome.message and "50x60" in outcome.message
