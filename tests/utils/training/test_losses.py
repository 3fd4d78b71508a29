"""Losses and metrics against values rebuilt by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import main
from datasets.places import Neighbours
from datasets.reading.triplets import StepPlan
from models.segvpr import build_model
from tests.tiny import SMALL_RUN, data_flags
from utils.evaluation.metrics import ConfusionMatrix, recall_at
from utils.training.data import near_candidates
from utils.training.losses import class_weights, count_classes, pair_loss, semantic_loss, triplet_loss
from utils.training.optimizers import build_optimizers, poly
from utils.training.settings import OptimizerSettings


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n_neg", [1, 3])
def test_triplet_loss_by_hand(dtype, n_neg):
    torch.manual_seed(0)
    q, p = torch.randn(2, 8, dtype=dtype), torch.randn(2, 8, dtype=dtype)
    n = torch.randn(2 * n_neg, 8, dtype=dtype)
    total = 0.0
    for i in range(2):
        for j in range(n_neg):
            a, b, c = (x.double().numpy() for x in (q[i], p[i], n[i * n_neg + j]))
            total += max(0.0, np.linalg.norm(a - b + 1e-6) - np.linalg.norm(a - c + 1e-6) + math.sqrt(0.3))
    loss = triplet_loss(q, p, n, margin=0.3)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(loss) == pytest.approx(total / (2 * n_neg), rel=1e-5)


def test_semantic_loss_ignores_255_and_survives_a_batch_of_nothing_else():
    logits = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 255], [2, 255]]], dtype=torch.uint8)
    log_p = logits.log_softmax(1)
    expected = -(log_p[0, 0, 0, 0] + log_p[0, 2, 1, 0]) / 2
    torch.testing.assert_close(semantic_loss(logits, labels), expected)
    nothing = semantic_loss(logits, torch.full_like(labels, 255))
    nothing.backward()
    assert nothing.item() == 0 and torch.count_nonzero(logits.grad) == 0


def test_poly_falls_to_zero_and_stays_there():
    assert poly(2.0, 0, 10) == 2 and poly(2.0, 5, 10) == pytest.approx(2 * 0.5**0.9, rel=1e-12)
    assert poly(2.0, 10, 10) == poly(2.0, 11, 10) == 0


@given(st.lists(st.lists(st.booleans(), min_size=20, max_size=20), min_size=1, max_size=8))
def test_recall_against_a_five_line_oracle(rows):
    expected = {}
    for n in (1, 5, 10, 20):
        hits = [any(row[:n]) for row in rows]
        expected[n] = sum(hits) / len(hits)
    assert recall_at(np.array(rows)) == pytest.approx(expected)


def test_recall_with_a_gallery_below_twenty():
    assert recall_at(np.array([[False, True, False], [False, False, False]])) == {1: 0.0, 5: 0.5, 10: 0.5, 20: 0.5}


def test_iou_by_hand_with_absent_and_ignored_classes():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 1, 255]))
    confusion.update(torch.tensor([2]), torch.tensor([0]))
    np.testing.assert_allclose(confusion.class_iou(), [1 / 3, 1 / 2, np.nan, np.nan])
    assert confusion.mean_iou() == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_pair_loss_by_hand_leaves_near_places_out():
    torch.manual_seed(1)
    queries, candidates = torch.randn(3, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    near = torch.zeros(3, 5, dtype=torch.bool)
    near[0, [0, 1, 4]] = True  # its own positive, which counts all the same, and two others
    unit = (
        [x.numpy() / np.linalg.norm(x.numpy()) for x in queries],
        [x.numpy() / np.linalg.norm(x.numpy()) for x in candidates],
    )
    similarity = np.array([[a @ b for b in unit[1]] for a in unit[0]]) / 0.1
    terms = []
    for i, left in enumerate(([0, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])):
        terms.append(-similarity[i, i] + np.log(np.exp(similarity[i, left]).sum()))
    for j, left in enumerate(([0, 1, 2], [1, 2], [0, 1, 2])):  # a positive and the queries that are not near it
        terms.append(-similarity[j, j] + np.log(np.exp(similarity[left, j]).sum()))
    assert float(pair_loss(queries, candidates, near, 0.1)) == pytest.approx(sum(terms) / 6, rel=1e-12)


def test_near_candidates_are_those_of_the_queries_place():
    not_negative = Neighbours(np.array([0, 2, 3]), np.array([4, 7, 1]))  # of two queries
    plan = StepPlan((1, 0), (1, 4), ((7,), (2,)), (), ())
    assert near_candidates(plan, not_negative).tolist() == [[True, False, False, False], [False, True, True, False]]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6))
def test_class_weights_are_one_in_the_mean_and_larger_for_rare_classes(counts):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)] + [torch.full((3,), 255)]).to(torch.uint8)
    found = count_classes(labels, len(counts))
    assert found.tolist() == counts
    weights = class_weights(found)
    if sum(counts):
        assert float((weights * found).sum()) == pytest.approx(sum(counts), rel=1e-5)
        for i, j in zip(np.argsort(counts), np.argsort(counts)[1:]):
            if counts[i]:
                assert float(weights[i] / weights[j]) == pytest.approx((counts[j] / counts[i]) ** 0.5, rel=1e-4)


def test_weighted_semantic_loss_by_hand():
    logits = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    labels = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    log_p, weights = logits.log_softmax(1), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    expected = -(0.5 * log_p[0, 0, 0, 0] + 2 * log_p[0, 1, 0, 1] + log_p[0, 2, 1, 0]) / 3
    torch.testing.assert_close(semantic_loss(logits, labels, weights=weights), expected)


def test_rates_grow_from_zero_before_they_fall():
    model = build_model("resnet18", attention="none")
    optimizers = build_optimizers(model, 1, OptimizerSettings("adamw", lr=0.5, lr_triplets=100, warmup_steps=4))
    assert isinstance(optimizers.network, torch.optim.AdamW)
    rates = []
    for _ in range(6):
        rates.append(optimizers.rates()["encoder"])
        optimizers.step()
    assert rates == pytest.approx([poly(1, i, 100) * min(1, (i + 1) / 4) for i in range(6)])


def test_a_run_over_pairs_needs_no_negatives(tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = "--loss pairs --n_neg 0 --optimizer adamw --class_weights --mining random --n_epochs 1 --no_report".split()
    assert main.main([*data_flags(tiny_root), *SMALL_RUN, *flags]) == 0
    (history,) = tmp_path.glob("runs/*/*/history.csv")
    header, row = (line.split(",") for line in history.read_text().splitlines())
    found = dict(zip(header, row))
    assert "loss_triplet" not in found and float(found["loss_pairs"]) > 0 and float(found["loss_semantic"]) > 0
