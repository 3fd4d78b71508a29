"""Descriptors of any program: scored as our own are, and refused in one line where they cannot be."""

import json

import numpy as np
import pytest

import eval as evaluation_script
from utils.evaluation.given import read_given
from utils.summarize import main as summarize

PLACES = np.arange(4)


def arrays(**changed) -> dict[str, np.ndarray]:
    """Four places 40 m apart; the last query has the descriptor of the first place."""
    rows = np.eye(4)
    paths = [np.array([f"{side}/@{40 * i}@{5 * k}@.jpg" for i in PLACES]) for k, side in enumerate(("a/db", "a/q"))]
    made = {"gallery": rows, "queries": rows[[0, 1, 2, 0]], "gallery_paths": paths[0], "query_paths": paths[1]}
    return {name: value for name, value in {**made, **changed}.items() if value is not None}


def test_a_file_of_any_program_is_scored_and_reported(tmp_path, capsys):
    np.savez(tmp_path / "netvlad.npz", **arrays())
    np.savez(tmp_path / "perfect.npz", **arrays(queries=np.eye(4)))
    files = [str(tmp_path / f"{name}.npz") for name in ("netvlad", "perfect")]
    assert evaluation_script.main(["--descriptors", *files, "--output_dir", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert [(s["name"], s["threshold_m"], s["recall"]["1"], s["recall"]["5"]) for s in content["sets"]] == [
        ("netvlad", 25, 0.75, 1),
        ("perfect", 25, 1, 1),
    ]
    assert (content["arch"], content["segmentation"]) == (None, None)
    page = (tmp_path / "out/report.html").read_text()
    assert "75.0% (netvlad) to 100.0% (perfect)" in page and 'id="maps"' in page and 'id="retrievals"' in page
    assert "checkpoint <code>" not in page and 'id="attention"' not in page and 'id="segmentation"' not in page
    assert summarize([str(tmp_path / "out")]) == 0
    assert "descriptors" in capsys.readouterr().out


def test_our_own_descriptors_score_as_the_evaluation_that_saved_them(trained_run, tiny_root, tmp_path):
    small = ["--num_workers", "0", "--device", "cpu", "--no_report"]
    data = ["--dataset_root_test", str(tiny_root / "robotcar"), "--save_descriptors", "--threshold_m", "25", "1"]
    command = ["--resume", str(trained_run / "best.pth"), *data, *small, "--output_dir", str(tmp_path / "own")]
    assert evaluation_script.main(command) == 0
    files = [str(tmp_path / f"own/descriptors/{name}.npz") for name in ("rain", "night")]
    command = ["--descriptors", *files, "--threshold_m", "25", "1", *small, "--output_dir", str(tmp_path / "given")]
    assert evaluation_script.main(command) == 0
    own, given = (json.loads((tmp_path / f"{name}/results.json").read_text())["sets"] for name in ("own", "given"))
    assert given == [s for s in own if s["name"] in ("rain", "night")]
    first, second = ((tmp_path / f"{name}/predictions/night.csv").read_text() for name in ("own", "given"))
    assert first == second


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"queries": None}, "no array 'queries' in it (wanted: gallery, gallery_paths, queries, query_paths; found: "),
        ({"queries": np.eye(4)[:3]}, "query_paths <U15 (4,); wanted are numbers (N, D) and N texts"),
        ({"queries": np.ones((4, 3))}, "descriptors of gallery and queries have 4 and 3 numbers"),
        ({"gallery": np.eye(4) * np.nan}, "a/db/@0@0@.jpg: its descriptor is not finite"),
        ({"query_paths": np.array(["a.jpg"] * 4)}, "a.jpg: the name must begin @UTM_east@UTM_north@"),
        ({"query_paths": np.array(["a.jpg"] * 4, object)}, "allow_pickle=False"),
        ({"queries": np.ones((0, 4)), "query_paths": np.array([], str)}, "queries is empty"),
    ],
)
def test_a_file_that_cannot_be_scored_is_one_line(tmp_path, capsys, changed, reason):
    np.savez(tmp_path / "bad.npz", **arrays(**changed))
    status = evaluation_script.main(["--descriptors", str(tmp_path / "bad.npz"), "--output_dir", str(tmp_path / "out")])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert status == 2 and f"--descriptors {tmp_path / 'bad.npz'}: " in line and reason in line


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.npz").write_text("none")
    with pytest.raises(ValueError, match=r"--descriptors .*text\.npz: "):
        read_given(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError, match=r"--descriptors .*absent\.npz: no such file"):
        read_given(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    "more, reason",
    [
        (["--dataset_root_test", "x"], "leave out --dataset_root_val and --dataset_root_test"),
        (["--localize", "x", "--gallery", "y"], "--descriptors does not go with --localize"),
        (["--index", "IVF9,Flat"], "--index IVF9,Flat: 1 to 4 lists are possible"),
    ],
)
def test_flags_that_do_not_go_with_it(tmp_path, capsys, monkeypatch, more, reason):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **arrays())
    assert evaluation_script.main(["--descriptors", "a.npz", *more]) == 2
    assert reason in capsys.readouterr().err and not [*tmp_path.glob("runs/*/*")]
