"""Photos looked up in a gallery."""

import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation_script
from datasets.places import ImageSet
from datasets.positions.find import located_images
from models import SegVPR, build_model
from tests.tiny import SPACING_M, place_picture, write_pass
from utils.retrieval import Localizer
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.retrieval.localize import Localisation, Match, format_localisations, photo_paths, spread, to_json
from utils.retrieval.screening import Screening
from utils.retrieval.store import IMAGES
from utils.runs.checkpoints import load_checkpoint, save_checkpoint
from utils.system.logs import start_logging

PLACES = 7
OPTIONS = EmbeddingOptions(batch_size=4, num_workers=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("run") / "best.pth"
    save_checkpoint(path, build_model("resnet18"), {})
    return path


@pytest.fixture
def embedded(monkeypatch) -> list[int]:
    """Sizes of the batches that go through the network."""
    batches, embed = [], SegVPR.embed

    def counted(model, images):
        batches.append(len(images))
        return embed(model, images)

    monkeypatch.setattr(SegVPR, "embed", counted)
    return batches


def localize(checkpoint, gallery, photos, top=5, **options):
    return Localizer(checkpoint, gallery, scale=1.0, options=OPTIONS, **options).locate(photos, top)


@pytest.fixture
def gallery_folder(tmp_path) -> Path:
    write_pass(tmp_path / "gallery", PLACES, 1)
    return tmp_path / "gallery"


def test_a_photo_of_the_gallery_is_found_first(embedded, checkpoint, gallery_folder, tmp_path):
    gallery = located_images(gallery_folder)[0]
    (tmp_path / "photos").mkdir()
    shutil.copy(gallery.paths[3], tmp_path / "photos/IMG 1.png")
    Image.fromarray(place_picture(5, 8, 9, (160, 120))).save(tmp_path / "photos/IMG 2.jpg")
    photos = photo_paths(tmp_path / "photos")
    found, other = localize(checkpoint, gallery, photos, 2)
    assert [found.photo, other.photo] == photos and len(found.matches) == len(other.matches) == 2
    best, second = found.matches
    assert best.path == gallery.paths[3] and best.descriptor_distance == pytest.approx(0, abs=1e-3)
    assert (best.east, best.north) == (277000.0 + 3 * SPACING_M, 110000.0)
    assert second.descriptor_distance > best.descriptor_distance
    # the store lies beside the checkpoint, and a second call embeds the photos alone
    assert len(list((checkpoint.parent / "descriptors_store").glob(f"*/{IMAGES}"))) == 1
    embedded.clear()
    again = localize(checkpoint, gallery, photos[:1])
    assert embedded == [1] and again[0].matches[:2] == found.matches and len(again[0].matches) == 5
    positions = [(m.east, m.north) for m in again[0].matches]
    expected = max(np.hypot(a[0] - b[0], a[1] - b[1]) for a, b in combinations(positions, 2))
    assert again[0].spread_m == found.spread_m == pytest.approx(expected) and expected >= 4 * SPACING_M


def test_distances_are_those_between_descriptors(checkpoint, gallery_folder, tmp_path):
    gallery = located_images(gallery_folder)[0]
    Image.fromarray(place_picture(2, 20, 5)).save(tmp_path / "photo.png")
    (found,) = localize(checkpoint, gallery, [tmp_path / "photo.png"], 99, store=tmp_path / "store")
    descriptors = embed_images(
        load_checkpoint(checkpoint).build(), [*gallery.paths, str(tmp_path / "photo.png")], 1.0, OPTIONS
    )
    distances = np.linalg.norm(descriptors[:-1] - descriptors[-1], axis=1)
    assert [m.path for m in found.matches] == [gallery.paths[i] for i in distances.argsort()]
    assert [m.descriptor_distance for m in found.matches] == pytest.approx(np.sort(distances), rel=1e-3, abs=1e-5)


def test_positions_may_come_from_a_csv_file(checkpoint, tmp_path):
    (tmp_path / "gallery").mkdir()
    for place in range(2):
        Image.fromarray(place_picture(place, 0, 0)).save(tmp_path / f"gallery/{place}.png")
    (tmp_path / "places.csv").write_text("path,easting,northing\n0.png,500000,10\n1.png,500003,14\n")
    gallery = located_images(tmp_path / "gallery", tmp_path / "places.csv")[0]
    (found,) = localize(checkpoint, gallery, [gallery.paths[1]], store=tmp_path / "store")
    assert [(m.east, m.north) for m in found.matches] == [(500003, 14), (500000, 10)]
    assert found.spread_m is None and "of each other" not in format_localisations([found], gallery), "there are no five"


def test_positions_of_a_known_zone_are_told_in_degrees_too(checkpoint, tmp_path):
    places = (51.7529, -1.2577), (51.7539, -1.2577)
    (tmp_path / "gallery").mkdir()
    rows = ["path,latitude,longitude"]
    for place, (latitude, longitude) in enumerate(places):
        Image.fromarray(place_picture(place, 0, 0)).save(tmp_path / f"gallery/{place}.png")
        rows.append(f"{place}.png,{latitude},{longitude}")
    (tmp_path / "places.csv").write_text("\n".join(rows))
    gallery, zone = located_images(tmp_path / "gallery", tmp_path / "places.csv")
    found = localize(checkpoint, gallery, [gallery.paths[1]], store=tmp_path / "store", zone=zone)
    degrees = np.array([(m.latitude, m.longitude) for m in found[0].matches])
    np.testing.assert_allclose(degrees, places[::-1], atol=1e-6)
    assert "(latitude 51.753900, longitude -1.257700)" in format_localisations(found, gallery)
    assert json.loads(to_json(found))["localisations"][0]["matches"][0]["latitude"] == pytest.approx(51.7539)


def test_the_command_line_says_where_the_gallery_s_positions_come_from(checkpoint, tmp_path, capsys):
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for place in range(2):
        Image.fromarray(place_picture(place, 0, 0)).save(gallery / f"{place}.png")
    (gallery / "IMG_1.HEIC").touch()
    table = tmp_path / "places.csv"
    table.write_text("path,latitude,longitude\n0.png,50.0,5.9995\n1.png,50.0,6.0005\n2.png,50.0,6.0\n")
    command = [
        "--resume",
        checkpoint,
        "--gallery",
        gallery,
        "--localize",
        gallery,
        "--positions",
        table,
        "--device",
        "cpu",
    ]
    command = [*map(str, command), "--num_workers", "0", "--eval_scale", "1", "--store", str(tmp_path / "store")]
    assert evaluation_script.main(command) == 2
    error = capsys.readouterr().err
    assert "1 of its 3 rows match no image, first 2.png (line 4)" in error and error.count("\n") == 1
    assert evaluation_script.main([*command, "--allow_missing_rows", "--zone", "54S"]) == 2
    assert "give --zone" in capsys.readouterr().err
    assert evaluation_script.main([*command, "--allow_missing_rows", "--zone", "32N"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{gallery}: not read: 1 .heic (convert these photos to JPEG)" in lines  # of the photos
    assert (
        f"positions of 2 images in {gallery}: 2 from places.csv; 1 row of places.csv without an image, first 2.png; "
        "not read: 1 .heic (convert these photos to JPEG); UTM zone 32N (as given)" in lines
    )
    assert any("longitude 6.0005" in line for line in lines)
    assert evaluation_script.main(["--resume", str(checkpoint), "--zone", "32N"]) == 2
    assert "--localize PHOTO and --gallery DIR go together" in capsys.readouterr().err


def test_a_set_that_is_evaluated_or_trained_on_says_so_in_one_line(tmp_path, capsys):
    write_pass(tmp_path / "clean", 3, 1)
    for place in range(3):
        Image.fromarray(place_picture(place, 0, 0)).save(tmp_path / f"@{51.75 + place / 999}@-1.2577@{place}@.webp")
    (tmp_path / "sub.heic").touch()
    start_logging()
    Screening().load([tmp_path / "clean"])
    assert capsys.readouterr() == (f"positions of 3 images in {tmp_path / 'clean'}: 3 from names\n", "")
    shutil.rmtree(tmp_path / "clean")
    Screening().load([tmp_path])
    out, error = capsys.readouterr()
    assert (
        out == f"positions of 3 images in {tmp_path}: 3 from names; not read: 1 .heic (convert these photos to JPEG)\n"
    )
    assert "warning: " in error and "latitude and longitude in degrees" in error


def test_agreement_is_told_only_if_five_images_of_a_place_could_agree(tmp_path):
    """Six images of one place 5 m apart, and six places 40 m apart with one image each."""
    for name, spacing in (("dense", 5.0), ("sparse", 40.0)):
        for place in range(6):
            folder = tmp_path / name / "a b"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(place_picture(place, 0, 0)).save(folder / f"@{500000 + spacing * place}@10@{place}@.png")
    for name, told in (("dense", True), ("sparse", False)):
        gallery = located_images(tmp_path / name)[0]
        east, north = gallery.positions[2]
        found = Localisation("photo.jpg", (Match(gallery.paths[2], east, north, 0.1),), 20.0)
        text = format_localisations([found], gallery)
        assert ("the first 5 matches lie within 20.0 m of each other" in text) == told
        # relative to the gallery, whole for programs
        assert f"  1 a b/{Path(gallery.paths[2]).name} " in text and str(tmp_path) not in text
        assert json.loads(to_json([found]))["localisations"][0]["matches"][0]["path"] == gallery.paths[2]


def test_spread_by_hand():
    assert spread(np.array([[0.0, 0], [3, 4], [6, 0], [3, 1]])) == 6
    assert spread(np.array([[7.0, 7]])) == 0


def test_a_damaged_photo_is_named_before_the_gallery_is_embedded(
    embedded, checkpoint, gallery_folder, tmp_path, capsys
):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    command = ["--resume", checkpoint, "--gallery", gallery_folder, "--localize", tmp_path / "bad.jpg"]
    assert evaluation_script.main([*map(str, command), "--device", "cpu"]) == 2
    assert "bad.jpg: cannot decode" in capsys.readouterr().err and not embedded
    with pytest.raises(FileNotFoundError, match="absent"):
        photo_paths(tmp_path / "absent")


def test_text_and_json():
    matches = Match("g/a_long_name.png", 500000.004, 10.0, 0.25), Match("g/new\nline\udcff.png", 500003.0, 14.0, 0.5)
    found = [Localisation("IMG 1.jpg", matches, 5.0)]
    gallery = ImageSet("g", (matches[0].path,) * 5, np.full((5, 2), (500000.0, 10.0)), np.full(5, ""))
    lines = format_localisations(found, gallery).splitlines()
    assert lines[0] == "IMG 1.jpg: at 500000.00 east, 10.00 north; the first 5 matches lie within 5.0 m of each other"
    assert lines[3].split() == ["1", "a_long_name.png", "500000.00", "10.00", "0.2500"]
    assert len(lines) == 5 and r"2 new\nline\udcff.png" in lines[4]
    "\n".join(lines).encode()
    text, unknown = to_json(found), {"latitude": None, "longitude": None}
    assert text.isascii() and json.loads(text) == {
        "localisations": [
            {
                "photo": "IMG 1.jpg",
                "matches": [
                    {
                        "path": matches[0].path,
                        "east": 500000.004,
                        "north": 10.0,
                        "descriptor_distance": 0.25,
                        **unknown,
                    },
                    {"path": matches[1].path, "east": 500003.0, "north": 14.0, "descriptor_distance": 0.5, **unknown},
                ],
                "spread_m": 5.0,
                "zone": None,
                "probability": None,
                "unknown": False,
            }
        ]
    }


def test_text_of_an_unknown_place():
    found = Localisation("a.jpg", (Match("g/b.png", 500000.0, 10.0, 0.25),), None, None, 0.125, True)
    (line, *_) = format_localisations(
        [found], ImageSet("g", ("g/b.png",), np.zeros((1, 2)), np.array([""]))
    ).splitlines()
    assert line == "a.jpg: unknown; the best match lies at 500000.00 east, 10.00 north; right with probability 0.125"
