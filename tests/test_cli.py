"""main.py and eval.py as a user calls them, on tiny data."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eval as evaluation_script
import main
from datasets.town import make_town
from models import SegVPR
from tests.released_files import write_released
from tests.tiny import SMALL_RUN, data_flags, write_pass
from utils.options.parsers import main_parser
from utils.runs.checkpoints import load_checkpoint

SETS = ["val", "rain", "snow", "sun", "night"]
SMALL_EVAL = "--eval_scale 1 --num_workers 0 --device cpu --no_report".split()


def evaluation_flags(root) -> list[str]:
    return ["--dataset_root_val", str(root / "idda"), "--dataset_root_test", str(root / "robotcar"), *SMALL_EVAL]


def error_line(capsys, status: int) -> str:
    """The one line on stderr of a command that ended with status 2."""
    lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert status == 2 and len(lines) == 1
    return lines[0]


def test_training_leaves_what_evaluation_writes(trained_run):
    files = {str(file.relative_to(trained_run)) for file in trained_run.rglob("*") if file.is_file()}
    assert {f"predictions/{name}.csv" for name in SETS} < files
    assert {"last.pth", "best.pth", "history.csv", "log.txt", "results.json"} < files
    with open(trained_run / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss_triplet", "loss_semantic", "lr_encoder", "val_recall@1", "night_recall@20", "miou"} < rows[0].keys()
    log = (trained_run / "log.txt").read_text()
    assert "command: main.py" in log and "torch " in log and "seed: 0" in log and "12 images" in log
    results = json.loads((trained_run / "results.json").read_text())
    assert results["flags"]["arch"] == "resnet18" and results["flags"]["margin"] == main_parser().get_default("margin")
    assert results["seed"] == 0 and {"commit", "uncommitted_changes"} < results.keys()
    assert {"segvpr", "python", "torch", "torchvision", "numpy", "faiss"} < results["versions"].keys()


def test_rates_reach_zero_after_the_triplets_that_are_given(tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        *data_flags(tiny_root)[:2],
        *SMALL_RUN,
        *"--da_method none --exp_name falling --queries_per_epoch 4".split(),
    ]
    assert main.main([*words, "--lr_triplets", "8"]) == 0  # two epochs of 4 queries
    (folder,) = (tmp_path / "runs/falling").iterdir()
    with open(folder / "history.csv") as file:
        rates = [float(row["lr_encoder"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([2.5e-4 * 2 * 2 * 0.5**0.9, 0])


def test_evaluating_the_best_again_gives_the_same_results(trained_run, tiny_root, tmp_path, capsys):
    command = ["--resume", str(trained_run / "best.pth"), *evaluation_flags(tiny_root), "--output_dir", str(tmp_path)]
    assert evaluation_script.main([*command, "--save_descriptors"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["sets"] == json.loads((trained_run / "results.json").read_text())["sets"]
    assert results["arch"] == "resnet18" and results["semnet"] == "deeplab"
    assert results["flags"]["resume"] == str(trained_run / "best.pth") and results["flags"]["output_dir"] == str(
        tmp_path
    )
    assert [s["name"] for s in results["sets"]] == SETS
    assert [s["threshold_m"] for s in results["sets"]] == [5, 25, 25, 25, 25]
    assert results["sets"][1] | {"recall": {}} == {
        "name": "rain",
        "gallery": str(tiny_root / "robotcar/overcast"),
        "queries": str(tiny_root / "robotcar/rain"),
        "num_gallery": 6,
        "num_queries": 6,
        "threshold_m": 25.0,
        "recall": {},
    }
    iou = results["segmentation"]["class_iou"]
    assert len(iou) == 17 and iou["Sky"] is None and 0 <= iou["Road"] <= 1
    present = [value for value in iou.values() if value is not None]
    assert results["segmentation"]["miou"] == pytest.approx(sum(present) / len(present))
    assert "R@1" in capsys.readouterr().out
    check_predictions(tmp_path, results["sets"][1])


def check_predictions(folder, entry):
    """Predictions against a search by hand in the saved descriptors."""
    with np.load(folder / "descriptors/rain.npz") as file:
        saved = dict(file)
    assert saved["gallery"].dtype == np.float32 and saved["gallery"].shape == (6, 768)
    with open(folder / "predictions/rain.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36 and list(rows[0]) == [
        "query",
        "rank",
        "path",
        "descriptor_distance",
        "distance_m",
        "correct",
    ]
    hits = 0
    for q, query in enumerate(saved["query_paths"]):
        distance = np.linalg.norm(saved["gallery"] - saved["queries"][q], axis=1)
        mine = rows[6 * q : 6 * q + 6]
        assert [row["path"] for row in mine] == [saved["gallery_paths"][g] for g in distance.argsort()]
        assert [float(row["descriptor_distance"]) for row in mine] == pytest.approx(sorted(distance), rel=1e-3)
        assert all(
            row["query"] == query and (row["correct"] == "1") == (float(row["distance_m"]) <= 25) for row in mine
        )
        hits += mine[0]["correct"] == "1"
    assert entry["recall"]["1"] == pytest.approx(hits / 6)


def test_several_thresholds_are_scored_at_once(trained_run, tiny_root, tmp_path):
    command = ["--resume", str(trained_run / "last.pth"), *evaluation_flags(tiny_root), "--output_dir", str(tmp_path)]
    assert evaluation_script.main([*command, "--threshold_m", "1", "30"]) == 0
    sets = json.loads((tmp_path / "results.json").read_text())["sets"]
    assert [(s["name"], s["threshold_m"]) for s in sets] == [(name, m) for name in SETS for m in (1, 30)]
    rain = {s["threshold_m"]: s["recall"]["20"] for s in sets if s["name"] == "rain"}
    assert rain[1] == 0 and rain[30] == 1  # the pass lies 2 m beside the gallery


def test_without_data_flags_the_town_is_made_and_used_again(tmp_path, monkeypatch, capsys):
    calls = []

    def draw_small(out):
        calls.append(out)
        return make_town(out, (128, 124), 4, workers=1, progress=False)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.town.make_town", draw_small)
    assert main.main([*SMALL_RUN, "--n_epochs", "0"]) == 0
    (run,) = (tmp_path / "runs" / "default").iterdir()
    assert "no data set flag given: using the town" in capsys.readouterr().out
    assert evaluation_script.main(["--resume", str(run / "last.pth"), *SMALL_EVAL, "--output_dir", "out"]) == 0
    results = [json.loads((folder / "results.json").read_text()) for folder in (run, tmp_path / "out")]
    assert results[0]["sets"] == results[1]["sets"] and [s["name"] for s in results[0]["sets"]] == SETS
    assert results[0]["segmentation"] == results[1]["segmentation"] is not None
    assert [str(out) for out in calls] == [
        "data/town"
    ]  # drawn once; one of other parameters than the default's will do


def test_any_folder_of_images_of_mixed_sizes_can_be_evaluated(trained_run, tmp_path):
    for i, (suffix, size) in enumerate([(".png", (136, 128)), (".JPG", (128, 136)), (".jpeg", (200, 100))]):
        write_pass(tmp_path / "all" / str(i), 3, i, origin=(277000.0, 110000.0 + 200 * i), suffix=suffix, size=size)
    command = ["--resume", str(trained_run / "last.pth"), "--dataset_root_test", str(tmp_path)]
    command += "--test_g all --test_q all".split()
    assert evaluation_script.main([*command, *SMALL_EVAL, "--output_dir", str(tmp_path / "out")]) == 0
    (found,) = json.loads((tmp_path / "out/results.json").read_text())["sets"]
    assert found["num_gallery"] == 9 and found["recall"]["1"] == 1  # each image finds itself
    log = (tmp_path / "out/log.txt").read_text()
    assert "so recalls count those there are: all (9)" in log and "no --dataset_root_val: validation is skipped" in log


def test_a_test_set_named_val_is_not_the_validation_set(trained_run, tmp_path):
    for folder in ("overcast", "val"):
        write_pass(tmp_path / folder, 3, 0)
    command = ["--resume", str(trained_run / "last.pth"), "--dataset_root_test", str(tmp_path), "--test_g", "overcast"]
    command += ["--test_q", "val", *SMALL_EVAL, "--output_dir", str(tmp_path / "out")]
    assert evaluation_script.main(command) == 0
    (found,) = json.loads((tmp_path / "out/results.json").read_text())["sets"]
    assert found["name"] == "val in overcast"


def test_a_released_checkpoint_needs_no_flags(tiny_root, tmp_path, capsys):
    checkpoint = write_released(tmp_path / "released.pth", "resnet50", "pspnet", "module.")
    command = ["--resume", str(checkpoint), "--dataset_root_test", str(tiny_root / "robotcar"), "--test_q", "rain"]
    assert (
        evaluation_script.main([*command, "--test_g", "overcast", *SMALL_EVAL, "--output_dir", str(tmp_path / "out")])
        == 0
    )
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert (results["arch"], results["semnet"], results["segmentation"]) == ("resnet50", "pspnet", None)
    assert [s["name"] for s in results["sets"]] == ["rain"]
    assert "validation is skipped" in capsys.readouterr().out


def test_a_run_resumed_under_another_name_ends_as_the_uninterrupted_one(trained_run, tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root), *SMALL_RUN]
    half_way = trained_run / "previous.pth"
    assert load_checkpoint(half_way).training["run"]["epoch"] < 2
    assert main.main([*flags, "--resume", str(half_way), "--exp_name", "long"]) == 0
    (long,) = (tmp_path / "runs/long").iterdir()
    ours, uninterrupted = (load_checkpoint(folder / "last.pth") for folder in (long, trained_run))
    assert (
        ours.training["run"]["epoch"] == 2
        and ours.training["run"]["history"] == uninterrupted.training["run"]["history"]
    )
    assert all(torch.equal(value, uninterrupted.state_dict[key]) for key, value in ours.state_dict.items())
    assert (long / "history.csv").read_text() == (trained_run / "history.csv").read_text()
    assert (long / "best.pth").exists() and (long / "results.json").exists()


def test_training_starts_from_a_released_file_at_epoch_0(tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    released = write_released(tmp_path / "released.pth", "resnet50", "deeplab")
    flags = [*data_flags(tiny_root), *SMALL_RUN, "--arch", "resnet50", "--resume", str(released)]
    flags.remove("--no_report")
    reported = []
    monkeypatch.setattr("utils.report.write.write_report", lambda *given: reported.append(given))
    assert main.main([*flags, "--n_epochs", "0"]) == 0
    (folder,) = (tmp_path / "runs/default").iterdir()
    weights = load_checkpoint(folder / "last.pth").state_dict
    (before,) = (model for model in reported[0][2:] if isinstance(model, SegVPR))
    for key, value in load_checkpoint(released).state_dict.items():
        # the report compares with these weights, as training starts from them
        assert torch.equal(weights[key], value) and torch.equal(before.state_dict()[key], value)


def test_resuming_under_the_same_name_goes_on_in_the_same_folder(tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = "--da_method none --exp_name same --queries_per_epoch 4".split()
    flags = ["--dataset_root", str(tiny_root / "idda"), *SMALL_RUN, *short]
    assert main.main([*flags, "--n_epochs", "0"]) == 0
    (folder,) = (tmp_path / "runs/same").iterdir()
    flags.remove("--no_report")
    assert main.main([*flags, "--n_epochs", "1", "--resume", str(folder / "last.pth")]) == 0
    assert (folder / "report.html").stat().st_size < 3_000_000 and any((folder / "figures").iterdir())
    assert list((tmp_path / "runs/same").iterdir()) == [folder]
    assert load_checkpoint(folder / "best.pth").training["run"]["epoch"] == 1


@pytest.mark.parametrize("method", ["alternating", "none"])
def test_other_domain_adaptation_and_no_evaluation_data(tiny_root, tmp_path, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    short = f"--n_epochs 1 --queries_per_epoch 4 --n_neg 2 --da_method {method}".split()
    flags = ["--dataset_root", str(tiny_root / "idda"), *SMALL_RUN, *short]
    if method != "none":
        flags += ["--DA_datasets", str(tiny_root / "robotcar")]
    assert main.main(flags) == 0
    (folder,) = (tmp_path / "runs/default").iterdir()
    assert json.loads((folder / "results.json").read_text())["sets"] == []
    header = (folder / "history.csv").read_text().splitlines()[0]
    assert ("loss_adversarial" in header) == (method == "alternating")


@pytest.mark.parametrize(
    "changes, reason",
    [
        (["--DA_datasets", ""], "--da_method none"),
        (["--DA_datasets", "absent"], "--DA_datasets: absent: no such folder"),
        (["--dataset_root", "absent"], "--dataset_root: absent/town10/gallery/front_rear: no such folder"),
        (["--queries_per_epoch", "9"], "--queries_per_epoch 9 is not a multiple of --cache_refresh_rate 4"),
        (["--da_loss_weight", "0"], "da_loss_weight"),
        (["--resume", "absent.pth"], "absent.pth: no such checkpoint"),
        (["--scale_indexes", "4", "3"], "scale_indexes"),
        (["--num_classes", "5"], "--num_classes 5: labels have 17 classes"),
        (["--test_g", "overcast+overcast"], "--test_g names 2 galleries"),
        (["--pretrain", "absent.pth"], "absent.pth"),
        (
            ["--train_pos_dist_threshold", "0.5"],
            "12 of 12 training queries have no gallery image of the same camera within 0.5 m",
        ),
    ],
)
def test_bad_input_is_one_line(tiny_root, tmp_path, monkeypatch, capsys, changes, reason):
    monkeypatch.chdir(tmp_path)
    status = main.main([*data_flags(tiny_root), *SMALL_RUN, *changes])
    assert reason in error_line(capsys, status)


def test_absent_cuda_is_one_line(capsys, tiny_root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status = main.main([*data_flags(tiny_root), *SMALL_RUN, "--device", "cuda"])
    assert "--device cuda" in error_line(capsys, status)


def test_the_released_command_lines_parse():
    line = (
        "--exp_name=name --dataset_root=a --dataset_root_val=b --dataset_root_test=c --DA_datasets=d --resume e "
        "--arch resnet101 --semnet pspnet"
    )
    args = main_parser().parse_args(line.split())
    assert (args.arch, args.semnet, args.batch_size, args.cache_refresh_rate) == ("resnet101", "pspnet", 2, 1000)
    released = (
        "arch semnet num_classes pretrain scale_indexes train_enc_from batch_size cache_batch_size cache_refresh_rate "
        "queries_per_epoch n_neg train_pos_dist_threshold val_pos_dist_threshold margin seed n_epochs patience lr d_lr momentum "
        "weight_decay resume adv_loss_weight sem_loss_weight da_loss_weight device num_workers exp_name dataset_root train_g "
        "train_q dataset_root_val val_g val_q dataset_root_test test_g test_q DA_datasets"
    )
    assert set(released.split()) <= vars(args).keys()


@given(
    st.sampled_from(["--batch_size", "--lr", "--eval_scale", "--n_epochs", "--margin"]),
    st.sampled_from(["x", "-1", "", "nan", "inf"]),
)
def test_an_odd_number_is_refused_by_the_parser(flag, value):
    with pytest.raises(SystemExit) as stop:
        main_parser().parse_args([flag, value])
    assert stop.value.code == 2


@pytest.mark.parametrize("script", [main, evaluation_script])
def test_help_names_every_default(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    assert stop.value.code == 0
    assert "(default: 24)" in capsys.readouterr().out
