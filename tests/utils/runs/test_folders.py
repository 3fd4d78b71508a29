"""Run folders: their names, which one is the newest, and that a start that fails leaves none."""

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import eval as evaluation_script
import main
from models import SegVPR, build_model
from tests.tiny import SMALL_RUN, data_flags
from utils.retrieval.store import BESIDE_CHECKPOINT
from utils.runs import folders as runs_module
from utils.runs.checkpoints import load_checkpoint, save_checkpoint
from utils.runs.folders import find_checkpoint, fresh_folder, has_results, new_run_folder, nothing_found

ROOT = Path(__file__).parents[3]
HOUR_NS = 3600 * 10**9


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best.pth"
    save_checkpoint(path, build_model("resnet18"), {})
    return path


def saved_run(name: str, hours: int | None = None, file: str = "last.pth") -> Path:
    """A run folder whose checkpoint was written at a moment."""
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    (folder / file).touch()
    if hours is not None:
        os.utime(folder / file, ns=(0, hours * HOUR_NS))
    return folder


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "a/../../x", "a/..", "/tmp/x", "/", "./..", "a\0b"])
@pytest.mark.parametrize("script", [main, evaluation_script])
def test_a_name_outside_runs_is_refused(here, capsys, checkpoint, script, name):
    flags = [
        "--exp_name",
        name,
        "--resume",
        str(checkpoint) if script is evaluation_script else "auto",
        "--device",
        "cpu",
    ]
    assert script.main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"error: --exp_name {name!r}: results go to a folder below runs/" in line
    assert list(here.iterdir()) == []


def test_names_may_be_nested():
    with new_run_folder("night/seed1") as folder:
        assert folder.is_dir() and folder.parent == Path("runs/night/seed1")
    assert folder.is_dir()


def test_runs_of_the_same_second_get_numbers(monkeypatch):
    class Clock(runs_module.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(runs_module, "datetime", Clock)
    for number in ["", *(f"-{i}" for i in range(2, 12))]:
        with new_run_folder("x") as folder:
            assert folder == Path(f"runs/x/2026-01-02_03-04-05{number}")


@pytest.mark.parametrize("make", [lambda: Path("runs").write_text(""), lambda: Path("runs").symlink_to("absent/below")])
def test_runs_that_is_no_folder_is_one_error(here, make):
    make()
    with (
        pytest.raises(OSError, match=r"--exp_name x: cannot make runs/x/.* run where you may write"),
        new_run_folder("x"),
    ):
        pass


# -- the newest ----------------------------------------------------------------------------------------------------


def test_auto_goes_by_time_not_by_name():
    assert find_checkpoint("auto", "x") is None
    saved_run("x/2026-01-03_00-00-00", 1)
    saved_run("x/2026-01-02_00-00-00", 3)  # the clock went back, so it bears the older name
    saved_run("x/2026-01-01_00-00-00", 2)
    Path("runs/x/2026-01-09_00-00-00").mkdir()  # without a checkpoint
    assert find_checkpoint("auto", "x") == Path("runs/x/2026-01-02_00-00-00/last.pth")
    saved_run("x/2025-01-01_00-00-00", 4, "previous.pth")  # last.pth is gone: load_newest finds the other
    assert find_checkpoint("auto", "x") == Path("runs/x/2025-01-01_00-00-00/last.pth")


def test_of_runs_saved_at_one_moment_the_higher_number_is_newer():
    for number in ("", "-2", "-9", "-10", "-11"):
        saved_run(f"x/2026-01-01_00-00-00{number}", 5)
    saved_run("x/2025-12-31_23-59-59-50", 5)
    assert find_checkpoint("auto", "x") == Path("runs/x/2026-01-01_00-00-00-11/last.pth")


def test_runs_that_exist_are_named_the_nearest_first():
    assert nothing_found("segvr").endswith(f"no run exists in {Path('runs').resolve()}")
    for name in ("demo", "SegVPR", "night/segvpr", *(f"zz{i}" for i in range(10))):
        saved_run(f"{name}/2026-01-01_00-00-00")
    Path("runs/empty/2026-01-01_00-00-00").mkdir(parents=True)
    line = nothing_found("segvr")
    assert "found no run named segvr" in line and "empty" not in line
    assert "; runs that exist: SegVPR, night/segvpr, demo, " in line and line.endswith(" and 3 more")


def test_a_mistyped_name_is_said_first_and_last(tiny_root, capsys):
    saved_run("segvpr/2026-01-01_00-00-00")
    flags = [*data_flags(tiny_root)[:2], *SMALL_RUN, "--da_method", "none", "--n_epochs", "0"]
    assert main.main([*flags, "--exp_name", "segvr", "--resume", "auto"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0]
        == lines[-1]
        == "--resume auto: found no run named segvr, so this is a new one; runs that exist: segvpr"
    )
    (log,) = Path("runs/segvr").glob("*/log.txt")
    logged = log.read_text().splitlines()
    assert lines[0] in logged[0] and lines[0] in logged[-1]


# -- starts that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_of_a_start_that_fails_is_removed(here, error):
    Path("kept").mkdir()
    with pytest.raises(error), fresh_folder(Path("kept/a/b")) as folder:
        (folder / "log.txt").touch()
        (folder / "events.out.tfevents.1.host").touch()
        raise error
    assert list(here.rglob("*")) == [here / "kept"]


@pytest.mark.parametrize("name", ["last.pth", "results.json", "notes.txt", "predictions/rain.csv"])
def test_a_folder_that_holds_more_is_kept(name):
    with suppress(ValueError), fresh_folder(Path("a/b")) as folder:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        (folder / "log.txt").touch()
        raise ValueError
    assert (folder / name).exists() and (folder / "log.txt").exists()


def test_a_folder_that_was_there_is_kept():
    Path("a").mkdir()
    with suppress(ValueError), fresh_folder(Path("a"), exist_ok=True):
        raise ValueError
    assert Path("a").is_dir()


@pytest.mark.parametrize(
    "changes",
    [
        ["--dataset_root", "absent"],
        ["--test_q", "absent"],
        ["--DA_datasets", "absent"],
        ["--pretrain", "absent.pth"],
        ["--scale_indexes", "4", "3"],
        ["--resume", "absent.pth"],
    ],
)
def test_training_that_does_not_start_leaves_nothing(tiny_root, here, changes):
    assert main.main([*data_flags(tiny_root), *SMALL_RUN, "--exp_name", "a/b", *changes]) == 2
    assert list(here.iterdir()) == []


def test_training_that_stops_before_its_first_checkpoint_leaves_nothing(tiny_root, here, monkeypatch):
    def stopped(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    flags = [*data_flags(tiny_root), *SMALL_RUN]
    flags.remove("--no_report")  # start.pth is there by then
    monkeypatch.setattr(main, "log_estimate", stopped)
    assert main.main(flags) == 143
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("out", [["--output_dir", "a/b/c"], ["--exp_name", "a/b"], []])
@pytest.mark.parametrize(
    "changes", [["--dataset_root_test", "absent"], ["--index", "IVF99,Flat"], ["--index", "odd"], ["--pca_dim", "9999"]]
)
def test_evaluation_that_does_not_start_leaves_nothing(tiny_root, checkpoint, here, out, changes):
    shutil.copy(checkpoint, here / "best.pth")
    flags = [
        "--resume",
        "best.pth",
        "--dataset_root_test",
        str(tiny_root / "robotcar"),
        "--device",
        "cpu",
        "--num_workers",
        "0",
    ]
    assert evaluation_script.main([*flags, *out, *changes]) == 2
    assert [path.name for path in here.iterdir()] == ["best.pth"]


def test_git_does_not_see_the_default_store():
    assert f"{BESIDE_CHECKPOINT}/" in (ROOT / ".gitignore").read_text().split()


# -- runs that are finished, and runs that go on ---------------------------------------------------------------------


def test_results_count_as_long_as_no_checkpoint_is_newer(here):
    folder = saved_run("x/1", 5)
    assert not has_results(folder, False)
    for name, hours, found in (("results.json", 6, True), ("results.json", 4, False), ("results.json", 5, True)):
        (folder / name).touch()
        os.utime(folder / name, ns=(0, hours * HOUR_NS))
        assert has_results(folder, False) == found and not has_results(folder, True)
    (folder / "report.html").touch()
    assert has_results(folder, True)


@pytest.fixture
def finished(trained_run, here) -> Path:
    """A copy of a finished run; its results hold a mark that an evaluation would not write."""
    folder = here / "runs/default" / trained_run.name
    shutil.copytree(trained_run, folder)
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {"mark": 1}))
    return folder


def test_a_finished_run_stays_as_it_is(tiny_root, finished, here, capsys):
    flags = [*data_flags(tiny_root), *SMALL_RUN, "--resume", "auto"]
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name != "log.txt"}
    assert main.main(flags) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert "this run is finished: 2 epochs are done (--n_epochs 2)" in said and "a larger --n_epochs" in said
    assert "python3 eval.py --resume" in said and said.endswith("best.pth")
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name != "log.txt"}
    assert {path.name for path in after.keys() ^ before.keys()} <= {"run.lock"}
    assert all(after[path] == content for path, content in before.items() if path.name != "run.lock")


def test_a_resumed_run_keeps_what_auto_meant_whatever_is_faster_now(tiny_root, finished, capsys, monkeypatch):
    monkeypatch.setattr("utils.system.compute.faster_precision", lambda device: ("bf16", "timed"))
    assert main.main([*data_flags(tiny_root), *SMALL_RUN, "--resume", "auto", "--precision", "auto"]) == 0
    assert "machine: cpu, fp32;" in capsys.readouterr().out


def test_a_run_that_lost_its_patience_says_so(tiny_root, finished, capsys):
    content = torch.load(finished / "last.pth", weights_only=True)
    content["training"]["run"]["epochs_without_gain"] = 3
    modified = (finished / "last.pth").stat()
    torch.save(content, finished / "last.pth")
    os.utime(finished / "last.pth", ns=(modified.st_atime_ns, modified.st_mtime_ns))
    flags = [*data_flags(tiny_root), *SMALL_RUN, "--resume", str(finished), "--n_epochs", "9", "--patience", "2"]
    assert main.main(flags) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert "(3 epochs in a row without a better validation recall@1)" in said and "give a larger --patience" in said


@pytest.mark.parametrize("scores, measured", [((0.2, 0.5), 2), ((0.5, 0.2), 3)])
def test_the_best_epoch_is_measured_again_only_if_another_came_after_it(
    tiny_root, here, monkeypatch, capsys, scores, measured
):
    flags, waiting, calls = [*data_flags(tiny_root), *SMALL_RUN, "--resume", "auto"], list(scores), []
    kept = main.measure
    monkeypatch.setattr(main, "measure", lambda *a: calls.append(1) or kept(*a))
    monkeypatch.setattr(main, "score", lambda result: (waiting.pop(0) if waiting else None, {}))
    assert main.main(flags) == 0
    assert len(calls) == measured and ("evaluating" in capsys.readouterr().out) == (measured > len(scores))


def test_a_finished_run_can_be_extended_and_an_unfinished_evaluation_made_up_for(tiny_root, finished):
    flags = [*data_flags(tiny_root), *SMALL_RUN, "--resume", "auto", "--n_epochs", "3"]
    assert main.main(flags) == 0
    assert load_checkpoint(finished / "last.pth").training["run"]["epoch"] == 3
    assert "mark" not in json.loads((finished / "results.json").read_text())
    old = (finished / "last.pth").stat().st_mtime_ns - HOUR_NS
    os.utime(finished / "results.json", ns=(old, old))  # killed after training, before its new results
    (finished / "predictions/rain.csv").unlink()
    assert main.main(flags) == 0
    assert (finished / "predictions/rain.csv").is_file()


def test_a_resumed_report_compares_with_the_weights_that_training_started_from(tiny_root, here, monkeypatch):
    flags = [*data_flags(tiny_root)[:2], *SMALL_RUN, "--da_method", "none", "--queries_per_epoch", "4", "--n_epochs"]
    flags.remove("--no_report")
    first, compared, build = [], [], main.starting_model

    def watched(*given):
        model = build(*given)
        first.append({name: value.clone() for name, value in model.state_dict().items()})
        return model

    def report(*given):
        (before,) = (model for model in given[2:] if isinstance(model, SegVPR))
        compared.append(before.state_dict())

    monkeypatch.setattr(main, "starting_model", watched)
    monkeypatch.setattr("utils.report.write.write_report", report)
    assert main.main([*flags, "1"]) == 0
    assert main.main([*flags, "2", "--resume", "auto"]) == 0
    assert main.main([*flags, "2", "--resume", str(next(Path("runs/default").iterdir())), "--exp_name", "other"]) == 0
    assert len(compared) == 3
    for weights in compared:
        assert all(torch.equal(value, first[0][name]) for name, value in weights.items())
    assert not torch.equal(first[1]["encoder.conv1.weight"], first[0]["encoder.conv1.weight"])
