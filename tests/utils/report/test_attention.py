"""What the network sees: maps, classes, and how they are drawn."""

import copy

import numpy as np
import pytest
import torch

from models import build_model
from tests.utils.report.sets import OPTIONS
from utils.report.attention import (
    LEAST_EFFECT,
    Look,
    attention_effect,
    attention_span,
    attention_sums,
    class_attention,
    look_at,
    look_at_sets,
    overlay,
    shrink,
)
from utils.report.page import attention_caption


def test_class_attention_by_hand():
    photo = np.zeros((2, 2, 3), np.uint8)
    one = Look(photo, np.array([[2.0, 1.0], [0.5, 0.5]], np.float32), np.array([[0, 0], [1, 1]]))
    two = Look(photo, np.array([[3.0, 0.5], [0.25, 0.25]], np.float32), np.array([[0, 1], [1, 1]]))
    attention, share = class_attention(attention_sums(one, 3) + attention_sums(two, 3))
    np.testing.assert_allclose(attention, [6 / 3, 2 / 5, np.nan])
    np.testing.assert_allclose(share, [3 / 8, 5 / 8, 0])


def test_a_look_holds_the_networks_own_map_and_classes(model, results):
    path = results[0].set.queries.paths[0]
    look = look_at(model, path, 1.0, OPTIONS)
    images = model.prepare(torch.from_numpy(look.photo.copy()).permute(2, 0, 1)[None])
    with torch.inference_mode():
        expected = model.segment(images).argmax(1)[0].numpy()
    np.testing.assert_array_equal(look.classes, expected)
    assert look.photo.shape == (128, 136, 3) and look.attention.mean() == pytest.approx(1, abs=1e-4)
    small = shrink(look, 68)
    assert small.photo.shape == (64, 68, 3) and small.classes.shape == small.attention.shape == (64, 68)
    assert look_at(model, "/no/such.png", 1.0, OPTIONS) is None


def test_the_effect_of_attention_is_measured(model, results, monkeypatch):
    look = look_at(model, results[0].set.queries.paths[0], 1.0, OPTIONS)
    calm = copy.deepcopy(model)
    with torch.no_grad():  # maps of random weights fall to 0 in places, where the eps of the norm shows
        calm.attention.merge.weight *= 0.01
    effect = attention_effect(calm, look)
    assert 0 <= effect < LEAST_EFFECT and not calm.attention._forward_hooks
    assert "not learnt" in attention_caption(effect) and "not learnt" not in attention_caption(0.2)
    monkeypatch.setattr(calm.pooling, "pool", lambda x, weight: x.mean(dim=(-2, -1)))  # without the norm the map counts
    assert attention_effect(calm, look) > LEAST_EFFECT


def test_overlay_glows_above_the_mean_and_leaves_the_mean_alone():
    photo = np.full((1, 3, 3), 128, np.uint8)
    look = Look(photo, np.array([[0.5, 1.0, 2.0]], np.float32), np.zeros((1, 3), np.int64))
    low, mean, high = np.asarray(overlay(look, 2.0), int)[0]
    assert low.sum() < 3 * 128 < high.sum() and mean.tolist() == [128] * 3 and high[0] > high[2] and low[0] < low[2]


@pytest.mark.parametrize("attention", [1e-6, 0.01, 0.05, 1.0, 20.0, 1e6])
def test_the_photo_stays_visible_under_any_attention(attention):
    """Black and white pixels stay at least half as far apart as in the photo, in every channel."""
    photo = np.array([[[0] * 3, [255] * 3]], np.uint8)
    look = Look(photo, np.full((1, 2), attention, np.float32), np.zeros((1, 2), np.int64))
    black, white = np.asarray(overlay(look, attention_span([look])), int)[0]
    assert (white - black).min() >= 127


def test_models_are_left_as_they_were(tmp_path, results):
    model = build_model("resnet18").train()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    look_at_sets(model, model, results[:1], OPTIONS)
    assert model.training and model.attention.training
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
