"""What a training run starts from, as flags of main.py."""

from dataclasses import dataclass

from datasets.command_line import flag


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
        "all", "first encoder stage that is trained", choices=("all", "1", "2", "3", "4"), group="network"
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
