"""Five cases of benchmarks/checks/fuzz.py, and a few kills of benchmarks/checks/crash.py."""

import pytest

from benchmarks.checks import crash
from benchmarks.checks.fuzz import Fuzz


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    return Fuzz(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("seed", range(1000, 1005))
def test_damage_ends_in_a_result_or_one_line(fuzz, seed):
    case = fuzz.case(seed)
    assert not case["fault"], case


def test_killed_runs_end_as_the_untouched_one(capsys):
    assert crash.main(["--kills", "2", "--seed", "3", "--num_workers", "0"]) == 0
    assert "2 of 2" in capsys.readouterr().out
