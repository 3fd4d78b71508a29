"""Precision and recall of answers that may be withheld, by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from utils.evaluation.metrics import precision_recall, recall_at_precision

NAN = float("nan")


def test_by_hand():
    ratios, right = np.array([0.1, 0.4, 0.2, 0.4, NAN]), np.array([True, False, True, True, False])
    precision, recall, ratio = precision_recall(ratios, right)
    assert precision.tolist() == [1, 1, 0.75, 0.6] and recall.tolist() == [0.2, 0.4, 0.6, 0.6]
    assert ratio.tolist() == [0.1, 0.2, 0.4, np.inf]
    assert recall_at_precision(ratios, right, 1) == (0.4, 0.2)
    assert recall_at_precision(ratios, right, 0.7) == (0.6, 0.4)
    assert recall_at_precision(ratios, right, 0.5) == (0.6, 0.4)  # a query of no known ratio is never sure
    assert recall_at_precision(ratios, ~right, 0.9) == (0, None)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9]), st.booleans()), min_size=1, max_size=40))
def test_as_scikit_learn_finds_it(pairs):
    ratios, right = np.array([r for r, _ in pairs]), np.array([b for _, b in pairs])
    precision, recall, ratio = precision_recall(ratios, right)
    assert recall[-1] == precision[-1] == pytest.approx(right.mean())
    if right.any():
        theirs = precision_recall_curve(right, -ratios)  # ends with a point that answers nothing
        np.testing.assert_allclose(precision[::-1], theirs[0][:-1])
        np.testing.assert_allclose(recall[::-1] / right.mean(), theirs[1][:-1])
        np.testing.assert_allclose(ratio[::-1], -theirs[2])
