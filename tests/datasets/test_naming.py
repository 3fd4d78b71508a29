"""File names, listings, label folders and kinds."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets.naming import (
    CLASS_COLOURS,
    CLASS_NAMES,
    class_colours,
    count_suffixes,
    detect_kind,
    label_folder,
    label_path,
    list_folder,
    list_images,
    parse_position,
)
from datasets.places import correct_matches, load_image_set, neighbours_within
from datasets.reading.transforms import image_size, read_image
from datasets.town.preview import colour_label
from tests.tiny import write_idda, write_pass, write_robotcar

METRES = st.floats(-1e5, 999_999, allow_nan=False)


@given(east=METRES, north=st.floats(-1e5, 9_999_999), tail=st.text("abc.-_ 0", max_size=10))
def test_positions_round_trip_through_names(east, north, tail):
    name = f"/a@b/@c/@{east!r}@{north!r}@{tail}@.jpg"
    assert parse_position(name) == (east, north)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("plain.jpg", "two numbers"),
        ("@1@.jpg", "two numbers"),
        ("x@1@2@.jpg", "two numbers"),
        ("@east@2@.jpg", "two numbers"),
        ("@@2@.jpg", "two numbers"),
        ("@nan@2@.jpg", "not both finite"),
        ("@inf@2@.jpg", "not both finite"),
        ("@5735000.0@620000.0@.jpg", "swapped"),
    ],
)
def test_a_name_without_position_is_named(name, reason):
    with pytest.raises(ValueError, match=reason) as error:
        parse_position(f"folder/{name}")
    assert name in str(error.value)


def test_the_real_name_is_read():
    assert parse_position("@277456.815@110790.196@Town3@HardRainSunset@audi@1610823676@1.0@289611@.jpg") == (
        277456.815,
        110790.196,
    )


def test_listing_is_recursive_sorted_any_case_and_survives_links(tmp_path):
    for name in ("b/2.JPG", "a/1.png", "a/3.jpeg", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink(tmp_path / "gone", tmp_path / "dangling")
    assert list_images(tmp_path) == [str(tmp_path / name) for name in ("a/1.png", "a/3.jpeg", "b/2.JPG")]


NO_DATA_FOLDERS = (".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "lost+found")


def test_hidden_files_and_leftovers_of_systems_are_no_data(tmp_path):
    for folder in ("", *NO_DATA_FOLDERS, ".cache/deep"):
        (tmp_path / "a" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / folder / "@1@2@.jpg").touch()
    for name in ("._@1@2@.jpg", ".@1@2@.jpg.part", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "a" / name).touch()
    assert list_folder(tmp_path) == ([str(tmp_path / "a/@1@2@.jpg")], [])
    # the folder that the user names may be hidden
    assert list_images(tmp_path / "a/.cache") == [str(tmp_path / "a/.cache/deep/@1@2@.jpg")]


def test_other_formats_are_read_or_told(tmp_path):
    read = ("a.JPG", "b.jpeg", "c.png", "d.webp", "e.tif", "f.TIFF", "g.bmp", "h.jfif", "i.jpe")
    for name in (*read, "j.HEIC", "k.heic", "l.cr2", "notes.txt", "README", "m.txt"):
        (tmp_path / name).touch()
    images, unread = list_folder(tmp_path)
    assert images == [str(tmp_path / name) for name in read]
    convert = "(convert these photos to JPEG)"
    assert count_suffixes(unread) == f"2 .heic {convert}, 1 .cr2 {convert}, 2 .txt, 1 without suffix"
    for name in read:
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"no image in it .*; not read: 2 \.heic .*; fill it"):
        list_folder(tmp_path)


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".bmp", ".jpg"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pixels_and_size_of_other_formats(tmp_path, suffix, orientation):
    exif, pixels = Image.Exif(), np.zeros((24, 32, 3), np.uint8)
    pixels[:, :8] = 200
    if suffix != ".bmp":  # has no EXIF data
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    turns = 0 if suffix == ".bmp" else {1: 0, 3: 2, 6: 3}[orientation]
    image = read_image(str(tmp_path / f"a{suffix}")).permute(1, 2, 0).numpy()
    assert np.abs(image.astype(int) - np.rot90(pixels, turns)).max() < 30
    assert image_size(str(tmp_path / f"a{suffix}")) == image.shape[1::-1]


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        list_images(tmp_path / "absent")
    with pytest.raises(ValueError, match="no image in it"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    "images, labels",
    [
        ("town10/gallery/front_rear/front", "town10/gallery_labels/front_rear/front"),
        ("town10/queries_rain/front_rear/rear", "town10/queries_labels_rain/front_rear/rear"),
        ("town10/queries_rain/x", "town10/queries_labels/x"),
        ("town10/queries_rain/x", "town10/queries_labels_any/x"),
        ("queries/town10/gallery/x", "queries/town10/gallery_labels/x"),
    ],
)
def test_labels_lie_in_the_sibling_folder(tmp_path, images, labels):
    (tmp_path / images).mkdir(parents=True)
    assert label_folder(str(tmp_path / images)) is None
    (tmp_path / labels).mkdir(parents=True)
    assert label_folder(str(tmp_path / images)) == str(tmp_path / labels)


def test_a_missing_label_is_named(tmp_path):
    root = write_idda(tmp_path, places=1)
    (image,) = (root / "town10/gallery/front_rear/front").iterdir()
    label = label_path(str(image))
    assert Image.open(label).mode == "RGBA"
    os.remove(label)
    with pytest.raises(FileNotFoundError, match="label missing"):
        label_path(str(image))


def test_kinds_follow_the_layout(tmp_path):
    idda, robotcar = write_idda(tmp_path / "i", places=1), write_robotcar(tmp_path / "r", places=1)
    assert detect_kind(list_images(idda / "town10/gallery"))[0].name == "iddav2"
    assert detect_kind(list_images(robotcar / "rain"))[0].name == "utm"
    kind = detect_kind(list_images(idda / "town3/queries_rain"))[0]
    assert (kind.train_threshold_m, kind.eval_threshold_m, kind.eval_scale, kind.same_camera) == (3, 5, 0.5, True)


def test_label_folders_alone_make_iddav2_of_one_camera(tmp_path):
    write_pass(tmp_path / "gallery", 3, 0, tmp_path / "gallery_labels")
    write_pass(tmp_path / "queries_rain", 3, 1, tmp_path / "queries_labels_rain", shift=1)
    gallery, queries = (load_image_set([tmp_path / folder]) for folder in ("gallery", "queries_rain"))
    kind, reason = detect_kind([*gallery.paths, *queries.paths])
    assert kind.name == "iddav2" and "label folders" in reason
    assert neighbours_within(gallery, queries, kind.train_threshold_m, kind.same_camera).counts.tolist() == [1, 1, 1]
    correct, _ = correct_matches(gallery, queries, np.array([[0], [1], [0]]), 5, kind.same_camera)
    assert correct.tolist() == [[True], [True], [False]]


@pytest.mark.parametrize("classes", [1, 5, 17, 40])
def test_classes_have_colours_of_their_own(classes):
    colours = class_colours(classes)
    assert colours.dtype == np.uint8 and colours.shape == (classes, 3) and len(np.unique(colours, axis=0)) == classes


def test_one_table_of_colours_beside_the_names():
    assert len(CLASS_COLOURS) == len(CLASS_NAMES) and class_colours(17).tolist() == [list(c) for c in CLASS_COLOURS]
    labels = np.array([[7, 1, 26, 0]], np.uint8)  # raw ids of road, building, truck and of nothing
    expected = [CLASS_COLOURS[CLASS_NAMES.index(name)] for name in ("Road", "Building", "Truck")]
    assert np.asarray(colour_label(labels))[0].tolist() == [*map(list, expected), [0, 0, 0]]
