"""Cost of mining per query, without the embedding, against the plain way: query by query from a cache on disk.

    python3 -m benchmarks.speed.mining [--dims 768 3072] [--rounds 7] [--out mining.json]

The plain way, as in the reference: a query's cache rows are read one by one from a memory-mapped file (its pages are in
memory), and two searches, by faiss or by scikit-learn, find its positive and its negative. Its cost is linear in the queries,
so it is timed on the first `--plain_queries` of them. "Product alone" is the matrix product that ours cannot do without. Times
are processor time of all threads on a CPU, wall time on a GPU. Last come the memory that mining adds to the descriptors, and
what its docstring states.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from benchmarks.harness.command_line import benchmark_parser, write_record
from benchmarks.harness.machine import in_a_process_of_its_own, machine
from benchmarks.harness.timing import alternate
from datasets.command_line import OneLineParser, positive
from datasets.mining import MOST_DISTANCES, MOST_QUERIES, MiningPlan, mine_triplets, plan_mining
from datasets.places import ImageSet, Neighbours, neighbours_within
from utils.system.tables import align

KEY = 0
NEG_SAMPLES = 1000


class Problem:
    """A street of galleries and queries with clustered descriptors, and the cache file of the plain way in `folder`."""

    def __init__(self, gallery: int, queries: int, dim: int, folder: Path) -> None:
        rng = np.random.default_rng(0)
        east = np.arange(gallery) * 2.0
        sets = [self._street(east + rng.normal(0, 0.2, gallery)), self._street(rng.uniform(0, east[-1], queries))]
        self.positives, self.not_negative = (neighbours_within(*sets, radius) for radius in (10, 25))
        # neighbours look alike, and so do some distant places
        looks = rng.normal(size=(gallery // 20, dim)).astype(np.float32)
        place = [(s.positions[:, 0] // 40).astype(int) % len(looks) for s in sets]
        self.gallery, self.queries = (
            looks[p] + 0.7 * rng.standard_normal((len(p), dim), dtype=np.float32) for p in place
        )
        self.gallery_size, self.drawn = gallery, np.arange(queries)
        self.hardest = rng.integers(0, gallery, (queries, 1))
        for query in self.drawn:  # remembered images must be negatives
            near = self.not_negative[query]
            while self.hardest[query, 0] in near:
                self.hardest[query] = rng.integers(0, gallery)
        self.negatives = [np.setdiff1d(np.arange(gallery), self.not_negative[query]) for query in self.drawn]
        cache = np.memmap(folder / "cache", np.float32, "w+", shape=(gallery + queries, dim))
        cache[:gallery], cache[gallery:] = self.gallery, self.queries
        cache.flush()
        self.cache = np.memmap(folder / "cache", np.float32, "r", shape=cache.shape)

    @staticmethod
    def _street(east: np.ndarray) -> ImageSet:
        positions = np.stack([east, np.zeros(len(east))], 1)
        return ImageSet("street", ("",) * len(east), positions, np.array(["front"] * len(east)))

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        return np.array([self.cache[row] for row in rows])

    def _nearest(self, query: np.ndarray, rows: np.ndarray, engine: str) -> int:
        descriptors = self._rows(rows)
        if engine == "sklearn":
            return rows[NearestNeighbors(n_neighbors=1).fit(descriptors).kneighbors(query[None])[1][0, 0]]
        index = faiss.IndexFlatL2(descriptors.shape[1])
        index.add(descriptors)
        return rows[index.search(query[None], 1)[1][0, 0]]

    def plain(self, count: int, engine: str) -> tuple[list, list]:
        """The plain way for the first `count` queries; their positives and negatives."""
        rng = np.random.default_rng(1)
        positives, negatives = [], []
        for query in self.drawn[:count]:
            descriptor = self.cache[self.gallery_size + query]
            positives.append(self._nearest(descriptor, self.positives[query], engine))
            drawn = rng.choice(self.negatives[query], NEG_SAMPLES, replace=False)
            candidates = np.unique(np.concatenate([drawn, self.hardest[query]]))
            negatives.append(self._nearest(descriptor, candidates, engine))
        return positives, negatives

    def ours(self, dtype: str, part: int | None, device: str):
        """A callable that does what a training run does after embedding."""
        places: tuple[Neighbours, Neighbours] = self.positives, self.not_negative
        plan = plan_mining(self.drawn, self.gallery_size, *places, self.hardest, KEY, part)
        gallery, queries = self.gallery[plan.images].astype(dtype), self.queries.astype(dtype)

        def run():
            plan = plan_mining(self.drawn, self.gallery_size, *places, self.hardest, KEY, part)
            return mine_triplets(plan, queries, gallery, *places, KEY, neg_samples=NEG_SAMPLES, device=device)

        return run

    def product(self, device: str) -> Callable[[], object]:
        gallery, queries = (torch.from_numpy(x).to(device) for x in (self.gallery, self.queries))
        return lambda: (queries @ gallery.T)[-1, -1].item()


def synthetic(gallery: int, queries: int, dim: int) -> tuple:
    """Descriptors without structure, and their neighbours: memory depends on nothing else."""
    rng = np.random.default_rng(0)
    descriptors = (rng.standard_normal((count, dim), dtype=np.float32) for count in (queries, gallery))
    each = np.arange(queries)[:, None]
    lists = ((each * 8 + np.arange(count)) % (gallery - 50) for count in (3, 50))
    places = tuple(
        Neighbours(np.arange(queries + 1) * rows.shape[1], np.sort(rows, 1).ravel().astype(np.int32)) for rows in lists
    )
    plan = plan_mining(np.arange(queries), gallery, *places, np.full((queries, 1), -1), KEY)
    mine = (plan, *descriptors, *places)
    mine_triplets(
        *few(mine, 10), KEY, neg_samples=NEG_SAMPLES, chunk=64
    )  # libraries take their memory before it is measured
    return mine


def few(mine: tuple, count: int) -> tuple:
    """The same for the first queries."""
    plan, queries, *rest = mine
    return MiningPlan(plan.queries[:count], plan.pool, plan.kept[:count], plan.images), queries[:count], *rest


def work(*mine) -> None:
    mine_triplets(*mine, KEY, neg_samples=NEG_SAMPLES)


def memory(gallery: int, queries: int, dim: int) -> dict:
    """MiB that mining adds to the descriptors, measured and as its docstring states them."""
    added = in_a_process_of_its_own(synthetic, work, gallery, queries, dim)["added_mib"]
    block, chunk, candidates = (
        min(MOST_QUERIES, MOST_DISTANCES // gallery, queries),
        min(8192, gallery),
        NEG_SAMPLES + 1,
    )
    stated = (4 * block * (gallery + chunk) + 16 * (block + chunk) * dim + 32 * block * candidates) / 2**20
    return {"gallery": gallery, "queries": queries, "dim": dim, "added_mib": added, "stated_mib": stated}


def measure(gallery: int, queries: int, dim: int, plain_queries: int, rounds: int, device: str) -> list[dict]:
    """One row per variant of ours: milliseconds per query of the plain ways and of ours, and the ratios."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        problem = Problem(gallery, queries, dim, Path(folder))
        variants = {
            "full, float32": problem.ours("float32", None, device),
            "full, float16": problem.ours("float16", None, device),
            "partial, float32": problem.ours("float32", 5000, device),
            "product alone": problem.product(device),
        }
        plain = {
            "faiss": lambda: problem.plain(plain_queries, "faiss"),
            "sklearn": lambda: problem.plain(plain_queries, "sklearn"),
        }
        if not np.array_equal(variants["full, float32"]().positives[:plain_queries], plain["faiss"]()[0]):
            raise AssertionError("the plain way and ours chose other positives")
        timed = alternate({**plain, **variants}, rounds, clock=clock)
    count = {name: plain_queries if name in plain else queries for name in timed}
    ms = {name: 1000 * result["seconds"] / count[name] for name, result in timed.items()}
    shared = {"gallery": gallery, "queries": queries, "dim": dim}
    return [
        {
            "mining": name,
            **shared,
            "ms_per_query": {key: ms[key] for key in [*plain, name]},
            "ratio": {engine: ms[engine] / ms[name] for engine in plain},
        }
        for name in variants
    ]


def print_tables(rows: list[dict], taken: list[dict]) -> None:
    table = [["mining", "D", "ms/query: faiss", "sklearn", "ours", "ratio to faiss", "to sklearn"]]
    for row in rows:
        costs = [f"{cost:.2f}" for cost in row["ms_per_query"].values()]
        table.append([row["mining"], str(row["dim"]), *costs, *(f"{ratio:.1f}" for ratio in row["ratio"].values())])
    print("\n".join(align(table)))
    table = [["memory beyond the descriptors: D", "gallery", "queries", "MiB", "stated"]]
    for row in taken:
        table.append([f"{row[key]:.0f}" for key in ("dim", "gallery", "queries", "added_mib", "stated_mib")])
    print("\n".join(["", *align(table)]))


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.mining", __doc__, device="cpu")
    add = parser.add_argument
    add("--gallery", type=positive, default=10_000, metavar="N", help="gallery images")
    add("--queries", type=positive, default=1000, metavar="N", help="drawn queries")
    add("--dims", type=positive, nargs="+", default=[768, 3072], metavar="D", help="of descriptors")
    add("--plain_queries", type=positive, default=100, metavar="N", help="the plain way is timed on these")
    add("--rounds", type=positive, default=7, metavar="N", help="of each, in turn")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    rows = []
    for dim in args.dims:
        rows += measure(args.gallery, args.queries, dim, args.plain_queries, args.rounds, args.device)
    sizes = [(g, q) for g in (args.gallery, 4 * args.gallery) for q in (args.queries, 4 * args.queries)]
    taken = [memory(g, q, dim) for dim in args.dims for g, q in sizes]
    print(f"{args.queries} queries, gallery {args.gallery}, {NEG_SAMPLES} negatives; {machine()}")
    print_tables(rows, taken)
    write_record(args.out, {"rows": rows, "memory": taken})
    return 0


if __name__ == "__main__":
    sys.exit(main())
