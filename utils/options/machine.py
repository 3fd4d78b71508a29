"""Where a command computes and writes, as flags."""

from dataclasses import dataclass

from datasets.command_line import flag
from utils.retrieval.settings import DECODERS
from utils.system.launch import RELEASED_WORKERS, default_workers

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ON_BAD_IMAGE = ("error", "skip")


@dataclass(frozen=True)
class MachineSettings:
    """Device, number format and reading. Results depend on `precision` alone."""

    device: str = flag("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"), may_change=True)
    precision: str = flag(
        "fp32",
        "numbers of the convolutions; auto is bf16 where the hardware is fast at it, else fp32",
        choices=PRECISIONS,
    )
    compile: bool = flag(
        False, "compile the network first (torch.compile): minutes at the start, then faster", may_change=True
    )
    deterministic: bool = flag(
        False,
        "on a GPU: no TF32 and, where PyTorch has them, kernels that repeat to the bit; slower (a CPU always repeats)",
        may_change=True,
    )
    num_workers: int = flag(
        default_workers(),
        f"processes that read images; 0 reads in the main one (default: {RELEASED_WORKERS}, or the number of cores if less)",
        least=0,
        may_change=True,
    )
    decode: str = flag(
        "cpu",
        "where JPEGs are decoded for embedding and mining; gpu needs CUDA and may differ from cpu by a few grey levels. "
        "Other files, training triplets and labels are always decoded on the CPU",
        choices=DECODERS,
        may_change=True,
    )
    cache_batch_size: int = flag(24, "images per embedding batch", least=1)


@dataclass(frozen=True)
class OutputSettings:
    """Seed, output and what happens to files that cannot be used."""

    on_bad_image: str = flag("error", "images that cannot be used end the run, or are left out", choices=ON_BAD_IMAGE)
    seed: int = flag(0, "of every random choice", least=0)
    no_report: bool = flag(False, "do not write report.html and figures/", may_change=True)
    exp_name: str = flag("default", "results go to runs/NAME/<timestamp>/", may_change=True)
