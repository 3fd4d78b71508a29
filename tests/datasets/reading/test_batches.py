"""Reading for embedding: JPEGs of every make, batches of any mixture of sizes, and decoding on the device."""

import io
import multiprocessing
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import eval as evaluation_script
import main
from datasets.reading import transforms
from datasets.reading.batches import ImageBatches, SizedBatch, full_batches
from datasets.reading.transforms import decode_images, read_encoded, read_image, stack_images
from models import build_model
from tests.tiny import SMALL_RUN, data_flags, place_picture
from utils.options.parsers import eval_parser, main_parser
from utils.retrieval import embedding
from utils.retrieval.embedding import EmbeddingOptions, embed_images, iterate_batches
from utils.system.launch import default_workers
from utils.system.loaders import read_ahead

CPU = torch.device("cpu")


def save(path, size=(40, 24), mode="RGB", place=0, **options) -> str:
    Image.fromarray(place_picture(place, 8, 1, size)).convert(mode).save(path, **options)
    return str(path)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[transforms.ORIENTATION] = 3
    return exif


MAKES = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0, "quality": 95},
    "progressive": {"progressive": True},
    "odd size": {"size": (41, 23)},
    "restart markers": {"restart_marker_blocks": 2},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "turned": {"exif": turned()},
}


@pytest.mark.parametrize("make", MAKES)
def test_jpegs_decode_to_the_pixels_of_pillow(tmp_path, make):
    path = save(tmp_path / "a.jpg", **MAKES[make])
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    expected = expected[::-1, ::-1] if make == "turned" else expected
    image = read_image(path)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert image[None].is_contiguous(memory_format=torch.channels_last)
    encoded = read_encoded(path)
    assert encoded.ndim == (3 if make in ("grey", "CMYK", "turned") else 1)
    assert torch.equal(decode_images([encoded], [path], CPU)[0], image)


def test_where_torchvision_cannot_decode_pillow_does(tmp_path, monkeypatch):
    path = save(tmp_path / "a.jpg")
    expected = read_image(path)
    encoded = read_encoded(path)

    def refuse(*_, **__):
        raise RuntimeError("not this one")

    monkeypatch.setattr(transforms, "decode_jpeg", refuse)
    assert torch.equal(read_image(path), expected)
    assert torch.equal(decode_images([encoded], [path], CPU)[0], expected)
    assert transforms.why_no_decoder(CPU) == "not this one"


def test_a_jpeg_cut_short_is_not_left_to_the_device(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(Path(save(tmp_path / "a.jpg", (200, 200))).read_bytes()[:-300])
    for read in (read_image, read_encoded):
        with pytest.raises(ValueError, match=r"cut\.jpg.*truncated"):
            read(str(path))


def test_a_damaged_jpeg_is_named_by_the_device_path(tmp_path):
    data = bytearray(Path(save(tmp_path / "a.jpg", (64, 64))).read_bytes())
    data[data.index(b"\xff\xc4") + 4 : data.index(b"\xff\xc4") + 20] = b"\xff" * 16  # its Huffman table
    (tmp_path / "odd.jpg").write_bytes(data)
    good, path = save(tmp_path / "good.jpg"), str(tmp_path / "odd.jpg")
    with pytest.raises(ValueError, match=r"odd\.jpg: cannot decode"):
        decode_images([read_encoded(good), read_encoded(path)], [good, path], CPU)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for read in (read_image, read_encoded):
        with pytest.raises(ValueError, match=r"a\.jpg: cannot decode.*decompression bomb"):
            read(path)


def test_stacked_images_are_channels_last():
    images = [torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8) for _ in range(2)]
    stacked = stack_images(images)
    assert torch.equal(stacked, torch.stack(images)) and stacked.is_contiguous(memory_format=torch.channels_last)


def chunks_of(sizes: list[int], chunk: int) -> list[list[SizedBatch]]:
    """What `ImageBatches` makes of images of these heights, whose pixels hold their index."""
    result = []
    for start in range(0, len(sizes), chunk):
        by_size: dict[int, list[int]] = {}
        for i in range(start, min(start + chunk, len(sizes))):
            by_size.setdefault(sizes[i], []).append(i)
        result.append(
            [
                SizedBatch(found, torch.stack([torch.full((3, size, 2), i, dtype=torch.uint8) for i in found]), None)
                for size, found in by_size.items()
            ]
        )
    return result


@given(st.lists(st.integers(1, 4), max_size=60), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_batches_are_full_whatever_the_chunks(sizes, batch_size, chunk, other_chunk):
    held_back = 4 * batch_size
    batches = list(full_batches(chunks_of(sizes, chunk), batch_size, held_back))
    seen = [i for batch in batches for i in batch.indexes]
    assert sorted(seen) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch.indexes) == len(batch.images) <= batch_size
        assert batch.indexes == sorted(batch.indexes)
        assert batch.images[:, 0, 0, 0].tolist() == batch.indexes
    # four sizes never leave more than 4 * (batch_size - 1) images waiting: all but the last of each size are full
    assert sum(len(batch.indexes) < batch_size for batch in batches) <= len(set(sizes))
    again = full_batches(chunks_of(sizes, other_chunk), batch_size, held_back)
    assert [batch.indexes for batch in again] == [batch.indexes for batch in batches]


def test_images_held_back_are_bounded():
    sizes = [1 + i % 10 for i in range(200)]
    read = 0

    def counted():
        nonlocal read
        for chunk in chunks_of(sizes, 4):
            read += 4
            yield chunk

    done = 0
    for batch in full_batches(counted(), 8, most_waiting=20):
        done += len(batch.indexes)
        assert read - done <= 20 + 4
        if read < 200:
            assert len(batch.indexes) >= 3  # the most frequent of ten sizes among 21


def test_a_whole_piece_is_handed_on_without_a_copy():
    (pieces,) = chunks_of([1] * 6, 6)
    (batch,) = full_batches([pieces], 6, 24)
    assert batch.images is pieces[0].images


@pytest.fixture
def mixed(tmp_path) -> list[str]:
    """Images of two sizes in turn, JPEG and PNG."""
    return [
        save(tmp_path / f"{i}.{'png' if i % 3 == 0 else 'jpg'}", [(136, 128), (128, 104)][i % 2], place=i)
        for i in range(13)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_decoding_on_the_device_gives_the_same_batches(mixed, workers, monkeypatch):
    monkeypatch.setattr(embedding, "LEAST_IMAGES", 3)
    expected = list(iterate_batches(ImageBatches(mixed, 0.5), 4, 0, "read"))
    found = list(iterate_batches(ImageBatches(mixed, 0.5, encoded=True), 4, workers, "read", CPU))
    assert [len(batch.indexes) for batch in found] == [4, 4, 3, 2]
    for a, b in zip(expected, found, strict=True):
        assert a.indexes == b.indexes and torch.equal(a.images, b.images)


def test_descriptors_do_not_depend_on_workers_or_decoder(mixed, monkeypatch):
    monkeypatch.setattr(embedding, "LEAST_IMAGES", 2)
    model = build_model("resnet18")
    expected = embed_images(model, mixed, 1.0, EmbeddingOptions(4, 0))
    for options in (EmbeddingOptions(4, 2), EmbeddingOptions(4, 0, decode="gpu")):
        assert np.array_equal(embed_images(model, mixed, 1.0, options), expected)


def test_processes_read_in_order_and_end_with_the_last_batch(mixed, monkeypatch):
    # fewer cores than processes: torch would warn at length
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    before = signal.getsignal(signal.SIGCHLD)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "This DataLoader")
        chunks = list(read_ahead(ImageBatches(mixed), [[i] for i in range(len(mixed))], 2))
    assert [piece.indexes for pieces in chunks for piece in pieces] == [[i] for i in range(len(mixed))]
    assert multiprocessing.active_children() == []
    # torch's handler would raise in the middle of a step
    assert signal.getsignal(signal.SIGCHLD) in (before, signal.SIG_DFL)


def test_reading_works_outside_the_main_thread(mixed):
    with ThreadPoolExecutor(1) as pool:
        chunks = pool.submit(lambda: list(read_ahead(ImageBatches(mixed[:2]), [[0], [1]], 1))).result()
    assert [piece.indexes for pieces in chunks for piece in pieces] == [[0], [1]]


def test_reading_processes_end_when_the_reader_stops_early(mixed):
    reading = read_ahead(ImageBatches(mixed), [[i] for i in range(len(mixed))], 1)
    next(reading)
    assert len(multiprocessing.active_children()) == 1
    reading.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("cores, processes, workers", [(1, 1, 1), (2, 1, 2), (64, 1, 3), (4, 2, 2), (2, 4, 1)])
def test_as_many_reading_processes_as_released_but_no_more_than_cores(monkeypatch, cores, processes, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert EmbeddingOptions().num_workers == default_workers() == workers


def test_both_programs_start_the_default_number_of_reading_processes():
    parsed = main_parser().parse_args([]), eval_parser().parse_args(["--resume", "x"])
    assert [args.num_workers for args in parsed] == [default_workers()] * 2


def test_an_undecodable_file_is_named_whatever_the_decoder(mixed):
    Path(mixed[4]).write_bytes(b"no image")
    for encoded in (False, True):
        with pytest.raises(ValueError, match=r"4\.jpg: cannot decode this image \(not an image\)"):
            list(iterate_batches(ImageBatches(mixed, encoded=encoded), 4, 0, "read"))


def test_decoding_on_a_gpu_needs_one(tiny_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main([*data_flags(tiny_root), *SMALL_RUN, "--decode", "gpu"]) == 2
    assert evaluation_script.main(["--resume", "c.pth", "--device", "cpu", "--decode", "gpu"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and all("--decode gpu: needs a CUDA device" in line for line in lines)
    assert not (tmp_path / "runs").exists()


def test_unknown_decoder():
    with pytest.raises(ValueError, match="decode: 'tpu'"):
        EmbeddingOptions(decode="tpu")


def test_png_and_jpeg_read_from_memory_alone(tmp_path):
    # the file is read once: what Pillow checks is what is decoded
    buffer = io.BytesIO()
    Image.fromarray(place_picture(3, 8, 1)).save(buffer, "PNG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())  # a PNG with a wrong name
    assert np.array_equal(read_image(str(tmp_path / "a.jpg")).permute(1, 2, 0).numpy(), place_picture(3, 8, 1))


def test_damage_ends_as_with_pillow_alone(tmp_path, monkeypatch):
    whole, damaged = Path(save(tmp_path / "a.jpg", (96, 64))).read_bytes(), tmp_path / "damaged.jpg"

    def outcome():
        try:
            return read_image(str(damaged)).tolist()
        except ValueError as error:
            return str(error)

    def refuse(*_, **__):
        raise RuntimeError

    decoded = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for at in rng.integers(0, len(data) if seed % 2 else 700, 3):
            data[at] = rng.integers(256)
        damaged.write_bytes(data[: rng.integers(len(data))] if seed % 5 == 0 else data)
        found = outcome()
        with monkeypatch.context() as patch:
            patch.setattr(transforms, "decode_jpeg", refuse)
            assert outcome() == found
        decoded += not isinstance(found, str)
    assert 10 < decoded < 50
