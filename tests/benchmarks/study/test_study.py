"""The study: variants are what they say, runs are skipped or go on, intervals are those of hand-built values."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import main
from benchmarks.harness import jobs as runs_of
from benchmarks.harness.jobs import BEGUN, FINISHED, NEW, Job, devices, newest_run, run_jobs, state
from benchmarks.study import study
from benchmarks.study.attention import mean_over_seeds, measure_attention, some_of
from benchmarks.study.photos import PHOTO_VARIANTS, Photos
from benchmarks.study.presets import PRESETS
from benchmarks.study.report import compare, difference_table, gather, table, write_differences, write_report
from benchmarks.study.statistics import bootstrap_interval, found_within, paired, shown, t_interval
from benchmarks.study.variants import CONDITIONS, VARIANTS, job, town_flags, untrained, with_untrained
from tests.tiny import SMALL_RUN, data_flags
from tests.utils.test_summarize import write_run
from utils.evaluation.results import file_name
from utils.options.arguments import training_settings
from utils.options.parsers import main_parser
from utils.report.attention import LEAST_EFFECT
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.folders import BEST
from utils.summary_table import to_markdown
from utils.training.loop import TrainingRun

# -- variants and presets --------------------------------------------------------------------------------------------


def changed(variants):
    """Arguments in which each variant differs from the first one that it is compared with."""
    found = {}
    for variant in variants.values():
        for other in variant.against[:1]:
            a, b = variant.parsed(), variants[other].parsed()
            found[variant.name] = {name for name in a if a[name] != b[name]}
    return found


def test_each_variant_differs_from_the_one_before_in_what_its_title_names():
    assert changed(VARIANTS) == {
        "segmentation": {"sem_loss_weight"},
        "attention_released": {"attention"},
        "attention_after_norm": {"attention"},
        "guidance": {"guidance"},
        "multi_scale": {"scale_indexes"},
        "grl": {"da_method"},
        "alternating": {"da_method"},
        "imagenet_input": {"input"},
    }


def test_each_variant_on_photos_differs_in_what_its_title_names():
    found = changed(PHOTO_VARIANTS)
    families = {name for name in found if name.startswith("only_")}
    assert len(families) == 8 and all(found.pop(name) == {"augment"} for name in families)
    assert found == {
        "start": {"input"},
        "none": {"augment", "n_epochs", "sem_loss_weight"},
        "all": {"augment"},
        "triplet": {"loss", "n_neg", "neg_samples", "mining"},
        "deeplab": {"semnet"},
        "place": {"sem_loss_weight"},
        "released": {"attention"},
        "after_norm": {"attention"},
        "grl": {"da_method"},
        "imagenet_input": {"input"},
    }


def test_variants_that_start_alike_share_their_untrained_runs():
    assert untrained(VARIANTS["multi_scale"]) == untrained(VARIANTS["alternating"])
    everything = with_untrained(list(VARIANTS.values()))
    assert len(everything) == len({v.name for v in everything}) == len(VARIANTS) + 5
    assert all(v.parsed()["n_epochs"] == 0 for v in everything[:5])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_run_is_a_command_of_main(preset, tmp_path):
    found = PRESETS[preset]
    photos = Photos(*(tmp_path / name for name in ("photos", "labelled", "target"))) if found.on_photos else None
    flags = {**found.flags, **found.data(tmp_path, photos)}
    for variant in with_untrained(list(found.variants.values())):
        made = job("s", flags, variant, 3)
        args = main_parser().parse_args(made.command)
        training_settings(args)  # what it refuses, main.py would
        seed = 3 if variant.drawn else 0
        assert (args.seed, args.exp_name) == (seed, f"s/{variant.name}/seed{seed}")
        assert args.queries_per_epoch % args.cache_refresh_rate == 0
        assert {
            name: value for name, value in variant.parsed().items() if name in ("attention", "input", "da_method")
        } == {name: getattr(args, name) for name in ("attention", "input", "da_method")}


def test_dry_run_says_what_would_run_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "--preset smoke --seeds 0 1 --variants place --dry_run --device cpu".split()
    assert study.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("new      python3 main.py ") for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_network_as_it_starts_stands_for_all_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "--preset photos --photos p --labelled l --target t --variants start none --dry_run --device cpu".split()
    assert study.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("--exp_name ")[1].split()[0] for line in lines] == [
        f"study_photos/{run}" for run in ("start/seed0", "none/seed0", "none/seed1", "none/seed2")
    ]


def test_flags_of_main_take_the_place_of_the_presets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "--preset smoke --seeds 0 --variants grl --dry_run --device cpu --name other".split()
    assert study.main([*words, "--arch", "resnet50", "--lr=0.5", "--target_size", "96", "80"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    args = main_parser().parse_args(line.split("main.py ")[1].split())
    assert (args.arch, args.lr, args.target_size, args.exp_name) == ("resnet50", 0.5, [96, 80], "other/grl/seed0")
    assert args.neg_samples == int(PRESETS["smoke"].flags["neg_samples"])


@pytest.mark.parametrize(
    "flags, why",
    [
        ("--attention none", "--attention: the variants of benchmarks.study set this flag"),
        ("--no-guidance", "--no-guidance: the variants of benchmarks.study set this flag"),
        ("--dataset_root x", "--dataset_root: benchmarks.study sets this flag itself"),
        ("--seed 3", "--seed: benchmarks.study sets this flag itself"),
        ("--archh resnet50", "unrecognized arguments: --archh resnet50"),
        ("--variants grll", "--variants grll: the preset has place, segmentation"),
        ("--photos x", "--photos: belongs to --preset photos"),
        ("--preset photos", "--photos: the preset needs it"),
    ],
)
def test_flags_that_a_study_decides_are_refused(flags, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = study.main(["--preset", "smoke", "--dry_run", *flags.split()])
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and why in "".join(capsys.readouterr())


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """Jobs run in this process, in a folder of their own; yields the list of commands that were started."""
    monkeypatch.chdir(tmp_path)
    started = []

    def launch(job, device, share=1):
        started.append(job.command)
        job.folder.mkdir(parents=True, exist_ok=True)
        status = main.main(job.command)
        return SimpleNamespace(poll=lambda: status)

    monkeypatch.setattr(runs_of, "launch", launch)
    return started


def test_finished_runs_are_skipped_and_an_interrupted_one_goes_on(tiny_root, in_process, monkeypatch):
    short = "--n_epochs 1 --queries_per_epoch 4 --da_method none --sem_loss_weight 0".split()
    flags = (*data_flags(tiny_root)[:4], *SMALL_RUN, *short)
    made = Job("s/a/seed0", flags)
    assert state(made) == NEW
    with monkeypatch.context() as patch:

        def stopped(self, events):
            raise ValueError("a power cut")

        patch.setattr(TrainingRun, "_finish_epoch", stopped)
        with pytest.raises(ValueError, match=r"s/a/seed0: main.py ended with status 2"):
            run_jobs([made], ["cpu"])
    begun = newest_run(made)
    assert state(made) == BEGUN
    run_jobs([made], ["cpu"])
    assert state(made) == FINISHED and newest_run(made) == begun and len(list(made.folder.iterdir())) == 1
    assert {path.name for path in begun.glob("*.pth")} == {BEST}, "of a finished run only the weights are kept"
    in_process.clear()
    run_jobs([made], ["cpu"])
    assert in_process == []
    with pytest.raises(ValueError, match=r"\(--lr was 0.00025, is 0.5\); give those"):
        run_jobs([Job("s/a/seed0", (*flags, "--lr", "0.5"))], ["cpu"])
    assert state(Job("s/a/seed0", (*flags, "--num_workers", "2"))) == FINISHED


def test_a_run_ends_the_others_when_it_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    signals = []

    def launch(job, device, share=1):
        job.folder.mkdir(parents=True)
        (job.folder / runs_of.CONSOLE).write_text("first\nmain.py: error: no such thing\n")
        status = 2 if job.exp_name == "bad" else None
        return SimpleNamespace(poll=lambda: status, send_signal=signals.append, wait=lambda: signals.append("waited"))

    monkeypatch.setattr(runs_of, "launch", launch)
    with pytest.raises(ValueError, match=r"bad: main.py ended with status 2: .*no such thing"):
        run_jobs([Job("good", ()), Job("bad", ()), Job("later", ())], ["0", "1"])
    assert signals == [runs_of.signal.SIGTERM, "waited"] and not (tmp_path / "runs/later").exists()


def test_runs_at_once_share_the_device_and_its_cores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runs_of.os, "cpu_count", lambda: 6)
    alive, most = [], []

    def start(command, env, **_):
        alive.append(env.get("OMP_NUM_THREADS"))
        most.append(len(alive))
        polls = iter([None, None, 0])

        def poll():
            status = next(polls)
            if status is not None:
                alive.pop()
            return status

        return SimpleNamespace(poll=poll)

    monkeypatch.setattr(runs_of.subprocess, "Popen", start)
    monkeypatch.setattr(runs_of, "POLL_S", 0)
    jobs = [Job(f"s/{i}", ()) for i in range(5)]
    run_jobs(jobs, devices("cpu", 3))
    assert max(most) == 3 and len(most) == 5
    runs_of.launch(jobs[0], "cpu", 3)
    assert alive == ["2"]
    runs_of.launch(jobs[0], "cpu")
    assert alive[-1] is None, "a run by itself takes what the user says"


def test_a_run_on_other_data_is_not_taken_for_this_one(made_runs, tmp_path):
    same, elsewhere = made_runs["place", 0], [*made_runs["place", 0].flags]
    assert state(same) == FINISHED
    elsewhere[elsewhere.index("--dataset_root") + 1] = str(tmp_path / "another/idda")
    with pytest.raises(ValueError, match=r"was made with --dataset_root .*town/idda, not .*another/idda; give another"):
        state(Job(same.exp_name, tuple(elsewhere), same_data=True))
    assert state(Job(same.exp_name, tuple(elsewhere))) == FINISHED, "of other jobs, data may move"


# -- statistics ------------------------------------------------------------------------------------------------------


def test_t_interval_against_the_table():
    # t(0.975, 2) = 4.30265; the deviation of 1 2 3 is 1
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)
    assert t_interval([5.0]) is None
    assert t_interval([2.0, 2.0]) == (2.0, 2.0)


def test_bootstrap_draws_the_same_queries_for_all_seeds():
    rng = np.random.default_rng(0)
    # what one seed gains another loses on the same query: nothing is left to vary
    a = rng.normal(size=200)
    assert bootstrap_interval(np.stack([a, 1 - a]), np.random.default_rng(1)) == pytest.approx((0.5, 0.5))
    single = rng.integers(0, 2, (1, 400)).astype(float)
    low, high = bootstrap_interval(single, np.random.default_rng(2))
    half = 1.96 * single.std() / 400**0.5
    assert (low, high) == pytest.approx((single.mean() - half, single.mean() + half), abs=0.01)


def test_pairs_of_queries_by_hand():
    first = [{"a": True, "b": True, "c": False, "d": True}, {"a": True, "b": False, "c": False, "d": True}]
    second = [{"d": False, "a": True, "b": False, "c": False}, {"a": False, "b": False, "c": False, "d": False}]
    difference = paired(first, second, np.random.default_rng(0))
    assert difference.per_seed == (50.0, 50.0) and difference.mean == 50.0
    assert difference.over_seeds == (50.0, 50.0)
    assert difference.over_queries[0] < 50 < difference.over_queries[1]
    with pytest.raises(ValueError, match="different queries"):
        paired(first, [{"a": True}] * 2, np.random.default_rng(0))


def test_only_intervals_that_leave_out_zero_are_bold():
    difference = paired([{"a": True}], [{"a": False}], np.random.default_rng(0))
    assert shown(difference, (1.0, 9.0)) == "**+100.0 [+1.0, +9.0]**"
    assert shown(difference, (-1.0, 9.0)) == "+100.0 [-1.0, +9.0]"
    assert shown(difference, None) == "+100.0" and shown(None, None) == "-"


# -- tables ----------------------------------------------------------------------------------------------------------


def write_predictions(folder, hits):
    """`hits` by query: the rank of the first correct image, or 0."""
    folder.mkdir(exist_ok=True)
    for name in CONDITIONS:
        lines = ["query,rank,path,descriptor_distance,distance_m,correct"]
        for query, hit in enumerate(hits):
            lines += [f"somewhere/q{query}.jpg,{rank},g.jpg,0.1,1,{int(rank == hit)}" for rank in range(1, 7)]
        (folder / f"{file_name(name)}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def made_runs(tmp_path, monkeypatch):
    """Finished runs of two variants and two seeds, made by hand: jobs by (variant, seed)."""
    monkeypatch.chdir(tmp_path)
    hits = {("place", 0): [1, 0, 0, 3], ("place", 1): [0, 0, 1, 0]}
    hits |= {("segmentation", 0): [1, 1, 0, 6], ("segmentation", 1): [0, 1, 1, 1]}
    jobs = {}
    for (name, seed), ranks in hits.items():
        made = job("small", {**PRESETS["small"].flags, **town_flags(tmp_path / "town")}, VARIANTS[name], seed)
        args = {
            key: str(v) if key.startswith("dataset") else v
            for key, v in vars(main_parser().parse_args(made.command)).items()
        }
        one, five = np.mean([r == 1 for r in ranks]), np.mean([0 < r <= 5 for r in ranks])
        recalls = {(condition, 5.0): (one, five) for condition in CONDITIONS}
        run = write_run(made.folder / "2026", recalls, miou=0.25 + seed / 100, checkpoint="gone.pth", **args)
        (run / "last.pth").rename(run / BEST)
        write_predictions(run / "predictions", ranks)
        jobs[name, seed] = made
    return jobs


def test_tables_say_what_the_runs_say(made_runs, tmp_path):
    finished = gather(made_runs, [VARIANTS["place"], VARIANTS["segmentation"], VARIANTS["grl"]])
    assert [f.variant.name for f in finished] == ["place", "segmentation"]
    summary = table(finished)
    assert [title for title, _ in summary.conditions] == list(CONDITIONS.values())
    place, segmentation = summary.rows
    assert place.cells[0].mean == pytest.approx(25) and place.cells[1].mean == pytest.approx(37.5)
    assert segmentation.cells[0].mean == pytest.approx(62.5)
    assert place.cells[-1] is None and segmentation.cells[-1].mean == pytest.approx(25.5)
    assert "| + segmentation " in to_markdown(summary)
    differences = compare(finished[1], finished[0])
    assert list(differences) == [*CONDITIONS.values(), "mean"], "no mIoU without a trained head"
    assert differences["mean"].per_seed == differences["night"].per_seed, "all conditions were given the same answers"
    assert differences["night"].per_seed == (25.0, 50.0)
    assert compare(finished[1], finished[0], rank=5)["night"].per_seed == (0.0, 50.0)
    text = difference_table({("segmentation", "place"): differences}, "over_seeds")
    assert "| `segmentation` - `place` | 2 | +37.5 [-121.3, +196.3] |" in text
    write_differences(tmp_path / "d.csv", {1: {("segmentation", "place"): differences}})
    assert (
        (tmp_path / "d.csv").read_text().splitlines()[1].startswith("segmentation,place,R@1,fresh rain,37.5000,-121.3")
    )


def test_the_report_has_its_tables_and_pictures(made_runs, tmp_path):
    finished = gather(made_runs, list(VARIANTS.values()))
    target = tmp_path / "docs" / "study.md"
    write_report(target, tmp_path / "docs/images", "# Head\n", finished, "Note.", [], 1.0, EmbeddingOptions())
    text = target.read_text()
    assert (
        "| place recognition only " in text and "`segmentation` - `place`" in text and "Attention per class" not in text
    )
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links == ["images/study_recalls.png", "images/study_differences.png"], "named after the report"
    assert all((target.parent / link).is_file() for link in links)
    assert (tmp_path / "docs/study.csv").is_file() and (tmp_path / "docs/study_differences.csv").is_file()


def test_attention_is_asked_on_labelled_pixels_and_kept(trained_run, tiny_root, tmp_path):
    shutil.copy(trained_run / BEST, tmp_path)
    queries = tiny_root / "idda/town3/queries_rain/left_right"
    images = some_of(queries, 3)
    assert len(images) == 3 and images == some_of(queries, 3)
    options = EmbeddingOptions(num_workers=0)
    found = measure_attention(tmp_path, images, 1.0, options)
    labelled = [c for c, share in enumerate(found["share"]) if share > 0]
    assert sum(found["share"]) == pytest.approx(1)
    assert [c for c, value in enumerate(found["attention"]) if value is not None] == labelled
    # every pixel is labelled, so that the classes' means average to the image's
    assert sum(found["share"][c] * found["attention"][c] for c in labelled) == pytest.approx(1, abs=1e-4)
    assert found["effect"] < LEAST_EFFECT, "as released, descriptors hardly depend on the map"
    (tmp_path / BEST).unlink()
    assert measure_attention(tmp_path, images, 1.0, options) == found
    attention, _, effect = mean_over_seeds([found, {**found, "effect": 0.5}])
    assert np.isnan(attention).sum() == 17 - len(labelled) and effect == pytest.approx(0.25 + found["effect"] / 2)


def test_found_within_a_rank(tmp_path):
    write_predictions(tmp_path / "p", [1, 4, 0, 6])
    path = tmp_path / "p" / "val.csv"
    assert list(found_within(path, 1).values()) == [True, False, False, False]
    assert list(found_within(path, 5).values()) == [True, True, False, False]
