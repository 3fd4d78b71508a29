"""The scan of a data set before training: counts against hand-computed ones, and every fault on its own."""

import json
import os
import shutil
import struct
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.check import check
from datasets.check import scan as check_scan
from datasets.check.check import check_dataset, find_pairs, format_report, main
from models.config import MIN_SIDE
from tests.tiny import SIDE, place_label, place_picture, write_idda, write_pass, write_robotcar

FRONT = Path("town10/queries_rain/front_rear/front")
FRONT_LABELS = Path("town10/queries_labels_rain/front_rear/front")
GALLERY_FRONT = Path("town10/gallery/front_rear/front")


@pytest.fixture(scope="module")
def good_idda(tmp_path_factory) -> Path:
    return write_idda(tmp_path_factory.mktemp("check") / "idda", places=3)


@pytest.fixture
def idda(good_idda, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good_idda, tmp_path / "idda"))


def second(folder: Path) -> Path:
    """The file of the second place."""
    return sorted(folder.iterdir())[1]


def run(*argv, capsys) -> tuple[int, str]:
    """Exit status and what was printed on stdout, of one process."""
    status = main([*map(str, argv), "--workers", "1"])
    return status, capsys.readouterr().out


def problems_of(root: Path, **options) -> list[str]:
    return check_dataset(root, workers=1, progress=False, **options).problems


def test_good_iddav2(good_idda, capsys):
    status, text = run(good_idda, capsys=capsys)
    assert status == 0
    assert "no problems" in text and max(map(len, text.splitlines())) <= 100
    report = check_dataset(good_idda, workers=1, progress=False)
    assert report.problems == [] and report.faults == {}
    assert report.layout.startswith("IDDAv2") and "iddav2 (camera folders front, rear)" in report.kind
    # two towns, two passes, two cameras, three places
    assert report.count("images") == report.count("labels") == 24
    assert len(report.folders) == 8 and report.folders[str(FRONT)] == {"images": 3, "labels": 3}
    assert report.sizes == {"136x128": 24}
    # left half raw 7 (Road); right half raw 1 (Building) at places 0 and 2, raw 2 (Fence) at place 1
    half = 68 * 128
    wanted = {"Road": 24 * half, "Building": 16 * half, "Fence": 8 * half}
    assert {name: pixels for name, pixels in report.class_pixels.items() if pixels} == wanted
    assert report.class_fractions["Fence"] == pytest.approx(1 / 6)
    assert sum(report.class_fractions.values()) == pytest.approx(1)
    pair, other = report.pairs
    assert (pair.gallery, pair.queries) == ("town10/gallery/front_rear", "town10/queries_rain/front_rear")
    assert (other.gallery, other.queries) == ("town3/gallery/left_right", "town3/queries_rain/left_right")
    assert (pair.num_gallery, pair.num_queries, pair.train_threshold_m, pair.eval_threshold_m) == (6, 6, 3.0, 5.0)
    assert pair.no_positive_train == pair.no_positive_eval == pair.no_negative == ()
    assert pair.nearest_m == pytest.approx(dict.fromkeys(("0", "25", "50", "75", "95", "100"), 1.0))


def test_good_robotcar(tmp_path, capsys):
    root = write_robotcar(tmp_path / "robotcar", places=3)
    assert run(root, capsys=capsys)[0] == 0
    report = check_dataset(root, workers=1, progress=False)
    assert report.kind == "utm (neither camera nor label folders)" and report.layout.startswith("RobotCar")
    assert [pair.queries for pair in report.pairs] == ["rain", "snow", "sun", "night"]
    assert {pair.gallery for pair in report.pairs} == {"overcast"}
    assert [pair.nearest_m["50"] for pair in report.pairs] == pytest.approx([2.0, 4.0, 6.0, 8.0])
    assert (report.pairs[0].train_threshold_m, report.pairs[0].eval_threshold_m) == (10.0, 25.0)
    assert report.count("images") == 15 and report.class_fractions == {}  # the shared gallery is read once


def truncate(root: Path) -> str:
    file = second(root / FRONT).with_suffix(".jpg")
    second(root / FRONT).unlink()
    Image.fromarray(place_picture(1, 8, 0)).save(file)
    file.write_bytes(file.read_bytes()[:-400])
    return file.name


def empty_file(root: Path) -> str:
    second(root / FRONT).write_bytes(b"")
    return second(root / FRONT).name


def resize_label(root: Path) -> str:
    Image.fromarray(place_label(1, (SIDE[0], SIDE[1] - 2))).save(second(root / FRONT_LABELS))
    return second(root / FRONT_LABELS).name


def remove_label(root: Path) -> str:
    file = second(root / FRONT_LABELS)
    file.unlink()
    return file.name


def unknown_id(root: Path) -> str:
    raw = place_label(1)
    raw[5, 7, 0] = 27
    Image.fromarray(raw).save(second(root / FRONT_LABELS))
    return second(root / FRONT_LABELS).name


def jpeg_content(root: Path) -> str:
    label = second(root / FRONT_LABELS)
    Image.open(label).convert("RGB").save(label, format="JPEG", quality=100)
    return label.name


def palette(root: Path) -> str:
    label = second(root / FRONT_LABELS)
    Image.open(label).convert("RGB").quantize(4).save(label)
    return label.name


def sixteen_bits(root: Path) -> str:
    """An RGB PNG of 16 bits per channel, which Pillow cannot write: ids in the lower byte."""
    label = second(root / FRONT_LABELS)
    ids = np.asarray(Image.open(label))[..., :3].astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in ids)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], 16, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    label.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
    return label.name


def single_channel(root: Path) -> str:
    Image.fromarray(place_label(1)[..., 0]).save(second(root / FRONT_LABELS))
    return second(root / FRONT_LABELS).name


def rename(root: Path, name: str) -> str:
    for folder in (FRONT, FRONT_LABELS):
        second(root / folder).rename(root / folder / name)
    return name


def no_position(root: Path) -> str:
    return rename(root, "frame_17.png")


def no_positive(root: Path) -> str:
    return rename(root, "@277020.000@110000.000@1@.png")


def resize(root: Path, folder: Path, size: tuple[int, int]) -> None:
    labels = Path(str(folder).replace("gallery", "gallery_labels").replace("queries", "queries_labels"))
    for file in sorted((root / folder).iterdir()):
        Image.fromarray(place_picture(1, 8, 0, size)).save(file)
        Image.fromarray(place_label(1, size)).save(root / labels / file.name)


def mixed_sizes(root: Path) -> str:
    size = (SIDE[0] + 2, SIDE[1])
    Image.fromarray(place_picture(1, 8, 0, size)).save(second(root / FRONT))
    Image.fromarray(place_label(1, size)).save(second(root / FRONT_LABELS))
    return second(root / FRONT).name


def too_small(root: Path) -> str:
    # 80% of 121 px is 96.8, floored to 96
    for part in ("gallery", "queries_rain"):
        for camera in ("front", "rear"):
            resize(root, Path("town10", part, "front_rear", camera), (136, 121))
    return second(root / GALLERY_FRONT).name


def no_negative(root: Path) -> str:
    for folder in (*root.glob("town10/*/front_rear/*"),):
        for file in sorted(folder.iterdir())[1:]:
            file.unlink()
    return sorted((root / FRONT).iterdir())[0].name


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, "unreadable images: 1 "),
        (empty_file, "unreadable images: 1 "),
        (resize_label, "odd labels: 1 "),
        (remove_label, "missing labels: 1 "),
        (unknown_id, "raw id 27"),
        (single_channel, "its mode is L"),
        (jpeg_content, "its content is JPEG, which may change ids"),
        (palette, "its mode is P"),
        (sixteen_bits, "it has 16 bits per channel"),
        (no_position, "names without position: 1 "),
        (no_positive, "1 of 6 queries have no gallery image of the same camera within 3 m"),
        (mixed_sizes, "2 sizes in one training set"),
        (too_small, "12 of 12 images are too small (80% of each side must be at least 97 px)"),
        (no_negative, "2 of 2 queries have no gallery image beyond 25 m"),
    ],
)
def test_each_fault_fails_and_is_named(idda, spoil, words, capsys):
    name = spoil(idda)
    status, text = run(idda, capsys=capsys)
    assert status == 1
    problems = problems_of(idda)
    assert len(problems) == 1, problems
    assert words in problems[0] and name in problems[0]
    assert "problems: 1" in text and name in text.split("problems: 1")[1]


def test_sides_that_just_suffice(idda):
    for part in ("gallery", "queries_rain"):
        for camera in ("front", "rear"):
            resize(idda, Path("town10", part, "front_rear", camera), (136, 122))
    assert problems_of(idda) == []  # 80% of 122 is 97.6


def test_long_lists_are_cut_in_the_text_only(idda):
    for file in [*(idda / FRONT_LABELS).iterdir(), *(idda / "town10/gallery_labels/front_rear/front").iterdir()]:
        file.unlink()
    report = check_dataset(idda, workers=1, progress=False)
    assert len(report.faults["missing labels"]) == 6
    assert "missing labels: 6 " in report.problems[0] and report.problems[0].endswith("; and 3 more")


def test_no_label_folder_is_missing_labels(good_idda, tmp_path):
    root = Path(shutil.copytree(good_idda, tmp_path / "bare", ignore=shutil.ignore_patterns("*_labels*")))
    (problem,) = problems_of(root)
    assert problem.startswith("missing labels: 24 ")
    assert problems_of(root, kind="utm") == []


def test_thresholds(good_idda):
    report = check_dataset(good_idda, threshold_m=0.5, workers=1, progress=False)
    assert {len(pair.no_positive_train) for pair in report.pairs} == {6}
    assert any("no gallery image of the same camera within 0.5 m" in problem for problem in report.problems)


def test_evaluation_bears_some_misses_but_not_only_misses(tmp_path):
    root = write_robotcar(tmp_path / "robotcar", places=3)
    for condition in ("snow", "sun", "night"):
        shutil.rmtree(root / condition)
    file = second(root / "rain")
    file.rename(file.with_name("@620500.000@5735000.000@.png"))
    report = check_dataset(root, workers=1, progress=False)
    assert report.problems == [] and "1 of 3 queries have no gallery image within 25 m" in report.notes[0]
    shutil.rmtree(root / "rain")
    write_pass(root / "rain", 3, 9, origin=(600000.0, 5735000.0))
    (problem,) = problems_of(root)
    assert "3 of 3 queries have no gallery image within 25 m" in problem


def test_a_camera_that_the_gallery_lacks(idda):
    shutil.rmtree(idda / "town10/gallery/front_rear/rear")
    report = check_dataset(idda, workers=1, progress=False)
    assert len(report.pairs[0].no_positive_train) == 3
    assert all("/rear/" in file for file in report.pairs[0].no_positive_train)
    assert report.pairs[0].nearest_m["100"] == pytest.approx(1.0)


def test_only_training_sets_need_one_size(tmp_path):
    root = write_robotcar(tmp_path / "robotcar", places=2)
    shutil.rmtree(root / "night")
    write_pass(root / "night", 2, 9, origin=(620000.0, 5735000.0), size=(150, 100))
    assert check_dataset(root, workers=1, progress=False).sizes == {"136x128": 8, "150x100": 2}
    assert problems_of(root) == []


def test_names_in_degrees_are_a_problem_and_nordland_is_none(tmp_path):
    for part in ("database", "queries"):
        for i in range(3):
            for root, name in (
                ("degrees", f"@{51.7520 + i / 1000:.4f}@-1.2577@{i}@.png"),
                ("nordland", f"@0@{i}@.png"),
            ):
                (tmp_path / root / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(place_picture(i, 8, 0)).save(tmp_path / root / part / name)
    problems = problems_of(tmp_path / "degrees")
    assert [text.split(":")[0] for text in problems] == ["database", "queries"]
    assert all("seem to state latitude and longitude in degrees" in text for text in problems)
    assert problems_of(tmp_path / "nordland") == []


def test_leftovers_of_systems_are_no_data_and_other_files_are_told(tmp_path):
    root = write_robotcar(tmp_path / "robotcar", places=2)
    expected = check_dataset(root, workers=1, progress=False)
    for folder in (
        ".Trash-1000/overcast",
        ".ipynb_checkpoints",
        "overcast/@eaDir",
        "overcast/__MACOSX",
        "rain/.hidden",
    ):
        write_pass(root / folder, 2, 3, origin=(620000.0, 5735000.0))
    (root / "overcast/._@620000.000@5735000.000@x@.png").write_bytes(b"resource fork")
    assert check_dataset(root, workers=1, progress=False) == expected
    write_pass(root / ".Trash-1/gallery", 2, 3)
    write_pass(root / ".Trash-1/queries", 2, 3)
    assert find_pairs(root / ".Trash-1")[1] != [] and check_dataset(root, workers=1, progress=False) == expected
    (root / "rain/IMG_1.HEIC").touch()
    notes = check_dataset(root, workers=1, progress=False).notes
    assert notes == [*expected.notes, "files not read: 1 .heic (convert these photos to JPEG)"]


def test_plain_folder_needs_no_positions(tmp_path, capsys):
    for i in range(2):
        Image.fromarray(place_picture(i, 8, 0, (90, 80))).save(tmp_path / f"photo{i}.jpg")
    assert run(tmp_path, capsys=capsys)[0] == 0
    report = check_dataset(tmp_path, workers=1, progress=False)
    assert report.pairs == () and report.folders == {".": {"images": 2, "labels": 0}}
    assert "too small" in report.notes[0]
    (tmp_path / "photo2.jpg").write_bytes(b"no picture")
    assert "photo2.jpg" in problems_of(tmp_path)[0]


def test_a_folder_without_images_in_a_pair(idda):
    shutil.rmtree(idda / "town3/queries_rain/left_right")
    (idda / "town3/queries_rain/left_right").mkdir()
    report = check_dataset(idda, workers=1, progress=False)
    assert "town3/queries_rain/left_right: no image in it" in report.problems[0]
    assert report.notes[-1].startswith("6 of 18 images are in no pair")


def test_layouts(tmp_path):
    for folder in ("town1/gallery/a", "town1/gallery_labels/a", "town1/queries_rain/a", "town1/queries_snow/a"):
        (tmp_path / "idda" / folder).mkdir(parents=True)
    (tmp_path / "idda/town1/queries_labels_rain/a").mkdir(parents=True)
    town = tmp_path / "idda/town1"
    galleries = [(town / "gallery/a", town / "queries_rain/a"), (town / "gallery/a", town / "queries_snow/a")]
    assert find_pairs(tmp_path / "idda")[1] == galleries
    (tmp_path / "other/database").mkdir(parents=True)
    (tmp_path / "other/queries").mkdir()
    assert find_pairs(tmp_path / "other")[1] == [(tmp_path / "other/database", tmp_path / "other/queries")]
    (tmp_path / "cars/overcast").mkdir(parents=True)
    assert find_pairs(tmp_path / "cars")[1] == []
    (tmp_path / "cars/sun").mkdir()
    assert find_pairs(tmp_path / "cars")[1] == [(tmp_path / "cars/overcast", tmp_path / "cars/sun")]


def move_below(root: Path, *levels: str) -> Path:
    """The root moved down by some folders; returns what is now too high."""
    high = root.with_name("high")
    high.joinpath(*levels).parent.mkdir(parents=True)
    shutil.move(root, high.joinpath(*levels))
    return high


@pytest.mark.parametrize("levels", [("idda",), ("data", "idda"), ("a", "b", "idda")])
def test_a_root_that_is_too_high_says_what_to_give(idda, levels, capsys):
    high = move_below(idda, *levels)
    assert main([str(high), "--workers", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.strip().endswith(
        f"{high}: no data set itself (no gallery with queries), but 1 lie below it; give {high.joinpath(*levels)}"
    )


@pytest.mark.parametrize("gallery", ["database", "gallery"])
def test_the_layout_of_the_downloader(tmp_path, gallery, capsys):
    """<data set>/images/{train,val,test}/{database,queries}: its `images` is the root."""
    for part in ("train", "val", "test"):
        for c, side in enumerate((gallery, "queries")):
            write_pass(tmp_path / "set/images" / part / side, 2, c, shift=2.0 * c)
    assert main([str(tmp_path / "set"), "--workers", "1"]) == 2
    assert capsys.readouterr().err.strip().endswith(f"give {tmp_path / 'set/images'}")
    report = check_dataset(tmp_path / "set/images", workers=1, progress=False)
    assert len(report.pairs) == 3 and report.problems == []


def test_the_root_of_a_town_says_what_to_give(tmp_path, capsys):
    write_idda(tmp_path / "idda", places=2)
    write_robotcar(tmp_path / "robotcar", places=2)
    write_pass(tmp_path / "robotcar_all", 2, 5)
    Image.new("RGB", (200, 200)).save(tmp_path / "preview.png")
    assert main([str(tmp_path), "--workers", "1"]) == 2
    assert capsys.readouterr().err.strip().endswith(f"give {tmp_path / 'idda'} {tmp_path / 'robotcar'}")


def test_a_root_with_a_set_of_its_own_and_others_below(tmp_path):
    write_pass(tmp_path / "gallery", 2, 1)
    write_pass(tmp_path / "queries", 2, 2, shift=2.0)
    assert problems_of(tmp_path) == []
    write_robotcar(tmp_path / "cars/robotcar", places=2)
    (problem,) = problems_of(tmp_path)
    assert problem.startswith("1 data sets of their own") and problem.endswith(f"give {tmp_path / 'cars/robotcar'}")


def test_a_preview_is_no_data(tmp_path, capsys):
    Image.new("RGB", (200, 200)).save(tmp_path / "preview.png")
    assert main([str(tmp_path), "--workers", "1"]) == 2
    assert "no image in it" in capsys.readouterr().err
    write_pass(tmp_path / "images", 2, 5)
    assert check_dataset(tmp_path, workers=1, progress=False).count("images") == 2


@pytest.mark.parametrize("way", [os.symlink, os.link])
@pytest.mark.parametrize("count", [1, 2])
def test_queries_that_are_in_the_gallery(tmp_path, way, count):
    write_pass(tmp_path / "gallery", 2, 1)
    write_pass(tmp_path / "queries", 2, 2, shift=2.0)
    for image in sorted((tmp_path / "gallery").iterdir())[:count]:
        (tmp_path / "queries" / image.name).unlink(missing_ok=True)
        way(image, tmp_path / "queries" / image.name)
    (problem,) = problems_of(tmp_path)
    assert f"{count} of {count + 2} queries are in the gallery too" in problem


@pytest.mark.parametrize("made", [False, True])
def test_missing_or_empty_root(tmp_path, good_idda, made, capsys):
    root = tmp_path / "nothing"
    if made:
        root.mkdir()
    assert main([str(good_idda), str(root)]) == 2
    out, err = capsys.readouterr()
    assert out == ""  # seen before anything was read
    assert str(root) in err and "name another, the folder of a data set" in err and err.count("\n") == 1


@pytest.mark.parametrize("flags", [["--workers", "0"], ["--threshold_m", "-1"], ["--json", "/nowhere/x.json"], []])
def test_unusable_arguments(good_idda, flags):
    with pytest.raises(SystemExit) as exit_:
        main([str(good_idda), *flags] if flags else [])
    assert exit_.value.code == 2


def test_json(idda, tmp_path, capsys):
    name = remove_label(idda)
    file = tmp_path / "report.json"
    assert run(idda, "--json", file, capsys=capsys)[0] == 1
    (content,) = json.loads(file.read_text())["reports"]
    report = check_dataset(idda, workers=1, progress=False)
    assert content == json.loads(json.dumps(report.to_dict()))
    assert set(content) == {*asdict(report), "ok", "images", "labels", "class_fractions"}
    assert (content["ok"], content["images"], content["labels"]) == (False, 24, 23)
    assert name in content["faults"]["missing labels"][0]
    assert content["pairs"][1]["nearest_m"]["100"] == pytest.approx(1.0)


def test_result_does_not_depend_on_workers(idda):
    truncate(idda)
    remove_label(idda)
    one, two = (check_dataset(idda, workers=workers, progress=False) for workers in (1, 2))
    assert len(one.folders) == 8 and len(one.faults) == 2
    assert one == two and format_report(one) == format_report(two)


def test_a_decoder_that_raises_anything_ends_no_scan(good_idda, monkeypatch):
    def broken(path):
        raise IndexError("index out of range")

    monkeypatch.setattr(check_scan, "read_image", broken)
    report = check_dataset(good_idda, workers=1, progress=False)
    assert len(report.faults["unreadable images"]) == 24 and "IndexError" in report.problems[0]


def test_smallest_side_is_the_network_s():
    assert check.MIN_SIDE == MIN_SIDE
    assert np.all(np.array(SIDE) * 0.8 >= MIN_SIDE)
