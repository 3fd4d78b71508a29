"""Files and tables of results, by hand; the images on which mIoU is measured."""

import csv
import json

import numpy as np
import pytest
import torch

from datasets.naming import KINDS
from datasets.places import ImageSet, load_image_set
from models.config import NetworkConfig
from tests.tiny import write_idda
from utils.evaluation import segmentation
from utils.evaluation.metrics import ConfusionMatrix
from utils.evaluation.recall import EvaluationSet, SetResult
from utils.evaluation.results import format_table, results_dict, write_results
from utils.evaluation.segmentation import labelled_images
from utils.retrieval.screening import Screening
from utils.system.tables import align, markdown, printable


def image_set(folder: str, count: int) -> ImageSet:
    paths = tuple(f"{folder}/@{i}@0@.png" for i in range(count))
    return ImageSet(folder, paths, np.arange(count)[:, None] * [10.0, 0.0], np.array([""] * count))


@pytest.fixture
def result() -> SetResult:
    """Two queries on a gallery of three images: the first is found at once, the second has no image of its place."""
    s = EvaluationSet("town/night", image_set("g", 3), image_set("q", 2), KINDS["utm"], (5.0, 1.0), 1.0)
    correct = {5.0: np.array([[True, False], [False, False]]), 1.0: np.zeros((2, 2), bool)}
    recalls = {t: {n: float(c[:, 0].mean()) for n in (1, 5, 10, 20)} for t, c in correct.items()}
    descriptors = np.ones((3, 4), np.float16)
    return SetResult(
        s,
        np.array([[0, 2], [1, 0]]),
        np.full((2, 2), 0.5),
        np.full((2, 2), 7.0),
        np.array([0.5, 0.9]),
        correct,
        recalls,
        descriptors,
        descriptors,
    )


def test_result_files(tmp_path, result):
    confusion = ConfusionMatrix(3)
    confusion.counts = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    content = results_dict("best.pth", NetworkConfig("resnet18"), [result], confusion)
    write_results(tmp_path, content, [result])
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"results.json", "predictions/town_night.csv", "descriptors/town_night.npz"}
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == content and found["segmentation"]["class_iou"] == {"class 0": 0.75, "class 1": 0.8, "class 2": None}
    assert [(s["threshold_m"], s["recall"]["1"]) for s in found["sets"]] == [(5.0, 0.5), (1.0, 0.0)]
    assert [s["recall_at_precision"]["1"] for s in found["sets"]] == [0.5, 0]
    with open(tmp_path / "predictions/town_night.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["query"], row["rank"], row["path"], row["correct"]) for row in rows[:2]] == [
        ("q/@0@0@.png", "1", "g/@0@0@.png", "1"),
        ("q/@0@0@.png", "2", "g/@2@0@.png", "0"),
    ]
    with np.load(tmp_path / "descriptors/town_night.npz") as kept:
        assert kept["gallery"].dtype == np.float32 and kept["query_paths"].tolist() == list(result.set.queries.paths)
    lines = format_table(content).splitlines()
    assert lines[0].split() == ["set", "queries", "gallery", "within", "R@1", "R@5", "R@10", "R@20"]
    assert lines[2].split()[:6] == ["town/night", "2", "3", "5", "m", "50.0"]
    assert lines[-1] == "segmentation: mIoU 77.5%"


def test_labelled_images_are_drawn_once_and_need_their_labels(tmp_path, monkeypatch):
    write_idda(tmp_path, places=3)
    gallery, queries = (load_image_set([tmp_path / "town3" / name]) for name in ("gallery", "queries_rain"))
    s = EvaluationSet("val", gallery, queries, KINDS["iddav2"], (5.0,), 1.0)
    assert labelled_images([s], 0, Screening()) == gallery.paths
    assert labelled_images([], 0, Screening()) == ()
    monkeypatch.setattr(segmentation, "SEGMENTATION_IMAGES", 4)
    drawn = labelled_images([s], 0, Screening())
    assert len(drawn) == 4 and set(drawn) < set(gallery.paths) and drawn == labelled_images([s], 0, Screening())
    for label in (tmp_path / "town3/gallery_labels").rglob("*.png"):
        label.unlink()
    with pytest.raises(FileNotFoundError, match="label missing"):
        labelled_images([s], 0, Screening())


def test_tables():
    rows = [["set", "R@1"], ["a", "100.0"], ["longer", "-"]]
    assert align(rows) == ["set       R@1", "-------------", "a       100.0", "longer      -"]
    assert markdown(rows) == "| set    |   R@1 |\n| ------ | ----: |\n| a      | 100.0 |\n| longer |     - |\n"


def test_any_name_is_one_printable_line():
    assert printable("a\udcff\nb") == r"a\udcff\nb" and printable(3) == "3" and printable("é") == "é"
