"""The benchmark of running statistics: what is collected anew, and what stays."""

import shutil

import torch

from benchmarks.checks import running_statistics
from benchmarks.checks.running_statistics import FIRST, batch_norms, collected_anew, shift, with_first_of
from models import build_model
from tests.tiny import write_idda, write_robotcar


def test_statistics_alone_are_collected_anew_and_the_first_can_be_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(running_statistics, "BATCHES", 2)
    write_idda(tmp_path / "idda")
    shutil.copytree(write_robotcar(tmp_path / "robotcar") / "night", tmp_path / "robotcar_all")
    torch.manual_seed(0)
    stored = build_model("resnet18").eval()
    anew = collected_anew(stored, tmp_path)
    again = collected_anew(stored, tmp_path)
    for (name, old), new, same in zip(stored.state_dict().items(), *(m.state_dict().values() for m in (anew, again))):
        assert torch.equal(new, same), "the images are drawn with a fixed seed"
        assert torch.equal(old, new) != ("running" in name or "num_batches" in name), name
    assert shift(stored, stored) == 0 < shift(stored, anew)
    mixed = with_first_of(stored, anew)
    changed = {
        name
        for name, norm in batch_norms(stored).items()
        if not torch.equal(norm.running_mean, batch_norms(mixed)[name].running_mean)
    }
    assert changed == {FIRST} and shift(mixed, anew) == 0
