"""The layout of VPR-datasets-downloader, as both programs read it."""

import json
from pathlib import Path

import pytest

import eval as evaluation_script
import main
from datasets.check.check import check_dataset
from tests.tiny import SMALL_RUN, write_pass

UNLABELLED = "--sem_loss_weight 0 --da_method none --n_epochs 1 --queries_per_epoch 4 --exp_name field".split()
SMALL_EVAL = "--eval_scale 1 --num_workers 0 --device cpu --no_report".split()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """`<data set>/images`; one training query has no positive."""
    root = tmp_path_factory.mktemp("field") / "images"
    for p, part in enumerate(("database", "queries")):
        for split in ("train", "val", "test"):
            write_pass(root / split / part, 5 + (part == "queries" and split == "train"), p, shift=3.0 * p)
    write_pass(root / "test/queries_night", 5, 7)
    return root


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def test_both_programs_find_the_splits(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    roots = [f"--dataset_root_val={images}", f"--dataset_root_test={images}"]
    command = [f"--dataset_root={images}", *roots, *SMALL_RUN, *UNLABELLED]
    assert main.main(command) == 2
    assert "1 of 6 training queries have no gallery image within 10 m" in capsys.readouterr().err
    assert main.main([*command, "--on_bad_image", "skip"]) == 0
    (run,) = (tmp_path / "runs/field").iterdir()
    assert "1 of 6 training queries are left out: no gallery image within 10 m" in log_of(run)
    found = json.loads((run / "results.json").read_text())["sets"]
    assert [(s["name"], s["num_queries"], s["threshold_m"]) for s in found] == [
        ("val", 5, 25),
        ("test/queries", 5, 25),
        ("test/queries_night", 5, 25),
    ]
    flags = ["--resume", str(run / "best.pth"), f"--dataset_root_test={images}", "--output_dir", "out", *SMALL_EVAL]
    assert evaluation_script.main(flags) == 0
    (test, night) = json.loads((tmp_path / "out/results.json").read_text())["sets"]
    assert test["queries"] == str(images / "test/queries") and test["recall"] == found[1]["recall"]
    assert night["gallery"] == str(images / "test/database")


def test_folders_that_are_named_are_never_replaced(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [f"--dataset_root={images}", "--train_g", "town1/gallery", *SMALL_RUN, *UNLABELLED]
    assert main.main(command) == 2
    assert f"--dataset_root: {images / 'town1/gallery'}: no such folder" in capsys.readouterr().err


def test_the_check_knows_the_layout(images):
    report = check_dataset(images, workers=1, progress=False)
    assert report.layout.startswith("VPR-datasets-downloader")
    assert [(pair.gallery, pair.queries) for pair in report.pairs] == [
        ("train/database", "train/queries"),
        ("val/database", "val/queries"),
        ("test/database", "test/queries"),
        ("test/database", "test/queries_night"),
    ]
    (problem,) = report.problems  # no missing labels: such a set has none
    assert problem.startswith("train/queries in train/database: 1 of 6 queries have no gallery image within 10 m")
    assert "--on_bad_image skip" in problem
