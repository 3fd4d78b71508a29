"""Unknown places: calibrated on a street whose queries come in part from another street, asked for photos of both."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import eval as evaluation_script
from tests.tiny import SPACING_M, place_picture
from utils.retrieval import Localizer
from utils.retrieval.confidence import calibration_file, read_calibration

SMALL = "--num_workers 0 --device cpu --eval_scale 1".split()
PLACES, OTHER = range(8), range(100, 108)
"""Pictures of the street, and of another one that the gallery does not show."""


def draw(folder: Path, places: range, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for place in places:
        picture = Image.fromarray(place_picture(place, 40, seed))
        picture.save(folder / f"@{277000 + SPACING_M * place}@110000@{seed}@.png")
    return folder


@pytest.fixture(scope="module")
def street(trained_run, tmp_path_factory) -> Path:
    """A calibrated checkpoint, and photos that it has not seen."""
    root = tmp_path_factory.mktemp("street")
    draw(root / "gallery", PLACES, 1)
    for places in (PLACES, OTHER):
        draw(root / "queries", places, 2)
    shutil.copy(trained_run / "best.pth", root)
    command = ["--resume", str(root / "best.pth"), "--dataset_root_val", str(root), "--val_g", "gallery"]
    command += ["--val_q", "queries", "--calibrate", "0.6", "--no_report", "--output_dir", str(root / "out"), *SMALL]
    assert evaluation_script.main(command) == 0
    draw(root / "known", PLACES, 3)
    draw(root / "elsewhere", OTHER, 3)
    return root


def localize(street: Path, photos: str, capsys, *flags: str) -> list[dict]:
    capsys.readouterr()
    command = ["--resume", str(street / "best.pth"), "--gallery", str(street / "gallery"), "--json", *SMALL]
    assert evaluation_script.main([*command, "--localize", str(street / photos), *flags]) == 0
    return json.loads(capsys.readouterr().out)["localisations"]


def test_photos_of_another_street_are_unknown(street, capsys):
    calibration = read_calibration(calibration_file(street / "best.pth"))
    (found,) = json.loads((street / "out/results.json").read_text())["sets"]
    assert (calibration.queries, calibration.right) == (16, 8) and found["recall"]["1"] == 0.5
    assert found["recall_at_precision"]["1"] == 0.5, "all of the street, and none of the other"
    assert set(calibration.thresholds) == {"1", "0.99", "0.95", "0.6"}
    known, elsewhere = (localize(street, name, capsys, "--reject", "0.5") for name in ("known", "elsewhere"))
    assert not any(answer["unknown"] for answer in known) and all(answer["unknown"] for answer in elsewhere)
    least, most = min(a["probability"] for a in known), max(a["probability"] for a in elsewhere)
    assert most < 0.5 < least and known[0]["zone"] is None
    asked = localize(street, "elsewhere", capsys)
    assert [a["probability"] for a in asked] == pytest.approx([a["probability"] for a in elsewhere])
    assert not any(answer["unknown"] for answer in asked), "nothing is rejected unless it is asked for"


def test_training_leaves_a_calibration(trained_run):
    made = read_calibration(trained_run / "best.confidence.json")
    assert (made.within_m, made.apart_m, made.queries) == (5.0, 25.0, 12)


@pytest.mark.parametrize("what, reason", [("absent", "no such file"), ("other", "made for other weights")])
def test_reject_needs_a_calibration_of_these_weights(street, trained_run, tmp_path, capsys, what, reason):
    shutil.copy(trained_run / "last.pth", tmp_path / "best.pth")  # not the best epoch's weights, or not its calibration
    if what == "other":
        text = calibration_file(street / "best.pth").read_text()
        weights = json.loads(text)["weights"]
        calibration_file(tmp_path / "best.pth").write_text(text.replace(weights, "0" * 64))
    command = ["--resume", str(tmp_path / "best.pth"), "--gallery", str(street / "gallery"), *SMALL]
    status = evaluation_script.main([*command, "--localize", str(street / "known"), "--reject", "0.5"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert status == 2 and "--reject 0.5: " in line and reason in line and "--calibrate" in line


def test_a_gallery_of_one_place_is_never_sure(street, tmp_path):
    draw(tmp_path / "one", range(1), 1)
    localizer = Localizer(street / "best.pth", tmp_path / "one", store=tmp_path / "store", scale=1, reject=0.01)
    answer = localizer.locate(draw(tmp_path / "photo", range(1), 2) / "@277000.0@110000@2@.png")
    assert answer.probability is None and answer.unknown


def test_calibration_needs_a_validation_set(street, capsys):
    assert evaluation_script.main(["--resume", str(street / "best.pth"), "--calibrate"]) == 2
    assert "--calibrate: needs a validation set" in capsys.readouterr().err
