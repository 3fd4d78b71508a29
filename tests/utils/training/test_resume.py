"""Runs that survive: exact resume from any point, crashes, signals, full disks, numbers gone wrong."""

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import main
from datasets.reading.triplets import Triplets
from tests.tiny import SMALL_RUN, data_flags
from utils import export
from utils.runs.checkpoints import load_checkpoint, write_atomically
from utils.runs.folders import check_record, load_newest, locked
from utils.system.command import run_command
from utils.system.failures import RunFailed
from utils.system.interrupts import Interrupts, StopRequested, stop_if_requested
from utils.system.logs import start_logging
from utils.training import loop as training_loop
from utils.training.loss_watch import LossWatch, check_weights
from utils.training.state import RunState

ROOT = Path(__file__).parents[3]


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


@pytest.mark.parametrize("stop_at, workers", [(0, "0"), (1, "0"), (3, "0"), (5, "0"), (0, "2"), (3, "2")])
def test_a_run_stopped_by_a_signal_resumes_as_the_same_run(
    tiny_root, trained_run, tmp_path, monkeypatch, stop_at, workers
):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root), *SMALL_RUN, "--num_workers", workers]
    step, steps = training_loop.train_step, []

    def interrupted(*arguments, **keywords):
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        steps.append(1)
        return step(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "train_step", interrupted)
        assert main.main(flags) == 128 + signal.SIGTERM
    assert len(steps) == stop_at + 1  # the step was finished
    (folder,) = (tmp_path / "runs/default").iterdir()
    saved = load_checkpoint(folder / "last.pth").training["run"]
    assert saved["step"] == stop_at % 2 + 1 and saved["triplets"] is not None
    assert main.main([*flags, "--resume", "auto"]) == 0
    assert_same_run(folder, trained_run)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("where", ["mining", "evaluation"])
def test_a_signal_outside_a_step_stops_the_run(tiny_root, trained_run, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root), *SMALL_RUN]
    name = "embed_images" if where == "mining" else "write_history"
    original, calls = getattr(training_loop, name), []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == (3 if where == "mining" else 1):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return original(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, name, interrupted)
        assert main.main(flags) == 130
    (folder,) = (tmp_path / "runs/default").iterdir()
    assert main.main([*flags, "--resume", str(folder)]) == 0
    assert_same_run(folder, trained_run)


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(tiny_root, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root), *SMALL_RUN]
    assert main.main([*flags, "--n_epochs", "1"]) == 0
    (folder,) = (tmp_path / "runs/default").iterdir()
    last = folder / "last.pth"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 0xFF
    last.write_bytes(data)
    capsys.readouterr()
    kept, save = [], training_loop.save_checkpoint

    def watched(*arguments):
        save(*arguments)
        if len(arguments) > 3 and arguments[3]:
            kept.append(load_checkpoint(arguments[3]))  # at every save, the one before is whole

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "save_checkpoint", watched)
        assert main.main([*flags, "--resume", str(folder)]) == 0
    assert "warning" in capsys.readouterr().err and kept
    assert_same_run(folder, trained_run)
    for name in ("last.pth", "previous.pth"):
        (folder / name).write_bytes(b"damaged")
    assert main.main([*flags, "--resume", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("warning:") and "previous.pth: not a checkpoint" in lines[1]


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:200] + b"\0" * 50 + b[250:]]
)
def test_every_kind_of_damage_is_seen(tmp_path, damage):
    config = {"arch": "resnet18", "semnet": "deeplab", "num_classes": 17, "scale_indexes": [3, 4]}
    content = {"format": "segvpr-1", "config": config, "model": {"w": torch.randn(500)}, "training": {}}
    write_atomically(tmp_path / "last.pth", content)
    load_checkpoint(tmp_path / "last.pth")
    write_atomically(tmp_path / "last.pth", {**content, "model": {}}, tmp_path / "previous.pth")
    (tmp_path / "last.pth").write_bytes(damage((tmp_path / "previous.pth").read_bytes()))
    assert load_newest(tmp_path / "last.pth").path.name == "previous.pth"
    (tmp_path / "previous.pth").unlink()
    with pytest.raises(ValueError, match=r"last\.pth"):
        load_newest(tmp_path / "last.pth")


def test_a_full_disk_leaves_the_older_checkpoint_intact(tmp_path):
    code = (
        "import resource, signal, sys, torch; from pathlib import Path; from utils.runs.checkpoints import write_atomically\n"
        "path = Path(sys.argv[1]); write_atomically(path, {'small': torch.zeros(10)})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: write_atomically(path, {'large': torch.zeros(100_000)}, path.with_name('previous.pth'))\n"
        "except OSError as error: print(error); sys.exit(7)"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "last.pth")], cwd=ROOT, capture_output=True, text=True
    )
    assert (
        outcome.returncode == 7
        and "cannot write this checkpoint" in outcome.stdout
        and "File too large" in outcome.stdout
    )
    assert torch.load(tmp_path / "last.pth")["small"].shape == (10,)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_a_second_signal_leaves_at_once(tmp_path):
    code = (
        "import os, signal, time; from utils.system.interrupts import Interrupts\n"
        "with Interrupts():\n  print('ready', flush=True)\n  for _ in range(600): time.sleep(0.1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None  # noted
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143


@pytest.mark.parametrize("whom, status", [("group", 143), ("worker", 1)])
def test_signals_that_reach_loader_workers(tiny_root, tmp_path, whom, status):
    """A scheduler's SIGTERM goes to the whole group: the run is saved. A worker killed alone, mid-step, is named."""
    code = (
        "import os, signal, sys, time, multiprocessing, main\nfrom utils import training_loop as loop\n"
        "step, calls = loop.train_step, []\n"
        "def slow(*a, **k):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        if sys.argv[1] == 'group': os.killpg(os.getpid(), signal.SIGTERM)\n"
        "        else: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)\n"
        "        time.sleep(1)\n"
        "    return step(*a, **k)\n"
        "loop.train_step = slow\nsys.exit(main.main(sys.argv[2:]))"
    )
    long = "--num_workers 1 --batch_size 1 --cache_refresh_rate 8".split()  # more steps than are read ahead
    command = [sys.executable, "-c", code, whom, *data_flags(tiny_root), *SMALL_RUN, *long]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, start_new_session=True, timeout=120
    )
    assert outcome.returncode == status, outcome.stderr[-2000:]
    assert "Traceback" not in outcome.stderr
    (folder,) = (tmp_path / "runs/default").iterdir()
    saved = load_checkpoint(folder / "last.pth").training["run"]
    if whom == "group":
        assert saved["step"] == 2 and "saved at epoch 1, refresh 1, step 2" in outcome.stderr
    else:
        assert "a process that reads images died on" in outcome.stderr and ".png" in outcome.stderr


def test_a_lock_ends_with_its_process_though_children_live_on(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from utils.runs.folders import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "  if os.fork() == 0: time.sleep(20); os._exit(0)\n"
        "  print('in', flush=True); os.kill(os.getpid(), 9)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    process.wait(timeout=60)
    with locked(tmp_path):
        pass


def test_a_signal_after_a_bad_step_does_not_hide_it(tiny_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    step, calls = training_loop.train_step, []

    def poisoned(model, optimizers, images, labels, target, **keywords):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            images = images * torch.nan
        return step(model, optimizers, images, labels, target, **keywords)

    monkeypatch.setattr(training_loop, "train_step", poisoned)
    assert main.main([*data_flags(tiny_root), *SMALL_RUN]) == 1
    assert "epoch 1, refresh 1, step 2" in capsys.readouterr().err
    (folder,) = (tmp_path / "runs/default").iterdir()
    assert load_checkpoint(folder / "last.pth").training["run"]["step"] == 0


def test_a_signal_is_noted_until_the_next_look():
    done, before = [], signal.getsignal(signal.SIGINT)  # a shell's background job starts with the signal ignored
    with pytest.raises(StopRequested) as stop, Interrupts():
        stop_if_requested()
        os.kill(os.getpid(), signal.SIGINT)
        done.append("finished")
        stop_if_requested()
    assert done == ["finished"] and stop.value.status == 130
    assert signal.getsignal(signal.SIGINT) is before
    stop_if_requested()  # outside, nothing is asked


def test_a_signal_that_a_destructor_swallows_is_obeyed_at_the_next_look(recwarn):
    with pytest.raises(StopRequested) as stop, Interrupts(at_once=True):
        with contextlib.suppress(StopRequested):  # what Python does with all that is raised in a destructor
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        stop_if_requested()
    assert stop.value.status == 143


def test_the_inner_of_two_takes_the_signal_and_leaves_the_outer_in_charge():
    with Interrupts(at_once=True) as outer:
        with contextlib.suppress(StopRequested), Interrupts() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            stop_if_requested()
        assert inner.requested == signal.SIGTERM and outer.requested is None
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)


def test_losses_are_looked_at_before_anything_is_saved():
    watch, good, bad = LossWatch(), {"triplet": torch.tensor(0.5)}, {"triplet": torch.tensor(torch.nan)}
    assert watch.read() == {}
    watch.note((0, 0, 0), ["a.png"], {**good, "gradient": torch.tensor(3.0)})
    assert watch.read() == {"triplet": 0.5} and watch.read() == {}
    watch.note((0, 1, 0), ["b.png"], {**good, "gradient": torch.tensor(3.0)})
    watch.note((0, 1, 1), ["c.png", "d.png"], {**good, "gradient": torch.tensor(torch.inf)})
    watch.note((0, 1, 2), ["e.png"], {**bad, "gradient": torch.tensor(torch.nan)})
    said = r"a gradient is not finite at epoch 1, refresh 2, step 2 \(nothing was saved since.*files: c\.png, d\.png"
    for _ in range(2):  # whoever asks once more, for a save on the way out, hears it again
        with pytest.raises(RunFailed, match=said):
            watch.read()


def test_weights_that_are_not_finite_are_never_saved():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    check_weights(model)
    model[1].running_var[1] = torch.inf
    with pytest.raises(RunFailed, match=r"1\.running_var is no longer finite \(nothing was saved since"):
        check_weights(model)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_outside_training_ends_the_command_with_its_status(capsys, number, status):
    def work():
        os.kill(os.getpid(), number)
        time.sleep(10)

    assert run_command("some.py", work) == status
    assert capsys.readouterr().err == f"some.py: stopped by {number.name}\n"


def test_a_disk_so_full_that_the_log_cannot_be_written_is_one_line(capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")

    def work():
        start_logging(Path("/dev/full"))
        raise OSError(errno.ENOSPC, "No space left on device")

    assert run_command("some.py", work) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "No space left on device: make room" in lines[0]


@pytest.mark.parametrize("minutes, saves", [("0", 4), ("60", 2)])
def test_saves_at_refreshes_may_be_spaced(tiny_root, tmp_path, monkeypatch, minutes, saves):
    monkeypatch.chdir(tmp_path)
    save, written = training_loop.save_checkpoint, []
    monkeypatch.setattr(
        training_loop, "save_checkpoint", lambda path, *rest: (written.append(path.name), save(path, *rest))
    )
    flags = [*data_flags(tiny_root), *SMALL_RUN, "--n_epochs", "1", "--save_every_min", minutes]
    assert main.main(flags) == 0
    assert written.count("last.pth") == saves and written.count("best.pth") == 1


def test_a_second_process_is_refused(tmp_path):
    code = "import pathlib, sys; from utils.runs.folders import locked\nwith locked(pathlib.Path(sys.argv[1])): print('in')"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert outcome.returncode and "another process" in outcome.stderr
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "in\n"


@pytest.mark.parametrize("term", ["image", "label-free target", "gradient"])
def test_a_step_gone_wrong_never_reaches_a_checkpoint(tiny_root, tmp_path, monkeypatch, capsys, term):
    monkeypatch.chdir(tmp_path)
    step, calls = training_loop.train_step, []

    def poisoned(model, optimizers, images, labels, target, **keywords):
        calls.append(1)
        if len(calls) == 2:
            if term == "gradient":
                model.encoder.conv1.weight.register_hook(lambda gradient: gradient * torch.inf)
            elif term == "image":
                images = images * torch.nan
            else:
                target = target * torch.nan
        return step(model, optimizers, images, labels, target, **keywords)

    monkeypatch.setattr(training_loop, "train_step", poisoned)
    assert main.main([*data_flags(tiny_root), *SMALL_RUN]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
    assert len(error) == 1 and "epoch 1, refresh 1, step 2" in error[0] and ".png" in error[0]
    named = {"image": "triplet loss", "gradient": "a gradient", "label-free target": "discriminator_target loss"}
    assert named[term] in error[0]
    (folder,) = (tmp_path / "runs/default").iterdir()
    saved = load_checkpoint(folder / "last.pth")
    assert saved.training["run"]["step"] == 0
    assert all(bool(value.isfinite().all()) for value in saved.state_dict.values())


def test_loss_scaling_changes_nothing_but_survives_overflow():
    from models import build_model
    from tests.models.test_domain import BATCH
    from utils.training.optimizers import build_optimizers
    from utils.training.step import train_step

    batch = {
        name: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in BATCH.items()
    }
    weights = []
    for scale in (False, True):
        torch.manual_seed(0)
        model = build_model("resnet18").train()
        optimizers = build_optimizers(model, scale_losses=scale)
        for _ in range(2):
            train_step(model, optimizers, **batch)
        weights.append(model.encoder.conv1.weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
    scale, made, kept = (
        optimizers.scaler.get_scale(),
        optimizers.schedules[0].last_epoch,
        model.encoder.conv1.weight.clone(),
    )
    hook = model.encoder.conv1.weight.register_hook(lambda gradient: gradient * torch.inf)
    train_step(model, optimizers, **batch)
    hook.remove()
    assert optimizers.scaler.get_scale() == scale / 2 and optimizers.schedules[0].last_epoch == made == 2
    assert torch.equal(model.encoder.conv1.weight, kept) and float(optimizers.gradient_norm()) == 0
    optimizers.scaler.update(0.5)  # no scale is left to halve: now it is an error
    assert not optimizers.gradient_norm().isfinite()


def test_what_may_change_on_resume_and_what_may_not(caplog):
    saved = {
        "arguments": {"lr": 1.0, "device": "cuda", "n_epochs": 3, "seed": 0},
        "data": {"the training gallery": "a"},
    }
    check_record(saved, {"arguments": {**saved["arguments"], "device": "cpu", "n_epochs": 9}, "data": saved["data"]})
    with pytest.raises(
        ValueError, match=r"--lr was 1\.0, is 2\.0; --seed was 0, is 1; the files of the training gallery differ"
    ):
        check_record(
            saved, {"arguments": {**saved["arguments"], "lr": 2.0, "seed": 1}, "data": {"the training gallery": "b"}}
        )


def test_a_checkpoint_from_before_a_flag_existed_goes_on(tiny_root, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = torch.load(trained_run / "last.pth", weights_only=True)
    for flag in ("precision", "mining", "cache_negatives", "attention", "sync_bn", "decode"):
        del content["training"]["record"]["arguments"][flag]
    (tmp_path / "old").mkdir()
    torch.save(content, tmp_path / "old/last.pth")
    command = [*data_flags(tiny_root), *SMALL_RUN, "--resume", "old", "--exp_name", "elsewhere"]
    assert main.main(command) == 0
    assert main.main([*command, "--mining", "random"]) == 2
    assert "this would be another run: --mining was full, is random (" in capsys.readouterr().err


def test_a_run_of_an_older_version_gives_its_weights_alone(tiny_root, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root), *SMALL_RUN, "--exp_name", "new"]
    for name in ("last.pth", "best.pth"):
        content = torch.load(trained_run / name, weights_only=True)
        (tmp_path / "old").mkdir(exist_ok=True)
        torch.save({**content, "format": "segvpr-1"}, tmp_path / "old" / name)
        old = load_checkpoint(tmp_path / "old" / name)
        assert all(torch.equal(value, old.state_dict[key]) for key, value in content["model"].items())
        assert old.build().embed(torch.zeros(1, 3, 97, 97)).shape == (1, 768)
        capsys.readouterr()
        assert main.main([*flags, "--resume", f"old/{name}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--resume old/{name}: an older version" in line and "--out weights.pth" in line
    assert export.main(["--resume", "old/last.pth", "--out", "weights.pth"]) == 0
    assert main.main([*flags, "--resume", "weights.pth", "--n_epochs", "1"]) == 0
    assert "starting at epoch 0 from the weights of weights.pth" in capsys.readouterr().out


def test_data_sets_may_move(tiny_root, trained_run, tmp_path, monkeypatch, capsys):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_root, tmp_path / "moved")
    command = [*data_flags(tmp_path / "moved"), *SMALL_RUN, "--resume", str(trained_run), "--exp_name", "elsewhere"]
    assert main.main(command) == 0
    assert "changed on resume: --dataset_root was" in capsys.readouterr().out
    next((tmp_path / "moved/robotcar/rain").iterdir()).unlink()
    assert main.main(command) == 2
    assert "the files of the target domain differ; the files of the queries of rain differ" in capsys.readouterr().err


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
