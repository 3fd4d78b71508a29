"""The networks that ship: what is written about them, and that they find what the untrained ones do not."""

import json
from pathlib import Path

import pytest
import torch

import eval as evaluation_script
from benchmarks.demo import SIZE
from benchmarks.harness.town_sets import correct_first
from benchmarks.train_town import FIRST_EVALUATION_SEED, FIRST_TRAINING_SEED, RECIPES
from datasets.naming import KINDS, list_images
from datasets.places import load_image_set
from datasets.town import make_town
from models import SegVPR
from utils.evaluation.recall import EvaluationSet, evaluate_places
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import SHIPPED, SHIPPED_FOR_PHOTOS, load_checkpoint

FILES = {"town": SHIPPED, "photos": SHIPPED_FOR_PHOTOS}
RECORDS = {name: json.loads(file.with_suffix(".json").read_text()) for name, file in FILES.items()}
PASSES = ("town3/gallery", "town3/rain", "robotcar/overcast", "robotcar/night")
WITHIN_M = 5.0  # of RobotCar's 25 m a few places would be too easy
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", FILES)
def test_the_record_is_of_this_file(name):
    record = RECORDS[name]
    assert record["bytes"] == FILES[name].stat().st_size <= RECIPES[name].largest_bytes
    assert record["command"].startswith("python3 -m benchmarks.train_town ")
    assert (f"--recipe {name}" in record["command"]) == (name != "town")
    seeds = [leg["town_seed"] for leg in record["legs"]]
    assert seeds == list(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + len(seeds))), (
        "all legs, and no town that is evaluated"
    )
    assert seeds[-1] < FIRST_EVALUATION_SEED and all(leg["history"] for leg in record["legs"])


def recalls(evaluation: dict) -> dict[tuple[str, str], float]:
    return {(town, s["name"]): s["recall"]["1"] for town, content in evaluation.items() for s in content["sets"]}


@pytest.mark.parametrize("name", FILES)
def test_the_record_says_more_in_unseen_towns(name):
    """On every condition for the town's network; for the other, which starts from ImageNet weights, in the mean and at night."""
    untrained, shipped = map(recalls, RECORDS[name]["evaluation"].values())
    assert untrained.keys() == shipped.keys() and sum(shipped.values()) > sum(untrained.values())
    for condition, before in untrained.items():
        if name == "town" or condition[1].endswith("night"):
            assert shipped[condition] > before, condition


@pytest.mark.parametrize("name", FILES)
def test_hub_knows_it(name):
    model = torch.hub.load(str(ROOT), "segvpr", source="local", weights=name)
    assert not model.training and model.descriptor_dim == load_checkpoint(FILES[name]).build().descriptor_dim


def test_own_photos_take_the_network_for_photos_and_say_so(tiny_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gallery = tiny_root / "robotcar/overcast"
    photo = Path(list_images(gallery)[0])
    flags = ["--gallery", str(gallery), "--localize", str(photo), "--store", "store", "--num_workers", "0"]
    assert evaluation_script.main([*flags, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "no --resume: using the network for photos that ships" in printed and photo.name in printed
    assert evaluation_script.main(["--dataset_root_test", str(tiny_root / "robotcar")]) == 2
    assert "give --resume CKPT" in capsys.readouterr().err


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
