"""Draw a town, train a small SegVPR on it in minutes, and compare it untrained, trained, and with the network that ships.

    python3 -m benchmarks.demo [--seeds 0 1 2]

The settings are small (ResNet-18 from random weights, 224x128 pictures). `SMALL` lists those that differ from the released
protocol; docs/protocol.md gives the reasons. The scoring is the protocol's.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

import eval as evaluation_script
import main as training_script
from benchmarks.showcase import showcase
from datasets.command_line import OneLineParser
from datasets.naming import KINDS
from datasets.places import load_image_set
from datasets.town import make_town
from utils.evaluation.recall import EvaluationSet, evaluate_places
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import SHIPPED, load_checkpoint
from utils.runs.folders import newest, weights_of_run
from utils.system.compute import resolve_compute
from utils.system.tables import align

SIZE = (224, 128)
SMALL = {
    "arch": "resnet18",
    "pretrain": "none",
    "eval_scale": "1",
    "target_size": "224 128",
    "cache_refresh_rate": "300",
    "queries_per_epoch": "2100",
    "n_epochs": "1",
    "neg_samples": "5",
    "lr": "0.001",
    "lr_triplets": "2100",
    "num_workers": "1",
    "precision": "auto",
}
FRESH = {"val_g": "town10/gallery/front_rear", "val_q": "town10/queries_rain_fresh/front_rear"}
FRESH_NAME = "town10, fresh rain pass"
TITLES = {
    "val": "town3, rain (held out)",
    "rain": "robotcar, rain",
    "snow": "robotcar, snow",
    "sun": "robotcar, sun",
    "night": "robotcar, night",
}


def words(flags: dict[str, str]) -> list[str]:
    return [word for flag, value in flags.items() for word in (f"--{flag}", *value.split())]


def run(script, flags: dict[str, str]) -> None:
    """Print a command as a user would type it, run it, and exit if it fails."""
    name = Path(script.__file__).name
    line = words(flags)
    print(f"\n$ python3 {name} {' '.join(line)}", flush=True)
    status = script.main(line)
    if status:
        sys.exit(status)


def newest_run(exp_name: str) -> Path:
    return newest(Path("runs", exp_name).iterdir())


def recalls(folder: Path) -> dict[str, float]:
    """Recall@1 in percent by set."""
    sets = json.loads((folder / "results.json").read_text())["sets"]
    return {s["name"]: 100 * s["recall"]["1"] for s in sets}


def roots_of(town: Path) -> dict[str, str]:
    return {"dataset_root_val": f"{town}/idda", "dataset_root_test": f"{town}/robotcar"}


def evaluate(weights: Path, folder: Path, what: dict[str, str]) -> dict[str, float]:
    """Evaluate one network into `folder` on the sets that `what` names; recall@1 in percent."""
    fixed = {"eval_scale": "1", "num_workers": "1", "output_dir": str(folder)}
    run(evaluation_script, {"resume": str(weights), **what, **fixed})
    return recalls(folder)


def on_all_sets(weights: Path, town: Path, folder: Path, others: dict[str, float]) -> dict[str, float]:
    """Recall@1 by title: the fresh pass of the training town, evaluated here, then the `others`."""
    root = {"dataset_root_val": roots_of(town)["dataset_root_val"], "no_report": ""}
    fresh = evaluate(weights, folder / "fresh", {**root, **FRESH})["val"]
    return {FRESH_NAME: fresh, **{TITLES[name]: value for name, value in others.items()}}


def measure(exp_name: str, town: Path, seed: int, changes: dict[str, str]) -> dict[str, float]:
    """Train with one seed; recall@1 in percent on every set, the fresh pass of the training town first."""
    data = {"dataset_root": f"{town}/idda", **roots_of(town), "DA_datasets": f"{town}/robotcar_all"}
    run(training_script, {**data, **SMALL, **changes, "seed": str(seed), "exp_name": exp_name})
    trained = newest_run(exp_name)
    return on_all_sets(weights_of_run(trained), town, trained, recalls(trained))


def measure_shipped(town: Path) -> dict[str, float]:
    """The same for the network that ships. It has never seen this town."""
    folder = Path("runs", "demo_shipped", time.strftime("%Y-%m-%d_%H-%M-%S"))
    return on_all_sets(SHIPPED, town, folder, evaluate(SHIPPED, folder, roots_of(town)))


def robotcar_sets(town: Path, titles: dict[str, str]) -> list[EvaluationSet]:
    """The other camera's conditions, condition -> title, at the pictures' own size."""
    gallery, kind = load_image_set([town / "robotcar/overcast"]), KINDS["utm"]
    return [
        EvaluationSet(title, gallery, load_image_set([town / "robotcar" / name]), kind, (kind.eval_threshold_m,), 1.0)
        for name, title in titles.items()
    ]


def draw_showcase(weights: Path, folder: Path, town: Path, seed: int = 0) -> Path:
    """Draw what a network finds in four conditions and where it looks, as in the README."""
    checkpoint = load_checkpoint(weights)
    options = EmbeddingOptions(num_workers=1, compute=resolve_compute())
    model = options.compute.place(checkpoint.build())
    sets = robotcar_sets(town, {name: name for name in ("rain", "snow", "sun", "night")})
    results = evaluate_places(model, sets, options)
    return showcase(folder / "showcase.jpg", model, results, options, seed, rows=len(sets))


def compare(before: list[dict[str, float]], after: list[dict[str, float]], shipped: dict[str, float]) -> str:
    """Table of recall@1 before and after training, mean over seeds, and of the network that ships."""
    several = len(after) > 1
    rows = [["recall@1 in percent", "untrained", "trained", "gain", *(["gain per seed"] if several else []), "shipped"]]
    for name in after[0]:
        pairs = np.array([[b[name], a[name]] for b, a in zip(before, after)])
        gains = pairs[:, 1] - pairs[:, 0]
        each = [" ".join(f"{gain:+.1f}" for gain in gains)] if several else []
        means = (f"{value:.1f}" for value in pairs.mean(0))
        rows.append([name, *means, f"{gains.mean():+.1f}", *each, f"{shipped[name]:.1f}"])
    return "\n".join(align(rows))


def build_parser() -> OneLineParser:
    parser = OneLineParser("benchmarks.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="train once per seed")
    parser.add_argument("--out", type=Path, default=Path("data/demo_town"), metavar="DIR", help="the town's folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    start = time.monotonic()
    print(f"drawing the town in {args.out}", flush=True)
    make_town(args.out, size=SIZE)
    before, after = [], []
    for seed in args.seeds:
        before.append(measure("demo_untrained", args.out, seed, {"n_epochs": "0", "no_report": ""}))
        after.append(measure("demo", args.out, seed, {}))
        print(f"\n{time.monotonic() - start:.0f} s after the start, with seed {seed} done", flush=True)
    print("\nthe network that ships, on the same town", flush=True)
    shipped = measure_shipped(args.out)
    print(f"\n{compare(before, after, shipped)}")
    print("\nshipped: trained for longer, on other towns, in every weather; it has never seen this town")
    trained = newest_run("demo")
    for what, weights, folder in (
        ("trained here", weights_of_run(trained), trained),
        ("shipped", SHIPPED, newest_run("demo_shipped")),
    ):
        print(f"\n{what}: open {folder / 'report.html'} to see what it finds and where it looks")
        print(f"predictions and logs: {folder}; picture: {draw_showcase(weights, folder, args.out)}")
    print(f"{time.monotonic() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
