"""The report: figures on disk, a page that stands alone, and what it says."""

import copy
import html
import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from datasets.naming import KINDS
from datasets.places import correct_matches, load_image_set
from models import build_model
from tests.tiny import write_idda, write_robotcar
from utils.evaluation.metrics import recall_at
from utils.evaluation.recall import EvaluationSet, SetResult, evaluate_places
from utils.evaluation.results import results_dict
from utils.evaluation.segmentation import evaluate_segmentation
from utils.report import theme as report_theme
from utils.report import write as report
from utils.report.attention import (
    LEAST_EFFECT,
    MAX_LOOKS,
    Look,
    attention_effect,
    attention_span,
    attention_sums,
    class_attention,
    look_at,
    look_at_sets,
    overlay,
    shrink,
)
from utils.report.cases import choose_cases, describe_case, metres
from utils.report.figures import query_map, recall_curves
from utils.report.page import attention_caption, breakable, unbroken
from utils.report.panels import FOUND, FRAME, MISSED, framed, load_thumbnail, retrieval_panel
from utils.report.showcase import _draw_queries, showcase
from utils.report.theme import DARK, LIGHT
from utils.report.write import MAX_CASES, write_report
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.seeding import seed_torch

OPTIONS = EmbeddingOptions(batch_size=8, num_workers=0)
CHROMIUM = shutil.which("chromium")
VOID = {"meta", "link", "img", "br", "source", "wbr"}
HISTORY = [
    {
        "epoch": e,
        "loss_triplet": 0.2 / e,
        "loss_semantic": 1.0 / e,
        "lr_encoder": 0.01 / e,
        "lr_head": 0.1 / e,
        "val_recall@1": 20.0 * e,
        "val_recall@5": 25.0 * e,
        "miou": 10.0 * e,
    }
    for e in (1, 2, 3)
]


@pytest.fixture(scope="module", autouse=True)
def coarse_plots():
    """Plots of fewer pixels, drawn in less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_theme, "PRINT_DPI", 100)
        patch.setattr(report_theme, "SCREEN_DPI", 90)
        yield


@pytest.fixture(scope="module")
def model():
    seed_torch(0, "report test")
    return build_model("resnet18").eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("report_data")
    write_idda(root / "idda", places=5)
    write_robotcar(root / "robotcar", places=5)
    return root


def idda_set(data: Path, name: str = "val") -> EvaluationSet:
    town = data / "idda" / "town3"
    gallery, queries = load_image_set([town / "gallery"]), load_image_set([town / "queries_rain"])
    return EvaluationSet(name, gallery, queries, KINDS["iddav2"], (5.0,), 1.0)


@pytest.fixture(scope="module")
def results(data, model) -> list[SetResult]:
    overcast = load_image_set([data / "robotcar" / "overcast"])
    night = EvaluationSet(
        "robotcar/night", overcast, load_image_set([data / "robotcar" / "night"]), KINDS["utm"], (25.0, 5.0), 1.0
    )
    return evaluate_places(model, [idda_set(data), night], OPTIONS)


@pytest.fixture(scope="module")
def confusion(results, model):
    return evaluate_segmentation(model, results[0].set.gallery.paths[:3], OPTIONS)


def make(folder: Path, model, results, confusion=None, checkpoint="runs/a/best.pth", **more) -> str:
    content = results_dict(checkpoint, model.config, results, confusion)
    path = write_report(folder, model, content, results, confusion, OPTIONS, **more)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def full(tmp_path_factory, model, results, confusion) -> Path:
    """Folder of a report that has everything."""
    folder = tmp_path_factory.mktemp("run") / "2026-11-24_03-58-20"
    make(folder, model, results, confusion, history=HISTORY, before=build_model("resnet18"))
    return folder


class Checker(html.parser.HTMLParser):
    """Collects text, images and addresses; fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.images, self.addresses, self.words, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [attributes[key] for key in ("src", "srcset", "href") if key in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    assert all(address.startswith(("data:", "#")) for address in checker.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert all(image["alt"] for image in checker.images)
    assert len(set(checker.ids)) == len(checker.ids)
    assert {a[1:] for a in checker.addresses if a.startswith("#")} <= set(checker.ids)
    return checker


def test_page_stands_alone_and_says_the_recalls(full, results):
    page = (full / "report.html").read_text()
    text = " ".join(check(page).words)
    assert len(page) < 3_000_000
    for result in results:
        for recalls in result.recalls.values():
            assert all(f"{100 * value:.1f}" in text for value in recalls.values())
    for word in ("2026-11-24 03:58", "runs/a/best.pth", "resnet18 with deeplab", "within 25 m", "within 5 m", "mIoU"):
        assert word in text
    for heading in ("Recall", "Where queries were found", "Retrievals", "Attention", "Segmentation", "Training"):
        assert heading in text


def test_the_page_says_what_was_evaluated(full):
    page = (full / "report.html").read_text()
    text = " ".join(" ".join(check(page).words).split())
    assert page.startswith("<!DOCTYPE html>")
    assert "&lt;" not in page, "no markup of our own is shown as text"
    assert "resnet18 with deeplab · attention released · input released · run of 2026-11-24 03:58" in text
    assert "val is the validation set" in text and "val (validation set)" in text
    maps = page[page.index('id="maps"') : page.index('id="retrievals"')]
    assert maps.count("Queries where they were taken") == 1
    assert maps.count("<figure") == 2 and maps.index("<details>") > maps.index("<figure"), "the second is folded"
    first_case = page[page.index("<details open") :]
    assert first_case.index("found at rank 1</b>") < first_case.index('<b class="missed">')


def test_without_a_semantic_loss_nothing_is_said_of_classes(tmp_path, model, results, confusion):
    history = [{**row, "lr_discriminator": 0.1, "lr_attention": 0.1} for row in HISTORY]
    page = make(tmp_path, model, results, confusion, history=history, head_trained=False)
    checker = check(page)
    text = " ".join([*checker.words, *(image["alt"] for image in checker.images)])
    assert "Attention" in text and not re.search("IoU|[Pp]redicted class|Segmentation|Where attention rests", text)
    made = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert "attention_val" in made and "training_learning_rates" in made
    assert not made & {"class_iou", "confusion_matrix", "training_miou", "attention_per_class"}


def test_without_attention_none_is_shown(tmp_path, results):
    model = build_model("resnet18", attention="none", guidance=False)
    page = make(tmp_path / "a", model, results[:1])
    text = " ".join(check(page).words)
    assert "attention none · no guidance · input released" in text and "Classes" in text
    assert "Attention is" not in text and 'alt="attention' not in page
    page = make(tmp_path / "b", model, results[:1], head_trained=False)
    assert 'id="attention"' not in page and not list((tmp_path / "b/figures").glob("attention*"))


def test_numbers_stay_whole_and_names_may_break():
    assert str(unbroken("1,699 m, but <b> not 2 miles")).startswith(
        '<span class="whole">1,699 m</span>, but &lt;b&gt; not 2 m'
    )
    assert breakable("a/b_<c>") == "a/<wbr>b_<wbr>&lt;c&gt;"


def test_all_figures_exist_and_open(full):
    names = {path.stem for path in (full / "figures").iterdir()}
    expected = {"recall_curves", "map_val", "map_robotcar_night", "attention_val", "attention_robotcar_night"}
    expected |= {"attention_per_class", "class_iou", "confusion_matrix"}
    expected |= {"training_losses", "training_recall", "training_miou", "training_learning_rates"}
    assert expected <= names
    assert names - expected <= {f"retrieval_{s}_{n}" for s in ("misses", "hits") for n in ("val", "robotcar_night")}
    assert any(name.startswith("retrieval_") for name in names)
    for path in (full / "figures").iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG" and min(image.size) > 150
            assert len(image.convert("RGB").resize((64, 64)).getcolors(4096)) > 5  # not blank


def test_without_history_confusion_and_results(tmp_path, model, results):
    page = make(tmp_path / "a", model, results[:1])
    words = " ".join(check(page).words)
    assert "Training" not in words and "mIoU" not in words
    assert not list((tmp_path / "a" / "figures").glob("training*"))
    page = make(tmp_path / "b", model, [], history=[])
    assert "No place recognition set" in " ".join(check(page).words)
    assert not list((tmp_path / "b" / "figures").iterdir())


def test_deterministic_for_a_seed(tmp_path, model, results):
    pages = [make(tmp_path / name / "run", model, results[:1], seed=seed) for name, seed in (("a", 1), ("b", 1))]
    assert pages[0] == pages[1]
    for path in (tmp_path / "a" / "run" / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "run" / "figures" / path.name).read_bytes()


def test_hostile_names_are_escaped(tmp_path, data, model):
    hostile = "<script>alert('$x_1')</script>&\"/../\udcff"
    folder = tmp_path / "<b onload=x>"
    shutil.copytree(data / "robotcar" / "night", folder)
    for path in list(folder.iterdir()):
        path.rename(folder / f"{path.stem}<img src=x>@.png")
    queries = load_image_set([folder])
    gallery = load_image_set([data / "robotcar" / "overcast"])
    s = EvaluationSet(hostile, gallery, queries, KINDS["utm"], (25.0,), 1.0)
    results = evaluate_places(model, [s], OPTIONS)
    page = make(
        tmp_path / "run", model, results, checkpoint=hostile, history=[{"epoch": 1, f"{hostile}_recall@1": 3.0}]
    )
    words = "".join(check(page).words)
    assert "<script>alert('$x_1')</script>&\"/../\\udcff" in words
    assert "<img src=x>" in words
    assert all(path.parent == tmp_path / "run" / "figures" for path in (tmp_path / "run").rglob("*.png"))


def test_photos_that_are_gone(tmp_path, data, model):
    shutil.copytree(data / "robotcar", tmp_path / "robotcar")
    gallery, queries = (load_image_set([tmp_path / "robotcar" / name]) for name in ("overcast", "rain"))
    results = evaluate_places(model, [EvaluationSet("rain", gallery, queries, KINDS["utm"], (25.0,), 1.0)], OPTIONS)
    Path(gallery.paths[0]).unlink()
    Path(queries.paths[0]).write_bytes(b"not a picture")
    page = make(tmp_path / "some", model, results)
    assert "photo cannot be read" in " ".join(check(page).words)
    shutil.rmtree(tmp_path / "robotcar")
    page = make(tmp_path / "none", model, results)
    assert "Attention" not in " ".join(check(page).words)


def many(result: SetResult, count: int) -> list[SetResult]:
    return [replace(result, set=replace(result.set, name=f"set {i}")) for i in range(count)]


def test_bounded_for_many_sets(tmp_path, model, results, monkeypatch):
    calls = []
    monkeypatch.setattr("utils.report.attention.look_at", lambda *args: calls.append(args))
    look_at_sets(model, None, many(results[0], 50), OPTIONS)
    assert len(calls) == MAX_LOOKS
    cases = report._cases(many(results[0], 50), 0)
    assert len(cases) == MAX_CASES // 2
    assert all([case.found for case in s.cases] == [True, False] for s in cases), "a hit, then a miss"


def test_quality_falls_until_the_page_is_small_enough(tmp_path, model, results, monkeypatch):
    rendered = []
    monkeypatch.setattr(
        report, "render", lambda page, photos, quality: rendered.append(quality) or "x" * 100_000 * quality
    )
    make(tmp_path, model, results[:1])
    assert rendered == [80, 65, 50, 35]


# retrievals


def retrieved_by_hand(s: EvaluationSet, order: list[list[int]], near: list[float]) -> SetResult:
    """A result whose retrieved images are given."""
    retrieved = np.array(order)
    correct, distance = correct_matches(s.gallery, s.queries, retrieved, s.thresholds_m[0], s.kind.same_camera)
    descriptor = np.array(near)[:, None] + np.arange(retrieved.shape[1]) * 0.01
    return SetResult(
        s, retrieved, descriptor, distance, {s.thresholds_m[0]: correct}, {5.0: recall_at(correct)}, None, None
    )


@pytest.fixture
def by_hand(data) -> SetResult:
    """Gallery and queries are left 0..4, right 5..9. Queries 0, 5: hits; 1: true at rank 3; 2: true never; 3: other camera."""
    order = [
        [0, 1, 2],
        [0, 2, 1],
        [0, 1, 3],
        [8, 3, 1],
        [0, 1, 2],
        [5, 6, 7],
        [6, 7, 8],
        [7, 8, 9],
        [8, 9, 5],
        [9, 5, 6],
    ]
    return retrieved_by_hand(idda_set(data), order, [0.5, 0.5, 0.5, 0.5, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_hardest_misses_come_first_and_hits_are_drawn(by_hand):
    """Nothing right: 4, the more confident, then 2; right at rank 3: 1; at rank 2: 3."""
    cases = choose_cases(by_hand, 4, 2, seed=0)
    assert [case.index for case in cases if not case.found] == [4, 2, 1, 3]
    assert [case.index for case in choose_cases(by_hand, 2, 0)] == [4, 2]
    assert [case.found for case in cases] == [True, *[False] * 4, True]
    assert choose_cases(by_hand, 4, 2, seed=0) == cases
    drawn = {choose_cases(by_hand, 2, 2, seed)[-1].index for seed in range(8)}
    assert len(drawn) > 1
    everything = [case.index for case in choose_cases(by_hand, 100, 100)]
    assert sorted(everything) == list(range(10))


def test_the_first_case_is_a_typical_hit(by_hand):
    """Hits are 0 and 5 to 9; with these distances of their first images, 7 is in the middle."""
    near = by_hand.descriptor_distance.copy()
    near[[0, 5, 6, 7, 8], 0], near[9, 0] = (0.9, 0.1, 0.2, 0.3, 0.7), 0.8
    result = replace(by_hand, descriptor_distance=near)
    for seed in range(3):
        assert [case.index for case in choose_cases(result, 2, 1, seed)] == [7, 4, 2]


def test_what_a_case_says(by_hand):
    hit, late, never, camera = (describe_case(by_hand, q) for q in (0, 1, 2, 3))
    assert hit.found and hit.truth is None and hit.headline == "found at rank 1"
    assert hit.retrieved[0].correct and hit.retrieved[0].caption == "1.0 m" and hit.retrieved[1].caption == "39.0 m"
    assert late.headline == "missed, first correct at rank 3" and late.truth.caption == "1.0 m, rank 3"
    assert never.headline == "missed, nothing correct among the first 3"
    assert never.truth.path == by_hand.set.gallery.paths[2] and never.truth.caption == "1.0 m, not in first 3"
    assert camera.retrieved[0].caption == "1.0 m, but camera right, not left" and camera.retrieved[0].correct is False
    assert camera.headline == "missed, first correct at rank 2"
    assert hit.query.caption == "camera left" and metres(1234.5) == "1,234 m"


def test_a_query_without_any_positive_comes_last(by_hand):
    s = by_hand.set
    positions = s.queries.positions.copy()
    positions[4] += 5000
    result = retrieved_by_hand(
        replace(s, queries=replace(s.queries, positions=positions)), by_hand.retrieved.tolist(), [0.5] * 10
    )
    cases = [case for case in choose_cases(result, 10, 0) if not case.found]
    assert [case.index for case in cases] == [2, 1, 3, 4]
    assert cases[-1].truth is None and "no image of this place within 5 m" in cases[-1].headline


def test_frames_are_green_for_hits_and_red_for_misses(by_hand):
    found, missed = ImageColor.getrgb(FOUND), ImageColor.getrgb(MISSED)
    photo = Image.new("RGB", (120, 90), "white")
    for correct, colour in ((True, found), (False, missed)):
        image = framed(photo, correct)
        edges = [(60, 2), (60, 87), (2, 60), (117, 45)]
        assert {image.getpixel(at) for at in edges} == {colour}
        assert image.getpixel((60, 60)) == (255, 255, 255)
    assert framed(photo, True).crop((0, 0, 31, 31)).tobytes() != framed(photo, False).crop((0, 0, 31, 31)).tobytes()
    panel = retrieval_panel([describe_case(by_hand, 1)], load_thumbnail, "title")
    # query, three retrieved, the true one: the middle of the upper edge of each frame
    top = next(y for y in range(60, 160) if panel.getpixel((24 + 270 + 128, y)) == missed) + FRAME // 2
    colours = [panel.getpixel((24 + k * 270 + 128, top)) for k in range(5)]
    assert colours[1:] == [missed, missed, found, found] and colours[0] not in (found, missed)


def test_page_marks_verdicts_in_words_too(full):
    alts = [image["alt"] for image in check((full / "report.html").read_text()).images]
    assert any(re.fullmatch(r"rank \d, [\d.,]+ m.*, (correct|wrong)", alt) for alt in alts)


# attention


def test_class_attention_by_hand():
    photo = np.zeros((2, 2, 3), np.uint8)
    one = Look(photo, np.array([[2.0, 1.0], [0.5, 0.5]], np.float32), np.array([[0, 0], [1, 1]]))
    two = Look(photo, np.array([[3.0, 0.5], [0.25, 0.25]], np.float32), np.array([[0, 1], [1, 1]]))
    attention, share = class_attention(attention_sums(one, 3) + attention_sums(two, 3))
    np.testing.assert_allclose(attention, [6 / 3, 2 / 5, np.nan])
    np.testing.assert_allclose(share, [3 / 8, 5 / 8, 0])


def test_a_look_holds_the_networks_own_map_and_classes(model, results):
    path = results[0].set.queries.paths[0]
    look = look_at(model, path, 1.0, OPTIONS)
    images = model.prepare(torch.from_numpy(look.photo.copy()).permute(2, 0, 1)[None])
    with torch.inference_mode():
        expected = model.segment(images).argmax(1)[0].numpy()
    np.testing.assert_array_equal(look.classes, expected)
    assert look.photo.shape == (128, 136, 3) and look.attention.mean() == pytest.approx(1, abs=1e-4)
    small = shrink(look, 68)
    assert small.photo.shape == (64, 68, 3) and small.classes.shape == small.attention.shape == (64, 68)
    assert look_at(model, "/no/such.png", 1.0, OPTIONS) is None


def test_the_effect_of_attention_is_measured(model, results, monkeypatch):
    look = look_at(model, results[0].set.queries.paths[0], 1.0, OPTIONS)
    calm = copy.deepcopy(model)
    with torch.no_grad():  # maps of random weights fall to 0 in places, where the eps of the norm shows
        calm.attention.merge.weight *= 0.01
    effect = attention_effect(calm, look)
    assert 0 <= effect < LEAST_EFFECT and not calm.attention._forward_hooks
    assert "not learnt" in attention_caption(effect) and "not learnt" not in attention_caption(0.2)
    monkeypatch.setattr(calm.pooling, "pool", lambda x, weight: x.mean(dim=(-2, -1)))  # without the norm the map counts
    assert attention_effect(calm, look) > LEAST_EFFECT


def test_overlay_glows_above_the_mean_and_leaves_the_mean_alone():
    photo = np.full((1, 3, 3), 128, np.uint8)
    look = Look(photo, np.array([[0.5, 1.0, 2.0]], np.float32), np.zeros((1, 3), np.int64))
    low, mean, high = np.asarray(overlay(look, 2.0), int)[0]
    assert low.sum() < 3 * 128 < high.sum() and mean.tolist() == [128] * 3 and high[0] > high[2] and low[0] < low[2]


@pytest.mark.parametrize("attention", [1e-6, 0.01, 0.05, 1.0, 20.0, 1e6])
def test_the_photo_stays_visible_under_any_attention(attention):
    """Black and white pixels stay at least half as far apart as in the photo, in every channel."""
    photo = np.array([[[0] * 3, [255] * 3]], np.uint8)
    look = Look(photo, np.full((1, 2), attention, np.float32), np.zeros((1, 2), np.int64))
    black, white = np.asarray(overlay(look, attention_span([look])), int)[0]
    assert (white - black).min() >= 127


def test_models_are_left_as_they_were(tmp_path, results):
    model = build_model("resnet18").train()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    look_at_sets(model, model, results[:1], OPTIONS)
    assert model.training and model.attention.training
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


# figures


def test_map_splits_districts_that_lie_far_apart(results):
    result = results[1]
    assert len(query_map(result, LIGHT).axes) == 1
    far = [
        replace(i, positions=np.where(np.arange(5)[:, None] < 2, i.positions, i.positions + 9000.0))
        for i in (result.set.gallery, result.set.queries)
    ]
    split = replace(result, set=replace(result.set, gallery=far[0], queries=far[1]))
    axes = query_map(split, LIGHT).axes
    assert len(axes) == 2
    found = result.found.sum()
    assert sum(len(a.collections[0].get_offsets()) for a in axes) == found
    assert sum(len(a.collections[1].get_offsets()) for a in axes) == 5 - found


def test_recall_curves_hold_every_recall(results):
    (axes,) = recall_curves(results, DARK).axes
    assert len(axes.lines) == 3  # one set has two thresholds
    first = recall_at(results[0].correct[5.0], range(1, 11))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 100 * np.array(list(first.values())))


def test_showcase(tmp_path, model, results):
    path = showcase(tmp_path / "picture.jpg", model, results, OPTIONS, rows=2)
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.width == 1200
    assert path.stat().st_size <= 300_000
    with pytest.raises(ValueError, match="no query"):
        showcase(tmp_path / "none.jpg", model, [], OPTIONS)


def test_showcase_draws_queries_whatever_was_found(results):
    """Two of each set, by the seed alone: neither hits nor misses are picked."""
    rows = _draw_queries(results, seed=3, rows=3)
    assert [[name for name, _, _ in row] for row in rows] == [["val"] * 2, ["robotcar/night"] * 2, ["val"] * 2]
    of_val = [case.index for row in rows for name, case, _ in row if name == "val"]
    assert len(set(of_val)) == 4
    wrong = [replace(r, correct={t: ~c for t, c in r.correct.items()}) for r in results]
    again = [[case.index for _, case, _ in row] for row in _draw_queries(wrong, seed=3, rows=3)]
    assert again == [[case.index for _, case, _ in row] for row in rows]
    everything = [case.index for row in _draw_queries(results, seed=3, rows=40) for _, case, _ in row]
    assert len(everything) == sum(len(r.set.queries) for r in results)  # each once, and then there are no more


# a real browser


PROBE = """<script>window.faults=[];addEventListener('error',e=>faults.push(e.message||'resource'),true);
addEventListener('load',()=>{const e=document.documentElement,i=[...document.images];
document.querySelectorAll('details').forEach(d=>d.open=true);
document.title=JSON.stringify({overflow:e.scrollWidth-e.clientWidth,width:e.clientWidth,images:i.length,
empty:i.filter(x=>!x.naturalWidth).length,faults:faults.length,
broken:[...document.querySelectorAll('td,.whole')].filter(x=>x.getClientRects().length>1||x.scrollWidth>x.clientWidth+1&&x.clientWidth||
x.tagName=='TD'&&(r=>{r.selectNodeContents(x);return r.getClientRects().length>1})(document.createRange())).length,
beside:[...document.querySelectorAll('.tile.query')].every(q=>q.getBoundingClientRect().top==q.nextElementSibling.getBoundingClientRect().top)})})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1440])
def test_in_a_browser(full, tmp_path, width):
    page = (full / "report.html").read_text()
    probed = tmp_path / "probed.html"
    # an iframe has any width; a headless window does not get narrower than 500 px
    (tmp_path / "inner.html").write_text(page.replace("<head>", "<head>" + PROBE))
    probed.write_text(
        f'<body style="margin:0"><iframe id="f" src="inner.html" style="border:0;width:{width}px;height:900px"></iframe>'
        "<script>f.onload=()=>setTimeout(()=>{document.body.dataset.result=f.contentDocument.title},300)</script>"
    )
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --allow-file-access-from-files --hide-scrollbars "
        f"--enable-logging=stderr --user-data-dir={tmp_path / 'profile'} --window-size=1500,1000 "
        "--virtual-time-budget=8000"
    ).split()
    run = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", probed.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    result = re.search(r'data-result="([^"]*)"', run.stdout)
    assert result, run.stdout[-500:] + run.stderr[-1000:]
    said = json.loads(html.unescape(result[1]))
    assert said["width"] == width and said["overflow"] <= 0 and said["empty"] == 0 and said["faults"] == 0
    assert said["images"] > 10 and said["broken"] == 0 and said["beside"]
    assert "CONSOLE" not in run.stderr
    shot = tmp_path / "shot.png"
    subprocess.run(
        [CHROMIUM, *flags, f"--screenshot={shot}", probed.as_uri()], capture_output=True, timeout=120, check=True
    )
    with Image.open(shot) as image:
        part = image.convert("RGB").crop((0, 0, width, 900))
        assert len(part.getcolors(10**6)) > 20
