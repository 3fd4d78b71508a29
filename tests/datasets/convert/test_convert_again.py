"""Converting again into the same folder: nothing stale, nothing twice, nothing lost."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from datasets.convert.__main__ import main
from datasets.convert.convert import convert_images
from datasets.convert.record import RECORD, STALE

EAST, NORTH = 600_000, 5_700_000


def photo(path: Path, shade: int) -> Path:
    """A picture of one grey; one that is there already is left as it is."""
    if path.is_file() and Image.open(path).getpixel((0, 0)) == shade:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 24), shade).save(path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    for place, name in enumerate(("a.png", "b.png", "day 2/c.png")):
        photo(tmp_path / "photos" / f"@{EAST + place}@{NORTH}@{name}".replace("day 2/", ""), 10 * place)
    return tmp_path / "photos"


@pytest.fixture
def listed(tmp_path):
    """Photos named freely, with positions in a CSV file: `convert({name: (place, shade)})` makes exactly these and converts."""
    folder, csv = tmp_path / "photos", tmp_path / "positions.csv"

    def convert(wanted: dict[str, tuple[int, int]], **options):
        for path in [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []:
            if str(path.relative_to(folder)) not in wanted:
                path.unlink()
        for name, (_, shade) in wanted.items():
            photo(folder / name, shade)
        rows = [f"{name},{EAST + 10 * place},{NORTH}" for name, (place, _) in wanted.items()]
        csv.write_text("\n".join(["path,easting,northing", *rows]) + "\n")
        return convert_images(folder, tmp_path / "out", csv, **options)

    return convert


def content(out: Path) -> list[tuple[str, int]]:
    """Folder and name without position, and the grey, of each image that is data."""
    found = [p for p in out.rglob("*.*") if p.suffix.lower() in (".png", ".jpg") and STALE not in p.parts]
    return sorted(
        (str(p.relative_to(out).with_name(p.name.split("@", 3)[3])), Image.open(p).getpixel((0, 0))) for p in found
    )


@pytest.mark.parametrize("link", [False, True])
def test_a_photo_that_was_removed_leaves_nothing_stale(listed, tmp_path, link):
    listed({"a.png": (0, 10), "b.png": (1, 20), "sub/c.png": (2, 30)}, link=link)
    done = listed({"a.png": (0, 10), "sub/d.png": (3, 40)}, link=link)
    assert content(tmp_path / "out") == [("a@.png", 10), ("sub/d@.png", 40)]
    assert done.kept == 2 and len(done.stale) == 2 and not done.others
    assert "2 of an earlier run moved to OUT/.stale" in str(done) and done.stale[0] in str(done)
    aside = sorted((tmp_path / "out" / STALE).rglob("*.png"))
    assert [Image.open(path).getpixel((0, 0)) for path in aside] == ([] if link else [20, 30])
    again = listed({"a.png": (0, 10), "sub/d.png": (3, 40)}, link=link)
    assert not again.stale and not again.written and "earlier" not in str(again)


JOINED = {
    "same name in capitals": ("img.jpg", "IMG.JPG"),
    "same stem, and earlier in the list": ("a_b.png", "a@b.png"),
    "the name that a number would give": ("a_2.png", "a.png"),
}


@pytest.mark.parametrize("names", JOINED.values(), ids=JOINED)
@pytest.mark.parametrize("place", [0, 1])
def test_a_photo_of_a_like_name_joins(listed, tmp_path, names, place):
    first, joins = names
    listed({first: (0, 50)})
    listed({first: (0, 50), joins: (place, 90)})
    assert sorted(shade for _, shade in content(tmp_path / "out")) == [50, 90]
    done = listed({joins: (place, 90)})
    assert [shade for _, shade in content(tmp_path / "out")] == [90] and len(done.stale) == 1
    listed({joins: (place, 90), first: (0, 50)})
    assert sorted(shade for _, shade in content(tmp_path / "out")) == [50, 90]


def test_a_name_that_another_photo_takes_over(listed, tmp_path):
    listed({"a_b.png": (0, 50)})
    done = listed({"a@b.png": (0, 90)})
    assert content(tmp_path / "out") == [("a_b@.png", 90)] and len(done.stale) == done.written == 1


def test_a_photo_that_was_replaced_is_copied_again_whatever_its_size_and_time(listed, tmp_path):
    listed({"a.png": (0, 50), "b.png": (1, 60)})
    before = (tmp_path / "photos" / "a.png").stat()
    done = listed({"a.png": (0, 51), "b.png": (1, 60)})
    now = (tmp_path / "photos" / "a.png").stat()
    assert before.st_size == now.st_size and abs(before.st_mtime - now.st_mtime) < 2
    assert content(tmp_path / "out") == [("a@.png", 51), ("b@.png", 60)] and done.written == 1
    os.utime(photo(tmp_path / "photos" / "a.png", 52), (1_000_000_000, 1_000_000_000))  # an older file of the same size
    convert_images(tmp_path / "photos", tmp_path / "out", tmp_path / "positions.csv")
    assert content(tmp_path / "out")[0] == ("a@.png", 52)


def test_a_photo_that_moved_is_refused_and_counted(listed, tmp_path):
    listed({"a.png": (0, 10), "b.png": (1, 20), "c.png": (2, 30)})
    before = content(tmp_path / "out")
    with pytest.raises(ValueError, match=r"a@\.png \(and 1 others\): made from the same images with other settings"):
        listed({"a.png": (5, 10), "b.png": (6, 20), "c.png": (2, 30)})
    assert content(tmp_path / "out") == before


def test_a_photo_that_lost_its_position_is_set_aside(listed, tmp_path):
    listed({"a.png": (0, 10), "b.png": (1, 20)})
    (tmp_path / "positions.csv").write_text(f"path,easting,northing\na.png,{EAST},{NORTH}\n")
    done = convert_images(tmp_path / "photos", tmp_path / "out", tmp_path / "positions.csv", skip_missing=True)
    assert content(tmp_path / "out") == [("a@.png", 10)] and done.skipped == len(done.stale) == 1


def test_files_of_others_stay_and_are_counted(listed, tmp_path):
    listed({"a.png": (0, 10)})
    mine = photo(tmp_path / "out" / f"@{EAST}@{NORTH}@mine@.png", 99)
    done = listed({"a.png": (0, 10)})
    assert mine.is_file() and done.others == (mine.name,)
    assert f"1 others stay in OUT, of unknown source (first: {mine.name})" in str(done)


def test_an_out_folder_without_a_record(listed, tmp_path):
    """As an earlier release left it: what is there is known again by size and time, the rest is counted."""
    listed({"a.png": (0, 10), "b.png": (1, 20)})
    (tmp_path / "out" / RECORD).unlink()
    done = listed({"a.png": (0, 10)})
    assert done.kept == 1 and [name.split("@")[3] for name in done.others] == ["b"]


def test_two_folders_of_photos_share_an_out_folder(tmp_path):
    for folder, shade in (("one", 10), ("two", 20)):
        photo(tmp_path / folder / "img.png", shade)
    (tmp_path / "p.csv").write_text(f"path,easting,northing\none/img.png,{EAST},{NORTH}\ntwo/img.png,{EAST},{NORTH}\n")
    for _ in range(2):
        for folder in ("one", "two"):
            convert_images(tmp_path / folder, tmp_path / "out", tmp_path / "p.csv", allow_missing_rows=True)
        assert [shade for _, shade in content(tmp_path / "out")] == [10, 20]


def test_photos_in_another_place_are_known_again(photos, tmp_path):
    convert_images(photos, tmp_path / "out")
    shutil.copytree(photos, tmp_path / "elsewhere")
    shutil.rmtree(photos)
    assert convert_images(tmp_path / "elsewhere", tmp_path / "out").written == 0
    assert len(content(tmp_path / "out")) == 3


def test_a_folder_and_then_a_part_of_it(photos, tmp_path):
    photo(photos / "sub" / "@1@2@x@.png", 70)
    convert_images(photos, tmp_path / "out")
    with pytest.raises(ValueError, match="made from the same images"):
        convert_images(photos / "sub", tmp_path / "out")


def test_an_interrupted_run_is_known_again(listed, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("datasets.convert.convert.copy_file", stop)
        with pytest.raises(KeyboardInterrupt):
            listed({"a.png": (0, 10)})
    assert listed({"a.png": (0, 10), "b.png": (1, 20)}).written == 2
    assert not listed({"a.png": (0, 10), "b.png": (1, 20)}).written


@pytest.mark.parametrize("text", ["{", "[]", '{"images": {"a": 1}}', '{"images": {"a": [1, 2, 3, 4]}}'])
def test_a_damaged_record_is_one_line(photos, tmp_path, capsys, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text(text)
    assert main(["--images", str(photos), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{RECORD}: the record of earlier conversions is damaged; remove it" in error
