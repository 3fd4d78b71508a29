"""The length of a run, said before it starts."""

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets.naming import KINDS
from datasets.places import ImageSet, neighbours_within
from models import build_model
from tests.tiny import SMALL_RUN, data_flags
from utils.evaluation.recall import EvaluationSet
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.compute import Compute
from utils.training import estimate
from utils.training.data import TrainingData
from utils.training.estimate import Rates, Work, describe, duration, log_estimate, work_per_epoch
from utils.training.settings import LossSettings, TrainingSettings

MEASURE = estimate.measure
OPTIONS = EmbeddingOptions(batch_size=2, num_workers=0)


def image_set(folder, count: int, size: tuple[int, int]) -> ImageSet:
    """One file under many names: its header alone is read."""
    Image.new("RGB", size).save(folder / f"{count}.png")
    return ImageSet("x", (str(folder / f"{count}.png"),) * count, np.zeros((count, 2)), np.full(count, ""))


@pytest.fixture
def data(tmp_path) -> TrainingData:
    gallery, queries = image_set(tmp_path, 50, (240, 220)), image_set(tmp_path, 10, (240, 220))
    near = neighbours_within(gallery, queries, 1.0)
    return TrainingData(gallery, queries, KINDS["utm"], near, near, gallery.paths[:6], "", 0.5)


def settings(**changes) -> TrainingSettings:
    values = {"batch_size": 3, "cache_refresh_rate": 20, "queries_per_epoch": 40, "target_size": (120, 100)}
    return TrainingSettings(**values | changes)


@pytest.mark.parametrize("mode, mined", [("full", 50 + 10), ("partial", 7 + 10), ("random", 0)])
def test_the_work_of_an_epoch_by_hand(tmp_path, data, mode, mined):
    gallery = image_set(tmp_path, 30, (300, 200))
    sets = [
        EvaluationSet(name, gallery, image_set(tmp_path, count, (100, 100)), KINDS["utm"], (25.0,), 1.0)
        for name, count in (("rain", 4), ("snow", 5))
    ]
    work = work_per_epoch(data, settings(mining=mode, cache_negatives=7), sets, gallery.paths[:3])
    # two refreshes of 10 queries (there are no more) in steps of 3; images halved for mining; the gallery embedded once
    assert work == Work(2 * 4, 2 * mined * 120 * 110, 30 * 300 * 200 + 9 * 100 * 100, 3 * 300 * 200)


def test_the_sentence_by_hand():
    line = describe(Work(steps=1000, mined=10**9, evaluated=10**8, segmented=10**7), Rates(3.0, 1e-6, 1e-5), 10)
    # 3000 + 1000 + 200 s an epoch, and 200 s for the last evaluation: 42200 s
    assert "12 hours for 10 epochs" in line and "training 50 minutes, at 3 s per step; mining 17 minutes" in line
    assert "evaluation 3.3 minutes" in line and "a GPU" in line
    assert "a GPU" not in describe(Work(1, 1, 1, 0), Rates(3.0, 1e-6, 0.0), 1)


@pytest.mark.parametrize("seconds, said", [(9.6, "10 s"), (119, "119 s"), (7200, "2.0 hours"), (40 * 86400, "40 days")])
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize("sem_weight", [0.5, 0.0])
def test_measuring_leaves_no_trace(data, sem_weight):
    model = build_model("resnet18").train()
    weights, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    rates = MEASURE(model, data, settings(batch_size=2, losses=LossSettings(sem_weight=sem_weight)), (), OPTIONS)
    assert rates.step_s > 0 and rates.embed_s > 0 and rates.segment_s == 0
    assert model.training and model.head.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_run_on_a_cpu_says_its_length_before_it_trains(tiny_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root)[:2], *SMALL_RUN, "--da_method", "none", "--n_epochs", "1"]
    assert main.main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    (said,) = (i for i, line in enumerate(lines) if line.startswith("estimated length on this CPU: 5 s for 1 epoch,"))
    assert said < next(i for i, line in enumerate(lines) if line.startswith("epoch 1/1"))


@pytest.mark.parametrize(
    "compute, done", [(Compute(compiled=True), 0), (Compute(torch.device("meta")), 0), (Compute(), 10)]
)
def test_nothing_is_said_where_it_would_be_wrong(monkeypatch, compute, done):
    monkeypatch.setattr(estimate, "measure", None)
    log_estimate(None, None, settings(), [], (), EmbeddingOptions(compute=compute), done)
