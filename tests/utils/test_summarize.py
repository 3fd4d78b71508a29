"""Tables of several runs, against means and deviations by hand."""

import csv
import json
import statistics

import pytest
import torch

from utils.options.arguments import plain_values
from utils.options.parsers import main_parser
from utils.runs.checkpoints import FORMAT
from utils.summarize import find_runs, main, read_run, starting_weights, summarize
from utils.summary_table import Cell, escape_latex, escape_markdown


def write_run(folder, recalls, miou=None, record=True, data=None, checkpoint="gone.pth", **arguments):
    """A run folder: `recalls` maps (set, metres) to (R@1, R@5) as fractions."""
    folder.mkdir(parents=True)
    sets = [
        {"name": name, "threshold_m": metres, "recall": {"1": one, "5": five, "10": 1.0, "20": 1.0}}
        for (name, metres), (one, five) in recalls.items()
    ]
    segmentation = None if miou is None else {"miou": miou, "class_iou": {}}
    arch, semnet = arguments.get("arch", "resnet50"), arguments.get("semnet", "deeplab")
    content = {"checkpoint": checkpoint, "arch": arch, "semnet": semnet, "sets": sets, "segmentation": segmentation}
    (folder / "results.json").write_text(json.dumps(content))
    if record:
        given = {**plain_values(main_parser().parse_args([])), **arguments}
        write_checkpoint(folder / "last.pth", {"arguments": given, "data": data or {}})
    return folder


def write_checkpoint(path, record):
    config = {"arch": "resnet18", "semnet": "deeplab", "num_classes": 17, "scale_indexes": [3, 4]}
    torch.save({"format": FORMAT, "config": config, "model": {}, "training": {"record": record}}, path)


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in text.splitlines()]


@pytest.fixture
def three_seeds(tmp_path):
    """Three seeds of one configuration and one of another, on machines of their own."""
    for seed, (one, five, miou) in enumerate([(0.5, 0.7, 0.30), (0.6, 0.9, 0.31), (0.7, 0.8, 0.35)]):
        recalls = {("rain", 25.0): (one, five), ("night", 25.0): (one / 2, five / 2)}
        machine = {
            "num_workers": seed,
            "cache_batch_size": 8 + seed,
            "device": "cpu",
            "no_report": seed == 1,
            "on_bad_image": "skip" if seed == 2 else "error",
            "dataset_root": f"/disk{seed}",
            "exp_name": f"s{seed}",
        }
        write_run(tmp_path / f"runs/s{seed}/2026", recalls, miou, seed=seed, **machine, resume="auto" if seed else None)
    recalls = {("rain", 25.0): (0.25, 0.5), ("night", 25.0): (0.125, 0.25)}
    write_run(tmp_path / "runs/none", recalls, 0.2, da_method="none", n_epochs=3)
    return tmp_path / "runs"


def test_means_and_deviations_by_hand(three_seeds, tmp_path, capsys):
    assert main([str(three_seeds), "--out", str(tmp_path / "out/deep")]) == 0
    header, rule, first, second = rows_of(capsys.readouterr().out)
    assert header == [
        *(
            "configuration",
            "seeds",
            "rain (25 m) R@1",
            "rain (25 m) R@5",
            "night (25 m) R@1",
            "night (25 m) R@5",
            "mIoU",
        )
    ]
    assert all(set(cell) <= set("-:") for cell in rule)
    # by label: the order of the folders decides, and "none" stands before "s0"
    assert first[:3] == ["resnet50, deeplab, n epochs 3, da method none", "1", "25.0"] and "±" not in "".join(first)
    assert second[:2] == ["resnet50, deeplab", "3"]  # nothing but defaults
    assert second[2:] == ["60.0 ± 10.0", "80.0 ± 10.0", "30.0 ± 5.0", "40.0 ± 5.0", "32.0 ± 2.6"]
    assert (tmp_path / "out/deep/summary.md").read_text().count("\n") == 4
    with open(tmp_path / "out/deep/summary.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[1]["mIoU std"]) == pytest.approx(statistics.stdev([30, 31, 35]), abs=1e-4)
    assert (lines[1]["night (25 m) R@5 mean"], lines[1]["night (25 m) R@5 runs"]) == ("40.0000", "3")
    assert (lines[0]["rain (25 m) R@1 mean"], lines[0]["rain (25 m) R@1 std"]) == ("25.0000", "")
    latex = (tmp_path / "out/deep/summary.tex").read_text()
    assert r"60.0 $\pm$ 10.0 & 80.0 $\pm$ 10.0" in latex and r"\multicolumn{2}{c}{rain (25 m)}" in latex
    assert r"n epochs 3, da method none & 1 & 25.0 & 50.0 & 12.5 & 25.0 & 20.0 \\" in latex
    assert {line.count("&") for line in latex.splitlines() if r"\\" in line} == {4, 6}
    assert r"\begin{tabular}{lrrrrrr}" in latex


def test_runs_are_found_once(three_seeds):
    found = find_runs([three_seeds / "none", three_seeds, three_seeds / "s1/2026"])
    assert [folder.relative_to(three_seeds).as_posix() for folder in found] == ["none", "s0/2026", "s1/2026", "s2/2026"]


def test_hostile_names_are_escaped(tmp_path, capsys):
    name = "rain|_&%$#{}~^\\<b>*\n\udcff"
    write_run(tmp_path / "a", {(name, 25.0): (0.5, 0.5)}, semnet="deeplab")
    write_run(tmp_path / "b", {(name, 25.0): (0.5, 0.5)}, train_g="x_1|$y$&")
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 4
    assert {line.replace("\\|", "").count("|") for line in text.splitlines()} == {5}
    assert r"x\_1\|\$y\$\&" in text
    latex = (tmp_path / "out/summary.tex").read_text()
    assert r"train g x\_1\textbar{}\$y\$\&" in latex
    assert r"rain\textbar{}\_\&\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}b" in latex
    with open(tmp_path / "out/summary.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 3 and {len(row) for row in rows} == {8} and rows[2][0].endswith("train g x_1|$y$&")
    assert escape_markdown("a*b") == r"a\*b" and escape_latex("50%") == r"50\%"


def test_thresholds_are_columns_of_their_own(tmp_path, capsys):
    write_run(tmp_path / "a", {("rain", 25.0): (0.5, 0.6), ("rain", 10.0): (0.25, 0.5), ("val", 5.0): (1, 1)})
    summary = summarize([read_run(tmp_path / "a")])
    assert summary.columns == [f"{c} R@{n}" for c in ("rain (25 m)", "rain (10 m)", "val (5 m)") for n in (1, 5)]
    (row,) = summarize([read_run(tmp_path / "a")], 10).rows
    assert row.cells == [Cell(25.0, None, 1), Cell(50.0, None, 1)] and row.label == "resnet50, deeplab"
    assert main([str(tmp_path / "a"), "--threshold_m", "3"]) == 2
    assert "there are: 5, 10, 25 m" in capsys.readouterr().err


def test_what_is_in_the_data_counts_not_where_it_lies(tmp_path):
    recalls = {("rain", 25.0): (0.5, 0.5)}
    for seed, (root, digest) in enumerate([("/a", "1"), ("/b", "1"), ("/c", "2")]):
        write_run(tmp_path / f"{seed}", recalls, seed=seed, dataset_root=root, data={"the training gallery": digest})
    summary = summarize([read_run(tmp_path / str(i)) for i in range(3)])
    assert [(row.label, len(row.runs)) for row in summary.rows] == [
        ("resnet50, deeplab, dataset root a", 2),
        ("resnet50, deeplab, dataset root c", 1),
    ]


def test_arguments_that_older_runs_do_not_know_have_their_defaults(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"{seed}", {("rain", 25.0): (0.5, 0.5)}, seed=seed)
    given = plain_values(main_parser().parse_args([]))
    del given["margin"]
    write_checkpoint(tmp_path / "0/last.pth", {"arguments": given, "data": {}})
    assert len(summarize([read_run(tmp_path / "0"), read_run(tmp_path / "1")]).rows) == 1


def test_runs_without_arguments_stand_alone(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, {("rain", 25.0): (0.5, 0.5)}, record=False)
    write_run(tmp_path / "c", {("rain", 25.0): (0.5, 0.5), ("sun", 25.0): (1, 1)})
    summary = summarize([read_run(tmp_path / name) for name in "abc"])
    assert [row.label for row in summary.rows] == [
        *(f"resnet50, deeplab ({tmp_path / name})" for name in "ab"),
        "resnet50, deeplab",
    ]
    assert summary.rows[0].cells[2:] == [None, None] and not summary.with_miou


def test_an_evaluation_takes_the_arguments_of_its_checkpoint(tmp_path):
    run = write_run(tmp_path / "run", {("rain", 25.0): (0.5, 0.5)}, seed=4)
    evaluation = {("rain", 25.0): (0.25, 0.5)}
    write_run(tmp_path / "evaluation", evaluation, record=False, checkpoint=str(run / "last.pth"))
    assert read_run(tmp_path / "evaluation").seed == 4


def test_a_seed_twice_is_flagged_in_its_row_alone(tmp_path, capsys):
    """An evaluation of a run has its arguments, and one run twice is not two seeds."""
    run = write_run(tmp_path / "a", {("rain", 25.0): (0.5, 0.5)}, seed=4)
    write_run(tmp_path / "b", {("rain", 25.0): (0.25, 0.5)}, record=False, checkpoint=str(run / "last.pth"))
    for seed in (0, 1):
        write_run(tmp_path / f"other{seed}", {("rain", 25.0): (0.5 + 0.1 * seed, 0.5)}, seed=seed, n_neg=5)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    _, _, first, second, *notes = capsys.readouterr().out.splitlines()
    assert [c.strip() for c in first.split("|")[1:4]] == ["resnet50, deeplab", r"1\*", "50.0"]
    assert [c.strip() for c in second.split("|")[1:4]] == ["resnet50, deeplab, n neg 5", "2", "55.0 ± 7.1"]
    said = f"seed 4 again in {tmp_path}/b, not counted beside {tmp_path}/a"
    assert notes == ["", rf"\* resnet50, deeplab: {escape_markdown(said)}"]
    latex = (tmp_path / "out/summary.tex").read_text()
    assert r"resnet50, deeplab & 1$^{*}$ & 50.0" in latex and latex.endswith(f"% * resnet50, deeplab: {said}\n")
    with open(tmp_path / "out/summary.csv", newline="") as file:
        assert [row["note"] for row in csv.DictReader(file)] == [said, ""]


def test_labels_tell_what_is_not_the_default(tmp_path):
    recalls = {("rain", 25.0): (0.5, 0.5)}
    changed = [
        {},
        {"guidance": False, "scale_indexes": [4], "lr": 0.001},
        {"resume": "/far/away/weights.pth", "sync_bn": True},
        {"train_pos_dist_threshold": 7.5, "arch": "resnet18"},
    ]
    runs = [read_run(write_run(tmp_path / str(i), recalls, **more)) for i, more in enumerate(changed)]
    made = [row.label for row in summarize(runs).rows]
    assert made == [
        "resnet50, deeplab",
        "resnet50, deeplab, scale indexes 4, no guidance, lr 0.001",
        "resnet50, deeplab, sync bn, started from weights.pth",
        "resnet18, deeplab, train pos dist threshold 7.5",
    ]
    assert not any(set(label) & set("_/\\") for label in made)
    # the last parts of two paths may be equal
    twins = [read_run(write_run(tmp_path / n / "x", recalls, resume=f"/{n}/weights.pth")) for n in "ab"]
    assert len({row.label for row in summarize(twins).rows}) == 2


def test_names_of_the_users_own(tmp_path, capsys):
    recalls = {("rain", 25.0): (0.5, 0.5)}
    for seed in (0, 1):
        write_run(tmp_path / f"runs/full/{seed}", recalls, seed=seed)
        write_run(tmp_path / f"runs/none/{seed}", recalls, seed=seed, da_method="none")
    full, none, both = (str(tmp_path / "runs" / name) for name in ("full", "none", ""))
    assert main([full, none, "--label", "SegVPR (50%)", "no_DA", "--out", str(tmp_path / "out")]) == 0
    assert [row[:2] for row in rows_of(capsys.readouterr().out)[2:]] == [["SegVPR (50%)", "2"], [r"no\_DA", "2"]]
    latex = (tmp_path / "out/summary.tex").read_text()
    assert "\nSegVPR (50\\%) & 2 & " in latex and "\nno\\_DA & 2 & " in latex
    for folders, names, reason in (
        ([full, none], ["a"], "1 names for 2 RUN"),
        ([both], ["a"], "has runs of 2 configurations"),
        ([f"{full}/0", f"{full}/1"], ["a", "b"], "configuration named a"),
        ([full, none], ["a", "a"], "two configurations have this name"),
    ):
        assert main([*folders, "--label", *names]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("utils.summarize: error: --label") and reason in line
    assert main([f"{full}/0", f"{full}/1", "--label", "a", "a"]) == 0
    assert rows_of(capsys.readouterr().out)[2][:2] == ["a", "2"]


def test_where_training_started_counts():
    going_on = [None, "auto", "runs/first/2026-11-24_03-50-29", "runs/x/last.pth", "x/previous.pth"]
    assert {starting_weights(resume) for resume in going_on} == {None}
    assert starting_weights("released.pth") == "released.pth"


@pytest.mark.parametrize(
    "content, reason",
    [
        ("{", "not results of this project"),
        ("[]", "not results of this project"),
        ('{"sets": [{"name": "rain"}]}', "threshold_m"),
        ('{"sets": [], "segmentation": {"miou": NaN}, "arch": "a", "semnet": "b"}', "not a fraction"),
        ('{"sets": [{"name": "r", "threshold_m": 5, "recall": {"1": 50, "5": 60}}]}', "50 is not a fraction"),
    ],
)
def test_odd_results_are_named_in_one_line(tmp_path, capsys, content, reason):
    (tmp_path / "results.json").write_text(content)
    assert main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"utils.summarize: error: {tmp_path}/results.json: ") and reason in line


def test_other_bad_input_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "absent")]) == 2
    (tmp_path / "file").touch()
    write_run(tmp_path / "run", {("rain", 25.0): (0.5, 0.5)})
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "file")]) == 2
    empty, absent, out = capsys.readouterr().err.splitlines()
    assert (
        "no results.json" in empty
        and "absent: no such folder" in absent
        and f"{tmp_path}/file/summary.md: cannot write it" in out
    )
    for metres in ("-1", "0", "nan", "inf", "far"):
        with pytest.raises(SystemExit) as stop:
            main([str(tmp_path), "--threshold_m", metres])
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and "--threshold_m" in line
