"""Mining against the protocol's search, query by query in float64, and what each mode looks at."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import main
from datasets import mining as mining_module
from datasets.mining import MiningPlan, draw_negatives, generator_of, mine_triplets, plan_mining, random_triplets
from datasets.places import ImageSet, Neighbours, neighbours_within
from tests.tiny import SMALL_RUN, data_flags
from tests.utils.training.test_resume import assert_same_run
from utils.options.arguments import training_settings
from utils.options.parsers import main_parser
from utils.options.training_set import training_data
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.screening import Screening
from utils.runs.checkpoints import load_checkpoint
from utils.system.compute import Compute
from utils.training import loop as training_loop
from utils.training.state import RunState

KEY = 2**64 - 12345


def street(count: int, spacing: float, shift: float = 0.0) -> ImageSet:
    positions = np.stack([np.arange(count) * spacing + shift, np.zeros(count)], 1)
    return ImageSet("street", tuple(map(str, range(count))), positions, np.array(["front"] * count))


def lists(*rows) -> Neighbours:
    return Neighbours(
        np.concatenate([[0], np.cumsum([len(r) for r in rows])]), np.array([i for r in rows for i in r], np.int32)
    )


# -- draws ---------------------------------------------------------------------------------------------------------------


def drawn_by(queries, size: int, excluded, count: int, key: int = KEY) -> np.ndarray:
    """What many queries draw, one row each."""
    return np.array([draw_negatives(generator_of(key, query), size, np.array(excluded), count) for query in queries])


@given(data=st.data(), size=st.integers(1, 400), count=st.integers(1, 60), key=st.integers(0, 2**64 - 1))
def test_negatives_are_drawn_outside_the_excluded(data, size, count, key):
    near = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    query = data.draw(st.integers(0, 2**31))
    excluded = np.array(near, np.int32)
    drawn = draw_negatives(generator_of(key, query), size, excluded, count).tolist()
    assert len(set(drawn)) == len(drawn) == min(count, size - len(near)) and not set(drawn) & set(near)
    assert min(drawn, default=0) >= 0 and max(drawn, default=0) < size
    assert drawn == draw_negatives(generator_of(key, query), size, excluded, count).tolist()


@pytest.mark.parametrize("count", [10, 30, 60])  # few of many, almost half, most
def test_negatives_are_uniform_and_unlike_from_query_to_query(count):
    trials, excluded = 20_000, np.arange(30, 60)
    drawn = drawn_by(range(trials), 100, excluded, count)
    chosen = np.zeros((trials, 100))
    np.put_along_axis(chosen, drawn, 1, axis=1)
    chosen = np.delete(chosen, excluded, axis=1)
    p = count / 70
    assert abs(chosen.mean(0) - p).max() < 5 * np.sqrt(p * (1 - p) / trials)
    # two images are drawn together as often as without replacement, and consecutive queries have nothing to do with each other
    together = chosen.T @ chosen / trials
    pair = p * (count - 1) / 69
    assert abs(together[~np.eye(70, dtype=bool)] - pair).max() < 5 * np.sqrt(pair * (1 - pair) / trials)
    follows = chosen[:-1].T @ chosen[1:] / trials
    assert abs(follows - p * p).max() < 5 * np.sqrt(p * p * (1 - p * p) / trials)


def test_another_key_draws_others():
    rows = [drawn_by(range(50), 10_000, [], 100, key) for key in (KEY, KEY + 1)]
    assert np.mean([np.isin(a, b).sum() for a, b in zip(*rows)]) < 3  # one is expected
    pool = generator_of(KEY).choice(10_000, 100, replace=False)
    assert max(np.isin(pool, row).sum() for row in rows[0]) < 12  # the pool is not the draw of a query


# -- the choice ------------------------------------------------------------------------------------------------------------


def assert_nearest(chosen, candidates, gallery, query, centre):
    """`chosen` are the nearest of the candidates in order; where rounding cannot tell two apart, any of them will do."""
    g, q = gallery.astype(np.float64) - centre, query.astype(np.float64) - centre
    squared = ((g - q) ** 2).sum(1)
    order = sorted(candidates, key=lambda i: squared[i])
    count = min(len(chosen), len(order))
    assert len(set(chosen[:count])) == count and set(chosen) <= set(candidates)
    rounding = 1e-6 * ((g**2).sum(1)[order].max() + (q**2).sum())
    for rank, image in enumerate(chosen[:count]):
        assert abs(squared[image] - squared[order[rank]]) <= rounding
    assert list(chosen[count:]) == [chosen[i % count] for i in range(count, len(chosen))]  # too few: repeated


def descriptors(kind: str, count: int, dim: int, rng) -> np.ndarray:
    x = rng.normal(size=(count, dim))
    if kind == "offset":
        x += 100
    elif kind == "tight clusters":  # distances within one are lost in the rounding of a product
        x = rng.choice(rng.normal(size=(3, dim)), count) + 1e-4 * x
    elif kind == "copies":
        x = x[rng.integers(0, 4, count)]
    elif kind == "all scales":
        x *= 10.0 ** rng.integers(-3, 3, (count, 1))
    return x


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["plain", "offset", "tight clusters", "copies", "all scales"]),
    gallery_size=st.integers(15, 150),
    neg_samples=st.sampled_from([1, 5, 40, 10_000]),
    num_negatives=st.integers(1, 3),
    pool=st.sampled_from([None, 1, 8, 60]),
    dtype=st.sampled_from([np.float32, np.float16]),
    block=st.sampled_from([7, 1024]),
    chunk=st.sampled_from([16, 8192]),
)
def test_mining_equals_the_search_query_by_query(
    seed, kind, gallery_size, neg_samples, num_negatives, pool, dtype, block, chunk
):
    rng = np.random.default_rng(seed)
    gallery, queries = street(gallery_size, 4.0), street(gallery_size // 2, 8.0, 1.0)
    x = descriptors(kind, len(gallery) + len(queries), 24, rng).astype(dtype)
    g, q = x[: len(gallery)], x[len(gallery) :]
    places = neighbours_within(gallery, queries, 9), neighbours_within(gallery, queries, 25)
    hardest = np.full((len(queries), num_negatives), -1, np.int64)
    for refresh in range(3):
        key = KEY + refresh
        drawn = rng.choice(len(queries), max(1, len(queries) * 2 // 3), replace=False)
        plan = plan_mining(drawn, len(gallery), *places, hardest, key, pool)
        sizes = {"num_negatives": num_negatives, "neg_samples": neg_samples, "block": block, "chunk": chunk}
        triplets = mine_triplets(plan, q[drawn], g[plan.images], *places, key, **sizes)
        assert np.array_equal(triplets.queries, drawn)
        centre = q[drawn].astype(np.float64).mean(0)
        for t, query in enumerate(drawn):
            assert_nearest(triplets.positives[t : t + 1].tolist(), places[0][query].tolist(), g, q[query], centre)
            near = np.flatnonzero(np.isin(plan.pool, places[1][query]))
            random = draw_negatives(generator_of(key, query), len(plan.pool), near, neg_samples)
            candidates = {*plan.pool[random].tolist(), *plan.kept[t].tolist()} - {-1}
            assert not candidates & set(places[1][query].tolist())
            assert set(hardest[query].tolist()) - {-1} <= candidates <= set(plan.images.tolist())
            assert_nearest(triplets.negatives[t].tolist(), candidates, g, q[query], centre)
        hardest[drawn] = triplets.negatives


def test_descriptors_far_from_the_origin_are_told_apart():
    """A product of uncentred descriptors in float32 would lose differences of 1e-2 at a norm of 1e4."""
    rng = np.random.default_rng(0)
    offset = rng.normal(size=64) * 1e3
    g = (offset + np.geomspace(1e-2, 10, 500)[::-1, None] * np.eye(64)[0]).astype(np.float32)
    q = offset[None].astype(np.float32).repeat(2, 0)
    plan = MiningPlan(np.arange(2), np.arange(500), np.full((2, 1), -1), np.arange(500))
    triplets = mine_triplets(plan, q, g, lists([3, 7], [5]), lists([499], [499]), KEY, 3, 499)
    assert triplets.positives.tolist() == [7, 5]
    distance = np.linalg.norm(g.astype(np.float64) - q[0], axis=1)
    assert distance[triplets.negatives[0]].max() < 2 * np.sort(distance[:499])[2]


def test_blocks_keep_memory_bounded_and_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    g, q = (rng.normal(size=(n, 8)).astype(np.float32) for n in (600, 90))
    places = lists(*[range(5)] * 90), lists(*[range(9)] * 90)
    plan = plan_mining(np.arange(90), 600, *places, np.full((90, 2), -1), KEY)
    expected = mine_triplets(plan, q, g, *places, KEY, 2, 50)
    shapes, original = [], mining_module._nearest

    def noted(distances, *rest):
        shapes.append(distances.shape)
        return original(distances, *rest)

    monkeypatch.setattr(mining_module, "_nearest", noted)
    monkeypatch.setattr(mining_module, "MOST_DISTANCES", 6000)
    found = mine_triplets(plan, q, g, *places, KEY, 2, 50)
    assert set(shapes) == {(10, 600)}
    assert all(np.array_equal(value, vars(expected)[name]) for name, value in vars(found).items())


# -- modes -----------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), gallery_size=st.integers(15, 120), pool=st.integers(1, 40), n=st.integers(1, 3))
def test_what_partial_mining_embeds(seed, gallery_size, pool, n):
    rng = np.random.default_rng(seed)
    gallery, queries = street(gallery_size, 4.0), street(gallery_size // 2, 8.0, 1.0)
    positives, near = neighbours_within(gallery, queries, 9), neighbours_within(gallery, queries, 25)
    far = [np.setdiff1d(np.arange(gallery_size), near[i]) for i in range(len(queries))]
    hardest = np.array([rng.choice([-1, *images], n) for images in far])
    drawn = rng.choice(len(queries), len(queries) // 2, replace=False)
    plan = plan_mining(drawn, gallery_size, positives, near, hardest, seed, pool)
    assert len(set(plan.pool)) == min(pool, gallery_size)
    needed = {*plan.pool, *plan.kept[plan.kept >= 0], *(i for query in drawn for i in positives[query])}
    assert plan.images.tolist() == sorted(needed)
    for t, query in enumerate(drawn):
        available = {*plan.pool, *plan.kept[t]} - {-1} - {*near[query]}
        assert len(available) >= min(n, len(far[query]))
        if pool < gallery_size and np.isin(plan.pool, far[query]).sum() >= n:  # then only what is remembered is added
            assert plan.kept[t].tolist() == [*hardest[query], *[-1] * n]
    assert np.array_equal(plan.images, np.arange(gallery_size)) or pool < gallery_size


def test_the_random_part_is_uniform_and_new_in_every_refresh():
    counts = np.zeros(50)
    places = lists([0]), lists([0])
    for key in range(4000):
        plan = plan_mining(np.array([0]), 50, *places, np.full((1, 1), -1), key, 10)
        counts[plan.pool] += 1
    assert abs(counts / 4000 - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 4000)


def test_random_triplets_are_uniform_and_independent():
    trials = 20_000
    positives, near = lists(*[[2, 5, 7]] * trials), lists(*[[1, 2, 5, 7]] * trials)
    triplets = random_triplets(np.arange(trials), 10, positives, near, 2, KEY)
    counts = np.zeros((10, 10))
    for column in range(2):
        np.add.at(counts, (triplets.positives, triplets.negatives[:, column]), 1 / trials)
    allowed = counts[np.ix_([2, 5, 7], [0, 3, 4, 6, 8, 9])]
    assert allowed.sum() == pytest.approx(2) and (triplets.negatives[:, 0] != triplets.negatives[:, 1]).all()
    p = 2 / 18
    assert abs(allowed - p).max() < 5 * np.sqrt(p * (1 - p) / trials)
    few = random_triplets(np.arange(3), 6, lists([0], [0], [0]), lists(*[range(5)] * 3), 3, KEY)
    assert few.negatives.tolist() == [[5, 5, 5]] * 3


PARTIAL = ["--mining", "partial", "--cache_negatives", "2", "--descriptor_dtype", "float16"]


@pytest.mark.parametrize(
    "flags, images, dtype",
    [
        (["--mining", "full"], [12 + 4], "float32"),  # the gallery once per refresh, and the queries
        # 4 queries with one positive each, and 2 random images; what is remembered, and more where those are too near
        (PARTIAL, range(8, 17), "float16"),
        (["--mining", "random"], None, None),
    ],
)
def test_modes_embed_what_they_say(tiny_root, monkeypatch, flags, images, dtype):
    calls = []

    def noting(model, paths, *rest):
        calls.append((paths, rest[-1]))
        return np.random.default_rng(len(calls)).standard_normal((len(paths), 8), np.float32)

    monkeypatch.setattr(training_loop, "embed_images", noting)
    args = main_parser().parse_args([*data_flags(tiny_root), *SMALL_RUN, *flags])
    chosen, data = training_settings(args), training_data(args, Screening())
    state = RunState(np.full((len(data.queries), chosen.n_neg), -1, np.int64))
    parts = {"options": EmbeddingOptions(), "compute": Compute(), "model": None}
    run = SimpleNamespace(data=data, settings=chosen, state=state, **parts)
    for state.refresh in range(2):
        training_loop.TrainingRun._mine(run)
        assert len(state.triplets.queries) == 4
    assert len(calls) == (0 if images is None else 2)
    for paths, format_ in calls:
        assert len(set(paths)) == len(paths) and len(paths) in images and format_ == dtype
        assert sum("queries_rain" in path for path in paths) == 4


def test_partial_mining_resumes_exactly(tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    light = "--n_epochs 1 --da_method none --sem_loss_weight 0".split()  # two refreshes of two steps, no evaluation
    flags = [*data_flags(tiny_root)[:2], *SMALL_RUN, *light, *PARTIAL]
    assert main.main([*flags, "--exp_name", "whole"]) == 0
    (whole,) = (tmp_path / "runs/whole").iterdir()
    recorded = load_checkpoint(whole / "last.pth").training["record"]["arguments"]
    assert recorded["mining"] == "partial" and {"cache_negatives", "descriptor_dtype"} <= recorded.keys()
    step, steps = training_loop.train_step, []

    def stopping(*arguments, **keywords):
        steps.append(1)
        if len(steps) == 3:  # after the second mining
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "train_step", stopping)
        assert main.main([*flags, "--exp_name", "cut"]) == 143
    assert main.main([*flags, "--exp_name", "cut", "--resume", "auto"]) == 0
    (cut,) = (tmp_path / "runs/cut").iterdir()
    assert_same_run(cut, whole)


def test_mining_may_not_change_on_resume(tiny_root, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [*data_flags(tiny_root), *SMALL_RUN, "--resume", str(trained_run), "--mining", "partial"]
    assert main.main(command) == 2
    assert "--mining was full, is partial" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.main([*data_flags(tiny_root), *SMALL_RUN, "--cache_negatives", "0"])
