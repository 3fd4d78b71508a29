"""What changes while a run goes on, and how a checkpoint keeps it."""

from dataclasses import dataclass, field

import numpy as np
import torch

from datasets.reading.triplets import Triplets
from utils.training.settings import TrainingSettings


@dataclass
class RunState:
    """Everything about a run that changes, apart from weights and optimisers.

    Attributes
    ----------
    hardest : (queries, n_neg) gallery indexes of the negatives that each query had the last time, -1 for none.
    epoch, refresh, step : what comes next: epochs and refreshes done, and steps done on the triplets mined last.
    triplets : the triplets that are being trained on, None before the next mining.
    loss_sums : per loss, its sum over the epoch's `steps_summed` steps so far.
    """

    hardest: np.ndarray
    epoch: int = 0
    refresh: int = 0
    step: int = 0
    triplets: Triplets | None = None
    loss_sums: dict[str, torch.Tensor] = field(default_factory=dict)
    steps_summed: int = 0
    best_score: float | None = None
    epochs_without_gain: int = 0
    history: list[dict] = field(default_factory=list)

    def progress(self, settings: TrainingSettings, steps_per_refresh: int) -> float:
        """Share of the planned steps that are done."""
        refreshes = self.epoch * settings.refreshes_per_epoch + self.refresh + self.step / steps_per_refresh
        return refreshes / max(1, settings.n_epochs * settings.refreshes_per_epoch)

    def end_epoch(self, score: float | None, figures: dict[str, float]) -> bool:
        """Record an epoch's figures and turn to the next; returns whether its score is the best so far."""
        improved = score is None or self.best_score is None or score > self.best_score
        self.history.append({"epoch": self.epoch + 1, **figures})
        self.epoch, self.refresh, self.loss_sums, self.steps_summed = self.epoch + 1, 0, {}, 0
        self.epochs_without_gain = 0 if improved else self.epochs_without_gain + 1
        if improved:
            self.best_score = score
        return improved

    def state_dict(self) -> dict:
        """Plain values and tensors alone, so that a checkpoint can be read without running code."""
        state = dict(self.__dict__)
        state["hardest"] = torch.from_numpy(self.hardest.copy())
        if self.triplets is not None:
            state["triplets"] = {name: torch.from_numpy(value) for name, value in vars(self.triplets).items()}
        state["loss_sums"] = {name: float(value) for name, value in self.loss_sums.items()}
        return state

    @classmethod
    def from_state_dict(cls, state: dict) -> "RunState":
        state = {**state, "hardest": state["hardest"].numpy().copy()}
        if state["triplets"] is not None:
            state["triplets"] = Triplets(**{name: value.numpy() for name, value in state["triplets"].items()})
        return cls(**state)
