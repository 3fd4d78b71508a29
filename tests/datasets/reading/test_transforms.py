"""The input pipeline against golden inputs, the real sample where it is at hand, and hand-built values."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets.naming import RAW_TO_CLASS
from datasets.reading.transforms import (
    crop_and_flip,
    image_size,
    read_image,
    read_label,
    resize_image,
    scale_image,
)
from models.input import to_network_input
from tests.formula import picture, stream
from tests.golden_model import golden


def assert_within_a_grey_level(image: torch.Tensor, expected: np.ndarray) -> None:
    assert tuple(image.shape) == expected.shape
    assert np.abs(image.numpy() - expected).max() <= 1.01


@pytest.fixture
def drawn_pair(tmp_path) -> tuple[str, str]:
    """The golden picture and label as files."""
    image = picture("open/inputs", 216, 384).round().astype(np.uint8).transpose(1, 2, 0)
    label = np.zeros((216, 384, 4), np.uint8)
    label[..., 0], label[..., 3] = stream("open/inputs/raw").integers(0, 27, (216, 384)), 255
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(label, "RGBA").save(tmp_path / "label.png")
    return str(tmp_path / "image.png"), str(tmp_path / "label.png")


def test_inputs_match_the_reference(drawn_pair):
    expected = golden("inputs")
    image, label = read_image(drawn_pair[0]), read_label(drawn_pair[1])
    assert_within_a_grey_level(to_network_input(scale_image(image, 0.5))[:, ::4, ::4], expected["half_image_s4"])
    assert_within_a_grey_level(to_network_input(image)[:, ::4, ::4], expected["full_image_s4"])
    assert_within_a_grey_level(
        to_network_input(resize_image(image, (432, 768)))[:, ::4, ::4], expected["target_image_s4"]
    )
    assert np.array_equal(label.numpy(), expected["full_label"])


def test_the_real_sample_matches_the_reference():
    folder = os.environ.get("SEGVPR_IDDA_SAMPLE")
    if not folder:
        pytest.skip("SEGVPR_IDDA_SAMPLE is not set: the real IDDA pair is not ours to ship")
    numbers = Path(folder).parent / "reference" / "idda_sample_inputs.npz"
    if not numbers.is_file():
        pytest.skip(f"no golden numbers of the sample beside it ({numbers.name})")
    with np.load(numbers) as file:
        expected = dict(file)
    (image_file,), (label_file,) = Path(folder).glob("*.jpg"), Path(folder).glob("*.png")
    image, label = read_image(str(image_file)), read_label(str(label_file))
    assert_within_a_grey_level(to_network_input(scale_image(image, 0.5))[..., ::4, ::4], expected["half_image_s4"])
    assert_within_a_grey_level(to_network_input(image)[..., ::8, ::8], expected["full_image_s8"])
    assert_within_a_grey_level(
        to_network_input(resize_image(image, (432, 768)))[..., ::4, ::4], expected["target_image_s4"]
    )
    assert np.array_equal(label[::8, ::8].numpy(), expected["full_label_s8"])
    assert np.array_equal(np.bincount(label.flatten(), minlength=256), expected["label_histogram"])


def test_network_input_is_bgr_minus_means_on_a_scale_of_255():
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    assert to_network_input(pixel).flatten().tolist() == pytest.approx([30 - 0.485, 20 - 0.456, 10 - 0.406])
    assert to_network_input(pixel, torch.float64).dtype == torch.float64


def test_the_fast_half_equals_the_general_resize():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 96), dtype=np.uint8))
    exact = image.double().view(3, 32, 2, 48, 2).mean(dim=(2, 4))
    assert torch.equal(scale_image(image, 0.5).double(), (exact + 0.5).floor())


@pytest.mark.parametrize("size", [(432, 768), (50, 61), (108, 96)])
def test_resizing_is_bilinear_and_the_same_for_any_number_of_threads(size):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 97, 131), dtype=np.uint8))
    expected = torch.nn.functional.interpolate(image[None].double(), size=size, mode="bilinear", align_corners=False)[0]
    threads = torch.get_num_threads()
    outcomes = []
    for count in (1, 3):
        torch.set_num_threads(count)
        outcomes.append(resize_image(image, size))
    torch.set_num_threads(threads)
    assert torch.equal(*outcomes)
    assert (outcomes[0].double() - expected).abs().max() <= 1.01  # rows and columns are rounded in turn


@given(st.integers(0, 255))
def test_label_table_follows_the_protocol(raw):
    table = "0:255 1:2 2:4 3:255 4:11 5:5 6:0 7:0 8:1 9:8 10:13 11:3 12:7 13:6 14:255 15:255 16:16 17:15 18:12 19:9 20:10 26:14"
    expected = dict(map(int, pair.split(":")) for pair in table.split())
    assert RAW_TO_CLASS[raw] == expected.get(raw, 255)


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(5, 400), width=st.integers(5, 400))
def test_crop_keeps_80_percent_and_stays_inside(seed, height, width):
    rows, columns, _ = crop_and_flip(np.random.default_rng(seed), height, width)
    assert rows.stop - rows.start == int(0.8 * height) and columns.stop - columns.start == int(0.8 * width)
    assert 0 <= rows.start < height - int(0.8 * height) and 0 <= columns.start < width - int(0.8 * width)


def test_half_of_the_triplets_are_flipped():
    flips = [crop_and_flip(np.random.default_rng(seed), 100, 100)[2] for seed in range(400)]
    assert 150 < sum(flips) < 250


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16", "LA", "1"])
def test_every_mode_decodes_to_rgb(tmp_path, mode):
    file = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    value = 255 if mode == "1" else 200
    grey = np.full((20, 30), value, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(file)
    decoded = read_image(str(file))
    assert decoded.shape == (3, 20, 30) and decoded.dtype == torch.uint8
    assert (decoded.float() - value).abs().max() <= 3


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(str(tmp_path / "turned.jpg")).shape == (3, 40, 20)
    assert image_size(str(tmp_path / "turned.jpg")) == (20, 40)


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_an_undecodable_image_is_named(tmp_path, content):
    file = tmp_path / "odd.jpg"
    if content is None:
        Image.effect_noise((64, 64), 90).save(file)
        content = file.read_bytes()[:300]
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.jpg"):
        read_image(str(file))


@pytest.mark.parametrize("mode, value, reason", [("L", 1, "mode is L"), ("RGBA", (27, 0, 0, 255), "raw id 27")])
def test_an_odd_label_is_named(tmp_path, mode, value, reason):
    Image.new(mode, (8, 8), value).save(tmp_path / "label.png")
    with pytest.raises(ValueError, match=f"label.png.*{reason}"):
        read_label(str(tmp_path / "label.png"))
