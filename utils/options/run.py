"""How a command runs, as flags: machine, output, and what a training run starts from."""

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
        "numbers of the convolutions; auto is bf16 where it is faster (a CPU is timed), else fp32; a resumed run keeps it",
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


@dataclass(frozen=True)
class RunOptions:
    """Starting weights, the run to go on with, and what else a run alone has."""

    pretrain: str = flag(
        "imagenet",
        "encoder weights: downloaded, random, or a .pth state_dict",
        metavar="imagenet|none|PATH",
        group="network",
        may_change=True,
    )
    train_enc_from: str = flag(
        "all",
        "first encoder stage that is trained; none: head, attention and discriminator alone (and batch norm's "
        "statistics, unless --freeze_bn)",
        choices=("all", "1", "2", "3", "4", "none"),
        group="network",
    )
    freeze_bn: bool = flag(
        False,
        "batch norm of the encoder keeps its statistics and parameters, as a pretrained one wants",
        group="network",
    )
    val_pos_dist_threshold: float | None = flag(
        None,
        "same place in validation within M metres (default: 5 for iddav2, 25 for utm)",
        above=0,
        metavar="M",
        group="evaluation",
    )
    sync_bn: bool = flag(
        False,
        "batch norm over the images of all processes, on GPUs under torchrun",
        group="several GPUs",
        may_change=True,  # another number of processes may go on, and one process knows no synchronised BN
    )
    resume: str | None = flag(
        None,
        "a run (folder or last.pth) to go on with, auto for the newest of --exp_name, or a released file to start from",
        metavar="CKPT",
        may_change=True,
    )
