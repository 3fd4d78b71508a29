"""Whether a GPU computes what it should: descriptors as on the CPU, an fp16 step, refusals, compiled against eager losses.

    python3 -m benchmarks.checks.gpu_checks [--device cuda] [--out checks.json]

The test suite compares the CPU's descriptors with the golden numbers of the reference.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.harness.command_line import benchmark_parser, write_record
from benchmarks.harness.machine import processor
from benchmarks.speed.train_step import random_batch
from models import build_model
from utils.system.compute import check_sync_bn, resolve_compute
from utils.training.optimizers import build_optimizers
from utils.training.step import train_step

DESCRIPTORS_WITHIN, COMPILED_WITHIN = 1e-4, 1e-3
SIZE, STEPS = (192, 128), 2


def descriptors(device: str) -> dict:
    """Full float32 (no TF32) against the CPU: the network, and the embedder, which folds batch norm."""
    compute = resolve_compute(device, "fp32", deterministic=True)
    model = seeded_model("resnet50").eval()
    images, _, _ = random_batch(SIZE, SIZE, 1)
    errors = {}
    with torch.inference_mode():
        expected = model.embed(model.prepare(images))
        model = compute.place(model)
        for name, network in (("model", model), ("embedder", compute.embedder(model))):
            found = network.embed(network.prepare(images)).cpu()
            errors[name] = float((found - expected).abs().max() / expected.abs().max())
    require(max(errors.values()) < DESCRIPTORS_WITHIN, f"relative errors {errors}, {DESCRIPTORS_WITHIN} is allowed")
    return errors


def fp16_step(device: str) -> dict:
    """Steps in fp16 with a loss scale: it settles, losses are finite and weights move."""
    if device == "cpu":
        return {"skipped": "fp16 is not for CPUs"}
    compute = resolve_compute(device, "fp16")
    model = compute.place(seeded_model()).train()
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
    """`--sync_bn` is refused for a single process."""
    try:
        check_sync_bn(torch.device(device))
    except ValueError as error:
        return {"message": str(error)}
    raise AssertionError("one process was let through")


def compiled_losses(device: str) -> dict:
    """The losses of two steps in full float32, compiled and eager."""
    losses = {}
    for way, compiled in (("eager", False), ("compiled", True)):
        compute = resolve_compute(device, "fp32", compiled, deterministic=True)
        model = compute.place(seeded_model()).train()
        optimizers, batch = build_optimizers(model), on_device(model)
        steps = [train_step(model, optimizers, *batch, num_queries=2, compute=compute) for _ in range(STEPS)]
        losses[way] = [float(loss) for step in steps for loss in step.values()]
    error = max(abs(a - b) / max(abs(a), 1e-3) for a, b in zip(losses["eager"], losses["compiled"], strict=True))
    require(error < COMPILED_WITHIN, f"relative error {error:.2g}, {COMPILED_WITHIN} is allowed: {losses}")
    return losses | {"relative_error": error}


def seeded_model(arch: str = "resnet18") -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(arch)


def on_device(model: torch.nn.Module) -> tuple[Tensor, ...]:
    images, labels, target = random_batch(SIZE, SIZE, 2)
    images, target = model.prepare(images), model.prepare(target)
    return images, labels.to(images.device), target


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


CHECKS: dict[str, Callable[[str], dict]] = {
    check.__name__: check for check in (descriptors, fp16_step, sync_bn_refused, compiled_losses)
}


def build_parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("checks.gpu_checks", __doc__, device="cuda")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="NAME", help="which")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(processor(args.device))
    record = {}
    for name in args.checks:
        start = time.perf_counter()
        try:
            record[name] = {"passed": True, **CHECKS[name](args.device)}
        except Exception as error:
            traceback.print_exc()
            record[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"}
        print(f"{'ok    ' if record[name]['passed'] else 'FAILED'} {name} ({time.perf_counter() - start:.0f} s)")
        write_record(args.out, {"checks": record}, args.device)
    return 0 if all(found["passed"] for found in record.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
