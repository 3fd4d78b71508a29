"""A gallery that is opened once and asked many times."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import build_model
from tests.tiny import SPACING_M, place_picture, write_pass
from utils.retrieval import Localizer
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import save_checkpoint

OPTIONS = EmbeddingOptions(batch_size=4, num_workers=0)
EAST, NORTH = 277000.0, 110000.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    path, model = tmp_path_factory.mktemp("run") / "best.pth", build_model("resnet18")
    model.image_size = 136
    save_checkpoint(path, model, {})
    return path


@pytest.fixture
def gallery(tmp_path) -> Path:
    """Six places 40 m apart."""
    write_pass(tmp_path / "gallery", 6, 1)
    return tmp_path / "gallery"


@pytest.fixture
def localizer(checkpoint, gallery, tmp_path) -> Localizer:
    return Localizer(checkpoint, gallery, store=tmp_path / "store", options=OPTIONS)


def names(found) -> list[str]:
    return [Path(match.path).name for match in found.matches]


def test_a_photo_is_a_path_a_pillow_image_or_an_array(localizer, gallery):
    file = sorted(gallery.iterdir())[2]
    expected = localizer.locate(file)
    assert expected.photo == str(file) and expected.matches[0].path == str(file)
    assert expected.matches[0].descriptor_distance < 1e-3 and len(expected.matches) == 5
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    for photo in (str(file), image, np.asarray(image)):
        assert localizer.locate(photo).matches == expected.matches
    many = localizer.locate([file, image, *sorted(gallery.iterdir())], k=1)
    assert len(many) == 8 and names(many[0]) == names(many[1]) == names(expected)[:1]
    assert json.loads(expected.to_json())["matches"][0]["east"] == EAST + 2 * SPACING_M
    assert localizer.locate([]) == []
    with pytest.raises(ValueError, match="k: 0"):
        localizer.locate(file, k=0)


@pytest.mark.parametrize(
    "photo, reason",
    [
        (np.zeros((130, 130), np.uint8), "uint8 .130, 130."),
        (np.zeros((130, 130, 3)), "float64"),
        (7, "not a int"),
        (np.zeros((20, 130, 3), np.uint8), "130x20 px is too narrow"),
    ],
)
def test_what_is_no_photo(localizer, photo, reason):
    with pytest.raises(ValueError, match=reason):
        localizer.locate(photo)


def test_what_is_known_beforehand_restricts_the_gallery(localizer, gallery):
    photo = sorted(gallery.iterdir())[0]
    near = localizer.locate(photo, near=(EAST + 3 * SPACING_M, NORTH, SPACING_M + 1))
    assert sorted((m.east - EAST) / SPACING_M for m in near.matches) == [2, 3, 4]
    everything = localizer.locate(photo, k=9)
    by_distance = [m for m in everything.matches if m in near.matches]
    assert near.matches == tuple(by_distance) and near.spread_m is None
    assert localizer.locate(photo, near=(0, 0, 5)).matches == ()
    for prior, reason in (
        ({"near": (EAST, NORTH, 0)}, "more than 0 metres"),
        ({"near": (EAST, NORTH, 5), "near_latlon": (1, 1, 5)}, "one of them"),
        ({"near_latlon": (51, 0, 5)}, "give --zone"),
        ({"near_latlon": (91, 0, 5)}, "latitude 91"),
        ({"camera": "front"}, "no camera folders"),
    ):
        with pytest.raises(ValueError, match=reason):
            localizer.locate(photo, **prior)


def test_cameras_and_degrees(checkpoint, tmp_path):
    for camera in ("front", "rear"):
        write_pass(tmp_path / "gallery" / camera, 2, 1)
    found = Localizer(checkpoint, tmp_path / "gallery", store=tmp_path / "store", zone="32N", options=OPTIONS)
    photo = found.images.paths[0]
    rear = found.locate(photo, camera="rear")
    assert {Path(m.path).parent.name for m in rear.matches} == {"rear"} and len(rear.matches) == 2
    at = rear.matches[0]
    near = found.locate(photo, near_latlon=(at.latitude, at.longitude, 1.0))
    assert len(near.matches) == 2 and {m.east for m in near.matches} == {at.east} and near.zone == "32N"


def test_images_are_added_and_removed(localizer, gallery, tmp_path):
    new = tmp_path / "new.png"
    Image.fromarray(place_picture(9, 0, 0)).save(new)
    before = localizer.locate(new, k=9)
    localizer.add(new, (EAST, NORTH + 7))
    found = localizer.locate(new, k=9)
    assert len(localizer) == 7 and found.matches[0].path == str(new) and found.matches[0].north == NORTH + 7
    assert found.matches[1:] == before.matches
    with pytest.raises(ValueError, match="already"):
        localizer.add(new, (EAST, NORTH))
    with pytest.raises(ValueError, match="not in the gallery"):
        localizer.remove(tmp_path / "other.png")
    localizer.remove([new, sorted(gallery.iterdir())[0]])
    found = localizer.locate(new, k=9)
    assert len(localizer) == 5 and found.matches == tuple(m for m in before.matches if m.east > EAST)
    with pytest.raises(ValueError, match="none of its"):
        localizer.remove(localizer.images.paths)
    assert len(localizer) == 5


def test_a_gallery_is_saved_and_opened_again(localizer, checkpoint, gallery, tmp_path):
    new = tmp_path / "new.png"
    Image.fromarray(place_picture(9, 0, 0)).save(new)
    localizer.add([new], [(EAST + 0.123456789, NORTH + 7)])
    localizer.save(tmp_path / "gallery.csv")
    again = Localizer(checkpoint, tmp_path / "gallery.csv", store=tmp_path / "store", options=OPTIONS)
    np.testing.assert_array_equal(again.images.positions, localizer.images.positions)
    assert [m.descriptor_distance for m in again.locate(new, 9).matches] == pytest.approx(
        [m.descriptor_distance for m in localizer.locate(new, 9).matches], abs=1e-3
    )
    new.unlink()
    with pytest.raises(FileNotFoundError, match=r"lists .*new\.png, which is missing"):
        Localizer(checkpoint, tmp_path / "gallery.csv", store=tmp_path / "store", options=OPTIONS)
