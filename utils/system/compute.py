"""Device, number format and memory layout: what the method does not see of the machine."""

import ctypes
import os
import platform
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from models.fused import can_fuse, fuse_convolutions
from models.segvpr import SegVPR
from utils.system.distributed import from_first, world_size
from utils.system.launch import local_rank

CPU = torch.device("cpu")
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """Where and in which numbers the network runs.

    Attributes
    ----------
    dtype : type of the convolutions under autocast; None for plain float32 (or whatever type the model has).
    compiled : whether `place` hands the network's parts to torch.compile.
    why : what `auto` found when it chose `dtype`.
    """

    device: torch.device = CPU
    dtype: torch.dtype | None = None
    compiled: bool = False
    why: str = ""

    @property
    def precision(self) -> str:
        """Name of the precision: fp32, bf16 or fp16."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.device}, {self.precision}{why}" + (", compiled" if self.compiled else "")

    def in_precision(self, name: str) -> "Compute":
        """The same in another precision; ValueError for one that the device has not."""
        if name not in _DTYPES:
            raise ValueError(f"precision: {name!r} is not one of auto, {', '.join(_DTYPES)}")
        if name == "fp16" and self.device.type == "cpu":
            raise ValueError("--precision fp16: not on a CPU; use bf16 or fp32")
        return self if name == self.precision else replace(self, dtype=_DTYPES[name], why="")

    def autocast(self) -> AbstractContextManager:
        """Within it, convolutions run in `dtype`; losses and powers widen their input themselves."""
        return torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, in channels-last layout, which is fastest for convolutions; its parts compiled on request."""
        model = model.to(self.device).to(memory_format=torch.channels_last)
        if self.compiled:
            for part in model.children():
                part.compile()  # in place: parameters and their names stay as they are
        return model

    def embedder(self, model: SegVPR) -> SegVPR:
        """A copy of the model in eval mode for embedding many images: it can only `embed` and `attend`, BN is folded, and
        weights are in `dtype`. On a CPU, oneDNN fuses its convolutions with what follows them. A compiled model is returned
        itself, since a copy would be compiled anew."""
        if self.compiled:
            return model.eval()
        embedder = model.for_embedding()
        for part in (embedder.encoder, embedder.attention):
            part.to(self.dtype)
        embedder.to(memory_format=torch.channels_last)
        if can_fuse(embedder.encoder.conv1.weight):
            fuse_convolutions(embedder.encoder)
        return embedder


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` (the first available of cuda, mps, cpu), or a device by name; ValueError if it is not available.

    Each of several processes has a GPU of its own.
    """
    if local_rank() is not None:
        return _device_of_process(name, local_rank())
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: not available here; use --device cpu or auto")
    return device


def _device_of_process(name: str, number: int) -> torch.device:
    """The device of the process with this number on its machine."""
    if name == "mps":
        raise ValueError("--device mps: for one process only; start without torchrun, or with --device cpu")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", number + 1)), torch.cuda.device_count()
    if processes > gpus:  # all processes of the machine find this
        raise ValueError(
            f"--device {name}: {gpus} CUDA devices for {processes} processes, and each needs its own; start torchrun with fewer "
            "(--nproc_per_node), or use --device cpu"
        )
    return torch.device("cuda", number)


def check_sync_bn(device: torch.device) -> None:
    """ValueError where BN statistics cannot be taken over the images of several processes."""
    if device.type != "cuda" or world_size() == 1:
        raise ValueError("--sync_bn: for several processes with a GPU each; start with torchrun, or leave it out")


def resolve_compute(
    device: str = "auto", precision: str = "auto", compiled: bool = False, deterministic: bool = False
) -> Compute:
    """Device and precision by name, as `compute_on` takes them, and this process set up for them.

    Parameters
    ----------
    deterministic : on a GPU, no TF32, no choice of convolutions by speed, and no kernels whose sums vary from run to run.
    """
    where = resolve_device(device)
    set_up_process(deterministic)
    return compute_on(where, precision, compiled)


def compute_on(device: torch.device, precision: str = "auto", compiled: bool = False) -> Compute:
    """A device in a precision by name; `auto` is bf16 where that is faster, else fp32.

    Several processes do as the first one finds. ValueError for a precision that the device has not.
    """
    compute = Compute(device, compiled=compiled)
    if precision != "auto":
        return compute.in_precision(precision)
    faster, why = from_first(lambda: faster_precision(device))
    return replace(compute.in_precision(faster), why=why)


def set_up_process(deterministic: bool = False) -> None:
    """Settings of the whole process: for speed, or for a GPU that repeats to the bit."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)  # a few kernels exist in one version alone
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors: otherwise each step returns it to the system and fetches it again, page by
    page. Nothing happens with other C libraries."""
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max = -1, -4  # names of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


LEAST_GAIN = 1.1
"""bf16 rounds more, so it must be faster by so much."""


@cache
def faster_precision(device: torch.device) -> tuple[str, str]:
    """bf16 or fp32, and why: GPUs are fast at bf16 from Ampere on; a CPU is timed, because its flags do not tell."""
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return "bf16" if fast else "fp32", ""
    if device.type != "cpu":
        return "fp32", ""
    plain, short = convolution_seconds((torch.float32, torch.bfloat16))
    why = f"two convolutions took {1000 * plain:.1f} ms in fp32, {1000 * short:.1f} in bf16"
    return "bf16" if plain > LEAST_GAIN * short else "fp32", why


def convolution_seconds(dtypes: tuple[torch.dtype, ...], rounds: int = 5) -> list[float]:
    """The least processor time that two convolutions of stage 3 take with their gradients on one thread, per type, in turn.

    A few tenths of a second in all. Other work on the machine hardly changes it, as it would change wall time.
    """
    steps = []
    for dtype in dtypes:
        with torch.random.fork_rng(devices=()):  # measuring changes no run
            convs = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 1024, 1))
        convs = convs.to(dtype=dtype, memory_format=torch.channels_last)
        image = torch.ones(1, 256, 17, 30, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
        steps.append(lambda convs=convs, image=image: convs(image).sum().backward())
    times, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another use processor time, too
    try:
        for _ in range(1 + rounds):
            for step in steps:
                start = time.thread_time()
                step()
                times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    own = len(steps)
    return [min(times[own + i :: own]) for i in range(own)]  # the first round warms up
