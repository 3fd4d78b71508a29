"""The length of a run, said before it starts."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.naming import KINDS
from datasets.places import ImageSet, neighbours_within
from models import build_model
from tests.tiny import write_pass
from utils.evaluation.recall import EvaluationSet
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.screening import Screening
from utils.system.compute import Compute
from utils.training import estimate
from utils.training.data import TrainingData, prepare_training
from utils.training.estimate import duration, log_estimate, work_per_epoch
from utils.training.settings import LossSettings, TrainingSettings

MEASURE = estimate.measure
OPTIONS = EmbeddingOptions(batch_size=2, num_workers=0)


def image_set(folder, count: int, size: tuple[int, int]) -> ImageSet:
    """One file under many names: only its header is read."""
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


@pytest.fixture
def sets(tmp_path) -> list[EvaluationSet]:
    gallery = image_set(tmp_path, 30, (300, 200))
    return [
        EvaluationSet(name, gallery, image_set(tmp_path, count, (100, 100)), KINDS["utm"], (25.0,), 1.0)
        for name, count in (("rain", 4), ("snow", 5))
    ]


@pytest.mark.parametrize("mode, mined", [("full", 50 + 10), ("partial", 7 + 10), ("random", 0)])
def test_the_work_of_an_epoch_by_hand(data, sets, mode, mined):
    work = work_per_epoch(data, settings(mining=mode, cache_negatives=7), sets, sets[0].gallery.paths[:3])
    # two refreshes of 10 queries (there are no more) in steps of 3; images halved for mining; the gallery embedded once
    assert work == (2 * 4, 2 * mined * 120 * 110, 30 * 300 * 200 + 9 * 100 * 100 + 3 * 300 * 200)
    segmented = work_per_epoch(data, settings(), sets, sets[0].gallery.paths)[2]  # also embedded: both count
    assert segmented == 60 * 300 * 200 + 9 * 100 * 100


def test_the_sentence_by_hand(data, sets, monkeypatch, caplog):
    monkeypatch.setattr(estimate, "measure", lambda *_: (375.0, 1e-4))
    monkeypatch.setattr(estimate.LOGGER, "propagate", True)
    with caplog.at_level(logging.INFO, "segvpr"):
        log_estimate(None, data, settings(), sets, (), OPTIONS, epochs_done=1)
    # 8 * 375 = 3000 s, 158.4 s and 189 s an epoch, and 189 s for the last evaluation: 30315.6 s in 9 epochs
    # a set: a handler that another test left may hear the line too
    assert set(caplog.messages) == {
        "estimated length on this CPU: 8.4 hours for 9 epochs "
        "(an epoch: 8 steps of 3.8e+02 s, 50 minutes; mining 2.6 minutes; evaluation 3.1 minutes)"
    }


def test_a_run_says_its_length_before_it_trains(trained_run):
    lines = (trained_run / "log.txt").read_text().splitlines()
    (said,) = (i for i, line in enumerate(lines) if "estimated length on this CPU: 13 s for 2 epochs (" in line)
    assert said < next(i for i, line in enumerate(lines) if "epoch 1/2" in line)


@pytest.mark.parametrize(
    "seconds, said", [(9.6, "10 s"), (119, "119 s"), (7200, "2.0 hours"), (140 * 86400, "140 days")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize("sem_weight", [0.5, 0.0])
def test_measuring_leaves_the_model_as_it_is(tmp_path, sem_weight):
    write_pass(tmp_path / "gallery", 3, 1, tmp_path / "gallery_labels")
    write_pass(tmp_path / "queries", 3, 2, tmp_path / "queries_labels")
    gallery, queries = (Screening().load([tmp_path / name]) for name in ("gallery", "queries"))
    data = prepare_training(gallery, queries, KINDS["utm"], target_paths=gallery.paths, scale=1.0)
    model = build_model("resnet18").train()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    changes = settings(batch_size=2, losses=LossSettings(sem_weight=sem_weight))
    step_s, pixel_s = MEASURE(model, data, changes, OPTIONS)
    assert step_s > 0 and pixel_s > 0
    assert model.training and model.head.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "compute, done", [(Compute(compiled=True), 0), (Compute(torch.device("meta")), 0), (Compute(), 10)]
)
def test_nothing_is_said_where_it_would_be_wrong(monkeypatch, compute, done):
    monkeypatch.setattr(estimate, "measure", None)
    log_estimate(None, None, settings(), [], (), EmbeddingOptions(compute=compute), done)
