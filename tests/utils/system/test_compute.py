"""Device, precision and what is set up for speed."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from models import build_model
from tests.golden_model import pictures
from utils.system.command import RUN_FAILED, run_command
from utils.system.compute import Compute, resolve_compute, runs_bf16_fast
from utils.training.optimizers import build_optimizers
from utils.training.step import train_step


@pytest.fixture(autouse=True)
def settings_put_back():
    yield
    resolve_compute("cpu", "fp32")


def test_auto_is_bf16_where_it_is_fast_and_else_fp32():
    expected = "bf16" if runs_bf16_fast(torch.device("cpu")) else "fp32"
    assert resolve_compute("cpu", "auto").precision == expected
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
