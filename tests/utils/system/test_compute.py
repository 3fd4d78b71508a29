"""Device, precision and what is set up for speed."""

import time
from functools import partialmethod

import pytest
import torch
from torch import nn

from models import build_model
from tests.golden_model import pictures
from utils.system.command import RUN_FAILED, run_command
from utils.system.compute import Compute, convolution_seconds, faster_precision, resolve_compute
from utils.training.optimizers import build_optimizers
from utils.training.step import train_step


@pytest.fixture(autouse=True)
def settings_put_back():
    yield
    resolve_compute("cpu", "fp32")


@pytest.mark.parametrize(
    "seconds, precision", [((0.003, 0.002), "bf16"), ((0.0021, 0.002), "fp32"), ((0.002, 0.003), "fp32")]
)
def test_auto_is_bf16_where_a_convolution_is_faster_by_a_tenth(monkeypatch, seconds, precision):
    monkeypatch.setattr("utils.system.compute.convolution_seconds", lambda dtypes: seconds)
    faster_precision.cache_clear()
    found = resolve_compute("cpu", "auto")
    monkeypatch.setattr("utils.system.compute.convolution_seconds", None)
    assert found == resolve_compute("cpu", "auto") and found.precision == precision  # timed once
    first, second = (f"{1000 * s:.1f}" for s in seconds)
    assert str(found) == f"cpu, {precision} (two convolutions took {first} ms in fp32, {second} in bf16)"
    faster_precision.cache_clear()


def test_timing_takes_the_least_of_each_type_and_draws_no_random_numbers(monkeypatch):
    clock = iter([0, 9, 0, 9, 0, 5, 0, 3, 0, 4, 0, 6])  # starts and ends: a warm-up, then two rounds
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))
    before = torch.get_rng_state()
    assert convolution_seconds((torch.float32, torch.bfloat16), rounds=2) == [4, 3]
    assert torch.equal(torch.get_rng_state(), before) and next(clock, None) is None


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="--precision fp16"):
        resolve_compute("cpu", "fp16")


def test_deterministic_gives_up_what_varies():
    resolve_compute("cpu", "fp32", deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cudnn.benchmark
    resolve_compute("cpu", "fp32")
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.benchmark


@torch.no_grad()
def test_bf16_embedding_stays_near_float32():
    torch.manual_seed(0)
    model = build_model("resnet18").eval()
    images = pictures("bf16", 2, 97, 131)
    exact = model.embed(images)
    compute = Compute(dtype=torch.bfloat16)
    with compute.autocast():
        found = compute.embedder(model).embed(images)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.02 * exact.norm()
    assert next(model.parameters()).dtype == torch.float32


def test_a_compiled_step_gives_the_losses_and_names_of_a_plain_one(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    losses, names = [], []
    for compute in (Compute(), Compute(compiled=True)):
        torch.manual_seed(0)
        model = compute.place(build_model("resnet18")).train()
        batch = (
            pictures("compiled", 3, 97, 97),
            torch.zeros(3, 97, 97, dtype=torch.uint8),
            pictures("target", 3, 97, 97),
        )
        losses.append(train_step(model, build_optimizers(model), *batch, num_queries=1, compute=compute))
        names.append(list(model.state_dict()))
    assert names[0] == names[1]
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-4, atol=1e-6)


def test_a_compiler_that_fails_is_one_line(capsys):
    class Unhappy(RuntimeError):
        __module__ = "torch._inductor.exc"

    def command():
        raise Unhappy("no C++ compiler\nfound")

    assert run_command("main.py", command) == RUN_FAILED
    assert (
        capsys.readouterr().err
        == "main.py: error: --compile: torch.compile failed here, try without it: no C++ compiler found\n"
    )
