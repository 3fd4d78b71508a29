"""The page: it stands alone, it can be read by anybody, and what it says."""

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from datasets.naming import KINDS
from datasets.places import load_image_set
from models import build_model
from tests.utils.report.sets import HISTORY, OPTIONS, make
from utils.evaluation.recall import EvaluationSet, evaluate_places
from utils.report import write as report
from utils.report.page import breakable, unbroken

CHROMIUM = shutil.which("chromium")
VOID = {"meta", "link", "img", "br", "source", "wbr"}


@pytest.fixture(scope="module")
def full(tmp_path_factory, model, results, confusion) -> Path:
    """Folder of a report that has everything."""
    folder = tmp_path_factory.mktemp("run") / "2026-11-24_03-58-20"
    make(folder, model, results, confusion, history=HISTORY, before=build_model("resnet18"))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory, model, results) -> Path:
    """Folder of a report of one set, without history and confusion."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    make(folder, model, results[:1], seed=1)
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
    page = make(tmp_path, model, results[:1], confusion, history=history, head_trained=False)
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
    expected = {
        "recall_curves",
        "precision_recall",
        "map_val",
        "map_robotcar_night",
        "attention_val",
        "attention_robotcar_night",
    }
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


def test_without_history_confusion_and_results(plain, tmp_path, model):
    words = " ".join(check((plain / "report.html").read_text()).words)
    assert "Training" not in words and "mIoU" not in words
    assert not list((plain / "figures").glob("training*"))
    page = make(tmp_path, model, [], history=[])
    assert "No place recognition set" in " ".join(check(page).words)
    assert not (tmp_path / "figures").exists()


def test_deterministic_for_a_seed(plain, tmp_path, model, results):
    assert make(tmp_path / "run", model, results[:1], seed=1) == (plain / "report.html").read_text()
    for path in (plain / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "run" / "figures" / path.name).read_bytes()


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


def test_quality_falls_until_the_page_is_small_enough(tmp_path, model, monkeypatch):
    rendered = []
    monkeypatch.setattr(
        report, "render", lambda page, photos, quality: rendered.append(quality) or "x" * 100_000 * quality
    )
    make(tmp_path, model, [])
    assert rendered == [80, 65, 50, 35]


def test_page_marks_verdicts_in_words_too(full):
    alts = [image["alt"] for image in check((full / "report.html").read_text()).images]
    assert any(re.fullmatch(r"rank \d, [\d.,]+ m.*, (correct|wrong)", alt) for alt in alts)


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
