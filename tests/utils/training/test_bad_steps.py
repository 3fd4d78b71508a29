"""Numbers gone wrong never reach a checkpoint."""

import os
import signal

import pytest
import torch

import main
from models import build_model
from tests.models.test_domain import BATCH
from tests.tiny import SMALL_RUN, data_flags
from utils.runs.checkpoints import load_checkpoint
from utils.system.failures import RunFailed
from utils.training import loop as training_loop
from utils.training.loss_watch import LossWatch, check_weights
from utils.training.optimizers import build_optimizers
from utils.training.step import train_step


@pytest.mark.parametrize("term, signalled", [("image", True), ("gradient", False)])
def test_a_step_gone_wrong_never_reaches_a_checkpoint(tiny_root, tmp_path, monkeypatch, capsys, term, signalled):
    """Also where a signal asks for a save at once."""
    monkeypatch.chdir(tmp_path)
    step, calls = training_loop.train_step, []

    def poisoned(model, optimizers, images, *rest, **keywords):
        calls.append(1)
        if len(calls) == 2 and signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        if len(calls) == 2 and term == "image":
            images = images * torch.nan
        if len(calls) == 2 and term == "gradient":
            model.encoder.conv1.weight.register_hook(lambda gradient: gradient * torch.inf)
        return step(model, optimizers, images, *rest, **keywords)

    monkeypatch.setattr(training_loop, "train_step", poisoned)
    assert main.main([*data_flags(tiny_root)[:2], *SMALL_RUN, "--da_method", "none"]) == 1
    (error,) = (line for line in capsys.readouterr().err.splitlines() if "not finite" in line)
    assert "epoch 1, refresh 1, step 2" in error and ".png" in error
    assert {"image": "the triplet loss", "gradient": "a gradient"}[term] in error
    (folder,) = (tmp_path / "runs/default").iterdir()
    saved = load_checkpoint(folder / "last.pth")
    assert saved.training["run"]["step"] == 0
    assert all(bool(value.isfinite().all()) for value in saved.state_dict.values())


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


def test_loss_scaling_changes_nothing_but_survives_overflow():
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
