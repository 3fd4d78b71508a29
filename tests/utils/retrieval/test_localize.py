"""Photos against a gallery, and the store that keeps the gallery's descriptors."""

import errno
import json
import os
import shutil
import threading
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation_script
from datasets.naming import list_images
from datasets.positions.find import located_image_set, located_images
from models import build_model
from tests.tiny import SPACING_M, place_picture, write_pass
from utils.evaluation.screening import Screening
from utils.retrieval import store as descriptor_store
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.retrieval.localize import Localisation, Match, format_localisations, localize, photo_paths, spread, to_json
from utils.retrieval.store import (
    DESCRIPTORS,
    PARTIAL,
    bounded_batches,
    default_folder,
    store_key,
    stored_descriptors,
    weights_digest,
)
from utils.runs.checkpoints import SHIPPED, load_checkpoint, save_checkpoint
from utils.system.compute import Compute
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
def model(checkpoint):
    """The checkpoint's network; `model.embedded` counts the images that went through it."""
    model = load_checkpoint(checkpoint).build()
    embed = model.embed

    def counted(images):
        model.embedded += len(images)
        return embed(images)

    model.embedded, model.embed = 0, counted
    return model


@pytest.fixture
def gallery_folder(tmp_path) -> Path:
    write_pass(tmp_path / "gallery", PLACES, 1)
    return tmp_path / "gallery"


def store_of(model, images, folder, scale=1.0) -> np.ndarray:
    return stored_descriptors(model, weights_digest(model), images, scale, OPTIONS, folder)


def test_a_photo_of_the_gallery_is_found_first(model, checkpoint, gallery_folder, tmp_path):
    gallery = located_image_set(gallery_folder)
    (tmp_path / "photos").mkdir()
    shutil.copy(gallery.paths[3], tmp_path / "photos/IMG 1.png")
    Image.fromarray(place_picture(5, 8, 9, (160, 120))).save(tmp_path / "photos/IMG 2.jpg")
    photos = photo_paths(tmp_path / "photos")
    found, other = localize(model, checkpoint, gallery, photos, OPTIONS, 1.0, top=2)
    assert [found.photo, other.photo] == photos and len(found.matches) == len(other.matches) == 2
    best, second = found.matches
    assert best.path == gallery.paths[3] and best.descriptor_distance == pytest.approx(0, abs=1e-3)
    assert (best.east, best.north) == (277000.0 + 3 * SPACING_M, 110000.0)
    assert second.descriptor_distance > best.descriptor_distance
    # the store lies beside the checkpoint, and a second call embeds the photos alone
    assert len(list((checkpoint.parent / "descriptors_store").glob(f"*/{DESCRIPTORS}"))) == 1
    model.embedded = 0
    again = localize(model, checkpoint, gallery, photos[:1], OPTIONS, 1.0)
    assert model.embedded == 1 and again[0].matches[:2] == found.matches and len(again[0].matches) == 5
    positions = [(m.east, m.north) for m in again[0].matches]
    expected = max(np.hypot(a[0] - b[0], a[1] - b[1]) for a, b in combinations(positions, 2))
    assert again[0].spread_m == found.spread_m == pytest.approx(expected) and expected >= 4 * SPACING_M


def test_distances_are_those_between_descriptors(model, checkpoint, gallery_folder, tmp_path):
    gallery = located_image_set(gallery_folder)
    Image.fromarray(place_picture(2, 20, 5)).save(tmp_path / "photo.png")
    (found,) = localize(model, checkpoint, gallery, [str(tmp_path / "photo.png")], OPTIONS, 1.0, 99, tmp_path / "store")
    descriptors = embed_images(model, [*gallery.paths, str(tmp_path / "photo.png")], 1.0, OPTIONS)
    distances = np.linalg.norm(descriptors[:-1] - descriptors[-1], axis=1)
    assert [m.path for m in found.matches] == [gallery.paths[i] for i in distances.argsort()]
    assert [m.descriptor_distance for m in found.matches] == pytest.approx(np.sort(distances), rel=1e-3, abs=1e-5)


def test_positions_may_come_from_a_csv_file(model, checkpoint, tmp_path):
    (tmp_path / "gallery").mkdir()
    for place in range(2):
        Image.fromarray(place_picture(place, 0, 0)).save(tmp_path / f"gallery/{place}.png")
    (tmp_path / "places.csv").write_text("path,easting,northing\n0.png,500000,10\n1.png,500003,14\n")
    gallery = located_image_set(tmp_path / "gallery", tmp_path / "places.csv")
    (found,) = localize(model, checkpoint, gallery, [gallery.paths[1]], OPTIONS, 1.0, store=tmp_path / "store")
    assert [(m.east, m.north) for m in found.matches] == [(500003, 14), (500000, 10)]
    assert found.spread_m is None and "of each other" not in format_localisations([found], gallery), "there are no five"


def test_positions_of_a_known_zone_are_told_in_degrees_too(model, checkpoint, tmp_path):
    places = (51.7529, -1.2577), (51.7539, -1.2577)
    (tmp_path / "gallery").mkdir()
    rows = ["path,latitude,longitude"]
    for place, (latitude, longitude) in enumerate(places):
        Image.fromarray(place_picture(place, 0, 0)).save(tmp_path / f"gallery/{place}.png")
        rows.append(f"{place}.png,{latitude},{longitude}")
    (tmp_path / "places.csv").write_text("\n".join(rows))
    gallery, zone = located_images(tmp_path / "gallery", tmp_path / "places.csv")
    found = localize(model, checkpoint, gallery, [gallery.paths[1]], OPTIONS, 1.0, store=tmp_path / "store", zone=zone)
    degrees = np.array([(m.latitude, m.longitude) for m in found[0].matches])
    np.testing.assert_allclose(degrees, places[::-1], atol=1e-6)
    assert "(latitude 51.753900, longitude -1.257700)" in format_localisations(found)
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
    command = [*map(str, command), "--num_workers", "0", "--store", str(tmp_path / "store")]
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
        gallery = located_image_set(tmp_path / name)
        east, north = gallery.positions[2]
        found = Localisation("photo.jpg", (Match(gallery.paths[2], east, north, 0.1),), 20.0)
        text = format_localisations([found], gallery)
        assert ("the first 5 matches lie within 20.0 m of each other" in text) == told
        # relative to the gallery, whole for programs
        assert f"  1 a b/{Path(gallery.paths[2]).name} " in text and str(tmp_path) not in text
        assert json.loads(to_json([found]))["localisations"][0]["matches"][0]["path"] == gallery.paths[2]
    assert format_localisations([found]).splitlines()[3].split()[1] in str(gallery.paths[2])


def test_spread_by_hand():
    assert spread(np.array([[0.0, 0], [3, 4], [6, 0], [3, 1]])) == 6
    assert spread(np.array([[7.0, 7]])) == 0


@pytest.mark.parametrize("arguments, reason", [({"photos": []}, "no photos"), ({"top": 0}, "at least 1")])
def test_bad_questions(model, checkpoint, gallery_folder, arguments, reason):
    gallery = located_image_set(gallery_folder)
    with pytest.raises(ValueError, match=reason):
        localize(
            model,
            checkpoint,
            gallery,
            **{"photos": [gallery.paths[0]], "top": 1, **arguments},
            options=OPTIONS,
            scale=1,
        )


def test_a_damaged_photo_is_named_before_the_gallery_is_embedded(model, checkpoint, gallery_folder, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad\.jpg: cannot decode"):
        localize(model, checkpoint, located_image_set(gallery_folder), photo_paths(tmp_path / "bad.jpg"), OPTIONS, 1.0)
    assert model.embedded == 0
    with pytest.raises(FileNotFoundError, match="absent"):
        photo_paths(tmp_path / "absent")


def test_text_and_json():
    matches = Match("g/a_long_name.png", 500000.004, 10.0, 0.25), Match("g/new\nline\udcff.png", 500003.0, 14.0, 0.5)
    found = [Localisation("IMG 1.jpg", matches, 5.0)]
    lines = format_localisations(found).splitlines()
    assert lines[0] == "IMG 1.jpg: at 500000.00 east, 10.00 north; the first 5 matches lie within 5.0 m of each other"
    assert lines[3].split() == ["1", "g/a_long_name.png", "500000.00", "10.00", "0.2500"]
    assert len(lines) == 5 and r"g/new\nline\udcff.png" in lines[4]
    format_localisations(found).encode()
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
            }
        ]
    }


def test_the_store_is_used_again_and_holds_what_embedding_gives(model, gallery_folder, tmp_path):
    images = list_images(gallery_folder)
    kept = store_of(model, images, tmp_path / "store")
    assert isinstance(kept, np.memmap) and kept.dtype == np.float32 and kept.shape == (PLACES, model.descriptor_dim)
    assert model.embedded == PLACES and not kept.flags.writeable
    np.testing.assert_array_equal(kept, embed_images(model, images, 1.0, OPTIONS))
    model.embedded = 0
    np.testing.assert_array_equal(store_of(model, images, tmp_path / "store"), kept)
    assert model.embedded == 0
    assert {p.name for p in (tmp_path / "store").rglob("*") if p.is_file()} == {DESCRIPTORS, "about.json", "lock"}


def test_whatever_the_descriptors_follow_from_makes_another_store(model, gallery_folder, tmp_path):
    images = list_images(gallery_folder)
    first = store_of(model, images, tmp_path / "store")

    def embedded(images=images, scale=1.0) -> int:
        model.embedded = 0
        store_of(model, images, tmp_path / "store", scale)
        return model.embedded

    assert embedded(scale=0.9) == PLACES
    assert embedded(images[::-1]) == PLACES and embedded(images[:2]) == 2
    Image.fromarray(place_picture(50, 0, 0)).save(images[0])
    assert embedded() == PLACES
    changed = store_of(model, images, tmp_path / "store")
    assert not np.array_equal(changed[0], first[0]) and np.array_equal(changed[1:], first[1:])
    later = os.stat(images[1])
    os.utime(images[1], ns=(later.st_atime_ns, later.st_mtime_ns + 1))
    assert embedded() == PLACES
    with torch.no_grad():
        model.encoder.conv1.weight[0, 0, 0, 0] += 1
    assert embedded() == PLACES and embedded() == 0
    model.config = replace(model.config, scale_indexes=(2, 3, 4))  # of a released checkpoint, by a flag
    assert embedded() == PLACES


def test_keys_follow_precision_and_configuration(gallery_folder):
    images, bf16 = list_images(gallery_folder), replace(OPTIONS, compute=Compute(dtype=torch.bfloat16))
    keys = {
        store_key(digest, images, {"scale_indexes": stages}, 1.0, options)
        for digest, stages, options in [
            *(("a", [3, 4], OPTIONS), ("a", [3, 4], bf16), ("a", [4], OPTIONS), ("b", [3, 4], OPTIONS)),
            ("a", [3, 4], replace(OPTIONS, batch_size=1, num_workers=2)),  # as the first one
        ]
    }
    assert len(keys) == 4


def test_the_digest_is_of_the_weights_not_of_where_they_lie(checkpoint):
    model = load_checkpoint(checkpoint).build()
    digest = weights_digest(model)
    assert weights_digest(model.to(memory_format=torch.channels_last)) == digest
    assert weights_digest(model.double()) != digest


def test_the_network_that_ships_is_embedded_once_whatever_its_random_parts(gallery_folder, tmp_path):
    """Its file holds no discriminator, so every load draws another."""
    images, embedded = list_images(gallery_folder), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = load_checkpoint(SHIPPED).build()
        embedded.append(store_of(model, images, tmp_path / "store"))
    assert len(list((tmp_path / "store").iterdir())) == 1
    np.testing.assert_array_equal(*embedded)


@pytest.mark.parametrize(
    "part, counts",
    [
        ("head.branches.0.weight", False),
        ("discriminator.convs.0.weight", False),
        ("encoder.bn1.num_batches_tracked", False),
        ("encoder.layer4.1.conv2.weight", False),  # no pooled stage needs it
        ("encoder.layer3.1.conv2.weight", True),
        ("encoder.layer1.0.bn1.running_mean", True),
        ("attention.merge.weight", True),
        ("pooling.p", True),
    ],
)
def test_the_digest_is_of_what_descriptors_depend_on(part, counts):
    model = build_model("resnet18", scale_indexes=(2, 3))
    digest = weights_digest(model)
    model.state_dict()[part].add_(1)
    assert (weights_digest(model) != digest) == counts


@pytest.mark.parametrize(
    "other, same",
    [
        ({"semnet": "pspnet", "num_classes": 5, "guidance": False}, True),
        ({"scale_indexes": (4,)}, False),
        ({"attention": "after_norm"}, False),
        ({"input": "imagenet"}, False),
    ],
)
def test_another_head_uses_the_same_store_another_descriptor_does_not(other, same):
    model, twin = build_model("resnet18"), build_model("resnet18", **other)
    twin.load_state_dict(model.embedding_state(), strict=False)
    assert (weights_digest(twin) == weights_digest(model)) == same
    assert (twin.embedding_config() == model.embedding_config()) == same


def interrupt_after(model, images: int) -> None:
    counted = model.embed

    def interrupted(batch):
        if model.embedded + len(batch) > images:
            raise KeyboardInterrupt
        return counted(batch)

    model.embed = interrupted


@pytest.mark.parametrize("torn", [0, 5000])
def test_an_interrupted_store_goes_on_at_the_last_shard(model, gallery_folder, tmp_path, monkeypatch, torn):
    monkeypatch.setattr(descriptor_store, "SHARD", 2)
    monkeypatch.setattr(descriptor_store, "SHARD_SECONDS", 0)
    images = list_images(gallery_folder)
    expected, embed = store_of(model, images, tmp_path / "uninterrupted"), model.embed
    model.embedded = 0
    interrupt_after(model, 5)
    with pytest.raises(KeyboardInterrupt):
        store_of(model, images, tmp_path / "store")
    assert model.embedded == 4
    (partial,) = (tmp_path / "store").glob(f"*/{PARTIAL}")
    with open(partial, "ab") as file:
        file.write(b"\1" * torn)  # a shard that did not get to its end
    model.embed, model.embedded = embed, 0
    np.testing.assert_array_equal(store_of(model, images, tmp_path / "store"), expected)
    assert model.embedded == PLACES - 4 and not partial.exists()


def test_shards_grow_while_they_are_quick(model, gallery_folder, tmp_path, monkeypatch):
    shards = []
    monkeypatch.setattr(descriptor_store, "SHARD", 1)
    embed = descriptor_store.embed_images
    monkeypatch.setattr(
        descriptor_store, "embed_images", lambda m, p, *rest: shards.append(len(p)) or embed(m, p, *rest)
    )
    images = list_images(gallery_folder)
    store_of(model, images, tmp_path / "store")
    assert shards == [1, 2, 4]


def test_a_store_that_was_only_not_yet_named_is_used(model, gallery_folder, tmp_path, monkeypatch):
    images, replace_file = list_images(gallery_folder), os.replace

    def killed(source, target):
        if os.fspath(target).endswith(DESCRIPTORS):
            raise KeyboardInterrupt
        replace_file(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        store_of(model, images, tmp_path / "store")
    model.embedded = 0
    assert store_of(model, images, tmp_path / "store").shape == (PLACES, model.descriptor_dim)
    assert model.embedded == 0


def test_a_partial_file_that_lost_its_end_is_made_anew(model, gallery_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD", 2)
    monkeypatch.setattr(descriptor_store, "SHARD_SECONDS", 0)
    images, embed = list_images(gallery_folder), model.embed
    interrupt_after(model, 5)
    with pytest.raises(KeyboardInterrupt):
        store_of(model, images, tmp_path / "store")
    (partial,) = (tmp_path / "store").glob(f"*/{PARTIAL}")
    os.truncate(partial, partial.stat().st_size - 1)
    model.embed, model.embedded = embed, 0
    store_of(model, images, tmp_path / "store")
    assert model.embedded == PLACES


def test_a_damaged_store_is_made_anew(model, gallery_folder, tmp_path):
    images = list_images(gallery_folder)[:2]
    expected = store_of(model, images, tmp_path / "store").copy()
    (file,) = (tmp_path / "store").glob(f"*/{DESCRIPTORS}")
    for damage in (b"", b"no array", file.read_bytes()[:-1]):
        file.write_bytes(damage)
        np.testing.assert_array_equal(store_of(model, images, tmp_path / "store"), expected)


def test_a_full_disk_is_one_error_and_nothing_half_written_is_used(model, gallery_folder, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    images = list_images(gallery_folder)[:2]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot write \(No space left on device\); make room"):
            store_of(model, images, tmp_path / "store")
    assert store_of(model, images, tmp_path / "store").shape == (2, model.descriptor_dim)
    with pytest.raises(ValueError, match="no images"):
        store_of(model, [], tmp_path / "store")


def test_a_second_process_waits_and_uses_what_the_first_made(model, gallery_folder, tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="locks need a POSIX system")
    images = list_images(gallery_folder)[:2]
    made = store_of(model, images, tmp_path / "store").copy()
    (file,) = (tmp_path / "store").glob(f"*/{DESCRIPTORS}")
    hidden = file.rename(file.with_name("made by the other"))
    model.embedded = 0
    with open(file.with_name("lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=store_of, args=(model, images, tmp_path / "store"))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        hidden.rename(file)
    waiting.join(10)
    assert not waiting.is_alive() and model.embedded == 0
    np.testing.assert_array_equal(np.load(file), made)


def test_the_store_lies_beside_the_checkpoint_or_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert default_folder(tmp_path / "best.pth") == tmp_path / "descriptors_store"
    assert default_folder(tmp_path / "file/best.pth") == Path("data/descriptors")  # no folder can be made in a file
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match="run where you may write"):
        default_folder(tmp_path / "file/best.pth")


def test_large_photos_come_in_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptor_store, "PIXELS_PER_BATCH", 40_000)
    paths = []
    for name, size in (("a", (100, 100)), ("b", (200, 50)), ("c", (200, 200))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
        paths.append(str(tmp_path / f"{name}.png"))
    sizes = [
        bounded_batches(EmbeddingOptions(8), paths[:n], scale).batch_size for n, scale in ((2, 1), (3, 1), (3, 0.5))
    ]
    assert sizes == [4, 1, 4]
    assert bounded_batches(EmbeddingOptions(2), paths, 10).batch_size == 1
