"""Positions from names, CSV files and EXIF data, and photos turned into the `@UTM` layout."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from datasets.convert.__main__ import main
from datasets.convert.convert import convert_images
from datasets.places import load_image_set
from datasets.positions.find import Zone, locate, located_images
from datasets.positions.table import csv_positions
from tests.photos import OXFORD, dms, exif_position, gps_of, photo, read_positions, write_csv


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("place", [OXFORD, (48.8584, 2.2945), (-33.8568, 151.2153), (-22.9519, -43.2105)])
def test_exif_of_four_hemispheres(tmp_path, place, suffix):
    assert exif_position(photo(tmp_path / f"a{suffix}", place)) == pytest.approx(place, abs=1e-8)


def test_exif_in_other_forms(tmp_path):
    gps = gps_of(*OXFORD)
    decimal = {**gps, 2: (IFDRational(517520, 10000),), 4: (IFDRational(12577, 10000),)}
    minutes = {**gps, 2: (IFDRational(51), IFDRational(4512, 100)), 4: (IFDRational(1), IFDRational(15462, 1000))}
    lower = {**gps, 1: "n", 3: "w"}
    for index, form in enumerate((decimal, minutes, lower)):
        assert exif_position(photo(tmp_path / f"{index}.jpg", form)) == pytest.approx(OXFORD, abs=1e-6)


def test_exif_that_makes_no_sense_is_no_position(tmp_path):
    gps = gps_of(*OXFORD)
    odd = [None, {}]
    odd += [{tag: value for tag, value in gps.items() if tag != left_out} for left_out in gps]
    odd.append({**gps, 2: (IFDRational(0, 0), IFDRational(0), IFDRational(0))})
    odd.append({**gps, 4: (IFDRational(1), IFDRational(15), IFDRational(5, 0))})
    odd += [{**gps, 1: "E"}, {**gps, 9: "V"}, {**gps, 2: (IFDRational(95),)}, {**gps, 4: (IFDRational(181),)}]
    odd += [{**gps, 2: ()}, {**gps, 2: dms(0), 4: dms(0)}]
    for index, form in enumerate(odd):
        assert exif_position(photo(tmp_path / f"{index}.jpg", form)) is None, form


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"a\.jpg: cannot read this image"):
        exif_position(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("place", "zone", "east", "north"),
    [
        (OXFORD, "30N", 620_265.3625, 5_734_891.7716),
        ((48.8584, 2.2945), "31N", 448_252.0014, 5_411_954.9099),
        ((-33.8568, 151.2153), "56S", 334_900.5697, 6_252_288.7529),
        ((-22.9519, -43.2105), "23S", 683_476.5091, 7_460_687.3082),
        ((60.0, 5.0), "32N", 276_979.9264, 6_658_157.2024),  # the zone is Norway's exception
        ((0.0, 3.0), "31N", 500_000.0, 0.0),
    ],
)
def test_known_coordinates(place, zone, east, north):
    """Against PROJ 9 (`+proj=utm +ellps=WGS84`)."""
    assert str(Zone.of(*place)) == zone
    np.testing.assert_allclose(Zone.parse(zone).project([place[0]], [place[1]]), [[east, north]], atol=0.001)


def test_one_zone_for_a_set_across_a_border(tmp_path):
    # 6 degrees east is the border of zones 31 and 32
    places = [(50.0, 5.9995), (50.0, 6.0005), (50.001, 6.0005)]
    paths = [photo(tmp_path / f"{index}.jpg", place) for index, place in enumerate(places)]
    positions, zone, *_ = locate(paths)
    assert str(zone) == "32N"  # that of two of the three
    metres = math.radians(0.001) * 6_378_137 * math.cos(math.radians(50))
    assert np.linalg.norm(positions[1] - positions[0]) == pytest.approx(metres, rel=5e-3)
    assert np.linalg.norm(positions[2] - positions[1]) == pytest.approx(111.2, rel=5e-3)
    queries = read_positions(paths[:1], zone=zone)
    np.testing.assert_array_equal(queries, positions[:1])
    assert read_positions(paths[:1])[0, 0] > 700_000  # by itself it would be in zone 31


def test_one_zone_across_the_equator_and_the_date_line(tmp_path):
    for first, second in (((0.0005, 30.1), (-0.0005, 30.1)), ((10.0, 179.9995), (10.0, -179.9995))):
        pair = read_positions([photo(tmp_path / "a.jpg", first), photo(tmp_path / "b.jpg", second)])
        assert np.linalg.norm(pair[1] - pair[0]) == pytest.approx(110, rel=0.02)


def test_distant_regions_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"b\.jpg: .*too far from UTM zone 30N"):
        read_positions([photo(tmp_path / "a.jpg", OXFORD), photo(tmp_path / "b.jpg", (51.0, 151.0))])


@pytest.mark.parametrize("text", ["", "N", "61N", "0S", "30U", "thirtyN"])
def test_zones_that_do_not_exist(text):
    with pytest.raises(ValueError, match="no UTM zone"):
        Zone.parse(text)


def test_csv_in_both_forms(tmp_path):
    paths = [photo(tmp_path / "photos" / name) for name in ("a.jpg", "sub/b.jpg")]
    degrees = write_csv(
        tmp_path / "photos" / "deg.csv", "path,latitude,longitude\na.jpg,51.7520,-1.2577\nsub/b.jpg, 51.7530, -1.2577\n"
    )
    east, north = 620_265.363, 5_734_891.772
    metres = write_csv(
        tmp_path / "elsewhere" / "m.csv",
        f"\ufeffNote,Easting,Northing,Path\nx,{east},{north},./a.jpg\ny,{east},{north + 111},sub/b.jpg\n",
    )
    from_degrees = read_positions(paths, degrees)
    from_metres = read_positions(paths, metres, folder=tmp_path / "photos")
    np.testing.assert_allclose(from_metres, [[east, north], [east, north + 111]])
    np.testing.assert_allclose(from_degrees[0], from_metres[0], atol=0.001)
    assert from_degrees[1, 1] - from_degrees[0, 1] == pytest.approx(111.2, abs=0.5)
    assert csv_positions(degrees).geographic and not csv_positions(metres).geographic
    absolute = write_csv(tmp_path / "abs.csv", f"path,easting,northing\n{paths[0]},1,2\n{paths[1]},3,4\n")
    np.testing.assert_array_equal(read_positions(paths, absolute), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "first line must be"),
        ("a.jpg,51,1\n", "first line must be"),
        ("path;latitude;longitude\na.jpg;51;1\n", "first line must be"),
        ("path,latitude,longitude\n", "no row"),
        ("path,latitude,longitude\na.jpg,north,1\n", ":2: latitude 'north' is not a number"),
        ("path,latitude,longitude\na.jpg,51,\n", ":2: longitude '' is not a number"),
        ("path,latitude,longitude\na.jpg,51\n", ":2: 2 fields, but the first line has 3"),
        ("path,latitude,longitude\na.jpg,51,1\nb.jpg,95,1\n", ":3: latitude 95"),
        ("path,latitude,longitude\na.jpg,51,181\n", ":2: longitude 181"),
        ("path,latitude,longitude\na.jpg,nan,1\n", ":2: latitude nan"),
        ("path,easting,northing\na.jpg,inf,1\n", ":2: easting inf"),
        ("path,easting,northing\na.jpg,5735000,620000\n", "swapped"),
        ("path,latitude,longitude\n,51,1\n", ":2: no path"),
        ("path,latitude,longitude\na.jpg,51,1\n./a.jpg,52,1\n", ":3: a.jpg stands in a row above"),
    ],
)
def test_malformed_csv_names_file_and_line(tmp_path, text, named):
    with pytest.raises(ValueError) as caught:
        csv_positions(write_csv(tmp_path / "p.csv", text))
    assert str(caught.value).startswith(f"{tmp_path / 'p.csv'}") and named in str(caught.value)


def test_csv_that_is_missing_binary_or_of_other_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"p\.csv: no such file"):
        csv_positions(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_bytes(b"path,latitude,longitude\n\xff\xfe,1,1\n")
    with pytest.raises(ValueError, match="UTF-8"):
        csv_positions(tmp_path / "p.csv")
    listed = write_csv(tmp_path / "p.csv", "path,latitude,longitude\nz.jpg,51,1\n")
    with pytest.raises(ValueError, match=r"p\.csv: none of its 1 paths"):
        read_positions([photo(tmp_path / "a.jpg", OXFORD)], listed)


def test_order_of_sources(tmp_path):
    paths = [
        photo(tmp_path / "@500000.5@4000000.25@x@.jpg", OXFORD),
        photo(tmp_path / "listed.jpg", OXFORD),
        photo(tmp_path / "exif.jpg", OXFORD),
    ]
    rows = "".join(f"{path.name},600000,5000000\n" for path in paths[:2])
    positions = read_positions(paths, write_csv(tmp_path / "p.csv", "path,easting,northing\n" + rows))
    np.testing.assert_allclose(
        positions, [[500000.5, 4000000.25], [600000, 5000000], [620265.363, 5734891.772]], atol=0.001
    )


def test_images_without_a_position_are_named_and_counted(tmp_path):
    paths = [photo(tmp_path / "a.jpg", OXFORD), photo(tmp_path / "b.jpg"), photo(tmp_path / "@my@cat@.jpg")]
    with pytest.raises(ValueError, match=r"b\.jpg: no position .*nor have 1 other"):
        read_positions(paths)


def test_located_images(tmp_path):
    photo(tmp_path / "front" / "a.jpg", OXFORD)
    photo(tmp_path / "rear" / "b.png", OXFORD)
    images = located_images(tmp_path)[0]
    assert len(images) == 2 and images.cameras.tolist() == ["front", "rear"]
    np.testing.assert_allclose(images.positions, [[620265.363, 5734891.772]] * 2, atol=0.001)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    photo(folder / "a.jpg", OXFORD, 10)
    photo(folder / "day 2" / "IMG@7.JPG", (51.7530, -1.2577), 20)
    photo(folder / "day 2" / "b.png", (51.7540, -1.2577), 30)
    return folder


@pytest.mark.parametrize("link", [False, True])
def test_convert_then_load(photos, tmp_path, link):
    out = tmp_path / "out"
    done = convert_images(photos, out, link=link, workers=2)
    assert (done.images, done.kept, done.written, done.skipped, str(done.zone)) == (3, 3, 3, 0, "30N")
    images = load_image_set([out])
    northwards = np.argsort(images.positions[:, 1])
    names = [os.path.relpath(images.paths[i], out) for i in northwards]
    assert names[0] == "@620265.363@5734891.772@a@.jpg"
    assert [name.split("@", 3)[3] for name in names[1:]] == ["IMG_7@.JPG", "b@.png"]
    assert all(name.startswith("day 2" + os.sep) for name in names[1:])
    np.testing.assert_allclose(images.positions[northwards], located_images(photos)[0].positions, atol=0.00051)
    reds = [Image.open(images.paths[i]).getpixel((5, 5))[0] for i in northwards]
    assert reds == pytest.approx([10, 20, 30], abs=3)
    assert all(Path(path).is_symlink() == link for path in images.paths)


def test_convert_goes_on_where_it_stopped(photos, tmp_path):
    out = tmp_path / "out"
    convert_images(photos, out)
    paths = [Path(path) for path in load_image_set([out]).paths]
    stamps = [path.stat().st_ino for path in paths]
    paths[1].unlink()
    paths[2].write_bytes(b"half")
    assert convert_images(photos, out).written == 2
    assert paths[0].stat().st_ino == stamps[0]
    assert Image.open(paths[2]).size == (32, 24)
    assert convert_images(photos, out).written == convert_images(photos, out, link=True).written == 0


def test_positions_that_changed_do_not_mix_with_the_old(photos, tmp_path):
    convert_images(photos, tmp_path / "out")
    moved = write_csv(photos / "p.csv", "path,latitude,longitude\na.jpg,51.7,-1.2\n")
    with pytest.raises(ValueError, match=r"a@\.jpg: made from the same images with other settings or positions"):
        convert_images(photos, tmp_path / "out", moved)


def test_equal_names(tmp_path):
    for name in ("a@b.jpg", "a_b.jpg"):
        photo(tmp_path / "photos" / name, OXFORD)
    photo(tmp_path / "photos" / "@1.5@2.5@old@.jpg")
    assert convert_images(tmp_path / "photos", tmp_path / "out").written == 3
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == [
        "@1.5@2.5@old@.jpg",
        "@620265.363@5734891.772@a_b@.jpg",
        "@620265.363@5734891.772@a_b_2@.jpg",
    ]


def run(capsys, *argv: object) -> tuple[int, str, str]:
    try:
        status = main([str(word) for word in argv])
    except SystemExit as leaving:
        status = leaving.code
    return status, *capsys.readouterr()


def test_command_line(photos, tmp_path, capsys):
    photo(photos / "nowhere.jpg")
    flags = ["--images", photos, "--out", tmp_path / "out", "--workers", 1]
    status, _, error = run(capsys, *flags)
    assert status == 2 and "nowhere.jpg: no position" in error and not (tmp_path / "out").exists()
    status, out, _ = run(capsys, *flags, "--skip_missing", "--zone", "31N")
    assert status == 0 and "4 images: 3 kept (3 new), 1 without a position, UTM zone 31N" in out
    assert load_image_set([tmp_path / "out"]).positions[:, 0].max() < 300_000


def test_bad_command_lines_are_one_line(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "bare" / "a.jpg")
    for flags, named in (
        (["--images", photos, "--out", photos / "out"], "neither inside the other"),
        (["--images", photos, "--out", photos], "neither inside the other"),
        (["--images", photos, "--out", tmp_path], "neither inside the other"),
        (["--images", photos, "--out", tmp_path / "file"], "is not a folder"),
        (["--images", tmp_path / "absent", "--out", tmp_path / "out"], "absent: no such folder"),
        (["--images", tmp_path / "empty", "--out", tmp_path / "out"], "empty: no image"),
        (["--images", photos, "--out", tmp_path / "out", "--positions", "no.csv"], "no.csv: no such file"),
        (["--images", photos, "--out", tmp_path / "out", "--zone", "99"], "no UTM zone"),
        (["--images", photos, "--out", tmp_path / "out", "--workers", "x"], "--workers"),
        (["--images", photos], "--out"),
        (["--images", tmp_path / "bare", "--out", tmp_path / "out", "--skip_missing"], "a.jpg: no position"),
    ):
        status, _, error = run(capsys, *flags)
        assert status == 2 and named in error and error.count("\n") == 1, (flags, error)
    assert not (tmp_path / "out").exists()
