"""Photos and gallery images that cannot be used: one line each, and the others are answered."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import eval as evaluation_script
from models import build_model
from tests.tiny import place_picture, write_pass
from utils.runs.checkpoints import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("run") / "best.pth"
    save_checkpoint(path, build_model("resnet18"), {})
    return path


@pytest.fixture
def localize(checkpoint, tmp_path, capsys):
    """Run eval.py on `photos` in `gallery`; returns status, stdout and stderr."""
    write_pass(tmp_path / "gallery", 3, 1)
    (tmp_path / "photos").mkdir()
    for place in range(2):
        Image.fromarray(place_picture(place, 8, 9)).save(tmp_path / "photos" / f"good{place}.png")

    def run(*flags: str, photos: str = "photos") -> tuple[int, str, str]:
        command = [
            "--resume",
            str(checkpoint),
            "--localize",
            str(tmp_path / photos),
            "--gallery",
            str(tmp_path / "gallery"),
        ]
        command += ["--store", str(tmp_path / "store"), "--num_workers", "0", "--device", "cpu", *flags]
        return evaluation_script.main(command), *capsys.readouterr()

    return run


def damage_photos(folder: Path) -> dict[str, str]:
    """Photos of three faults, and what is said of each."""
    (folder / "a_text.jpg").write_text("no image")
    whole = (folder / "good0.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (60, 200)).save(folder / "small.png")
    return {"a_text.jpg": "cannot decode", "half.png": "cannot decode", "small.png": "60x200 px is too small"}


def test_rotten_photos_are_one_line_each_and_the_others_are_answered(localize, tmp_path):
    faults = damage_photos(tmp_path / "photos")
    status, out, err = localize()
    assert status == 0 and "Traceback" not in err
    for name, reason in faults.items():
        (line,) = (line for line in err.splitlines() if name in line)
        assert "not looked up" in line and reason in line
    assert all(f"good{place}.png: at " in out for place in range(2))
    assert "2 of 5 photos were looked up" in out


def test_rotten_photos_in_json(localize, tmp_path, caplog):
    faults = damage_photos(tmp_path / "photos")
    status, out, _ = localize("--json")
    content = json.loads(out)
    assert status == 0 and sum("not looked up" in record.getMessage() for record in caplog.records) == 3
    assert [Path(entry["photo"]).name for entry in content["localisations"]] == ["good0.png", "good1.png"]
    assert {Path(entry["photo"]).name for entry in content["errors"]} == set(faults)
    assert all(faults[Path(entry["photo"]).name] in entry["error"] for entry in content["errors"])


def test_only_rotten_photos_are_an_error(localize, tmp_path):
    damage_photos(tmp_path / "photos")
    for photo in (tmp_path / "photos").glob("good*"):
        photo.unlink()
    for flags in ([], ["--json"], ["--on_bad_image", "skip"]):
        status, out, err = localize(*flags)
        assert status == 2 and "a_text.jpg: cannot decode" in err and "nor can 2 other photos be used" in err
        assert "localisations" not in out
    status, _, err = localize(photos="photos/half.png")
    assert status == 2 and "half.png: cannot decode" in err and "other photos" not in err


def test_a_gallery_with_bad_images(localize, tmp_path):
    bad = tmp_path / "gallery" / "@277500@110000@bad@.png"
    bad.write_text("no image")
    (tmp_path / "gallery" / "nowhere.jpg").write_bytes((tmp_path / "photos" / "good0.png").read_bytes())
    status, _, err = localize()
    assert status == 2 and "nowhere.jpg: no position" in err
    status, out, err = localize("--on_bad_image", "skip")
    assert status == 0 and "2 files were left out" in out
    assert "bad@.png: cannot decode" in err and "nowhere.jpg: no position" in err
    (tmp_path / "gallery" / "nowhere.jpg").unlink()
    status, _, err = localize()
    assert status == 2 and "bad@.png: cannot decode" in err


def test_a_gallery_in_a_csv_file_that_lists_a_bad_image(localize, tmp_path):
    rows = ["path,easting,northing"]
    for index, image in enumerate(sorted((tmp_path / "gallery").iterdir())):
        image.rename(image.with_name(f"{index}.png"))
        rows.append(f"{index}.png,{500_000 + 10 * index},10")
    (tmp_path / "places.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "gallery" / "1.png").write_text("no image")
    status, out, _ = localize("--positions", str(tmp_path / "places.csv"), "--on_bad_image", "skip")
    assert status == 0 and "1 files were left out" in out and "500020.00" in out and "500010.00" not in out


def test_a_gallery_without_a_good_image(localize, tmp_path):
    for image in (tmp_path / "gallery").iterdir():
        image.write_text("no image")
    status, _, err = localize("--on_bad_image", "skip")
    assert status == 2 and "none of its 3 images can be used" in err
