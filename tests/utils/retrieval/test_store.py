"""The store that keeps a gallery's descriptors on disk."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.sizes import LongerSide
from models import build_model
from tests.tiny import write_pass
from utils.retrieval import store as descriptor_store
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.retrieval.exact import Rows
from utils.retrieval.store import (
    ABOUT,
    IMAGES,
    LOCK,
    ROWS,
    DescriptorStore,
    bounded_batches,
    default_folder,
    folder_of,
    weights_digest,
)
from utils.runs.checkpoints import SHIPPED, load_checkpoint
from utils.system.compute import Compute
from utils.system.logs import LOGGER

PLACES, DIM = 7, 5
OPTIONS = EmbeddingOptions(batch_size=4, num_workers=0)


class Network:
    """What the store asks of a network."""

    def __init__(self) -> None:
        self.descriptor_dim, self.config, self.weight = DIM, {"scale_indexes": [3, 4]}, torch.zeros(1)

    def embedding_config(self) -> dict:
        return self.config

    def embedding_state(self) -> dict:
        return {"weight": self.weight}


class Embedding:
    """Stands for `embed_images`: counts images, and ends the run after `at_most` of them."""

    def __init__(self) -> None:
        self.images, self.at_most, self.shards = 0, 99, []

    def __call__(self, model, paths, scale, options, description, dtype):
        if self.images + len(paths) > self.at_most:
            raise KeyboardInterrupt
        self.images += len(paths)
        self.shards.append(len(paths))
        seeds = [[Path(path).stat().st_size, os.stat(path).st_mtime_ns] for path in paths]
        return np.stack([np.random.default_rng(seed).random(DIM) for seed in seeds]).astype(dtype)


@pytest.fixture
def embedding(monkeypatch) -> Embedding:
    found = Embedding()
    monkeypatch.setattr(descriptor_store, "embed_images", found)
    return found


@pytest.fixture
def images(tmp_path) -> list[str]:
    folder = tmp_path / "gallery"
    folder.mkdir()
    for i in range(PLACES):
        Image.new("RGB", (8 + i, 8)).save(folder / f"{i}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


def open_store(store, model=None, scale=1.0, options=OPTIONS) -> DescriptorStore:
    model = model or Network()
    return DescriptorStore(model, weights_digest(model), scale, options, store)


def stored(images, store, *args, **options) -> np.ndarray:
    return np.asarray(open_store(store, *args, **options).descriptors(images))


def lines_of(store: Path) -> list:
    (file,) = store.glob(f"*/{IMAGES}")
    return [json.loads(line) for line in file.read_text().splitlines()]


# -- with a network ------------------------------------------------------------------------------------------------


def test_the_store_is_used_again_and_holds_what_embedding_gives(tmp_path, store, monkeypatch):
    write_pass(tmp_path / "gallery", 3, 1)
    images, model = sorted(map(str, (tmp_path / "gallery").iterdir())), build_model("resnet18").eval()
    kept = open_store(store, model).descriptors(images)
    assert isinstance(kept, Rows) and isinstance(kept.array, np.memmap) and not kept.array.flags.writeable
    assert kept.dtype == np.float32 and kept.shape == (3, model.descriptor_dim)
    np.testing.assert_array_equal(kept, embed_images(model, images, 1.0, OPTIONS))
    monkeypatch.setattr(descriptor_store, "embed_images", None)
    np.testing.assert_array_equal(stored(images, store, model), kept)
    files = {p.name for p in store.rglob("*") if p.is_file()}
    assert {IMAGES, ABOUT, LOCK, kept.array.filename.name} == files and kept.array.filename.name.startswith(ROWS)


def test_the_network_that_ships_is_embedded_once_whatever_its_random_parts(tmp_path, store):
    """Its file holds no discriminator, so every load draws another."""
    write_pass(tmp_path / "gallery", 1, 1)
    images, embedded = sorted(map(str, (tmp_path / "gallery").iterdir())), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = load_checkpoint(SHIPPED).build()
        embedded.append(stored(images, store, model))
    assert len(list(store.iterdir())) == 1
    np.testing.assert_array_equal(*embedded)


def test_the_digest_is_of_the_weights_not_of_where_they_lie():
    model = build_model("resnet18")
    digest = weights_digest(model)
    assert weights_digest(model.to(memory_format=torch.channels_last)) == digest
    assert weights_digest(model.double()) != digest


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


# -- without one ---------------------------------------------------------------------------------------------------


def test_only_what_is_new_is_embedded(images, store, embedding):
    model = Network()

    def embedded(images=images, **changes) -> int:
        embedding.images = 0
        stored(images, store, model, **changes)
        return embedding.images

    first = stored(images[:4], store, model)
    assert embedded(images[:4]) == embedded(images[3:1:-1]) == embedded([images[0]] * 3) == 0
    assert embedded(images) == PLACES - 4 and embedded(images[::-1]) == 0
    everything = stored(images, store, model)
    np.testing.assert_array_equal(everything[:4], first)
    np.testing.assert_array_equal(stored([images[5], images[0], images[5]], store, model), everything[[5, 0, 5]])
    Image.new("RGB", (50, 50)).save(images[0])
    assert embedded() == 1
    changed = stored(images, store, model)
    assert not np.array_equal(changed[0], everything[0]) and np.array_equal(changed[1:], everything[1:])
    later = os.stat(images[1])
    os.utime(images[1], ns=(later.st_atime_ns, later.st_mtime_ns + 1))
    assert embedded() == 1 and embedded() == 0


def test_whatever_all_descriptors_follow_from_makes_another_store(images, store, embedding):
    model = Network()

    def embedded(**changes) -> int:
        embedding.images = 0
        stored(images, store, model, **changes)
        return embedding.images

    assert (
        embedded()
        == embedded(scale=0.9)
        == embedded(scale=LongerSide(200))
        == embedded(scale=LongerSide(300))
        == PLACES
    )
    assert embedded(options=replace(OPTIONS, compute=Compute(dtype=torch.bfloat16))) == PLACES
    assert embedded(options=replace(OPTIONS, batch_size=1, num_workers=2)) == 0
    model.weight += 1
    assert embedded() == PLACES and embedded() == 0
    model.config = {"scale_indexes": [2, 3, 4]}  # of a released checkpoint, by a flag
    assert embedded() == PLACES


def test_descriptors_are_read_in_any_order_when_they_are_asked_for(images, store, embedding):
    found = open_store(store).descriptors(images[::-1])
    expected = np.asarray(found)
    np.testing.assert_array_equal(found[1:3], expected[1:3])
    np.testing.assert_array_equal(found[np.array([4, 0])], expected[[4, 0]])
    assert len(found) == PLACES and np.asarray(found, np.float64).dtype == np.float64
    assert folder_of(found) != folder_of(open_store(store).descriptors(images))
    assert folder_of(found) == folder_of(open_store(store).descriptors(images[::-1])) and folder_of(expected) is None


@pytest.fixture
def interrupted(images, store, embedding, monkeypatch) -> Path:
    """The folder of a store of which two shards of two images were made."""
    monkeypatch.setattr(descriptor_store, "SHARD", 2)
    monkeypatch.setattr(descriptor_store, "SHARD_SECONDS", 0)
    embedding.at_most = 5
    with pytest.raises(KeyboardInterrupt):
        stored(images, store)
    assert embedding.images == 4
    embedding.images, embedding.at_most = 0, 99
    (folder,) = store.iterdir()
    return folder


@pytest.mark.parametrize("torn_rows, torn_line", [(0, 0), (5000, 0), (7, 9), (0, 30)])
def test_an_interrupted_store_resumes_at_the_last_shard(
    interrupted, images, store, embedding, tmp_path, torn_rows, torn_line
):
    """Rows whose lines are missing, and a line that was cut short, are written over."""
    (rows,) = interrupted.glob(f"{ROWS}*")
    with open(rows, "ab") as file:
        file.write(b"\1" * torn_rows)
    with open(interrupted / IMAGES, "ab") as file:
        file.write(b'[4, 100, 100, "somewhere/in/a/folder.png"]'[:torn_line])
    resumed = stored(images, store)
    assert embedding.images == PLACES - 4
    np.testing.assert_array_equal(resumed, stored(images, tmp_path / "uninterrupted"))
    assert len(lines_of(store)) == 1 + PLACES and rows.stat().st_size == PLACES * DIM * 4


def test_shards_grow_while_they_are_quick(images, store, embedding, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD", 1)
    stored(images, store)
    assert embedding.shards == [1, 2, 4]


def test_rows_that_were_lost_are_embedded_anew_and_no_line_finds_another_image_s_row(images, store, embedding):
    expected = stored(images, store)
    (rows,) = store.glob(f"*/{ROWS}*")
    os.truncate(rows, 3 * DIM * 4 + 1)
    embedding.images = 0
    np.testing.assert_array_equal(stored([images[6]], store), expected[[6]])  # takes the row that was the fourth's
    assert embedding.images == 1
    np.testing.assert_array_equal(stored(images, store), expected)
    assert embedding.images == 4
    rows.unlink()
    np.testing.assert_array_equal(stored(images, store), expected)
    assert embedding.images == 4 + PLACES


@pytest.mark.parametrize(
    "damage, lost",
    [
        (lambda lines: b"", PLACES),
        (lambda lines: b"no list\n" + b"".join(lines[1:]), PLACES),
        (lambda lines: b"".join(lines[:3]) + b"\xff\n" + b"".join(lines[4:]), 1),
        (lambda lines: b"".join(lines[:3]) + b"[9]\n" + b"".join(lines[4:]), 1),
        (lambda lines: b"".join(lines)[:-1], 1),
    ],
)
def test_a_damaged_list_costs_what_it_lost(images, store, embedding, damage, lost):
    expected = stored(images, store)
    (file,) = store.glob(f"*/{IMAGES}")
    file.write_bytes(damage(file.read_bytes().splitlines(keepends=True)))
    embedding.images = 0
    np.testing.assert_array_equal(stored(images, store), expected)
    assert embedding.images == lost
    assert stored(images, store) is not None and embedding.images == lost


def test_a_full_disk_is_one_error_and_nothing_half_written_is_used(images, store, embedding, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot write \(No space left on device\); make room"):
            stored(images, store)
    embedding.images = 0
    assert stored(images, store).shape == (PLACES, DIM) and embedding.images == PLACES
    with pytest.raises(ValueError, match="no images"):
        stored([], store)


def test_a_second_process_waits_and_uses_what_the_first_made(images, store, embedding):
    pytest.importorskip("fcntl", reason="locks need a POSIX system")
    made = stored(images, store)
    (file,) = store.glob(f"*/{IMAGES}")
    hidden = file.rename(file.with_name("made by the other"))
    embedding.images = 0
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(file.with_name(LOCK))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()  # it has the lock
        found = []
        waiting = threading.Thread(target=lambda: found.append(stored(images, store)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        hidden.rename(file)
        other.stdin.close()
    waiting.join(10)
    assert not waiting.is_alive() and embedding.images == 0
    np.testing.assert_array_equal(found[0], made)


def test_threads_of_one_process_share_the_work(images, store, embedding, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD", 1)
    monkeypatch.setattr(descriptor_store, "SHARD_SECONDS", 0)
    lists = [images, images[::-1], images[2:], images[:5]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda images: stored(images, store), lists))
    assert embedding.images == PLACES
    for images_of, descriptors in zip(lists, found):
        np.testing.assert_array_equal(descriptors, stored(images_of, store))


def test_pruning_drops_the_rest_and_who_has_it_open_keeps_it(images, store, embedding):
    everything = open_store(store).descriptors(images)
    expected = np.array(everything)
    folder_of(everything).mkdir()
    Image.new("RGB", (50, 50)).save(images[0])  # its old row is of no use
    opened = open_store(store)
    kept = opened.descriptors([images[0], images[4], images[2]])
    expected_kept = np.array(kept)
    embedding.images = 0
    assert opened.prune([images[0], images[4], images[2]]) == PLACES + 1 - 3
    assert not folder_of(everything).exists() and len(lines_of(store)) == 4
    (rows,) = store.glob(f"*/{ROWS}*")
    assert rows.stat().st_size == 3 * DIM * 4
    np.testing.assert_array_equal(everything, expected)
    np.testing.assert_array_equal(stored([images[0], images[4], images[2]], store), expected_kept)
    assert embedding.images == 0 and opened.prune([images[0], images[4], images[2]]) == 0
    np.testing.assert_array_equal(stored(images, store)[1:], expected[1:])
    assert embedding.images == PLACES - 3


def test_stores_of_an_older_format_are_named(images, store, embedding, caplog):
    (store / "old").mkdir(parents=True)
    (store / "old/descriptors.npy").touch()
    with caplog.at_level("INFO", LOGGER.name):
        stored(images, store)
    assert "1 galleries of an older format are not read" in caplog.text


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
