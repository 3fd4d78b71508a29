"""How a run goes through its training set."""

from dataclasses import dataclass, field

from utils.losses import LossSettings


@dataclass(frozen=True)
class FitSettings:
    """How long and how the training set is gone through (released defaults); see `datasets.mining` for its modes."""

    seed: int = 0
    batch_size: int = 2
    cache_refresh_rate: int = 1000
    queries_per_epoch: int = 5000
    n_neg: int = 1
    neg_samples: int = 1000
    mining: str = "full"
    cache_negatives: int = 5000
    descriptor_dtype: str = "float32"
    n_epochs: int = 10
    patience: int = 5
    target_size: tuple[int, int] = (768, 432)
    save_every_min: float = 0.0
    losses: LossSettings = field(default_factory=LossSettings)

    @property
    def refreshes_per_epoch(self) -> int:
        return self.queries_per_epoch // self.cache_refresh_rate

    def queries_per_refresh(self, queries: int) -> int:
        """How many of `queries` training queries are drawn at each mining."""
        return min(self.cache_refresh_rate, queries)


def check_batches_divide(settings: FitSettings, queries: int, processes: int) -> None:
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
