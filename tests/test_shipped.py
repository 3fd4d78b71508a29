"""The network that ships: what is written about it, and that it finds what the untrained one does not."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.demo import SIZE
from benchmarks.harness.town_sets import correct_first
from benchmarks.train_town import FIRST_EVALUATION_SEED, FIRST_TRAINING_SEED, RECIPES
from datasets.naming import KINDS
from datasets.places import load_image_set
from datasets.town import make_town
from models import SegVPR
from utils.evaluation.recall import EvaluationSet, evaluate_places
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import SHIPPED, load_checkpoint

RECORD = json.loads(SHIPPED.with_suffix(".json").read_text())
PASSES = ("town3/gallery", "town3/rain", "robotcar/overcast", "robotcar/night")
WITHIN_M = 5.0  # of RobotCar's 25 m a few places would be too easy
ROOT = Path(__file__).resolve().parents[1]


def test_the_record_is_of_this_file():
    assert RECORD["bytes"] == SHIPPED.stat().st_size <= RECIPES["town"].largest_bytes
    assert RECORD["command"].startswith("python3 -m benchmarks.train_town ")
    seeds = [leg["town_seed"] for leg in RECORD["legs"]]
    assert seeds == list(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + len(seeds))), (
        "all legs, and no town that is evaluated"
    )
    assert seeds[-1] < FIRST_EVALUATION_SEED and all(leg["history"] for leg in RECORD["legs"])


def test_the_record_says_more_on_every_condition_of_every_unseen_town():
    untrained, shipped = RECORD["evaluation"].values()
    for town, content in shipped.items():
        for before, after in zip(untrained[town]["sets"], content["sets"], strict=True):
            assert before["name"] == after["name"]
            assert after["recall"]["1"] > before["recall"]["1"], (town, after["name"])


def test_hub_knows_it():
    model = torch.hub.load(str(ROOT), "segvpr", source="local", weights="town")
    assert not model.training and model.descriptor_dim == load_checkpoint(SHIPPED).build().descriptor_dim


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[EvaluationSet]:
    town = make_town(tmp_path_factory.mktemp("unseen"), SIZE, 20, 91_500, workers=1, progress=False, passes=PASSES)
    made = []
    for kind, gallery, queries in (
        ("iddav2", "idda/town3/gallery/left_right", "idda/town3/queries_rain/left_right"),
        ("utm", "robotcar/overcast", "robotcar/night"),
    ):
        images = (load_image_set([town / folder]) for folder in (gallery, queries))
        made.append(EvaluationSet(queries, *images, KINDS[kind], (WITHIN_M,), 1.0))
    return made


def test_it_finds_more_than_the_untrained_network_in_a_town_that_nobody_has_seen(sets):
    shipped = load_checkpoint(SHIPPED)
    torch.manual_seed(0)
    untrained = SegVPR(shipped.config)
    found = []
    for model in (shipped.build(), untrained):
        results = evaluate_places(model.eval(), sets, EmbeddingOptions(num_workers=0))
        found.append([100 * float(correct_first(r).mean()) for r in results])
    assert all(after > before + 20 for after, before in zip(*found)), found
