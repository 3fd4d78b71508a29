"""The training run: mining, steps, evaluation after each epoch, checkpoints."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch

from datasets.mining import mine_triplets, plan_mining, random_triplets
from datasets.reading.triplets import StepBatch, StepPlan
from models.segvpr import SegVPR
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.runs.checkpoints import save_checkpoint
from utils.runs.folders import BEST, LAST, PREVIOUS
from utils.runs.history import epoch_line, write_history
from utils.system.distributed import from_first, is_first, rank, world_size
from utils.system.failures import PeerFailed
from utils.system.interrupts import Interrupts, StopRequested, stop_if_requested
from utils.system.loaders import read_ahead
from utils.system.logs import LOGGER, progress_bar
from utils.system.seeding import generator, seed_torch, stream_key
from utils.training.data import (
    TrainingData,
    log_shortages,
    near_candidates,
    own_plan,
    step_plans,
    training_batches,
)
from utils.training.events import EventWriter, attention_pictures
from utils.training.loss_watch import LossWatch, check_weights
from utils.training.optimizers import Optimizers
from utils.training.settings import TrainingSettings
from utils.training.state import RunState
from utils.training.step import train_step

Evaluate = Callable[[SegVPR], tuple[float | None, dict[str, float]]]
"""Scores a model after an epoch: the value that decides which checkpoint is best (None without validation data), and all
figures for the history."""


class TrainingRun:
    """One training run. `run` trains to the end; `state` and `optimizers` are what a checkpoint keeps of it.

    Every random choice follows from (seed, epoch, refresh, index), so a run that continues from a checkpoint is the same
    run, and no state of a random generator is kept.

    Where several processes share the run, each reads its part of every batch and all keep the same state. The first one mines,
    writes, and obeys signals.
    """

    def __init__(
        self,
        model: SegVPR,
        optimizers: Optimizers,
        data: TrainingData,
        settings: TrainingSettings,
        options: EmbeddingOptions,
        folder: Path,
        evaluate: Evaluate,
        record: dict | None = None,
        pictured: Sequence[str] = (),
    ) -> None:
        self.model, self.optimizers, self.data, self.settings, self.options = model, optimizers, data, settings, options
        self.folder, self.evaluate, self.record = folder, evaluate, record or {}
        self.pictured, self.compute = tuple(pictured), options.compute
        self.state = RunState(np.full((len(data.queries), settings.n_neg), -1, np.int64))
        self.dataset = training_batches(data, settings)
        self.watch = LossWatch()
        self._saved_at = time.monotonic()
        log_shortages(data, settings)

    @property
    def best_is_last(self) -> bool:
        """Whether the weights that the network has now are those of the best checkpoint."""
        return self.state.epochs_without_gain == 0

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train until the last epoch, or until patience runs out; returns the path of the best checkpoint.

        A signal saves the run and raises `StopRequested`, on all processes that it reached.
        """
        settings, state = self.settings, self.state
        events = EventWriter(self.folder if is_first() else None, state.epoch + 1)
        with self._saved_if_stopped(), closing(events):
            if not (self.folder / LAST).exists():
                self.save()
            if state.history:
                self._write_history()
            while state.epoch < settings.n_epochs and state.epochs_without_gain <= settings.patience:
                while state.refresh < settings.refreshes_per_epoch:
                    if state.triplets is None:
                        self._mine()
                        self._save_if_due()
                    self._train_on_triplets()
                self._finish_epoch(events)
                stop_if_requested()
        if state.epochs_without_gain > settings.patience:
            LOGGER.info("stopped: %d epochs in a row without a better validation recall@1", state.epochs_without_gain)
        best = self.folder / BEST
        return best if best.exists() else self.folder / LAST

    def _train_on_triplets(self) -> None:
        """Train on the rest of the triplets mined last."""
        state, settings = self.state, self.settings
        plans = step_plans(state.triplets, self.data, settings, state.epoch, state.refresh)
        self.model.train()
        label = f"epoch {state.epoch + 1} training {state.refresh + 1}/{settings.refreshes_per_epoch}"
        with progress_bar(total=len(plans), initial=state.step, desc=label, unit="step") as bar:
            for plan, batch in zip(plans[state.step :], self._batches(plans[state.step :])):
                # dropout differs between processes; the first draws what a single one would
                of_process = [rank()] if rank() else []
                seed_torch(settings.seed, "step", state.epoch, state.refresh, state.step, *of_process)
                losses = train_step(
                    self.model,
                    self.optimizers,
                    *self._on_device(batch),
                    num_queries=len(batch.images) // (2 + settings.n_neg),
                    near=self._near(plan),
                    settings=settings.losses,
                    compute=self.compute,
                    progress=state.progress(settings, len(plans)),
                )
                self._note(plan, losses)
                bar.update()
                if self.watch.due:
                    bar.set_postfix({name: f"{value:.3f}" for name, value in self.watch.read().items()})
                stop_if_requested()
        self.watch.read()
        state.refresh, state.step, state.triplets = state.refresh + 1, 0, None

    def _batches(self, plans: list[StepPlan]) -> Iterator[StepBatch]:
        """This process's part of what the steps read."""
        own = [own_plan(plan) for plan in plans]
        return read_ahead(self.dataset, own, self.options.num_workers, self.compute.device.type == "cuda")

    def _near(self, plan: StepPlan) -> torch.Tensor | None:
        """Which images are too near a query of this process to be another place; only the loss over pairs asks."""
        if self.settings.losses.loss != "pairs":
            return None
        return near_candidates(own_plan(plan), self.data.not_negative).to(self.compute.device)

    def _on_device(self, batch: StepBatch) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Source images, labels and target images as the network takes them."""
        labels = None if batch.labels is None else batch.labels.to(self.compute.device, non_blocking=True)
        target = None if batch.target is None else self.model.prepare(batch.target)
        return self.model.prepare(batch.images), labels, target

    def _note(self, plan: StepPlan, losses: dict[str, torch.Tensor]) -> None:
        """Count a finished step and keep its losses."""
        state = self.state
        wide = torch.float32 if self.compute.device.type == "mps" else torch.float64
        for name, loss in losses.items():
            state.loss_sums[name] = state.loss_sums.get(name, 0.0) + loss.to(wide)
        watched = {**losses, "gradient": self.optimizers.gradient_norm()}
        self.watch.note((state.epoch, state.refresh, state.step), self.dataset.files(plan), watched)
        state.steps_summed += 1
        state.step += 1

    def _mine(self) -> None:
        """Draw queries and choose their positives and negatives with the network as it is now."""
        data, settings, state = self.data, self.settings, self.state
        rng = generator(settings.seed, "mining", state.epoch, state.refresh)
        drawn = rng.choice(len(data.queries), settings.queries_per_refresh(len(data.queries)), replace=False)
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
        state.triplets = from_first(lambda: mine_triplets(plan, queries, gallery, *choice))
        state.hardest[drawn] = state.triplets.negatives

    # -- the end of an epoch -----------------------------------------------------------------------------------------

    def _finish_epoch(self, events: EventWriter) -> None:
        """Evaluate, and write checkpoints, history, TensorBoard's events and the log."""
        state = self.state
        score, figures = self.evaluate(self.model)
        losses = {f"loss_{name}": float(total) / state.steps_summed for name, total in state.loss_sums.items()}
        rates = {f"lr_{name}": rate for name, rate in self.optimizers.rates().items()}
        improved = state.end_epoch(score, {**losses, **rates, **figures})
        if improved:
            self.save(BEST)  # first: a run killed before the other repeats this epoch's evaluation
        self.save()
        self._write_history()
        events.scalars(state.epoch, {**losses, **rates, **figures})
        if events.active:
            for name, picture in attention_pictures(self.model, self.pictured, self.data.scale, self.options):
                events.images(state.epoch, name, picture)
        best = " (best so far)" if improved else ""
        LOGGER.info("epoch %d/%d%s: %s", state.epoch, self.settings.n_epochs, best, epoch_line(losses, figures))

    def _write_history(self) -> None:
        if is_first():
            write_history(self.folder / "history.csv", self.state.history)

    # -- what is kept ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """What `last.pth` keeps beside the weights."""
        return {"run": self.state.state_dict(), "optimizers": self.optimizers.state_dict(), "record": self.record}

    def load_state_dict(self, training: dict) -> None:
        """Take over the state of a checkpoint's run."""
        try:
            self.state = RunState.from_state_dict(training["run"])
            self.optimizers.load_state_dict(training["optimizers"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"--resume: the run state in this checkpoint is not of this version ({error}); start anew"
            ) from error

    def save(self, name: str = LAST) -> Path:
        """Write a checkpoint, or raise `RunFailed` where a step went wrong; of several processes, the first writes."""
        self.watch.read()
        path = self.folder / name
        if is_first():
            check_weights(self.model)
            save_checkpoint(path, self.model, self.state_dict(), self.folder / PREVIOUS if name == LAST else None)
            self._saved_at = time.monotonic()
        return path

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= 60 * self.settings.save_every_min:
            self.save()

    @contextmanager
    def _saved_if_stopped(self) -> Iterator[None]:
        """Within it, signals are noted. When one is obeyed, the first process saves the run."""
        with Interrupts(decides=is_first(), repeated=world_size() > 1) as interrupts:
            try:
                yield
            except StopRequested as stop:
                path = self.save()
                state = self.state
                where = f"epoch {state.epoch + 1}, refresh {state.refresh + 1}, step {state.step}"
                LOGGER.warning("%s: saved at %s; go on with --resume %s", stop, where, path)
                raise
            except PeerFailed as error:
                if is_first() or interrupts.requested is None:
                    raise
                raise StopRequested(interrupts.requested) from error  # the first process has saved and left
