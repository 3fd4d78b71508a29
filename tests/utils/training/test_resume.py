"""Exact resume from any point; what may change when a run goes on."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import main
from datasets.reading.triplets import Triplets
from tests.tiny import SMALL_RUN, data_flags
from utils import export
from utils.options.parsers import may_change
from utils.runs.checkpoints import load_checkpoint
from utils.runs.folders import check_record
from utils.training import loop as training_loop
from utils.training.loop import TrainingRun
from utils.training.settings import TrainingSettings
from utils.training.state import RunState

STOPS = [
    ("train_step", 1, signal.SIGTERM, "0", (0, 0, 1)),
    ("embed_images", 1, signal.SIGINT, "0", (0, 1, 0)),
    ("write_history", 1, signal.SIGTERM, "0", (1, 0, 0)),
    ("train_step", 2, signal.SIGTERM, "2", (1, 0, 2)),
]
"""Function of the loop, number of the call since the start, signal, workers; then epoch, refresh and step that are saved."""


def assert_same_run(folder: Path, other: Path) -> None:
    """Weights, optimisers, history and hard negatives equal bit for bit."""
    ours, theirs = load_checkpoint(folder / "last.pth"), load_checkpoint(other / "last.pth")
    assert all(torch.equal(value, theirs.state_dict[key]) for key, value in ours.state_dict.items())
    for key in ("history", "epoch", "refresh", "step", "best_score", "epochs_without_gain"):
        assert ours.training["run"][key] == theirs.training["run"][key]
    assert torch.equal(ours.training["run"]["hardest"], theirs.training["run"]["hardest"])
    momenta, others = (c.training["optimizers"]["network"]["state"] for c in (ours, theirs))
    assert all(torch.equal(momenta[i]["momentum_buffer"], others[i]["momentum_buffer"]) for i in momenta)
    assert (folder / "history.csv").read_text() == (other / "history.csv").read_text()


def stop_in(name: str, call: int, number: int, patch: pytest.MonkeyPatch) -> None:
    """Have a signal come in a call of a function of the loop; it reaches the loader's workers too, as a scheduler's does."""
    original, calls = getattr(training_loop, name), []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == call:
            for child in multiprocessing.active_children():
                os.kill(child.pid, number)
            os.kill(os.getpid(), number)
        return original(*arguments, **keywords)

    patch.setattr(training_loop, name, interrupted)


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_a_run_that_is_stopped_everywhere_and_loses_a_checkpoint_is_the_same_run(
    tiny_root, trained_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    flags, resume = [*data_flags(tiny_root), *SMALL_RUN], []
    for name, call, number, workers, place in STOPS:
        with monkeypatch.context() as patch:
            stop_in(name, call, number, patch)
            assert main.main([*flags, *resume, "--num_workers", workers]) == 128 + number
        epoch, refresh, step = place
        assert f"saved at epoch {epoch + 1}, refresh {refresh + 1}, step {step}" in capsys.readouterr().err
        (folder,) = (tmp_path / "runs/default").iterdir()
        saved = load_checkpoint(folder / "last.pth").training["run"]
        assert (saved["epoch"], saved["refresh"], saved["step"]) == place
        assert (saved["triplets"] is not None) == (name == "train_step")
        assert multiprocessing.active_children() == []
        resume = ["--resume", "auto"]
    damage(folder / "last.pth")
    assert main.main([*flags, "--resume", str(folder)]) == 0
    assert "warning" in capsys.readouterr().err
    assert_same_run(folder, trained_run)
    for name in ("last.pth", "previous.pth"):
        (folder / name).write_bytes(b"damaged")
    assert main.main([*flags, "--resume", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("warning:") and "previous.pth: not a checkpoint" in lines[1]


@pytest.mark.parametrize("minutes, saves", [(0, 1), (1, 1), (3, 0)])
def test_saves_at_refreshes_may_be_spaced(minutes, saves):
    saved, settings = [], TrainingSettings(save_every_min=minutes)
    run = SimpleNamespace(_saved_at=time.monotonic() - 120, settings=settings, save=lambda: saved.append(1))
    TrainingRun._save_if_due(run)
    assert len(saved) == saves


def test_what_may_change_on_resume_and_what_may_not(caplog):
    saved = {
        "arguments": {"lr": 1.0, "device": "cuda", "n_epochs": 3, "seed": 0},
        "data": {"the training gallery": "a"},
    }
    check_record(
        saved,
        {"arguments": {**saved["arguments"], "device": "cpu", "n_epochs": 9}, "data": saved["data"]},
        may_change(),
    )
    with pytest.raises(
        ValueError, match=r"--lr was 1\.0, is 2\.0; --seed was 0, is 1; the files of the training gallery differ"
    ):
        check_record(
            saved,
            {"arguments": {**saved["arguments"], "lr": 2.0, "seed": 1}, "data": {"the training gallery": "b"}},
            may_change(),
        )


def test_an_older_checkpoint_goes_on_with_data_sets_that_moved(tiny_root, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = torch.load(trained_run / "last.pth", weights_only=True)
    for flag in (
        "precision",
        "mining",
        "cache_negatives",
        "attention",
        "sync_bn",
        "decode",
    ):  # from before they existed
        del content["training"]["record"]["arguments"][flag]
    (tmp_path / "old").mkdir()
    torch.save(content, tmp_path / "old/last.pth")
    shutil.copytree(tiny_root, tmp_path / "moved")
    command = [*data_flags(tmp_path / "moved"), *SMALL_RUN, "--resume", "old", "--exp_name", "elsewhere"]
    assert main.main(command) == 0
    assert "changed on resume: --dataset_root was" in capsys.readouterr().out
    next((tmp_path / "moved/robotcar/rain").iterdir()).unlink()
    assert main.main([*command, "--mining", "random"]) == 2
    error = capsys.readouterr().err
    assert "this would be another run: --mining was full, is random; the files of the target domain differ" in error
    assert "the files of the queries of rain differ" in error


def test_a_run_of_an_older_version_gives_its_weights_alone(tiny_root, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root)[:2], *SMALL_RUN, "--da_method", "none", "--exp_name", "new"]
    content = torch.load(trained_run / "last.pth", weights_only=True)
    torch.save({**content, "format": "segvpr-1"}, "old.pth")
    old = load_checkpoint("old.pth")
    assert all(torch.equal(value, old.state_dict[key]) for key, value in content["model"].items())
    assert main.main([*flags, "--resume", "old.pth"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--resume old.pth: an older version" in line and "--out weights.pth" in line
    assert export.main(["--resume", "old.pth", "--out", "weights.pth"]) == 0
    assert main.main([*flags, "--resume", "weights.pth", "--n_epochs", "0"]) == 0
    assert "starting at epoch 0 from the weights of weights.pth" in capsys.readouterr().out


def test_the_state_round_trips_through_a_checkpoint_file(tmp_path):
    triplets = Triplets(np.arange(3), np.arange(3, 6), np.arange(6).reshape(3, 2))
    state = RunState(
        np.full((4, 2), -1, np.int64),
        2,
        1,
        7,
        triplets,
        {"triplet": torch.tensor(0.1).double()},
        9,
        0.5,
        1,
        [{"epoch": 1}],
    )
    torch.save(state.state_dict(), tmp_path / "state.pth")
    back = RunState.from_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert np.array_equal(back.triplets.negatives, triplets.negatives) and np.array_equal(back.hardest, state.hardest)
    assert back.loss_sums == {"triplet": float(torch.tensor(0.1).double())} and back.history == state.history
    assert (back.epoch, back.refresh, back.step, back.steps_summed, back.best_score) == (2, 1, 7, 9, 0.5)
