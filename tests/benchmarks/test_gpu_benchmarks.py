"""What `benchmarks/gpu.sh` runs, as far as a CPU can."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.checks import gpu_checks
from benchmarks.harness.flops import embedding_flops, peak_flops
from benchmarks.speed import decode
from utils.system.compute import resolve_compute

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.sh"


@pytest.fixture(autouse=True)
def settings_put_back():
    """The checks ask for deterministic kernels, which other tests in this process must not inherit."""
    yield
    resolve_compute("cpu", "fp32")


def test_operations_are_those_of_the_convolutions():
    attention = 2 * 1024 * 64 * (9 * 12**2 + 25 * 10**2 + 49 * 8**2) + 2 * 3 * 64 * 12**2
    classifier = 2048 * 1000
    published = 2 * (4.089e9 - classifier)  # ResNet-50 at 224x224 without its last layer
    assert embedding_flops("resnet50", (224, 224)) == pytest.approx(published + attention, rel=2e-3)


def test_the_peak_is_that_of_the_named_gpu():
    assert peak_flops("NVIDIA L40S", "bf16") == 362e12 and peak_flops("NVIDIA L4", "bf16") == 121e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "fp32") == peak_flops("NVIDIA H200", "fp32") == 494.7e12
    assert peak_flops("Tesla T4", "bf16") is None and peak_flops("", "fp32") is None


def test_a_failed_check_does_not_hide_the_others(monkeypatch, tmp_path, capsys):
    def broken(device: str) -> dict:
        raise AssertionError("as it should not be")

    monkeypatch.setattr(gpu_checks, "CHECKS", {"broken": broken, "sync_bn_refused": gpu_checks.sync_bn_refused})
    out = tmp_path / "checks.json"
    assert gpu_checks.main(["--device", "cpu", "--checks", "broken", "sync_bn_refused", "--out", str(out)]) == 1
    checks = json.loads(out.read_text())["checks"]
    assert [check["passed"] for check in checks.values()] == [False, True]
    assert "--sync_bn" in checks["sync_bn_refused"]["message"]
    assert "FAILED broken" in capsys.readouterr().out


def test_descriptors_are_compared_with_the_cpu():
    errors = gpu_checks.descriptors("cpu")
    assert errors["model"] == 0 and errors["embedder"] < gpu_checks.DESCRIPTORS_WITHIN


def test_decoding_is_compared(tmp_path, capsys):
    out = tmp_path / "decode.json"
    flags = ["--device", "cpu", "--size", "64", "60", "--images", "2", "--repeats", "1", "--out", str(out)]
    assert decode.main(flags) == 0
    assert json.loads(out.read_text())["difference"] == {"largest": 0, "mean": 0}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_script_goes_on_after_a_failure(tmp_path):
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    environment = {"PYTHON": "false", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(["bash", SCRIPT, tmp_path / "out"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 1 and "failed: checks decode embed train_step train_step_compiled" in ended.stdout
    limits = re.findall(r"\bstep \w+ (\d+) ", SCRIPT.read_text())
    assert len(limits) == 5 and sum(map(int, limits)) < 480
