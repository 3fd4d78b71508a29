"""A gallery that is opened once and asked many times."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation_script
from datasets.reading.transforms import scale_image
from datasets.sizes import LongerSide
from models import SegVPR, build_model
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


def test_descriptors_of_another_precision_are_kept_apart(localizer, checkpoint, gallery, tmp_path):
    other = Localizer(checkpoint, gallery, store=tmp_path / "store", precision="bf16")
    photo = sorted(gallery.iterdir())[2]
    assert names(other.locate(photo))[0] == names(localizer.locate(photo))[0] == photo.name
    assert len([entry for entry in (tmp_path / "store").iterdir() if entry.is_dir()]) == 2


def test_one_precision_is_given_once(checkpoint, gallery):
    with pytest.raises(ValueError, match=r"precision: options\.compute has one already"):
        Localizer(checkpoint, gallery, precision="bf16", options=EmbeddingOptions())


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


def test_added_images_are_embedded_alone_and_kept(localizer, checkpoint, gallery, tmp_path, monkeypatch):
    sizes, embed = [], SegVPR.embed

    def counted(model, images):
        sizes.append(len(images))
        return embed(model, images)

    monkeypatch.setattr(SegVPR, "embed", counted)
    write_pass(tmp_path / "more", 2, 5, shift=3.0)
    new = sorted((tmp_path / "more").iterdir())
    localizer.add(new)
    assert sizes == [2] and localizer.images.positions[-2:].tolist() == [[EAST + 3, NORTH], [EAST + 43, NORTH]]
    localizer.remove(new[0])
    localizer.add(str(new[0]))
    localizer.save(tmp_path / "gallery.csv")
    Localizer(checkpoint, tmp_path / "gallery.csv", store=tmp_path / "store", options=OPTIONS)
    assert sizes == [2], "the store has them"
    assert localizer.prune() == 0
    localizer.remove(new)
    assert localizer.prune() == 2
    localizer.add(new)
    assert sizes == [2, 2] and len(localizer) == 8


def test_nothing_is_added_if_one_image_cannot_be(localizer, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(place_picture(9, 0, 0)).save(good)
    bad.write_text("no image")
    for paths, positions, reason in (
        ([good, bad], [(EAST, NORTH)] * 2, r"bad\.png: cannot decode"),
        ([good], None, "no position"),
        ([good], [(EAST, np.nan)], "finite numbers"),
        ([good, bad], [(EAST, NORTH)], "1 positions for 2 images"),
        ([good, good], [(EAST, NORTH)] * 2, "already"),
    ):
        with pytest.raises(ValueError, match=reason):
            localizer.add(paths, positions)
        assert len(localizer) == 6 and len(localizer.locate(good, k=9).matches) == 6


def test_threads_share_a_localizer(localizer, gallery):
    photos = sorted(gallery.iterdir())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(localizer.locate, photos * 3))
    assert [f.matches[0].path for f in found] == [str(photo) for photo in photos * 3]


def test_photos_of_any_size_are_brought_to_that_of_the_checkpoint(checkpoint, gallery, tmp_path, caplog):
    """A photo four times as large is found as if it were the gallery's own; as it is, its descriptor is another."""
    file = sorted(gallery.iterdir())[2]
    with Image.open(file) as image:
        large = image.convert("RGB").resize((136 * 4, 128 * 4), Image.Resampling.BILINEAR)
    localizer = Localizer(checkpoint, gallery, store=tmp_path / "store", options=OPTIONS)
    assert localizer.scale == LongerSide(136) and "WARNING" not in caplog.text
    own = localizer.locate(large)
    assert own.matches[0].path == str(file)
    whole = Localizer(checkpoint, gallery, store=tmp_path / "store", scale=1.0, options=OPTIONS).locate(large)
    assert own.matches[0].descriptor_distance < whole.matches[0].descriptor_distance / 2
    other = Localizer(checkpoint, gallery, store=tmp_path / "store", image_size=200, options=OPTIONS)
    assert other.scale == LongerSide(200)
    old = tmp_path / "old.pth"
    content = torch.load(checkpoint, weights_only=True)
    del content["image_size"]
    torch.save(content, old)
    assert Localizer(old, gallery, store=tmp_path / "store", options=OPTIONS).scale == 1.0
    assert "old.pth does not record the size" in caplog.text and "used as they are" in caplog.text


def test_hub_brings_photos_to_the_same_size_and_gives_the_localizer(checkpoint, gallery, tmp_path):
    folder, file = str(Path(__file__).resolve().parents[3]), sorted(gallery.iterdir())[2]
    found = torch.hub.load(
        folder, "localizer", checkpoint, gallery, source="local", store=tmp_path / "store", image_size=136
    )
    assert found.locate(file).matches[0].path == str(file)
    model = torch.hub.load(folder, "segvpr", source="local", weights=checkpoint)
    large = torch.from_numpy(place_picture(2, 8, 1, (544, 512))).permute(2, 0, 1)
    small = scale_image(large, LongerSide(136))
    assert model.image_size == 136 and small.shape == (3, 128, 136)
    assert torch.equal(model.describe(large[None]), model.describe(small[None]))


def ask(checkpoint, gallery, tmp_path, *flags) -> list[str]:
    command = ["--resume", checkpoint, "--gallery", gallery, "--store", tmp_path / "store", "--device", "cpu"]
    return [*map(str, [*command, "--num_workers", "0", *flags])]


def test_paths_on_standard_input_are_answered_line_by_line(checkpoint, gallery, tmp_path, monkeypatch, capsys):
    photos = sorted(map(str, gallery.iterdir()))
    (tmp_path / "bad.jpg").write_text("no image")
    lines = [photos[1], str(tmp_path / "bad.jpg"), "", str(tmp_path / "absent.jpg"), photos[4]]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert evaluation_script.main(ask(checkpoint, gallery, tmp_path, "--localize", "-", "--top", "2")) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["photo"] for answer in answers] == [line for line in lines if line]
    assert [answer["matches"][0]["path"] for answer in (answers[0], answers[3])] == [photos[1], photos[4]]
    assert len(answers[0]["matches"]) == 2 and "cannot decode" in answers[1]["error"]
    assert "No such file" in answers[2]["error"] and "matches" not in answers[2]


def test_each_line_is_answered_before_the_next_is_read(localizer, gallery, monkeypatch, capsys):
    photos, answered = sorted(map(str, gallery.iterdir()))[:3], []

    def lines():
        for photo in photos:
            yield photo + "\n"
            answered.append(json.loads(capsys.readouterr().out)["photo"])

    monkeypatch.setattr("sys.stdin", lines())
    evaluation_script.answer_lines(localizer, 5, {})
    assert answered == photos


def test_what_is_known_beforehand_on_the_command_line(checkpoint, gallery, tmp_path, capsys):
    photo = sorted(map(str, gallery.iterdir()))[0]
    flags = ["--localize", photo, "--json"]
    near = ["--near", EAST + 3 * SPACING_M, NORTH, SPACING_M + 1]
    assert evaluation_script.main(ask(checkpoint, gallery, tmp_path, *flags, *near)) == 0
    (found,) = json.loads(capsys.readouterr().out)["localisations"]
    assert len(found["matches"]) == 3
    for prior, reason in (
        (["--near", 0, 0, 5], "no gallery image agrees"),
        (["--camera", "front"], "no camera folders"),
        (["--near_latlon", -33, 151, 5], "give --zone"),
    ):
        assert evaluation_script.main(ask(checkpoint, gallery, tmp_path, *flags, *prior)) == 2
        line = capsys.readouterr().err
        assert prior[0] in line and reason in line and line.count("\n") == 1
    (tmp_path / "new").mkdir()
    assert evaluation_script.main(ask(checkpoint, gallery, tmp_path, "--localize", photo, "--prune")) == 0
    assert "0 descriptors were dropped" in capsys.readouterr().out
