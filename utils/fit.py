"""The training run: mining, steps, evaluation after each epoch, checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.naming import Kind
from datasets.places import ImageSet, Neighbours, neighbours_within
from datasets.transforms import to_network_input
from datasets.triplets import LoadFailure, StepBatch, StepPlan, TrainingBatches, Triplets, mine_triplets
from models.segvpr import SegVPR
from utils.checkpoints import save_checkpoint
from utils.embedding import embed_images
from utils.history import write_history
from utils.logs import LOGGER, progress_bar
from utils.seeding import generator, seed_torch
from utils.training import LossSettings, Optimizers, train_step

NEGATIVE_DISTANCE_M = 25.0
READ_BACK_EVERY = 20
"""Steps between two looks at the losses: each look waits for the device."""


@dataclass(frozen=True)
class TrainingData:
    """The training set, ready to be mined.

    Attributes
    ----------
    positives, not_negative : per query, gallery images of its place, and those too near to be negatives.
    target_paths : target-domain images, empty without domain adaptation.
    scale : factor by which images are resized for mining.
    """

    gallery: ImageSet
    queries: ImageSet
    kind: Kind
    positives: Neighbours
    not_negative: Neighbours
    target_paths: tuple[str, ...]
    scale: float


@dataclass(frozen=True)
class FitSettings:
    """How long and how the training set is gone through (released defaults)."""

    seed: int = 0
    batch_size: int = 2
    cache_batch_size: int = 24
    cache_refresh_rate: int = 1000
    queries_per_epoch: int = 5000
    n_neg: int = 1
    neg_samples: int = 1000
    n_epochs: int = 10
    patience: int = 5
    target_size: tuple[int, int] = (768, 432)
    num_workers: int = 3
    losses: LossSettings = field(default_factory=LossSettings)

    @property
    def refreshes_per_epoch(self) -> int:
        return self.queries_per_epoch // self.cache_refresh_rate


@dataclass
class RunState:
    """Everything about a run that changes, apart from weights and optimisers."""

    hardest: np.ndarray
    epoch: int = 0
    best_score: float | None = None
    epochs_without_gain: int = 0
    history: list[dict] = field(default_factory=list)

    def state_dict(self) -> dict:
        return {**self.__dict__, "hardest": torch.from_numpy(self.hardest)}

    @classmethod
    def from_state_dict(cls, state: dict) -> "RunState":
        return cls(**{**state, "hardest": state["hardest"].numpy()})


def prepare_training(
    gallery: ImageSet,
    queries: ImageSet,
    kind: Kind,
    threshold_m: float | None = None,
    target_paths: tuple[str, ...] = (),
    scale: float | None = None,
) -> TrainingData:
    """Find every query's positives and negatives; ValueError lists the queries that have none.

    Parameters
    ----------
    threshold_m, scale : default those of the data set's kind.
    """
    threshold_m = kind.train_threshold_m if threshold_m is None else threshold_m
    positives = neighbours_within(gallery, queries, threshold_m, kind.same_camera)
    lonely = np.flatnonzero(positives.counts == 0)
    if len(lonely):
        camera = " of the same camera" if kind.same_camera else ""
        files = ", ".join(queries.paths[i] for i in lonely[:5]) + (", ..." if len(lonely) > 5 else "")
        raise ValueError(
            f"{len(lonely)} of {len(queries)} training queries have no gallery image{camera} within {threshold_m:g} m "
            f"(move them away, or raise --train_pos_dist_threshold): {files}"
        )
    not_negative = neighbours_within(gallery, queries, max(NEGATIVE_DISTANCE_M, threshold_m))
    crowded = np.flatnonzero(not_negative.counts == len(gallery))
    if len(crowded):
        raise ValueError(
            f"{queries.paths[crowded[0]]}: no gallery image farther than {NEGATIVE_DISTANCE_M:g} m, so this query has no "
            f"negative ({len(crowded)} of {len(queries)} queries are so); use a larger gallery"
        )
    return TrainingData(
        gallery, queries, kind, positives, not_negative, target_paths, kind.eval_scale if scale is None else scale
    )


class _PlanSampler:
    """Hands the loader whatever plans are due, so that its workers outlive a refresh of the cache."""

    def __init__(self) -> None:
        self.plans: list[StepPlan] = []

    def __iter__(self):
        return iter(self.plans)

    def __len__(self) -> int:
        return len(self.plans)


Evaluate = Callable[[SegVPR], tuple[float | None, dict[str, float]]]
"""Scores a model after an epoch: the value that decides which checkpoint is best (None without validation data), and all
figures for the history."""


class Fit:
    """One training run. `run` trains to the end; `state` and `optimizers` are what a checkpoint keeps of it."""

    def __init__(
        self,
        model: SegVPR,
        optimizers: Optimizers,
        data: TrainingData,
        settings: FitSettings,
        folder: Path,
        evaluate: Evaluate,
        arguments: dict | None = None,
    ) -> None:
        self.model, self.optimizers, self.data, self.settings = model, optimizers, data, settings
        self.folder, self.evaluate, self.arguments = folder, evaluate, arguments or {}
        self.device = next(model.parameters()).device
        self.state = RunState(np.full((len(data.queries), settings.n_neg), -1, np.int64))
        dataset = TrainingBatches(
            data.gallery, data.queries, data.target_paths, settings.target_size, settings.losses.sem_weight != 0
        )
        self._sampler = _PlanSampler()
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=self._sampler,
            num_workers=settings.num_workers,
            persistent_workers=settings.num_workers > 0,
            pin_memory=self.device.type == "cuda",
        )
        self._target_order: tuple[int, np.ndarray] | None = None
        self._log_shortages()

    @property
    def queries_per_refresh(self) -> int:
        return min(self.settings.cache_refresh_rate, len(self.data.queries))

    @property
    def steps_per_refresh(self) -> int:
        return -(-self.queries_per_refresh // self.settings.batch_size)

    def _log_shortages(self) -> None:
        settings, gallery = self.settings, len(self.data.gallery)
        if len(self.data.queries) < settings.cache_refresh_rate:
            LOGGER.info(
                "%d queries instead of %d per refresh: there are no more",
                len(self.data.queries),
                settings.cache_refresh_rate,
            )
        if gallery < settings.neg_samples:
            LOGGER.info("fewer than %d negatives: the gallery has %d images", settings.neg_samples, gallery)

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """What `last.pth` keeps beside the weights."""
        return {
            "run": self.state.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "arguments": self.arguments,
        }

    def load_state_dict(self, training: dict) -> None:
        """Continue where a checkpoint's run stood."""
        self.state = RunState.from_state_dict(training["run"])
        self.optimizers.load_state_dict(training["optimizers"])

    def save(self, name: str) -> Path:
        path = self.folder / name
        save_checkpoint(path, self.model, self.state_dict())
        return path

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train until the last epoch or until patience runs out; returns the path of the best checkpoint."""
        settings, state = self.settings, self.state
        if not (self.folder / "last.pth").exists():
            self.save("last.pth")
        while state.epoch < settings.n_epochs and state.epochs_without_gain <= settings.patience:
            losses = self._train_epoch()
            self._finish_epoch(losses)
        if state.epochs_without_gain > settings.patience:
            LOGGER.info("stopped: %d epochs in a row without a better validation recall@1", state.epochs_without_gain)
        best = self.folder / "best.pth"
        return best if best.exists() else self.folder / "last.pth"

    def _finish_epoch(self, losses: dict[str, float]) -> None:
        state = self.state
        score, figures = self.evaluate(self.model)
        rates = {f"lr_{name}": rate for name, rate in self.optimizers.rates().items()}
        state.history.append({"epoch": state.epoch + 1, **losses, **rates, **figures})
        state.epoch += 1
        improved = score is None or state.best_score is None or score > state.best_score
        state.epochs_without_gain = 0 if improved else state.epochs_without_gain + 1
        if improved:
            state.best_score = score
        self.save("last.pth")
        if improved:
            self.save("best.pth")
        write_history(self.folder / "history.csv", state.history)
        brief = {name: value for name, value in {**losses, **figures}.items() if "@" not in name or name.endswith("@1")}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in brief.items())
        LOGGER.info(
            "epoch %d/%d%s: %s", state.epoch, self.settings.n_epochs, " (best so far)" if improved else "", shown
        )

    def _train_epoch(self) -> dict[str, float]:
        sums: dict[str, torch.Tensor] = {}
        steps = 0
        for refresh in range(self.settings.refreshes_per_epoch):
            triplets = self._mine(refresh)
            steps += self._train_on(refresh, triplets, sums)
        return {f"loss_{name}": float(total) / steps for name, total in sums.items()}

    def _mine(self, refresh: int) -> Triplets:
        """Draw queries and choose their positives and negatives with the network as it is now."""
        data, settings, epoch = self.data, self.settings, self.state.epoch
        rng = generator(settings.seed, "mining", epoch, refresh)
        drawn = rng.choice(len(data.queries), self.queries_per_refresh, replace=False)
        paths = data.gallery.paths + tuple(data.queries.paths[i] for i in drawn)
        label = f"epoch {epoch + 1} mining {refresh + 1}/{settings.refreshes_per_epoch}"
        descriptors = embed_images(
            self.model, paths, data.scale, settings.cache_batch_size, settings.num_workers, label
        )
        gallery, queries = np.split(descriptors, [len(data.gallery)])
        return mine_triplets(
            drawn, queries, gallery, data.positives, data.not_negative, self.state.hardest, rng, settings.neg_samples
        )

    def _train_on(self, refresh: int, triplets: Triplets, sums: dict[str, torch.Tensor]) -> int:
        """Train on one refresh's triplets, adding every loss to `sums`; returns the number of steps."""
        settings, epoch = self.settings, self.state.epoch
        self._sampler.plans = self._plan(refresh, triplets)
        self.model.train()
        label = f"epoch {epoch + 1} training {refresh + 1}/{settings.refreshes_per_epoch}"
        with progress_bar(self._loader, total=len(self._sampler), desc=label, unit="step") as bar:
            for step, (plan, batch) in enumerate(zip(self._sampler.plans, bar)):
                if isinstance(batch, LoadFailure):
                    raise ValueError(batch.message)
                seed_torch(settings.seed, "step", epoch, refresh, step)
                losses = self._step(plan, batch)
                for name, loss in losses.items():
                    sums[name] = (
                        sums.get(name, 0) + loss.double() if self.device.type != "mps" else sums.get(name, 0) + loss
                    )
                if step % READ_BACK_EVERY == 0:
                    bar.set_postfix({name: f"{float(loss):.3f}" for name, loss in losses.items()})
        return len(self._sampler)

    def _step(self, plan: StepPlan, batch: StepBatch) -> dict[str, torch.Tensor]:
        dtype = next(self.model.parameters()).dtype
        images, labels, target = (
            None if x is None else x.to(self.device, non_blocking=True)
            for x in (batch.images, batch.labels, batch.target)
        )
        return train_step(
            self.model,
            self.optimizers,
            to_network_input(images, dtype),
            labels,
            None if target is None else to_network_input(target, dtype),
            num_queries=len(plan.queries),
            num_negatives=self.settings.n_neg,
            settings=self.settings.losses,
        )

    # -- what each step reads ----------------------------------------------------------------------------------------

    def _plan(self, refresh: int, triplets: Triplets) -> list[StepPlan]:
        settings = self.settings
        plans = []
        for step in range(self.steps_per_refresh):
            rows = range(step * settings.batch_size, min((step + 1) * settings.batch_size, len(triplets)))
            plans.append(
                StepPlan(
                    tuple(int(triplets.queries[i]) for i in rows),
                    tuple(int(triplets.positives[i]) for i in rows),
                    tuple(tuple(map(int, triplets.negatives[i])) for i in rows),
                    self._targets(refresh, step, len(rows)),
                    tuple((settings.seed, self.state.epoch, refresh, i) for i in rows),
                )
            )
        return plans

    def _targets(self, refresh: int, step: int, triplets: int) -> tuple[int, ...]:
        """As many target images as source images, in a fixed order that shuffles the whole set anew at every pass."""
        if not self.data.target_paths:
            return ()
        settings, total = self.settings, len(self.data.target_paths)
        images_per_triplet = 2 + settings.n_neg
        refreshes_before = self.state.epoch * settings.refreshes_per_epoch + refresh
        triplets_before = refreshes_before * self.queries_per_refresh + step * settings.batch_size
        first = triplets_before * images_per_triplet
        return tuple(int(self._target_at(n, total)) for n in range(first, first + triplets * images_per_triplet))

    def _target_at(self, n: int, total: int) -> int:
        which = n // total
        if self._target_order is None or self._target_order[0] != which:
            self._target_order = which, generator(self.settings.seed, "target", which).permutation(total)
        return self._target_order[1][n % total]
