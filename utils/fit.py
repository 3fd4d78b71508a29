"""The training run: mining, steps, evaluation after each epoch, checkpoints."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.mining import mine_triplets, plan_mining, random_triplets
from datasets.naming import Kind, fingerprint
from datasets.places import ImageSet, Neighbours, neighbours_within
from datasets.triplets import PlanSampler, StepBatch, StepPlan, TrainingBatches, Triplets
from models.segvpr import SegVPR
from utils.checkpoints import save_checkpoint
from utils.distributed import from_first, is_first, own_part, rank, world_size
from utils.embedding import EmbeddingOptions, embed_images, next_batch, worker_deaths_named
from utils.events import EventWriter, attention_pictures
from utils.failures import RunFailed
from utils.history import write_history
from utils.interrupts import Interrupts, StopRequested, forget_children, ignore_in_worker
from utils.logs import LOGGER, progress_bar
from utils.runs import BEST, LAST, PREVIOUS
from utils.seeding import generator, seed_torch, stream_key
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
    target_fingerprint: str
    scale: float


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


def prepare_training(
    gallery: ImageSet,
    queries: ImageSet,
    kind: Kind,
    threshold_m: float | None = None,
    target_paths: tuple[str, ...] = (),
    target_folder: str | None = None,
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
        files = ", ".join(queries.paths[i] for i in lonely[:20]) + (", ..." if len(lonely) > 20 else "")
        raise ValueError(
            f"{len(lonely)} of {len(queries)} training queries have no gallery image{camera} within {threshold_m:g} m "
            f"(move them away, or raise --train_pos_dist_threshold): {files}"
        )
    far = max(NEGATIVE_DISTANCE_M, threshold_m)
    not_negative = neighbours_within(gallery, queries, far)
    crowded = np.flatnonzero(not_negative.counts == len(gallery))
    if len(crowded):
        raise ValueError(
            f"{queries.paths[crowded[0]]}: no gallery image farther than {far:g} m, so this query has no "
            f"negative ({len(crowded)} of {len(queries)} queries are so); use a larger gallery"
        )
    return TrainingData(
        gallery,
        queries,
        kind,
        positives,
        not_negative,
        target_paths,
        fingerprint(target_folder or ".", target_paths),
        kind.eval_scale if scale is None else scale,
    )


def check_batches_divide(settings: FitSettings, queries: int, processes: int) -> None:
    """ValueError where a batch of a run over `queries` training queries cannot be shared equally among the processes."""
    size, per_refresh = settings.batch_size, min(settings.cache_refresh_rate, queries)
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


Evaluate = Callable[[SegVPR], tuple[float | None, dict[str, float]]]
"""Scores a model after an epoch: the value that decides which checkpoint is best (None without validation data), and all
figures for the history."""


class Fit:
    """One training run. `run` trains to the end; `state` and `optimizers` are what a checkpoint keeps of it.

    Every random choice follows from (seed, epoch, refresh, index), so a run that continues from a checkpoint is the same
    run; no state of a random generator needs to be kept.

    Where several processes share the run, each reads its part of every batch and all keep the same state; the first mines,
    writes, and heeds signals.
    """

    def __init__(
        self,
        model: SegVPR,
        optimizers: Optimizers,
        data: TrainingData,
        settings: FitSettings,
        options: EmbeddingOptions,
        folder: Path,
        evaluate: Evaluate,
        record: dict | None = None,
        pictured: Sequence[str] = (),
    ) -> None:
        self.model, self.optimizers, self.data, self.settings, self.options = model, optimizers, data, settings, options
        self.folder, self.evaluate, self.record = folder, evaluate, record or {}
        self.pictured = tuple(pictured)
        self.compute = options.compute
        self.state = RunState(np.full((len(data.queries), settings.n_neg), -1, np.int64))
        self.interrupts = Interrupts(decides=is_first(), repeated=world_size() > 1)
        self._dataset = TrainingBatches(
            data.gallery, data.queries, data.target_paths, settings.target_size, settings.losses.sem_weight != 0
        )
        self._sampler, self._notes = PlanSampler(), self._dataset.notes
        self._loader = DataLoader(
            self._dataset,
            batch_size=None,
            sampler=self._sampler,
            num_workers=options.num_workers,
            persistent_workers=options.num_workers > 0,
            pin_memory=self.compute.device.type == "cuda",
            worker_init_fn=ignore_in_worker,
        )
        self._target_order: tuple[int, np.ndarray] | None = None
        self._saved_at = time.monotonic()
        self._unread: list[tuple[int, list[str], dict[str, torch.Tensor]]] = []
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
            shown = len(self.data.queries), settings.cache_refresh_rate
            LOGGER.info("%d queries instead of %d per refresh: there are no more", *shown)
        fewest = gallery - int(self.data.not_negative.counts.max())
        wanted = settings.n_neg if settings.mining == "random" else settings.neg_samples
        if fewest < wanted:
            LOGGER.info("fewer than %d negatives for some queries: %d at the least", wanted, fewest)
        if settings.mining == "partial" and settings.cache_negatives < wanted:
            LOGGER.info("%d negatives instead of %d: --cache_negatives is less", settings.cache_negatives, wanted)
        if min(fewest, wanted) < settings.n_neg:
            LOGGER.info("some queries have fewer than %d negatives: theirs are repeated", settings.n_neg)

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """What `last.pth` keeps beside the weights."""
        return {"run": self.state.state_dict(), "optimizers": self.optimizers.state_dict(), "record": self.record}

    def load_state_dict(self, training: dict) -> None:
        """Continue where a checkpoint's run stood."""
        try:
            self.state = RunState.from_state_dict(training["run"])
            self.optimizers.load_state_dict(training["optimizers"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"--resume: the run state in this checkpoint is not of this version ({error}); start anew"
            ) from error

    def save(self, name: str = LAST) -> Path:
        """Write a checkpoint of this moment; a signal waits until it is written. Of several processes, the first writes."""
        path = self.folder / name
        if not is_first():
            return path
        with self.interrupts.hold():
            save_checkpoint(path, self.model, self.state_dict(), self.folder / PREVIOUS if name == LAST else None)
            self._saved_at = time.monotonic()
        return path

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train until the last epoch or until patience runs out; returns the path of the best checkpoint.

        A signal saves the run where it stands and raises `StopRequested`, on all processes that it reached.
        """
        settings, state = self.settings, self.state
        events = EventWriter(self.folder if is_first() else None, state.epoch + 1)
        with self.interrupts, closing(events):
            try:
                if not (self.folder / LAST).exists():
                    self.save()
                if state.history:
                    self._write_history()
                while state.epoch < settings.n_epochs and state.epochs_without_gain <= settings.patience:
                    self._train_epoch()
                    self._finish_epoch(events)
            except (StopRequested, RunFailed):
                # a signal to the whole process group kills loader workers too: their death is then no failure
                if self.interrupts.requested is None:
                    raise
                self._save_and_stop(self.interrupts.requested)
        if state.epochs_without_gain > settings.patience:
            LOGGER.info("stopped: %d epochs in a row without a better validation recall@1", state.epochs_without_gain)
        best = self.folder / BEST
        return best if best.exists() else self.folder / LAST

    def _save_and_stop(self, number: int) -> None:
        """Save the run where it stands and raise `StopRequested`; RunFailed, and no save, where a step had gone wrong."""
        state, stop = self.state, StopRequested(number)
        self.interrupts.obeyed = True
        forget_children()
        if not is_first():
            raise stop
        self._read_losses()
        path = self.save()
        where = f"epoch {state.epoch + 1}, refresh {state.refresh + 1}, step {state.step}"
        LOGGER.warning("%s: saved at %s; go on with --resume %s", stop, where, path)
        raise stop

    def _train_epoch(self) -> None:
        state = self.state
        while state.refresh < self.settings.refreshes_per_epoch:
            if state.triplets is None:
                self._mine()
                if time.monotonic() - self._saved_at >= 60 * self.settings.save_every_min:
                    self.save()
            self._train_on_triplets()
            with self.interrupts.hold():
                state.refresh, state.step, state.triplets = state.refresh + 1, 0, None

    def _finish_epoch(self, events: EventWriter) -> None:
        state = self.state
        score, figures = self.evaluate(self.model)
        losses = {f"loss_{name}": float(total) / state.steps_summed for name, total in state.loss_sums.items()}
        rates = {f"lr_{name}": rate for name, rate in self.optimizers.rates().items()}
        improved = score is None or state.best_score is None or score > state.best_score
        with self.interrupts.hold():
            state.history.append({"epoch": state.epoch + 1, **losses, **rates, **figures})
            state.epoch, state.refresh, state.loss_sums, state.steps_summed = state.epoch + 1, 0, {}, 0
            state.epochs_without_gain = 0 if improved else state.epochs_without_gain + 1
            if improved:
                state.best_score = score
                self.save(BEST)  # first: a run killed between the two repeats this epoch's evaluation
            self.save()
            self._write_history()
        events.scalars(state.epoch, {**losses, **rates, **figures})
        if events.active:
            for name, picture in attention_pictures(self.model, self.pictured, self.data.scale, self.options):
                events.images(state.epoch, name, picture)
        brief = {name: value for name, value in {**losses, **figures}.items() if "@" not in name or name.endswith("@1")}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in brief.items())
        best = " (best so far)" if improved else ""
        LOGGER.info("epoch %d/%d%s: %s", state.epoch, self.settings.n_epochs, best, shown)

    def _write_history(self) -> None:
        if is_first():
            write_history(self.folder / "history.csv", self.state.history)

    def _mine(self) -> None:
        """Draw queries and choose their positives and negatives with the network as it is now."""
        data, settings, state = self.data, self.settings, self.state
        rng = generator(settings.seed, "mining", state.epoch, state.refresh)
        drawn = rng.choice(len(data.queries), self.queries_per_refresh, replace=False)
        key = stream_key(settings.seed, "negatives", state.epoch, state.refresh)
        places = data.positives, data.not_negative
        if settings.mining == "random":  # the same on every process
            state.triplets = random_triplets(drawn, len(data.gallery), *places, settings.n_neg, key)
            return
        part = settings.cache_negatives if settings.mining == "partial" else None
        plan = plan_mining(drawn, len(data.gallery), *places, state.hardest, key, part)
        paths = [data.gallery.paths[i] for i in plan.images] + [data.queries.paths[i] for i in drawn]
        label = f"epoch {state.epoch + 1} mining {state.refresh + 1}/{settings.refreshes_per_epoch}"
        descriptors = embed_images(self.model, paths, data.scale, self.options, label, settings.descriptor_dtype)
        gallery, queries = np.split(descriptors, [len(plan.images)])  # empty on all processes but the first
        choice = *places, key, settings.n_neg, settings.neg_samples, self.compute.device
        with self.interrupts.hold():
            state.triplets = from_first(lambda: mine_triplets(plan, queries, gallery, *choice))
            state.hardest[drawn] = state.triplets.negatives

    def _train_on_triplets(self) -> None:
        """Train on what is left of the triplets mined last."""
        state, settings = self.state, self.settings
        plans = self._plan(state.triplets)
        self._sampler.plans = [StepPlan(*map(own_part, plan)) for plan in plans[state.step :]]
        self.model.train()
        label = f"epoch {state.epoch + 1} training {state.refresh + 1}/{settings.refreshes_per_epoch}"
        bar = progress_bar(total=len(plans), initial=state.step, desc=label, unit="step")
        with bar, worker_deaths_named(self._notes):
            batches = iter(self._loader)
            for plan in plans[state.step :]:
                batch = next_batch(batches)
                with self.interrupts.hold():
                    losses = self._step(batch)
                    self._unread.append((state.step, self._dataset.files(plan), losses))
                    state.step += 1
                bar.update()
                if len(self._unread) == READ_BACK_EVERY:
                    bar.set_postfix({name: f"{value:.3f}" for name, value in self._read_losses().items()})
        self._read_losses()

    def _read_losses(self) -> dict[str, float]:
        """Look at the losses since the last look; the newest, by name. RunFailed where one was not finite."""
        newest = check_losses(self.state, self._unread)
        self._unread = []  # last: what a signal cut short, or what failed, is looked at again before a save
        return newest

    def _step(self, batch: StepBatch) -> dict[str, torch.Tensor]:
        state, compute = self.state, self.compute
        of_process = [rank()] if rank() else []  # dropout differs between processes, and is that of one on the first
        seed_torch(self.settings.seed, "step", state.epoch, state.refresh, state.step, *of_process)
        losses = train_step(
            self.model,
            self.optimizers,
            self.model.prepare(batch.images),
            None if batch.labels is None else batch.labels.to(compute.device, non_blocking=True),
            None if batch.target is None else self.model.prepare(batch.target),
            num_queries=len(batch.images) // (2 + self.settings.n_neg),
            num_negatives=self.settings.n_neg,
            settings=self.settings.losses,
            compute=compute,
            progress=self._progress(),
        )
        wide = torch.float32 if compute.device.type == "mps" else torch.float64
        for name, loss in losses.items():
            state.loss_sums[name] = state.loss_sums.get(name, 0.0) + loss.to(wide)
        state.steps_summed += 1
        losses["update"] = self.optimizers.skipped
        return losses

    def _progress(self) -> float:
        """Share of the planned steps that are done."""
        state, settings = self.state, self.settings
        refreshes = state.epoch * settings.refreshes_per_epoch + state.refresh + state.step / self.steps_per_refresh
        return refreshes / max(1, settings.n_epochs * settings.refreshes_per_epoch)

    # -- what each step reads ----------------------------------------------------------------------------------------

    def _plan(self, triplets: Triplets) -> list[StepPlan]:
        settings, state = self.settings, self.state
        plans = []
        for step in range(self.steps_per_refresh):
            rows = range(step * settings.batch_size, min((step + 1) * settings.batch_size, len(triplets)))
            plans.append(
                StepPlan(
                    tuple(int(triplets.queries[i]) for i in rows),
                    tuple(int(triplets.positives[i]) for i in rows),
                    tuple(tuple(map(int, triplets.negatives[i])) for i in rows),
                    self._targets(step, len(rows)),
                    tuple((settings.seed, state.epoch, state.refresh, i) for i in rows),
                )
            )
        return plans

    def _targets(self, step: int, triplets: int) -> tuple[int, ...]:
        """As many target images as source images, in a fixed order that shuffles the whole set anew at every pass."""
        if not self.data.target_paths:
            return ()
        settings, total = self.settings, len(self.data.target_paths)
        images_per_triplet = 2 + settings.n_neg
        refreshes_before = self.state.epoch * settings.refreshes_per_epoch + self.state.refresh
        triplets_before = refreshes_before * self.queries_per_refresh + step * settings.batch_size
        first = triplets_before * images_per_triplet
        return tuple(int(self._target_at(n, total)) for n in range(first, first + triplets * images_per_triplet))

    def _target_at(self, n: int, total: int) -> int:
        which = n // total
        if self._target_order is None or self._target_order[0] != which:
            self._target_order = which, generator(self.settings.seed, "target", which).permutation(total)
        return self._target_order[1][n % total]


def check_losses(state: RunState, pending: list[tuple[int, list[str], dict[str, torch.Tensor]]]) -> dict[str, float]:
    """Read back the losses of some steps, all at once; returns the last step's.

    Raises
    ------
    RunFailed : a loss or an update was not finite; the first such step, the loss and the files are named.
    """
    if not pending:
        return {}
    names = list(pending[0][2])
    table = torch.stack([torch.stack([losses[name].float() for name in names]) for _, _, losses in pending]).cpu()
    for (step, files, _), row in zip(pending, table):
        if not row.isfinite().all():
            odd = names[int((~row.isfinite()).nonzero()[0])]
            what = "a gradient" if odd == "update" else f"the {odd} loss"
            raise RunFailed(
                f"{what} is not finite at epoch {state.epoch + 1}, refresh {state.refresh + 1}, step {step + 1} (its update "
                f"was left out, last.pth is from before; a new run with a lower --lr or fp32 may help); files: {', '.join(files)}"
            )
    return {name: value for name, value in zip(names, table[-1].tolist()) if name != "update"}
