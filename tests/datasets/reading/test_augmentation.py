"""Photometric augmentation: what each family does, that draws repeat, that labels move along."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.command_line import add_flags, read_flags
from datasets.reading.augmentation import FAMILIES, alter, augment, zoom_window
from datasets.reading.augmentation_settings import FAMILY_NAMES, AugmentationSettings

STRONG = AugmentationSettings(("all",), strength=1.0, zoom=0.6)


def street(height: int = 48, width: int = 80) -> torch.Tensor:
    """A picture with a bright sky, a brick wall and a road, uint8 (3, H, W)."""
    image = torch.empty(3, height, width, dtype=torch.uint8)
    top, low = height // 3, 2 * height // 3
    image[:, :top] = torch.tensor([200, 215, 235], dtype=torch.uint8).view(3, 1, 1)
    image[:, top:low] = torch.tensor([150, 90, 70], dtype=torch.uint8).view(3, 1, 1)
    image[:, low:] = torch.tensor([90, 90, 95], dtype=torch.uint8).view(3, 1, 1)
    image[:, top:low, ::8] = 40
    return image


def test_every_named_family_is_there():
    assert tuple(FAMILIES) == FAMILY_NAMES


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_repeats_its_draw_and_leaves_the_original(name):
    image = street(96, 160)
    before = image.clone()
    change = FAMILIES[name][0]
    first, again = (change(image, rng(3), 1.0) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(image, before)
    assert first.shape == image.shape and first.dtype == torch.uint8
    assert not torch.equal(first, image)
    if name not in ("grey", "equalize"):  # these have nothing to draw
        assert not torch.equal(change(image, rng(4), 1.0), first)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layout_in_memory_does_not_matter(name):
    whole = street(60, 90)
    cut = whole.permute(1, 2, 0).contiguous().permute(2, 0, 1)[..., 3:, 5:]  # as read from a file, and cropped
    change = FAMILIES[name][0]
    expected = change(cut.clone(memory_format=torch.contiguous_format), rng(1), 1.0)
    assert torch.equal(change(cut, rng(1), 1.0), expected)


@pytest.mark.parametrize("name", ["colour", "blur", "noise", "fog", "jpeg"])
def test_strength_says_how_far_a_family_goes(name):
    image = street().float()
    far = [
        np.mean([(FAMILIES[name][0](street(), rng(i), s).float() - image).abs().mean() for i in range(12)])
        for s in (0.3, 1.0)
    ]
    assert far[0] < far[1]


def test_grey_has_equal_channels_and_keeps_luma():
    x = FAMILIES["grey"][0](street(), rng(0), 1.0).float()
    assert torch.equal(x[0], x[1]) and torch.equal(x[0], x[2])
    luma = (street().float() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    assert (x[0] - luma).abs().max() <= 1


def test_night_is_dark_and_its_sky_darker_than_by_day():
    day = street().float()
    nights = torch.stack([FAMILIES["night"][0](street(), rng(i), 1.0).float() for i in range(24)])
    assert nights.mean() < 0.6 * day.mean()
    # by day the sky is twice as bright as the road, by night it is below it in most pictures (unless a lamp stands before it)
    sky, road = nights[:, :, :16].mean((1, 2, 3)), nights[:, :, 32:].mean((1, 2, 3))
    assert day[:, :16].mean() > 2 * day[:, 32:].mean() and (sky < road).float().mean() > 0.5


def test_fog_takes_contrast_most_at_the_horizon():
    x = FAMILIES["fog"][0](street(), rng(1), 1.0).float()
    day = street().float()
    ratio = [float(x[:, rows].std() / day[:, rows].std()) for rows in (slice(16, 24), slice(40, 48))]
    assert ratio[0] < 0.75 and ratio[0] < ratio[1]


def test_noise_has_the_level_it_draws():
    flat = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    deviations = [float((FAMILIES["noise"][0](flat, rng(i), 1.0).float() - 128).std()) for i in range(40)]
    assert min(deviations) > 2.5 and max(deviations) < 31 and max(deviations) > 20


def test_alter_draws_each_image_its_own_change_and_no_family_changes_nothing():
    image = street()
    generator = rng(0)
    drawn = [alter(image, generator, STRONG) for _ in range(6)]
    assert len({x.numpy().tobytes() for x in drawn}) == 6
    assert alter(image, rng(0), AugmentationSettings()) is image


def test_families_come_as_often_as_the_table_says():
    image, count = street(8, 8), 0
    only = AugmentationSettings(("grey",))
    generator = rng(5)
    for _ in range(800):
        count += alter(image, generator, only) is not image
    assert count / 800 == pytest.approx(FAMILIES["grey"][1], abs=0.04)


def test_one_family_less_leaves_the_others_possible():
    settings = replace(STRONG, families=tuple(f for f in FAMILIES if f != "night"))
    means = [alter(street(), rng(i), settings).float().mean() for i in range(60)]
    assert min(means) > 25  # nights go below


@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 200), st.floats(0.1, 1))
def test_a_zoom_window_lies_within_and_has_the_pictures_shape(seed, height, width, smallest):
    rows, columns = zoom_window(rng(seed), height, width, smallest)
    h, w = rows.stop - rows.start, columns.stop - columns.start
    assert rows.start >= 0 and rows.stop <= height and columns.start >= 0 and columns.stop <= width
    assert h >= 1 and w >= 1 and abs(h / height - w / width) <= 0.5 / height + 0.5 / width + 1 / min(height, width)


def test_image_and_label_zoom_alike():
    image = torch.zeros(3, 48, 80, dtype=torch.uint8)
    image[:, 10:30, 20:50] = 255
    label = (image[0] > 0).to(torch.uint8) * 7
    for seed in range(5):
        x, y = augment(image, label, rng(seed), AugmentationSettings(zoom=0.5))
        assert x.shape == image.shape and y.shape == label.shape and set(y.unique().tolist()) <= {0, 7}
        assert ((x[0] > 127) == (y == 7)).float().mean() > 0.97


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"families": ("rain",)}, "--augment: 'rain'"),
        ({"strength": 0}, "augment_strength: 0"),
        ({"strength": 3}, "augment_strength: 3"),
        ({"zoom": 0}, "augment_zoom: 0"),
        ({"zoom": 1.5}, "augment_zoom: 1.5"),
    ],
)
def test_odd_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        AugmentationSettings(**settings)


def test_flags_fill_the_settings():
    parser = argparse.ArgumentParser()
    add_flags(parser, AugmentationSettings, "training")
    assert read_flags(AugmentationSettings, parser.parse_args([])) == AugmentationSettings()
    given = parser.parse_args("--augment all --augment_strength 0.5 --augment_zoom 0.7".split())
    assert read_flags(AugmentationSettings, given) == AugmentationSettings(tuple(FAMILIES), 0.5, 0.7)
    assert read_flags(AugmentationSettings, parser.parse_args(["--augment", "night", "fog"])).families == (
        "night",
        "fog",
    )


def test_released_settings_change_nothing():
    label = torch.arange(48 * 80).reshape(48, 80).to(torch.uint8)
    for known in (label, None):
        image, found = augment(street(), known, rng(0), AugmentationSettings())
        assert torch.equal(image, street()) and found is known
