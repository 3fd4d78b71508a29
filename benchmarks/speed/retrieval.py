"""Indexes beside exact search on clustered vectors: recall, bytes, build time, queries per second; and a rate of embedding.

    python3 -m benchmarks.speed.retrieval [--small] [--vectors 1000000] [--dim 256] [--out docs/retrieval.json]
    python3 -m benchmarks.speed.retrieval --engine http://HOST:PORT --vectors 100000 --indexes Flat IVF1024,Flat

Vectors are views of places: each place lies around one of a thousand districts, five views lie around a place, and queries are
further views with more noise, as of another season. Variance falls from component to component, as in descriptors. Everything
follows from the seed. The vectors lie in a file, like the galleries in eval.py's store, and eval.py's code searches them. Each
index takes turns with the exact search (medians of three rounds), because the speed of a shared machine drifts. With an engine,
the table gives wall time, since CPU time is spent elsewhere, and the time of a query that is asked alone.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from benchmarks.harness.command_line import benchmark_parser, write_record
from datasets.command_line import OneLineParser, positive, run_tool
from datasets.places import ImageSet
from models import build_model
from utils.retrieval.engines.client import check_engine
from utils.retrieval.engines.milvus import MilvusGallery
from utils.retrieval.exact import search
from utils.retrieval.index import CANDIDATES, SearchableGallery
from utils.retrieval.settings import RetrievalSettings, check_settings
from utils.system.seeding import generator
from utils.system.tables import align

VIEWS, DISTRICTS = 5, 1000
OWN, VIEW_NOISE, QUERY_NOISE = 1.0, 0.5, 1.4
"""Spread of places around their district (districts have 1), and of a gallery's views and of queries around their place."""
PLACES_AT_ONCE = 10_000
ROUNDS, ALONE = 3, 50
TOP = 20
INDEXES = ("IVF4096,Flat", "OPQ64_256,IVF4096,PQ64", "HNSW32")
SMALL = {"vectors": 20_000, "graph_vectors": 10_000, "queries": 200, "indexes": ["IVF256,Flat", "PQ64", "HNSW32"]}


class Town:
    """Clustered unit vectors, made block by block."""

    def __init__(self, vectors: int, dim: int, seed: int) -> None:
        self.vectors, self.dim, self.seed = vectors, dim, seed
        self.places = -(-vectors // VIEWS)
        self.spectrum = (1 + np.arange(dim, dtype=np.float32)) ** -0.5
        self.districts = generator(seed, "districts").standard_normal((DISTRICTS, dim), np.float32)

    def centres(self, block: int) -> np.ndarray:
        """Of the places of one block: (P, D)."""
        count = min(PLACES_AT_ONCE, self.places - block * PLACES_AT_ONCE)
        rng = generator(self.seed, "places", block)
        own = rng.standard_normal((count, self.dim), np.float32)
        return self.districts[rng.integers(DISTRICTS, size=count)] + OWN * own

    def write(self, path: Path) -> np.ndarray:
        """All views into an .npy file; returned memory-mapped."""
        out = np.lib.format.open_memmap(path, "w+", np.float32, (self.vectors, self.dim))
        for block in range(-(-self.places // PLACES_AT_ONCE)):
            centres = np.repeat(self.centres(block), VIEWS, 0)
            start = block * PLACES_AT_ONCE * VIEWS
            views = self.views(centres, VIEW_NOISE, generator(self.seed, "views", block))
            out[start : start + len(views)] = views[: self.vectors - start]
        out.flush()
        return np.load(path, mmap_mode="r")

    def views(self, centres: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
        x = (centres + noise * rng.standard_normal(centres.shape, np.float32)) * self.spectrum
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def queries(self, count: int, places: int) -> tuple[np.ndarray, np.ndarray]:
        """New views of some of the first `places` places: (Q, D), and which places (Q,)."""
        chosen = np.sort(generator(self.seed, "queried").integers(places, size=count))
        blocks = np.unique(chosen // PLACES_AT_ONCE)
        centres = np.concatenate(
            [self.centres(b)[chosen[chosen // PLACES_AT_ONCE == b] % PLACES_AT_ONCE] for b in blocks]
        )
        return self.views(centres, QUERY_NOISE, generator(self.seed, "queries")), chosen


def timed(work: Callable[[], object]) -> tuple[object, float, float]:
    """What it returns, its wall seconds, and CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def found(reference: np.ndarray, indexes: np.ndarray, n: int) -> float:
    """Share of queries whose exact nearest neighbour (Q,) is among the first n of (Q, K)."""
    return float((indexes[:, :n] == reference[:, None]).any(1).mean())


def compare(
    name: str,
    nprobes: list[int | None],
    gallery: np.ndarray,
    town: Town,
    count: int,
    folder: Path,
    engine: str | None = None,
) -> list[dict]:
    """One row per nprobe: an index of the gallery against the exact search, in turns."""
    queries, places = town.queries(count, len(gallery) // VIEWS)
    settings = RetrievalSettings(name, engine=engine, seed=town.seed)
    check_settings(settings, town.dim, "of the benchmark", len(gallery))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    searchable, wall, cpu = timed(lambda: opened(gallery, settings, folder))
    answers: dict[int | None, np.ndarray] = {}
    runs: dict[int | str | None, list[tuple[float, float]]] = {key: [] for key in ("exact", *nprobes)}
    for _ in range(ROUNDS):
        (exact, _), *seconds = timed(lambda: search(gallery, queries, TOP))
        runs["exact"].append(seconds)
        for nprobe in nprobes:
            set_nprobe(searchable, nprobe)
            (answers[nprobe], _), *seconds = timed(lambda: searchable.search(queries, TOP))
            runs[nprobe].append(seconds)
    rows = []
    for nprobe in nprobes:
        set_nprobe(searchable, nprobe)
        raw, indexes = searchable.candidates(queries, CANDIDATES), answers[nprobe]
        exact_s, index_s = ([wall for wall, _ in runs[key]] for key in ("exact", nprobe))
        alone = [timed(lambda q=q: searchable.search(queries[q : q + 1], TOP))[1] for q in range(min(ALONE, count))]
        rows.append(
            {
                "index": name,
                "vectors": len(gallery),
                "nprobe": nprobe,
                "found@1": found(exact[:, 0], indexes, 1),
                "found@20": found(exact[:, 0], indexes, TOP),
                "found@1_before_reranking": found(exact[:, 0], raw, 1),
                "found@20_before_reranking": found(exact[:, 0], raw, TOP),
                "place_recall@1": float((indexes[:, 0] // VIEWS == places).mean()),
                "exact_place_recall@1": float((exact[:, 0] // VIEWS == places).mean()),
                "bytes_per_vector": searchable.bytes_per_image,
                "build_s": wall,
                "build_cpu_s": cpu,
                "queries_per_s": count / statistics.median(index_s),
                "exact_queries_per_s": count / statistics.median(exact_s),
                "queries_per_cpu_s": count / statistics.median(cpu for _, cpu in runs[nprobe]),
                "exact_queries_per_cpu_s": count / statistics.median(cpu for _, cpu in runs["exact"]),
                "alone_ms": 1000 * statistics.median(alone),
                "times_exact": statistics.median(e / i for e, i in zip(exact_s, index_s)),
            }
        )
    print(f"{name}: done", file=sys.stderr, flush=True)
    return rows


def opened(gallery: np.ndarray, settings: RetrievalSettings, folder: Path) -> SearchableGallery:
    """The gallery, searched by faiss or by the settings' engine, where its images stand in a row."""
    if settings.engine is None:
        return SearchableGallery(gallery, settings, folder)
    places = np.stack([np.arange(len(gallery), dtype=float), np.zeros(len(gallery))], 1)
    names = tuple(f"{number}.jpg" for number in range(len(gallery)))
    images = ImageSet(str(folder), names, places, np.full(len(gallery), ""))
    return MilvusGallery(gallery, settings, folder, images)


def set_nprobe(searchable: SearchableGallery, nprobe: int | None) -> None:
    if nprobe is not None and searchable.settings.engine:
        searchable.nprobe = nprobe
    elif nprobe is not None:
        faiss.extract_index_ivf(searchable.index).nprobe = nprobe


def embedding_rate(images: int = 6, size: tuple[int, int] = (540, 960)) -> dict:
    """Seconds per image of the released network in float32, one image at a time, already in memory."""
    model = build_model("resnet50", "deeplab").eval()
    image = torch.zeros(1, 3, *size)
    with torch.inference_mode():
        model.embed(image)
        runs = [timed(lambda: model.embed(image))[1:] for _ in range(images)]
    wall, cpu = (statistics.median(column) for column in zip(*runs))
    return {"size": [size[1], size[0]], "wall_s_per_image": wall, "cpu_s_per_image": cpu, "dim": model.descriptor_dim}


def table(rows: list[dict]) -> str:
    """What was found, and its cost in CPU seconds, which other jobs on the machine hardly change."""
    header = ["index", "vectors", "nprobe", "@1", "@20", "raw @1", "raw @20", "place R@1", "exact", "bytes"]
    header += ["build CPU s", "queries/CPU s", "exact/CPU s", "ratio"]
    cells = [
        [r["index"], str(r["vectors"]), str(r["nprobe"] or "-")]
        + [
            f"{100 * r[k]:.1f}"
            for k in ("found@1", "found@20", "found@1_before_reranking", "found@20_before_reranking")
        ]
        + [f"{100 * r[k]:.1f}" for k in ("place_recall@1", "exact_place_recall@1")]
        + [f"{r['bytes_per_vector']:.0f}", f"{r['build_cpu_s']:.0f}"]
        + [f"{r['queries_per_cpu_s']:.0f}", f"{r['exact_queries_per_cpu_s']:.0f}"]
        + [f"{r['queries_per_cpu_s'] / r['exact_queries_per_cpu_s']:.1f}"]
        for r in rows
    ]
    return "\n".join(align([header, *cells]))


def wall_table(rows: list[dict]) -> str:
    """What an engine found, and how long it took."""
    header = ["index", "vectors", "nprobe", "raw @1", "@1", "@20", "build s", "queries/s", "one query ms", "exact/s"]
    cells = [
        [r["index"], str(r["vectors"]), str(r["nprobe"] or "-")]
        + [f"{100 * r[k]:.1f}" for k in ("found@1_before_reranking", "found@1", "found@20")]
        + [
            f"{r['build_s']:.1f}",
            f"{r['queries_per_s']:.0f}",
            f"{r['alone_ms']:.1f}",
            f"{r['exact_queries_per_s']:.0f}",
        ]
        for r in rows
    ]
    return "\n".join(align([header, *cells]))


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.retrieval", __doc__)
    add = parser.add_argument
    add("--vectors", type=positive, default=1_000_000, metavar="N", help="in the gallery")
    add("--graph_vectors", type=positive, default=200_000, metavar="N", help="of them in HNSW, which is slow to build")
    add("--dim", type=positive, default=256, metavar="D", help="numbers per vector")
    add("--queries", type=positive, default=500, metavar="N", help="new views")
    add("--indexes", nargs="+", default=list(INDEXES), metavar="FACTORY", help="faiss factory strings")
    add("--nprobes", type=positive, nargs="+", default=[1, 4, 16, 64], metavar="N", help="lists to search")
    add("--seed", type=int, default=0, metavar="N", help="of the vectors")
    add("--small", action="store_true", help=f"a quick look: {SMALL}")
    add("--engine", metavar="URI", help="of Milvus, which searches in place of faiss")
    add("--work", type=Path, metavar="DIR", help="for temporary files")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.small:
        vars(args).update(SMALL)
    return run_tool("benchmarks.speed.retrieval", lambda: measure(args))


def measure(args: argparse.Namespace) -> None:
    """Build, search and compare all indexes."""
    for name in args.indexes if args.engine else ():
        check_engine(args.engine, name, args.dim)  # before anything long begins
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        town = Town(args.vectors, args.dim, args.seed)
        vectors, seconds, _ = timed(lambda: town.write(Path(work, "vectors.npy")))
        print(f"{vectors.shape} vectors written in {seconds:.0f} s", file=sys.stderr, flush=True)
        for name in args.indexes:
            gallery = vectors[: args.graph_vectors] if "HNSW" in name else vectors
            nprobes = args.nprobes if "IVF" in name else [None]
            rows += compare(name, nprobes, gallery, town, args.queries, Path(work, "index"), args.engine)
    if args.engine:
        print(wall_table(rows))
        write_record(args.out, {"load_at_start": load, "engine": args.engine, "indexes": rows})
        return
    embedding = embedding_rate()
    print(table(rows))
    print(f"embedding, resnet50 at 960x540: {embedding['cpu_s_per_image']:.2f} CPU s per image")
    settings = {k: getattr(args, k) for k in ("vectors", "graph_vectors", "dim", "queries", "seed")}
    settings |= {"rounds": ROUNDS, "views": VIEWS, "own": OWN, "view_noise": VIEW_NOISE, "query_noise": QUERY_NOISE}
    faiss_used = {"version": faiss.__version__, "compiled": faiss.get_compile_options().strip()}
    found = {"flat_bytes_per_vector": 4 * args.dim, "indexes": rows, "embedding": embedding}
    write_record(args.out, {"load_at_start": load, "faiss": faiss_used, "settings": settings, **found})


if __name__ == "__main__":
    sys.exit(main())
