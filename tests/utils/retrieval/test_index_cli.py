"""eval.py with an index, PCA, float16 and a store, as a user calls it."""

import csv
import json
import shutil

import numpy as np
import pytest

import eval as evaluation_script
from models.segvpr import SegVPR
from tests.test_cli import error_line, evaluation_flags
from utils.retrieval import store as descriptor_store

TEST_ONLY = ["--test_g", "overcast", "--test_q", "rain+night"]


@pytest.fixture
def embedded(monkeypatch):
    """Counts the images that go through the network, and can end the run after so many."""
    counts = {"images": 0, "at_most": 10**9}
    embed = SegVPR.embed

    def counted(model, images):
        if counts["images"] + len(images) > counts["at_most"]:
            raise KeyboardInterrupt
        counts["images"] += len(images)
        return embed(model, images)

    monkeypatch.setattr(SegVPR, "embed", counted)
    return counts


@pytest.fixture
def evaluate(trained_run, tiny_root, tmp_path):
    """Run eval.py on the two tiny test sets; returns its status and the sets of results.json."""

    def run(*flags: str, out="out") -> tuple[int, list[dict]]:
        data = ["--dataset_root_test", str(tiny_root / "robotcar"), *TEST_ONLY, *evaluation_flags(tiny_root)[4:]]
        command = ["--resume", str(trained_run / "best.pth"), *data, "--output_dir", str(tmp_path / out), *flags]
        status = evaluation_script.main(command)
        results = tmp_path / out / "results.json"
        return status, json.loads(results.read_text())["sets"] if results.exists() else []

    return run


def without_index(sets: list[dict]) -> list[dict]:
    return [{k: v for k, v in s.items() if k != "index"} for s in sets]


def test_the_store_changes_nothing_and_is_used_again(evaluate, embedded, tmp_path):
    status, expected = evaluate()
    assert status == 0 and embedded["images"] == 18 and not any("index" in s for s in expected)
    store = ["--store", str(tmp_path / "store")]
    for images in (18, 0):
        embedded["images"] = 0
        assert evaluate(*store, "--save_descriptors") == (0, expected) and embedded["images"] == images
    with np.load(tmp_path / "out/descriptors/rain.npz") as saved:
        assert saved["gallery"].shape == (6, 768) and saved["queries"].dtype == np.float32


def test_an_interrupted_evaluation_goes_on(evaluate, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD", 2)
    monkeypatch.setattr(descriptor_store, "SHARD_SECONDS", 0)
    _, expected = evaluate()
    embedded.update(images=0, at_most=9)
    store = ["--store", str(tmp_path / "store")]
    assert evaluate(*store)[0] == 130 and embedded["images"] == 8
    embedded.update(images=0, at_most=99)
    assert evaluate(*store) == (0, expected) and embedded["images"] == 10


@pytest.mark.parametrize(
    "flags, bytes_per_image",
    [
        (["--index", "IVF3,Flat", "--nprobe", "2"], None),
        (["--index", "HNSW8", "--pca_dim", "5", "--pca_whiten", "--descriptor_dtype", "float16"], None),
        (["--pca_dim", "6"], 24),
    ],
)
def test_results_show_an_index_beside_exact_search(evaluate, embedded, tmp_path, capsys, flags, bytes_per_image):
    flags = [*flags, "--store", str(tmp_path / "store"), "--threshold_m", "25", "50"]
    status, sets = evaluate(*flags)
    out = capsys.readouterr().out
    assert status == 0 and "exact" in out and "bytes/image" in out and "queries/s" in out
    assert [(s["name"], s["threshold_m"]) for s in sets] == [(n, m) for n in ("rain", "night") for m in (25, 50)]
    for s in sets:
        index = s["index"]
        # the whole gallery is within the first twenty, so both find every query's place there
        assert index["compared_queries"] == 6 and index["recall"] == s["recall"]
        assert index["recall"]["20"] == index["exact_recall"]["20"] == 1
        assert index["factory"] == (flags[1] if flags[0] == "--index" else "Flat")
        assert index["queries_per_s"] > 0 and index["bytes_per_image"] == (bytes_per_image or index["bytes_per_image"])
    with open(tmp_path / "out/predictions/rain.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    distances = np.array([float(row["descriptor_distance"]) for row in rows]).reshape(6, 6)
    assert np.isfinite(distances).all() and (np.diff(distances) >= 0).all()
    embedded["images"] = 0
    again = evaluate(*flags)[1]
    assert embedded["images"] == 0 and without_index(again) == without_index(sets)
    assert [s["index"]["build_s"] for s in again] == [s["index"]["build_s"] for s in sets]


def test_few_queries_are_compared_where_there_are_many(evaluate, monkeypatch, tmp_path):
    monkeypatch.setattr("utils.evaluation.recall.COMPARED_QUERIES", 4)
    _, sets = evaluate("--index", "IVF3,Flat", "--nprobe", "3", "--store", str(tmp_path / "store"))
    assert all(s["index"]["compared_queries"] == 4 for s in sets)
    assert all(s["index"]["recall"] == s["index"]["exact_recall"] for s in sets)  # all lists are looked into


def test_an_index_is_kept_beside_the_checkpoint(evaluate, trained_run, embedded, tmp_path):
    (tmp_path / "run").mkdir()
    checkpoint = shutil.copy(trained_run / "best.pth", tmp_path / "run")
    for images in (18, 0):
        embedded["images"] = 0
        assert evaluate("--index", "HNSW8", "--resume", checkpoint)[0] == 0 and embedded["images"] == images
    assert len(list((tmp_path / "run/descriptors_store").glob("*/*/index-*.faiss"))) == 1


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--index", "IVF7,Flat"], ["--index IVF7,Flat", "robotcar/overcast has 6 images", "IVF1"]),
        (["--pca_dim", "9999"], ["--pca_dim 9999", "descriptors have 768 numbers", "give at most 6"]),
        (["--pca_dim", "6", "--pca_whiten"], ["--pca_whiten", "--pca_dim 5"]),
    ],
)
def test_what_cannot_work_is_one_line(evaluate, embedded, capsys, tmp_path, flags, parts):
    status, _ = evaluate(*flags, "--store", str(tmp_path / "store"))
    line = error_line(capsys, status)
    assert all(part in line for part in parts)
    assert embedded["images"] == (6 if flags[-2:] == ["6", "--pca_whiten"] else 0)  # known before embedding, or after


def test_own_photos_are_looked_up_in_an_index(trained_run, tiny_root, tmp_path, capsys):
    gallery = tiny_root / "robotcar/overcast"
    photo = sorted(gallery.iterdir())[2]
    command = ["--resume", str(trained_run / "best.pth"), "--gallery", str(gallery), "--localize", str(photo), "--json"]
    command += ["--num_workers", "0", "--device", "cpu", "--store", str(tmp_path / "store")]
    for index in (["--index", "IVF3,SQ8"], ["--index", "HNSW8", "--pca_dim", "4", "--descriptor_dtype", "float16"]):
        assert evaluation_script.main([*command, *index]) == 0
        (found,) = json.loads(capsys.readouterr().out)["localisations"]
        assert found["matches"][0]["path"] == str(photo) and found["matches"][0]["descriptor_distance"] < 1e-2
    assert evaluation_script.main([*command, "--index", "IVF7,Flat"]) == 2
    assert "1 to 6 lists" in capsys.readouterr().err
