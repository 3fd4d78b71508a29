"""Positions that contradict each other are refused or told, and one line says where all of them came from."""

import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL.TiffImagePlugin import IFDRational

from datasets.convert.__main__ import main
from datasets.places import load_image_set
from datasets.positions.exif import Exif, read_exif
from datasets.positions.find import Zone, locate, located_images, name_position
from datasets.positions.report import look_like_degrees
from datasets.positions.table import csv_positions
from datasets.positions.zones import common_zone
from tests.photos import OXFORD, exif_position, gps_of, photo, read_positions, write_csv

HEADER_M, HEADER_D = "path,easting,northing\n", "path,latitude,longitude\n"
TOKYO = (35.6812, 139.7671)


def convert(capsys, *flags: object) -> tuple[int, str, str]:
    status = main([*map(str, flags), "--workers", "1"])
    return status, *capsys.readouterr()


def warnings_of(folder: Path, **options) -> str:
    return "\n".join(located_images(folder, **options)[0].report.warnings)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (HEADER_M + "p.jpg,691600,25,5334760,50\n", ":2: 5 fields, but the first line has 3; .* decimal point"),
        (HEADER_M + "p.jpg,691600,25\nq.jpg,691600,25,5334760\n", ":3: 4 fields"),
        (HEADER_D + 'p.jpg,"51,75","-1,25"\n', ":2: latitude '51,75' is not a number; .* decimal point"),
        (HEADER_D + "a,b.jpg,51,1\n", "stands in quotes"),
        (HEADER_D + "p.jpg,51,1,\n", ":2: 4 fields"),
        (HEADER_D + 'p.jpg,51,1\n"q.jpg,52,1\n', "not a CSV file in UTF-8"),
        ("path;latitude;longitude\np.jpg;51;1\n", "separated by ';'"),
        ("path\tlatitude\tlongitude\n", r"separated by '\\t'"),
        ("path,latitude,longitude,Latitude\np.jpg,51,1,52\n", "latitude stands twice"),
        (HEADER_D + "p.jpg,139.7671,35.6812\n", "swapped"),
        (HEADER_D + "p.jpg,0,0.0\n", ":2: latitude 0, longitude 0 is no place"),
        (HEADER_D + "p.jpg,null,1\n", "'null' is not a number"),
        (HEADER_D + "p.jpg,51,-inf\n", "longitude -inf"),
        (HEADER_M + "p.jpg,691_600,5334760\n", "'691_600' is not a number"),
        (HEADER_M + "p.jpg,691600,13900000\n", r"northing 1.39e\+07 does not lie in"),
        (HEADER_M + "   ,691600,5334760\n", ":2: no path"),
        (HEADER_D + "caf\u00e9.jpg,51,1\ncafe\u0301.jpg,52,1\n", ":3: .* stands in a row above"),
        (HEADER_D + "a\\b.jpg,51,1\na/b.jpg,52,1\n", ":3: a/b.jpg stands in a row above"),
    ],
)
def test_csv_rows_that_cannot_be_right(tmp_path, text, named):
    with pytest.raises(ValueError, match=rf"p\.csv.*{named}"):
        csv_positions(write_csv(tmp_path / "p.csv", text))


def test_rows_that_are_blank_or_stand_twice_alike_are_all_right(tmp_path):
    text = HEADER_D + "a.jpg,51,1\n\n,,\n./a.jpg,51.0,1\n"
    assert csv_positions(write_csv(tmp_path / "p.csv", text)).rows == {"a.jpg": (51, 1)}


@pytest.mark.parametrize(
    ("zone", "row", "fits"),
    [
        ("32N", "691600,5334760", True),
        ("32N", "691600,9500000", False),
        ("32N", "50000,5334760", False),
        ("32N", "691600,-5", False),
        ("56S", "334900,6252288", True),
        ("56S", "334900,900000", False),
        ("56S", "334900,10000000", True),
        (None, "12.5,3", True),
    ],
)
def test_metres_must_lie_in_the_zone_that_is_given(tmp_path, zone, row, fits):
    path, table = photo(tmp_path / "a.jpg"), write_csv(tmp_path / "p.csv", f"{HEADER_M}a.jpg,{row}\n")
    if fits:
        assert read_positions([path], table, zone=zone and Zone.parse(zone)).tolist() == [[*map(float, row.split(","))]]
        return
    with pytest.raises(ValueError, match=rf"p\.csv:2: easting .* cannot lie in UTM zone {zone}"):
        read_positions([path], table, zone=zone and Zone.parse(zone))


def test_a_row_without_an_image_is_an_error_unless_it_is_allowed(tmp_path, capsys):
    photos = tmp_path / "photos"
    for name in ("a.jpg", "b.jpg"):
        photo(photos / name, OXFORD)
    table = write_csv(tmp_path / "p.csv", HEADER_D + "a.jpg,53.66,-1.26\nB.jpg,53.67,-1.26\n")  # b.jpg has old EXIF
    flags = ["--images", photos, "--out", tmp_path / "out", "--positions", table]
    status, _, error = convert(capsys, *flags)
    assert status == 2 and "1 of its 2 rows match no image, first B.jpg (line 3)" in error and error.count("\n") == 1
    assert "--allow_missing_rows" in error and not (tmp_path / "out").exists()
    status, out, _ = convert(capsys, *flags, "--allow_missing_rows")
    assert status == 0
    assert out.splitlines()[-1] == (
        f"positions of 2 images in {photos}: 1 from p.csv, 1 from EXIF; 1 row of p.csv without an image, first B.jpg; "
        "UTM zone 30N (that of all positions in degrees)"
    )


def test_a_row_of_a_photo_that_is_not_read_says_so(tmp_path):
    photo(tmp_path / "a.jpg", OXFORD)
    (tmp_path / "b.heic").touch()
    table = write_csv(tmp_path / "p.csv", HEADER_D + "a.jpg,51,1\nb.heic,51,1\n")
    with pytest.raises(ValueError, match=r"first b\.heic \(line 3\), a file that is not read because of its suffix"):
        located_images(tmp_path, table)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_csv", ["NFC", "NFD"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_paths_match_however_accents_and_slashes_are_written(tmp_path, on_disk, in_csv, slash):
    photo(tmp_path / unicodedata.normalize(on_disk, "Málaga/é.jpg"), OXFORD)
    row = unicodedata.normalize(in_csv, f"Málaga{slash}é.jpg")
    table = write_csv(tmp_path / "p.csv", f"{HEADER_M}{row},600000,5000000\n")
    assert located_images(tmp_path, table)[0].positions.tolist() == [[600000, 5000000]]


def test_rows_that_fit_two_images_or_two_rows_of_one(tmp_path):
    for form in ("NFC", "NFD"):
        photo(tmp_path / "twins" / unicodedata.normalize(form, "é.jpg"), OXFORD)
    table = write_csv(tmp_path / "twins/p.csv", HEADER_D + "é.jpg,51,1\n")
    with pytest.raises(ValueError, match=r"p\.csv:2: .* rename one of them"):
        located_images(tmp_path / "twins", table)
    photo(tmp_path / "sub/a.jpg")
    table = write_csv(tmp_path / "p.csv", HEADER_D + "sub/a.jpg,51,1\na.jpg,52,1\n")
    with pytest.raises(ValueError, match=r"p\.csv:3: .* the same image at two positions"):
        located_images(tmp_path / "sub", table)


def test_a_row_belongs_to_the_file_beside_the_csv_file_if_there_is_one(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "sub/a.jpg", OXFORD)
    table = write_csv(tmp_path / "p.csv", HEADER_D + "a.jpg,53,1\n")
    with pytest.raises(ValueError, match="none of its 1 paths"):
        located_images(tmp_path / "sub", table)
    assert located_images(tmp_path / "sub", table, allow_missing_rows=True)[0].report.exif == 1


def test_a_zone_of_the_other_hemisphere_is_refused(tmp_path, capsys):
    photo(tmp_path / "photos/a.jpg", TOKYO)
    flags = ["--images", tmp_path / "photos", "--out", tmp_path / "out", "--zone"]
    status, _, error = convert(capsys, *flags, "54S")
    assert status == 2 and "a.jpg: 35.6812, 139.7671" in error and error.strip().endswith("give --zone 54N")
    status, _, error = convert(capsys, *flags, "10N")
    assert status == 2 and "too far from UTM zone 10N; give --zone 54N" in error
    status, out, _ = convert(capsys, *flags, "54N")
    assert status == 0 and out.endswith("1 from EXIF; UTM zone 54N (as given)\n")


@pytest.mark.parametrize(("zone", "north"), [("18N", -55.27), ("18S", 9_999_944.73)])
def test_a_town_on_the_equator_may_take_either_hemisphere(tmp_path, zone, north):
    positions = read_positions([photo(tmp_path / "a.jpg", (-0.0005, -75.0))], zone=Zone.parse(zone))
    np.testing.assert_allclose(positions, [[500_000, north]], atol=0.01)


def test_the_zone_is_that_of_most_images_and_the_odd_one_is_blamed(tmp_path):
    paths = [photo(tmp_path / "a.jpg", TOKYO)]
    paths += [photo(tmp_path / f"{name}.jpg", (51.75 + i / 1000, -1.2577)) for i, name in enumerate("bcd")]
    with pytest.raises(ValueError, match=r"a\.jpg: 35\.6812, 139\.7671 is too far from UTM zone 30N"):
        read_positions(paths)
    swapped = write_csv(tmp_path / "p.csv", HEADER_D + "a.jpg,-1.2577,51.75\n")
    with pytest.raises(ValueError, match=r"a\.jpg: .*are latitude and longitude swapped\?"):
        read_positions(paths, swapped)
    zone, why = common_zone(np.array([(50, 5.9), (50, 6.1), (50, 6.2)]))
    assert str(zone) == "32N" and why.startswith("that of 2 of 3 positions in degrees; 1 in 31N")
    assert str(common_zone(np.array([(-1, 179.9), (-1, -179.9), (1, -179.8)]))[0]) == "1S"


# 75 m apart, on both sides of the border of zones 31 and 32
WEST, EAST = (50.0, 5.9995), (50.0, 6.00055)


def named_in(folder: Path, zone: str, place: tuple[float, float]) -> Path:
    east, north = Zone.parse(zone).project(*np.array([place]).T)[0]
    return photo(folder / f"@{east:.3f}@{north:.3f}@x@.jpg")


def test_names_of_one_zone_and_exif_of_the_next_need_the_zone(tmp_path):
    paths = [named_in(tmp_path, "31N", WEST), photo(tmp_path / "b.jpg", EAST)]
    with pytest.raises(ValueError, match=r"b\.jpg \(in degrees\) lie about 43\d km apart .* give --zone 31N"):
        read_positions(paths)
    positions = read_positions(paths, zone=Zone.parse("31N"))
    assert np.linalg.norm(positions[1] - positions[0]) == pytest.approx(75.3, abs=0.5)
    (warning, *_) = locate(paths, zone=Zone.parse("32N")).report.warnings  # as given, but told
    assert "give --zone 31N" in warning


def test_names_across_the_equator_and_names_from_elsewhere(tmp_path):
    paths = [named_in(tmp_path, "18S", (-0.0003, -75.0)), photo(tmp_path / "b.jpg", (0.0003, -75.0))]
    with pytest.raises(ValueError, match=r"10000 km apart in UTM zone 18N, .* give --zone 18S"):
        read_positions(paths)
    same_zone = [named_in(tmp_path, "30N", OXFORD), photo(tmp_path / "c.jpg", OXFORD)]
    assert locate(same_zone).report.warnings == ()
    elsewhere = [photo(tmp_path / "@500000@1000000@far@.jpg"), same_zone[1]]
    assert "give the --zone of the metres" in locate(elsewhere).report.warnings[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({18: "TOKYO"}, "map datum 'TOKYO' is not WGS-84"),
        ({18: "NAD27 CONUS"}, "map datum 'NAD27 CONUS' is not WGS-84"),
        ({2: (51.0, 75.0, 0.0)}, "latitude is incomplete"),
        ({9: "V"}, "marked it void"),
    ],
)
def test_exif_that_contradicts_itself_is_no_position_and_says_why(tmp_path, changes, reason):
    path = photo(tmp_path / "a.jpg", {**gps_of(*OXFORD), **changes})
    assert exif_position(path) is None and reason in read_exif(path).fault
    with pytest.raises(ValueError, match=r"a\.jpg: no position .*, whose position is not used: "):
        read_positions([path])
    photo(tmp_path / "b.jpg", OXFORD)
    found = locate([path, tmp_path / "b.jpg"])
    assert found.report.without == 1 and "1 EXIF position not used" in found.report.warnings[0]
    assert reason in found.report.warnings[0]


@pytest.mark.parametrize(
    ("tag", "letters", "number", "degrees"), [(2, "S", (33, 1), 33.85), (2, "N", (33, 1), 33.85), (4, "W", (5, 4), 2.1)]
)
def test_a_negative_value_beside_a_hemisphere_is_no_position(tmp_path, tag, letters, number, degrees):
    gps = {**gps_of(*OXFORD), tag - 1: letters, tag: (IFDRational(*number), IFDRational(51), IFDRational(0))}
    path = photo(tmp_path / "a.jpg", gps)
    assert exif_position(path) is not None
    # Pillow writes no negative ones: make the number a signed fraction
    data, unsigned = path.read_bytes(), struct.pack(">HHL", tag, 5, 3)
    assert data.count(unsigned) == data.count(struct.pack(">LL", *number)) == 1
    data = data.replace(unsigned, struct.pack(">HHL", tag, 10, 3))
    path.write_bytes(data.replace(struct.pack(">LL", *number), struct.pack(">lL", -number[0], number[1])))
    name = {2: "latitude", 4: "longitude"}[tag]
    assert read_exif(path) == Exif(fault=f"its {name} is negative, -{degrees:.4f}, beside the hemisphere {letters}")


@pytest.mark.parametrize("datum", ["", "WGS-84", "WGS84", "wgs 84", "WGS-84\0", "World Geodetic System 1984"])
def test_wgs84_in_all_its_spellings(tmp_path, datum):
    path = photo(tmp_path / "a.jpg", {**gps_of(*OXFORD), 18: datum})
    assert exif_position(path) == pytest.approx(OXFORD, abs=1e-6)


def walk(folder: Path, wrong: dict[int, tuple[float, float]], count: int = 8) -> None:
    """A photo every ten seconds and 20 m; some say that they were somewhere else."""
    for i in range(count):
        place = wrong.get(i, (51.7520 + i * 0.00018, -1.2577))
        photo(folder / f"IMG_{i}.jpg", place, taken=f"2024:05:31 12:0{i // 6}:{10 * (i % 6):02d}")


@pytest.mark.parametrize("odd", [0, 4, 7])
def test_a_photo_that_its_neighbours_in_time_contradict_is_named(tmp_path, odd):
    walk(tmp_path, {odd: (51.80, -1.2577)})  # 5 km in ten seconds
    warning = warnings_of(tmp_path)
    assert f"IMG_{odd}.jpg: the photos before and after contradict this EXIF position" in warning
    assert warning.count("IMG_") == 1


def test_a_walk_two_walks_and_a_train_contradict_nothing(tmp_path):
    walk(tmp_path / "walk", {})
    walk(tmp_path / "two cameras", {i: (51.90, -1.2577) for i in range(0, 8, 2)})
    walk(tmp_path / "train", {i: (51.7520 + i * 0.0075, -1.2577) for i in range(8)})  # 83 m/s
    for folder in tmp_path.iterdir():
        assert warnings_of(folder) == "", folder


def test_two_photos_in_a_row_may_be_wrong_and_odd_clocks_say_nothing(tmp_path):
    walk(tmp_path / "stuck", {3: (51.80, -1.2577), 4: (51.80, -1.2577)})
    assert "IMG_3.jpg and 1 other: the photos before" in warnings_of(tmp_path / "stuck")
    for i, taken in enumerate(("0000:00:00 00:00:00", "yesterday", "2024:05:31 12:00:07")):
        photo(tmp_path / f"clocks/{i}.jpg", (51.75 + i, -1.2577), taken=taken)
    assert read_exif(tmp_path / "clocks/0.jpg").clock == read_exif(tmp_path / "clocks/1.jpg").clock == ""
    gps_time = {**gps_of(*OXFORD), 7: (12.0, 30.0, 7.0), 29: "2024:05:31"}
    expected = np.datetime64("2024-05-31T12:30:07").astype("datetime64[s]").astype(int)
    assert read_exif(photo(tmp_path / "gps.jpg", gps_time)).seconds == expected


def test_an_image_far_from_all_others_is_named(tmp_path):
    for i in range(4):
        photo(tmp_path / f"@{620000 + i}@5735000@{i}@.jpg")
    assert load_image_set([tmp_path]).report.warnings == ()
    photo(tmp_path / "@620001@6735000@typo@.jpg")
    (warning,) = load_image_set([tmp_path]).report.warnings
    assert "@typo@.jpg: 1000 km from the nearest other image" in warning


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([(51.7520, -1.2577), (51.7531, -1.2502)], True),
        ([(48.8584, 2.2945), (-33.8568, 151.2153)], True),
        ([(151.2153, -33.8568), (151.2100, -33.8571)], True),
        ([(51.75, -1.25), (51.76, -1.26)], True),
        ([(0, 12), (0, 13)], False),  # Nordland, frame numbers
        ([(0, 12.5), (0, 90.0625)], False),
        ([(3, 7), (4, 9)], False),
        ([(12.5, 30.125), (40.25, 31)], False),  # local metres
        ([(277456.815, 110790.196)], False),
        ([(51.7520, -1.2577), (620265.363, 5734891.772)], False),
        ([], False),
    ],
)
def test_sets_of_degrees_are_told_from_metres(positions, expected):
    assert look_like_degrees(np.array(positions, float).reshape(-1, 2)) is expected


def test_names_in_degrees_are_told_and_nordland_is_not(tmp_path):
    for i in range(3):
        photo(tmp_path / f"degrees/@{51.7520 + i / 1000:.4f}@-1.2577@{i}@.jpg")
        photo(tmp_path / f"nordland/@0@{i}@{i}@.jpg")
    (warning,) = load_image_set([tmp_path / "degrees"]).report.warnings
    assert "all 3 images seem to state latitude and longitude" in warning
    assert load_image_set([tmp_path / "nordland"]).report.warnings == ()


def test_a_name_with_numbers_that_cannot_be_a_position_does_not_fall_back_to_exif(tmp_path):
    for name in ("@5735000.0@620000.0@.jpg", "@nan@1@.jpg"):
        with pytest.raises(ValueError, match="the name must begin"):
            read_positions([photo(tmp_path / name, OXFORD)])
    assert name_position("@my@cat@.jpg") is None


def test_the_line_of_a_clean_set_and_of_a_mixed_one(tmp_path, capsys):
    clean = photo(tmp_path / "clean/@620000@5735000@a@.jpg").parent
    report = load_image_set([clean]).report
    assert report.summary() == f"positions of 1 image in {clean}: 1 from names"
    folder = tmp_path / "mixed"
    photo(folder / "@620265@5734892@a@.jpg")
    photo(folder / "b.webp", OXFORD)
    photo(folder / "c.tif", OXFORD)
    photo(folder / "listed.jpg", OXFORD)
    photo(folder / "nothing.jpg")
    for name in ("IMG_1.HEIC", "IMG_2.heic", "notes.txt", ".DS_Store", "Thumbs.db"):
        (folder / name).touch()
    table = write_csv(folder / "p.csv", HEADER_D + "listed.jpg,51.7521,-1.2577\n@620265@5734892@a@.jpg,51,1\n")
    flags = ["--images", folder, "--out", tmp_path / "out", "--positions", table, "--skip_missing"]
    status, out, error = convert(capsys, *flags)
    assert status == 0 and error == ""
    assert out.splitlines() == [
        "5 images: 4 kept (4 new), 1 without a position, UTM zone 30N",
        f"positions of 5 images in {folder}: 1 from names, 1 from p.csv, 2 from EXIF, 1 none; 1 row of p.csv not used, "
        "since names state the position; not read: 2 .heic (convert these photos to JPEG), 1 .txt; UTM zone 30N (that of "
        "all positions in degrees)",
    ]
