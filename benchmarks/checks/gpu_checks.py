"""Whether a GPU computes what it should: golden descriptors, an fp16 step, refusals, compiled against eager losses.

python3 -m benchmarks.checks.gpu_checks [--device cuda] [--out checks.json]
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.machine import processor, write_record
from benchmarks.speed.train_step import random_batch
from models import build_model
from tests.golden_model import formula_model, golden, pictures
from utils.system.compute import check_sync_bn, resolve_compute
from utils.training.optimizers import build_optimizers
from utils.training.step import train_step

GOLDEN_WITHIN, COMPILED_WITHIN = 1e-4, 1e-3
SIZE, STEPS = (192, 128), 2


def golden_descriptors(device: str) -> dict:
    """The reference's descriptors in full float32 (no TF32), from the network and from what embeds many images."""
    compute = resolve_compute(device, "fp32", deterministic=True)
    model = compute.place(formula_model("resnet50", "deeplab"))
    images = pictures("open/eval", 2, 128, 192).to(compute.device)
    expected = golden("eval_resnet50_deeplab")["embeddings"]
    errors = {}
    with torch.inference_mode():
        for name, network in (("model", model), ("embedder", compute.embedder(model))):
            found = network.embed(images).cpu().numpy()
            errors[name] = float(np.abs(found - expected).max() / np.abs(expected).max())
    require(max(errors.values()) < GOLDEN_WITHIN, f"relative errors {errors}, {GOLDEN_WITHIN} is allowed")
    return errors


def fp16_step(device: str) -> dict:
    """Steps in fp16 with a loss scale: it settles, losses are finite and weights move."""
    if device == "cpu":
        return {"skipped": "fp16 is not for CPUs"}
    compute = resolve_compute(device, "fp16")
    model = seeded_model(compute.place)
    optimizers = build_optimizers(model, scale_losses=True)
    before = model.encoder.conv1.weight.detach().clone()
    batch = on_device(model)
    for _ in range(20):  # the scale is halved at every overflow
        losses = train_step(model, optimizers, *batch, num_queries=2, compute=compute)
        made = optimizers.schedules[0].last_epoch
        if made:
            break
    scale = optimizers.scaler.get_scale()
    require(made == 1, f"no step was made, the loss scale is {scale:g}")
    require(not torch.equal(before, model.encoder.conv1.weight), "the weights did not move")
    require(all(bool(loss.isfinite()) for loss in losses.values()), f"losses {losses}")
    return {"loss_scale": scale}


def sync_bn_refused(device: str) -> dict:
    """`--sync_bn` is refused where there is one process."""
    try:
        check_sync_bn(torch.device(device))
    except ValueError as error:
        return {"message": str(error)}
    raise AssertionError("one process was let through")


def compiled_losses(device: str) -> dict:
    """The losses of two steps, compiled as eager, in full float32."""
    losses = {}
    for way, compiled in (("eager", False), ("compiled", True)):
        compute = resolve_compute(device, "fp32", compiled, deterministic=True)
        model = seeded_model(compute.place)
        optimizers, batch = build_optimizers(model), on_device(model)
        steps = [train_step(model, optimizers, *batch, num_queries=2, compute=compute) for _ in range(STEPS)]
        losses[way] = [{name: float(loss) for name, loss in step.items()} for step in steps]
    pairs = [
        (eager[name], compiled[name])
        for eager, compiled in zip(losses["eager"], losses["compiled"], strict=True)
        for name in eager
    ]
    error = max(abs(a - b) / max(abs(a), 1e-3) for a, b in pairs)
    require(error < COMPILED_WITHIN, f"relative error {error:.2g}, {COMPILED_WITHIN} is allowed: {losses}")
    return losses | {"relative_error": error}


def seeded_model(place: Callable) -> torch.nn.Module:
    torch.manual_seed(0)
    return place(build_model("resnet18")).train()


def on_device(model: torch.nn.Module) -> tuple[Tensor, ...]:
    images, labels, target = random_batch(SIZE, SIZE, 2)
    images, target = model.prepare(images), model.prepare(target)
    return images, labels.to(images.device), target


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


CHECKS = (golden_descriptors, fp16_step, sync_bn_refused, compiled_losses)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--checks", nargs="+", default=[check.__name__ for check in CHECKS], metavar="NAME")
    parser.add_argument("--out", type=Path, help="write the record here as JSON")
    args = parser.parse_args(argv)
    print(processor(args.device))
    record = {}
    for check in (check for check in CHECKS if check.__name__ in args.checks):
        start = time.perf_counter()
        try:
            found = {"passed": True, **check(args.device)}
        except Exception as error:
            traceback.print_exc()
            found = {"passed": False, "error": f"{type(error).__name__}: {error}"}
        record[check.__name__] = found
        print(f"{'ok    ' if found['passed'] else 'FAILED'} {check.__name__} ({time.perf_counter() - start:.0f} s)")
        write_record(args.out, {"checks": record}, args.device)
    return 0 if all(found["passed"] for found in record.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
