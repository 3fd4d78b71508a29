"""Losses and metrics against values rebuilt by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.metrics import ConfusionMatrix, recall_at
from utils.training.losses import semantic_loss, triplet_loss
from utils.training.optimizers import poly


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
