"""How a network is trained, with the released defaults. Each field is a flag of main.py; importing them does not import torch."""

import math
from dataclasses import dataclass, field

from datasets.command_line import check_flags, flag
from datasets.reading.augmentation_settings import AugmentationSettings
from utils.retrieval.settings import DESCRIPTOR_DTYPES

LOSSES, OPTIMIZERS = ("triplet", "pairs"), ("sgd", "adamw")
DA_METHODS = ("grl", "alternating", "none")
GRL_SCHEDULES = ("constant", "dann")
MINING_MODES = ("full", "partial", "random")
TOTAL_TRIPLETS = 250_000
"""Triplets after which the released schedule reaches a rate of zero."""


@dataclass(frozen=True)
class LossSettings:
    """What the losses weigh and how the domains are adapted.

    `margin` is the square of the distance margin, as in the released parser. Without a semantic loss there is nothing that
    domain adaptation could move (`sem_weight` is a factor of its gradient), so both are left out together.
    """

    loss: str = flag(
        "triplet",
        "triplet: query, positive and negatives of each (released); pairs: each query against all other images of the step "
        "(InfoNCE)",
        choices=LOSSES,
    )
    temperature: float = flag(0.05, "of --loss pairs", above=0)
    margin: float = flag(0.1, "its square root is the margin of the triplet loss", least=0)
    sem_weight: float = flag(
        0.5,
        "weight of the semantic loss; 0 trains without labels, head and domain adaptation",
        name="sem_loss_weight",
        least=0,
    )
    class_weights: bool = flag(
        False, "in the semantic loss, rare classes of a step weigh more: 1 / square root of their pixels"
    )
    adv_weight: float = flag(
        0.001, "weight of the adversarial gradient, times --sem_loss_weight", name="adv_loss_weight", least=0
    )
    da_weight: float = flag(0.5, "weight of the discriminator's own loss", name="da_loss_weight", least=0)
    da_method: str = flag(
        "grl", "domain adaptation: gradient reversal, alternating as released, or none", choices=DA_METHODS
    )
    grl_schedule: str = flag(
        "constant",
        "of the reversed gradient: constant, or growing from 0 over the planned epochs (DANN)",
        choices=GRL_SCHEDULES,
    )

    def __post_init__(self) -> None:
        check_flags(self)
        if self.da_method == "grl" and not self.da_weight > 0:
            raise ValueError("da_loss_weight: must be above 0 with da_method grl, whose reversal factor it divides")

    def reversal_factor(self, progress: float = 1.0) -> float:
        """Scale of the reversed gradient, so that the network receives sem_weight * adv_weight of dL.

        Parameters
        ----------
        progress : share of the training that is done, 0 to 1; `dann` multiplies by 2 / (1 + exp(-10 progress)) - 1 (Ganin et
            al., JMLR 2016, section 5.2), `constant` does not look at it.
        """
        factor = self.sem_weight * self.adv_weight / self.da_weight
        return factor * math.tanh(5 * progress) if self.grl_schedule == "dann" else factor

    @property
    def uses_logits(self) -> bool:
        return self.sem_weight != 0

    @property
    def uses_target(self) -> bool:
        return self.da_method != "none" and self.uses_logits


@dataclass(frozen=True)
class OptimizerSettings:
    """What updates the network (SGD or AdamW) and the discriminator (Adam).

    Rates are per triplet: a step multiplies them by twice its triplets.
    """

    method: str = flag("sgd", "of the network; AdamW suits pretrained encoders", name="optimizer", choices=OPTIMIZERS)
    lr: float = flag(2.5e-4, "rate of encoder and attention per triplet, doubled; the head takes ten times it", least=0)
    lr_triplets: int = flag(
        TOTAL_TRIPLETS,
        "triplets after which all rates reach zero; for a short run give --n_epochs times --queries_per_epoch",
        least=1,
    )
    warmup_steps: int = flag(0, "steps over which all rates grow from zero", least=0)
    d_lr: float = flag(1e-4, "rate of the discriminator per triplet, doubled", least=0)
    momentum: float = flag(0.9, "of SGD", least=0)
    weight_decay: float = flag(0.005, "of SGD or AdamW", least=0)


@dataclass(frozen=True)
class TrainingSettings:
    """How long training lasts and how the training set is gone through; `datasets.mining` explains the modes of mining.

    Raises
    ------
    ValueError : flags that do not go together; they are named.
    """

    batch_size: int = flag(2, "triplets per step", least=1)
    n_neg: int = flag(1, "negatives per triplet; 0 only with --loss pairs", least=0)
    neg_samples: int = flag(1000, "random negatives among which the nearest are taken", least=1)
    mining: str = flag(
        "full",
        "what is embedded for it: the gallery, a part (positives and --cache_negatives images), or nothing",
        choices=MINING_MODES,
    )
    cache_negatives: int = flag(
        5000, "random gallery images that partial mining embeds and draws negatives from", least=1
    )
    descriptor_dtype: str = flag(
        "float32", "numbers that descriptors are kept in for mining", choices=DESCRIPTOR_DTYPES
    )
    cache_refresh_rate: int = flag(1000, "queries between two minings", least=1)
    queries_per_epoch: int = flag(5000, "queries per epoch, a multiple of --cache_refresh_rate", least=1)
    n_epochs: int = flag(10, "epochs; 0 saves and evaluates the network as it starts", least=0, may_change=True)
    patience: int = flag(
        5,
        "training stops after more epochs in a row than this without a better validation recall@1",
        least=0,
        may_change=True,
    )
    target_size: tuple[int, int] = flag(
        (768, 432), "of target-domain images, in pixels", least=1, metavar=("W", "H"), group="training data"
    )
    save_every_min: float = flag(
        0.0,
        "minutes at least between two saves at mining refreshes; 0 saves at each",
        least=0,
        metavar="MIN",
        group="saving and resuming",
        may_change=True,
    )
    seed: int = 0
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    losses: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)

    def __post_init__(self) -> None:
        if self.n_neg == 0 and self.losses.loss != "pairs":
            raise ValueError("--n_neg 0: the triplet loss needs negatives; give 1 or more, or --loss pairs")
        if self.queries_per_epoch % self.cache_refresh_rate:
            raise ValueError(
                f"--queries_per_epoch {self.queries_per_epoch} is not a multiple of --cache_refresh_rate "
                f"{self.cache_refresh_rate}; give {-(-self.queries_per_epoch // self.cache_refresh_rate) * self.cache_refresh_rate}"
            )

    @property
    def refreshes_per_epoch(self) -> int:
        return self.queries_per_epoch // self.cache_refresh_rate

    def queries_per_refresh(self, queries: int) -> int:
        """How many of `queries` training queries are drawn at each mining."""
        return min(self.cache_refresh_rate, queries)


def check_batches_divide(settings: TrainingSettings, queries: int, processes: int) -> None:
    """ValueError where a batch of a run over `queries` training queries cannot be shared equally among the processes."""
    size, per_refresh = settings.batch_size, settings.queries_per_refresh(queries)
    if size % processes:
        raise ValueError(
            f"--batch_size {size} does not divide among {processes} processes: give a multiple of {processes}, or start "
            "another number of processes"
        )
    if per_refresh % size % processes:
        raise ValueError(
            f"--cache_refresh_rate {settings.cache_refresh_rate}: the last batch of {per_refresh} queries has "
            f"{per_refresh % size} triplets, which do not divide among {processes} processes: give a multiple of --batch_size "
            f"{size}, of at most {queries} queries"
        )
