"""The store that keeps a gallery's descriptors on disk."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import build_model
from tests.tiny import write_pass
from utils.retrieval import store as descriptor_store
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.retrieval.store import (
    DESCRIPTORS,
    LOCK,
    PARTIAL,
    bounded_batches,
    default_folder,
    stored_descriptors,
    weights_digest,
)
from utils.runs.checkpoints import SHIPPED, load_checkpoint
from utils.system.compute import Compute

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


def stored(images, store, model=None, scale=1.0, options=OPTIONS) -> np.ndarray:
    model = model or Network()
    return stored_descriptors(model, weights_digest(model), images, scale, options, store)


# -- with a network ------------------------------------------------------------------------------------------------


def test_the_store_is_used_again_and_holds_what_embedding_gives(tmp_path, store, monkeypatch):
    write_pass(tmp_path / "gallery", 3, 1)
    images, model = sorted(map(str, (tmp_path / "gallery").iterdir())), build_model("resnet18").eval()
    kept = stored(images, store, model)
    assert isinstance(kept, np.memmap) and kept.dtype == np.float32 and kept.shape == (3, model.descriptor_dim)
    assert not kept.flags.writeable
    np.testing.assert_array_equal(kept, embed_images(model, images, 1.0, OPTIONS))
    monkeypatch.setattr(descriptor_store, "embed_images", None)
    np.testing.assert_array_equal(stored(images, store, model), kept)
    assert {p.name for p in store.rglob("*") if p.is_file()} == {DESCRIPTORS, "about.json", LOCK}


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


def test_whatever_the_descriptors_follow_from_makes_another_store(images, store, embedding):
    model = Network()

    def embedded(images=images, **changes) -> int:
        embedding.images = 0
        stored(images, store, model, **changes)
        return embedding.images

    first = stored(images, store, model)
    assert embedded() == 0
    assert embedded(scale=0.9) == embedded(images[::-1]) == PLACES and embedded(images[:2]) == 2
    assert embedded(options=replace(OPTIONS, compute=Compute(dtype=torch.bfloat16))) == PLACES
    assert embedded(options=replace(OPTIONS, batch_size=1, num_workers=2)) == 0
    Image.new("RGB", (50, 50)).save(images[0])
    changed = stored(images, store, model)
    assert not np.array_equal(changed[0], first[0]) and np.array_equal(changed[1:], first[1:])
    later = os.stat(images[1])
    os.utime(images[1], ns=(later.st_atime_ns, later.st_mtime_ns + 1))
    assert embedded() == PLACES
    model.weight += 1
    assert embedded() == PLACES and embedded() == 0
    model.config = {"scale_indexes": [2, 3, 4]}  # of a released checkpoint, by a flag
    assert embedded() == PLACES


@pytest.fixture
def interrupted(images, store, embedding, monkeypatch) -> Path:
    """The partial file of a store of which two shards of two images were made."""
    monkeypatch.setattr(descriptor_store, "SHARD", 2)
    monkeypatch.setattr(descriptor_store, "SHARD_SECONDS", 0)
    embedding.at_most = 5
    with pytest.raises(KeyboardInterrupt):
        stored(images, store)
    assert embedding.images == 4
    embedding.images, embedding.at_most = 0, 99
    (partial,) = store.glob(f"*/{PARTIAL}")
    return partial


@pytest.mark.parametrize("torn", [0, 5000])
def test_an_interrupted_store_resumes_at_the_last_shard(interrupted, images, store, embedding, tmp_path, torn):
    with open(interrupted, "ab") as file:
        file.write(b"\1" * torn)  # a shard that did not get to its end
    resumed = stored(images, store)
    assert embedding.images == PLACES - 4 and not interrupted.exists()
    np.testing.assert_array_equal(resumed, stored(images, tmp_path / "uninterrupted"))


def test_a_partial_file_that_lost_its_end_is_made_anew(interrupted, images, store, embedding):
    os.truncate(interrupted, interrupted.stat().st_size - 1)
    stored(images, store)
    assert embedding.images == PLACES


def test_shards_grow_while_they_are_quick(images, store, embedding, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD", 1)
    stored(images, store)
    assert embedding.shards == [1, 2, 4]


def test_a_store_that_was_only_not_yet_named_is_used(images, store, embedding, monkeypatch):
    replace_file = os.replace

    def killed(source, target):
        if os.fspath(target).endswith(DESCRIPTORS):
            raise KeyboardInterrupt
        replace_file(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        stored(images, store)
    assert embedding.images == PLACES and stored(images, store).shape == (PLACES, DIM)
    assert embedding.images == PLACES


def test_a_damaged_store_is_made_anew(images, store, embedding):
    expected = stored(images, store).copy()
    (file,) = store.glob(f"*/{DESCRIPTORS}")
    for damage in (b"", b"no array", file.read_bytes()[:-1]):
        file.write_bytes(damage)
        np.testing.assert_array_equal(stored(images, store), expected)


def test_a_full_disk_is_one_error_and_nothing_half_written_is_used(images, store, embedding, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot write \(No space left on device\); make room"):
            stored(images, store)
    assert stored(images, store).shape == (PLACES, DIM)
    with pytest.raises(ValueError, match="no images"):
        stored([], store)


def test_a_second_process_waits_and_uses_what_the_first_made(images, store, embedding):
    pytest.importorskip("fcntl", reason="locks need a POSIX system")
    made = stored(images, store).copy()
    (file,) = store.glob(f"*/{DESCRIPTORS}")
    hidden = file.rename(file.with_name("made by the other"))
    embedding.images = 0
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(file.with_name(LOCK))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()  # it has the lock
        waiting = threading.Thread(target=stored, args=(images, store))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        hidden.rename(file)
        other.stdin.close()
    waiting.join(10)
    assert not waiting.is_alive() and embedding.images == 0
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
