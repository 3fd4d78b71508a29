"""Galleries that Milvus searches: Milvus Lite, and the server of SEGVPR_MILVUS=URI if that is set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import eval as evaluation_script
from datasets.places import ImageSet
from tests.test_cli import evaluation_flags
from tests.tiny import write_pass
from tests.utils.retrieval.test_index import GALLERY, IMAGES, QUERIES, mapped, vectors
from utils.retrieval import Localizer
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.engines import client, milvus
from utils.retrieval.engines.choice import searchable
from utils.retrieval.exact import Rows
from utils.retrieval.index import SearchableGallery
from utils.retrieval.settings import RetrievalSettings

for module in ("pymilvus", "milvus_lite"):
    pytest.importorskip(module)

SERVER = os.environ.get("SEGVPR_MILVUS")


@pytest.fixture(params=["lite", *(["server"] if SERVER else [])])
def uri(request, tmp_path):
    """Where Milvus is; the collections of a test are removed after it."""
    if request.param == "lite":
        yield str(tmp_path / "milvus.db")
        return
    opened = client.connect(SERVER)
    before = set(opened.list_collections())
    yield SERVER
    for name in set(opened.list_collections()) - before:
        opened.drop_collection(name)


def images(folder: Path, count: int = IMAGES) -> ImageSet:
    """In turns by two cameras, 5 m apart."""
    positions = np.stack([5.0 * np.arange(count), np.full(count, 0.1)], 1)
    return ImageSet(
        str(folder), tuple(f"{n}.jpg" for n in range(count)), positions, np.array(["a", ""] * count)[:count]
    )


@pytest.fixture
def upserted(monkeypatch) -> list[int]:
    """Counts the rows of each request."""
    from pymilvus import MilvusClient

    counts, upsert = [], MilvusClient.upsert

    def counted(self, name, entries):
        counts.append(len(entries))
        return upsert(self, name, entries)

    monkeypatch.setattr(MilvusClient, "upsert", counted)
    return counts


def assert_same(found: SearchableGallery, expected: SearchableGallery, k: int = 20, **how) -> None:
    for mine, theirs in zip(found.search(QUERIES, k, **how), expected.search(QUERIES, k, **how)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype


@pytest.mark.parametrize(
    "how", [{}, {"pca_dim": 8}, {"dtype": "float16"}, {"index": "IVF7,Flat", "nprobe": 7}], ids=str
)
def test_it_finds_what_faiss_finds(how, uri, tmp_path):
    rows = mapped(tmp_path, GALLERY.astype(how.get("dtype", "float32")))
    gallery = searchable(rows, RetrievalSettings(engine=uri, **how), images(tmp_path))
    assert_same(gallery, SearchableGallery(rows, RetrievalSettings(**how)))
    assert_same(gallery, SearchableGallery(rows, RetrievalSettings(**how)), k=2 * IMAGES)


@pytest.mark.parametrize(
    "factory, kind, parameters",
    [
        ("Flat", "FLAT", {}),
        ("HNSW8", "HNSW", {"M": 8, "efConstruction": 200}),
        ("HNSW8,Flat", "HNSW", {"M": 8, "efConstruction": 200}),
        ("IVF4,Flat", "IVF_FLAT", {"nlist": 4}),
        ("IVF4,SQ8", "IVF_SQ8", {"nlist": 4}),
        ("IVF4,PQ8", "IVF_PQ", {"nlist": 4, "m": 8}),
        ("IVF4,PQ8x6", "IVF_PQ", {"nlist": 4, "m": 8, "nbits": 6}),
    ],
)
def test_indexes(factory, kind, parameters, uri, tmp_path):
    if kind == "IVF_PQ" and client.is_lite(uri):
        with pytest.raises(ValueError, match=f"--index {factory}: Milvus Lite has no such index"):
            client.check_engine(uri, factory, 32)
        return
    gallery = searchable(GALLERY, RetrievalSettings(factory, engine=uri), images(tmp_path))
    made = gallery.index.describe_index(gallery.description()["collection"], milvus.VECTOR)
    assert made["index_type"] == kind and client.milvus_index(factory) == (kind, parameters)
    assert made.get("params", {}) == parameters
    indexes, distances = gallery.search(QUERIES, 10)
    assert (indexes == gallery.exact(QUERIES, 10)[0]).mean() > 0.8
    np.testing.assert_allclose(distances, np.linalg.norm(GALLERY[indexes] - QUERIES[:, None], axis=-1), rtol=1e-5)


def test_add_remove_filter_and_reopen(uri, tmp_path, upserted):
    everything, shown, settings = mapped(tmp_path), images(tmp_path), RetrievalSettings(engine=uri)
    first, more = (Rows(everything, np.arange(*part)) for part in ((0, 280), (280, IMAGES)))
    some = ImageSet(shown.folder, shown.paths[:280], shown.positions[:280], shown.cameras[:280])
    others = ImageSet(shown.folder, shown.paths[280:], shown.positions[280:], shown.cameras[280:])
    gallery, expected = searchable(first, settings, some), SearchableGallery(first, RetrievalSettings())
    for one in (gallery, expected):
        one.add(more, others)
    assert_same(gallery, expected)
    allowed = np.linalg.norm(shown.positions - (500, 0), axis=1) < 200
    assert_same(gallery, expected, allowed=allowed)
    kept = np.flatnonzero(~np.isin(np.arange(IMAGES), [0, 7, 290]))
    for one in (gallery, expected):
        one.remove(np.array([0, 7, 290]))
    assert_same(gallery, expected)
    count = gallery.index.query(gallery.description()["collection"], output_fields=["count(*)"])
    assert count[0]["count(*)"] == IMAGES - 3 and upserted == [280, 20]

    remaining = shown.without({shown.paths[number] for number in (0, 7, 290)})
    again = searchable(Rows(everything, kept), settings, remaining)
    assert_same(again, expected)
    assert again.description()["collection"] == gallery.description()["collection"] and upserted == [280, 20]
    remaining.positions[3] += 1
    again = searchable(Rows(everything, kept), settings, remaining)
    assert upserted == [280, 20, 1]  # the image that moved
    (held,) = again.index.query(again.description()["collection"], filter='path == "4.jpg"', output_fields=["*"])
    assert (held["easting"], held["northing"], held["camera"]) == (21, 1.1, "a")


def test_what_another_list_put_into_the_collection_is_not_found(uri, tmp_path):
    """Even if the nearest hundred are all of the other one."""
    rows = mapped(tmp_path, np.concatenate([np.repeat(GALLERY[:1], 150, 0), GALLERY]))
    settings = RetrievalSettings(engine=uri)
    searchable(rows, settings, images(tmp_path, len(rows)))
    own = Rows(rows, np.arange(150, len(rows)))
    gallery = searchable(own, settings, images(tmp_path))
    for mine, theirs in zip(
        gallery.search(GALLERY[:1], 5), SearchableGallery(own, RetrievalSettings()).search(GALLERY[:1], 5)
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_an_interrupted_filling_goes_on(uri, tmp_path, upserted, monkeypatch):
    monkeypatch.setattr(milvus, "ROWS_PER_CALL", 100)
    from pymilvus import MilvusClient

    counted = MilvusClient.upsert

    def interrupted(self, name, entries):
        if len(upserted) == 2:
            raise KeyboardInterrupt
        return counted(self, name, entries)

    monkeypatch.setattr(MilvusClient, "upsert", interrupted)
    settings = RetrievalSettings(engine=uri)
    with pytest.raises(KeyboardInterrupt):
        searchable(mapped(tmp_path), settings, images(tmp_path))
    monkeypatch.setattr(MilvusClient, "upsert", counted)
    gallery = searchable(mapped(tmp_path), settings, images(tmp_path))
    assert upserted == [100, 100, 100]
    assert_same(gallery, SearchableGallery(GALLERY, RetrievalSettings()))


def test_requests_stay_within_what_milvus_takes(uri, tmp_path, upserted, monkeypatch):
    monkeypatch.setattr(milvus, "BYTES_PER_CALL", 4 * GALLERY.shape[1] * 128)
    monkeypatch.setattr(milvus, "MOST_FOUND", 150)
    monkeypatch.setattr(milvus, "QUERIES_AT_ONCE", 10)
    monkeypatch.setattr(milvus, "IDS_PER_CALL", 70)
    gallery = searchable(GALLERY, RetrievalSettings(engine=uri), images(tmp_path))
    assert upserted == [128, 128, 44]
    for k in (150, 151, IMAGES):
        assert_same(gallery, SearchableGallery(GALLERY, RetrievalSettings()), k)
    gallery.remove(np.arange(200))
    assert gallery.search(QUERIES, 200)[0].shape == (len(QUERIES), 100)


def test_names_that_no_text_can_hold(tmp_path):
    shown = images(tmp_path, 3)
    odd = ImageSet(shown.folder, (os.fsdecode(b"\xff.jpg"), *shown.paths[1:]), shown.positions, shown.cameras)
    gallery = searchable(GALLERY[:3], RetrievalSettings(engine=str(tmp_path / "milvus.db")), odd)
    assert gallery.search(GALLERY[:1], 3)[0][0, 0] == 0


def test_numbers_are_those_of_the_store(tmp_path):
    rows = mapped(tmp_path)
    whole, part = milvus.identity(rows), milvus.identity(Rows(rows, np.array([5, 2])))
    np.testing.assert_array_equal(whole.ids[[5, 2]], part.ids)
    assert whole[:2] == part[:2] and whole.ids.min() >= 0
    other = milvus.identity(mapped(tmp_path / "other"))
    assert other.store == "other" and other.file == whole.file
    memory, changed = milvus.identity(GALLERY), milvus.identity(vectors(IMAGES, seed=2))
    assert len({memory.store, changed.store, whole.store}) == 3 and not set(memory.ids) & set(changed.ids)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "factory", ["OPQ4,IVF4,PQ8", "IVF4_HNSW8,Flat", "IVF4,SQ4", "IVF4,PQ8x4fs", "PQ8", "HNSW8,SQ8"]
)
def test_an_index_that_milvus_lacks_is_named(factory):
    with pytest.raises(ValueError, match=f"--index {factory}: Milvus has no such index; .* give Flat, HNSW32"):
        client.check_engine("milvus.db", factory, 32)


def test_what_a_server_would_refuse_later_is_refused_at_once():
    with pytest.raises(ValueError, match=r"--index IVF70000,Flat: Milvus takes at most 65536 lists"):
        client.check_engine("http://127.0.0.1:9", "IVF70000,Flat", 32)


def test_no_password_gets_into_a_result():
    with pytest.raises(ValueError, match="leave user and password out, and set SEGVPR_MILVUS_TOKEN") as caught:
        client.check_engine("http://me:secret@127.0.0.1:9", "Flat", 32)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address, line",
    [
        ("milvus.sqlite", "--engine milvus.sqlite: give http://HOST:PORT or FILE.db"),
        ("http://127.0.0.1:9", "--engine http://127.0.0.1:9: .*; see that the server runs"),
        ("http://127.0.0.1:x", "--engine http://127.0.0.1:x: .*; see that the server runs"),
        ("absent/milvus.db", "--engine absent/milvus.db: .*absent"),
        ("eval.py/milvus.db", "--engine eval.py/milvus.db: "),
    ],
)
def test_an_address_without_milvus(address, line):
    with pytest.raises((ValueError, OSError), match=line) as caught:
        client.check_engine(address, "Flat", 32)
    assert "\n" not in str(caught.value)


def test_descriptors_too_long_for_milvus():
    with pytest.raises(ValueError, match="at most 32768 numbers, not 40000; give --pca_dim"):
        client.check_engine("milvus.db", "Flat", 40_000)


def test_a_file_that_another_process_has_open(tmp_path):
    address = str(tmp_path / "milvus.db")
    code = f"from pymilvus import MilvusClient; c = MilvusClient({address!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(OSError, match=f"--engine {address}: .*no other process has this file open"):
            client.connect(address)
        holder.communicate("\n")
    client.connect(address).close()


def test_additions_need_their_images(tmp_path):
    gallery = searchable(GALLERY, RetrievalSettings(engine=str(tmp_path / "milvus.db")), images(tmp_path))
    with pytest.raises(ValueError, match="images: "):
        gallery.add(GALLERY)


# -- the programs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(trained_run, tiny_root, tmp_path):
    """Run eval.py on a tiny test set; returns the sets of results.json."""

    def run(*flags: str) -> list[dict]:
        data = ["--dataset_root_test", str(tiny_root / "robotcar"), "--test_g", "overcast", "--test_q", "rain+night"]
        command = ["--resume", str(trained_run / "best.pth"), *data, *evaluation_flags(tiny_root)[4:]]
        assert evaluation_script.main([*command, "--output_dir", str(tmp_path / "out"), *flags]) == 0
        return json.loads((tmp_path / "out/results.json").read_text())["sets"]

    return run


def test_evaluation_scores_the_same(evaluate, uri, tmp_path, capsys):
    expected = evaluate()
    predictions = (tmp_path / "out/predictions/rain.csv").read_text()
    found = evaluate("--engine", uri, "--store", str(tmp_path / "store"))
    assert "index Flat in Milvus" in capsys.readouterr().out
    assert [{k: v for k, v in s.items() if k != "index"} for s in found] == expected
    assert all(s["index"]["engine"] == uri and s["index"]["recall"] == s["index"]["exact_recall"] for s in found)
    ranks = [line.split(",")[:3] for line in predictions.splitlines()]
    again = (tmp_path / "out/predictions/rain.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in again] == ranks


def test_a_localizer_answers_the_same_and_grows(uri, trained_run, tmp_path, upserted):
    write_pass(tmp_path / "gallery", 6, 1)
    write_pass(tmp_path / "more", 1, 2)
    (new,) = (tmp_path / "more").iterdir()
    photos = sorted((tmp_path / "gallery").iterdir())
    options = EmbeddingOptions(batch_size=4, num_workers=0)
    how = {"store": tmp_path / "store", "image_size": 136, "options": options}

    def opened(**engine) -> Localizer:
        return Localizer(trained_run / "best.pth", tmp_path / "gallery", **how, **engine)

    def paths(localizer: Localizer, **prior) -> list[list[str]]:
        return [[match.path for match in found.matches] for found in localizer.locate(photos, **prior)]

    here, there = opened(), opened(engine=uri)
    assert paths(there) == paths(here) and upserted == [6]
    near = (*here.images.positions[0], 90.0)
    assert paths(there, near=near) == paths(here, near=near) and len(paths(there, near=near)[0]) == 3
    for localizer in (here, there):
        localizer.add([new], [(0.0, 0.0)])
        localizer.remove([photos[2]])
    assert paths(there) == paths(here) and there.description()["engine"] == uri
    assert paths(opened(engine=uri)) == paths(opened()) and upserted == [6, 1, 1]  # the folder still has the image


def test_without_the_extra_one_line_says_what_to_do(monkeypatch, tiny_root, trained_run, tmp_path, capsys):
    find_spec = client.find_spec
    monkeypatch.setattr(client, "find_spec", lambda name: None if name == "pymilvus" else find_spec(name))
    photo, gallery = str(min((tiny_root / "robotcar/rain").iterdir())), str(tiny_root / "robotcar/overcast")
    flags = ["--localize", photo, "--gallery", gallery, "--engine", "http://host:19530", "--device", "cpu"]
    flags += ["--store", str(tmp_path)]
    assert evaluation_script.main(["--resume", str(trained_run / "best.pth"), *flags]) == 2
    line = "eval.py: error: --engine http://host:19530: needs pymilvus: pip install pymilvus milvus-lite"
    assert capsys.readouterr().err.splitlines() == [line]
