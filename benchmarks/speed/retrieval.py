"""Indexes beside exact search on clustered vectors: recall, bytes, build time, queries per second; and a rate of embedding.

python3 -m benchmarks.speed.retrieval [--small] [--vectors 1000000] [--dim 256] [--out docs/retrieval.json]

Vectors are views of places: a place lies around one of a thousand districts, five views lie around a place, and queries are
further views with more noise, as another season's would be. Components lose variance as descriptors' do. Everything follows from
the seed. They lie in a file, as galleries do in eval.py's store, and are searched by its code. Each index is timed in turns with
the exact search (medians of three rounds), because a shared machine's speed drifts; CPU seconds are given beside wall seconds.
"""

import argparse
import json
import os
import platform
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

from models import build_model
from utils.evaluation.tables import align
from utils.retrieval.exact import search
from utils.retrieval.index import CANDIDATES, SearchableGallery
from utils.retrieval.settings import RetrievalSettings, check_settings
from utils.system.seeding import generator

VIEWS, DISTRICTS = 5, 1000
OWN, VIEW_NOISE, QUERY_NOISE = 1.0, 0.5, 1.4
"""Spread of places around their district (which has 1), of a gallery's views and of queries around their place."""
PLACES_AT_ONCE = 10_000
ROUNDS = 3
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
    name: str, nprobes: list[int | None], gallery: np.ndarray, town: Town, count: int, folder: Path
) -> list[dict]:
    """One row per nprobe: an index of the gallery against the exact search, in turns."""
    queries, places = town.queries(count, len(gallery) // VIEWS)
    settings = RetrievalSettings(name, seed=town.seed)
    check_settings(settings, town.dim, "of the benchmark", len(gallery))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    searchable, wall, cpu = timed(lambda: SearchableGallery(gallery, settings, folder))
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
                "times_exact": statistics.median(e / i for e, i in zip(exact_s, index_s)),
            }
        )
    print(f"{name}: done", file=sys.stderr, flush=True)
    return rows


def set_nprobe(searchable: SearchableGallery, nprobe: int | None) -> None:
    if nprobe is not None:
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
    """What was found, and what it cost in CPU seconds: other jobs on the machine do not change these."""
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--graph_vectors", type=int, default=200_000, help="of them in HNSW, whose build is slow")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--indexes", nargs="+", default=list(INDEXES), metavar="FACTORY")
    parser.add_argument("--nprobes", type=int, nargs="+", default=[1, 4, 16, 64], metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help=f"a quick look: {SMALL}")
    parser.add_argument("--work", type=Path, help="folder for the vectors and indexes, emptied of them after")
    parser.add_argument("--out", type=Path, help="write JSON here")
    args = parser.parse_args(argv)
    if args.small:
        vars(args).update(SMALL)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        town = Town(args.vectors, args.dim, args.seed)
        vectors, seconds, _ = timed(lambda: town.write(Path(work, "vectors.npy")))
        print(f"{vectors.shape} vectors written in {seconds:.0f} s", file=sys.stderr, flush=True)
        rows = []
        for name in args.indexes:
            gallery = vectors[: args.graph_vectors] if "HNSW" in name else vectors
            nprobes = args.nprobes if "IVF" in name else [None]
            rows += compare(name, nprobes, gallery, town, args.queries, Path(work, "index"))
    content = {
        "machine": {
            "cores": os.cpu_count(),
            "load_at_start": load,
            "faiss": faiss.__version__,
            "torch": torch.__version__,
        }
        | {
            "platform": f"{platform.system()} {platform.machine()}",
            "faiss_compiled": faiss.get_compile_options().strip(),
        },
        "settings": {k: getattr(args, k) for k in ("vectors", "graph_vectors", "dim", "queries", "seed")}
        | {"rounds": ROUNDS, "views": VIEWS, "own": OWN, "view_noise": VIEW_NOISE, "query_noise": QUERY_NOISE},
        "flat_bytes_per_vector": 4 * args.dim,
        "indexes": rows,
        "embedding": embedding_rate(),
    }
    print(table(rows))
    embedding = content["embedding"]
    print(f"embedding, resnet50 at 960x540: {embedding['cpu_s_per_image']:.2f} CPU s per image")
    if args.out:
        args.out.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
