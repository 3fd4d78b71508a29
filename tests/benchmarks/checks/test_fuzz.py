"""A few cases of benchmarks/checks/fuzz.py, and a kill of benchmarks/checks/crash.py."""

import json

import pytest
import torch

from benchmarks.checks import crash
from benchmarks.checks.fuzz import Fuzz


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    return Fuzz(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("seed", range(1000, 1005))
def test_damage_ends_in_a_result_or_one_line(fuzz, seed):
    case = fuzz.case(seed)
    assert not case["fault"], case


def test_a_killed_run_ends_as_the_uninterrupted_one(fuzz, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(crash, "small_town", lambda folder: fuzz.town)
    monkeypatch.setattr(crash, "FLAGS", [*crash.FLAGS, *"--n_epochs 1 --da_method none --sem_loss_weight 0".split()])
    out = tmp_path / "crash.json"
    assert crash.main(["--kills", "1", "--seed", "3", "--num_workers", "0", "--out", str(out)]) == 0
    assert "1 of 1" in capsys.readouterr().out
    (found,) = json.loads(out.read_text())["each"]
    assert found["equal"] and found["status"] == 0


def test_equality_is_to_the_last_bit():
    a = {"weights": [torch.tensor([1.0, 2.0])], "epoch": 1}
    assert crash.same(a, {"weights": [torch.tensor([1.0, 2.0])], "epoch": 1})
    assert not crash.same(a, {"weights": [torch.tensor([1.0, 2.0 + 2**-22])], "epoch": 1})
    assert not crash.same(a, {"weights": [], "epoch": 1}) and not crash.same(a, {"epoch": 1})
