"""Figures in docs/ against the records that they come from, and links between the pages."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.speed.retrieval import table

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def rows_under(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    section = (DOCS / page).read_text().split(f"\n{heading}\n")[1].split("\n## ")[0]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_retrieval_rates_are_those_of_the_record_in_cpu_time():
    """One unit in the whole table: queries per CPU second, and builds in CPU seconds."""
    record = json.loads((DOCS / "retrieval.json").read_text())["indexes"]
    rows = rows_under("performance.md", "## Retrieval")
    assert len(rows) == len(record)
    for row, entry in zip(rows, record):
        rate, exact = entry["queries_per_cpu_s"], entry["exact_queries_per_cpu_s"]
        assert row[0].strip("`") == entry["index"] and row[2] == str(entry["nprobe"] or "")
        assert row[-4:] == [f"{entry['build_cpu_s']:.0f}", f"{rate:.0f}", f"{exact:.0f}", f"{rate / exact:.1f}"]
        assert row[3] == f"{100 * entry['found@1']:.1f}%" and row[7] == f"{entry['bytes_per_vector']:.0f}"
    for row, line in zip(rows, table(record).splitlines()[2:]):
        assert line.split()[-4:] == row[-4:]  # what the command prints


def test_the_shipped_networks_figures_are_those_of_its_record():
    towns = json.loads((ROOT / "pretrained/segvpr_town.json").read_text())["evaluation"]
    untrained, shipped = (
        {s["name"]: f"{100 * s['recall']['1']:.1f}" for s in towns[key]["town_91000"]["sets"]}
        for key in ("untrained", "after_8_legs")
    )
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    shown = {row[0]: row[2:] for row in cells if len(row) == 4 and row[0] in ("val", "rain", "snow", "sun", "night")}
    names = {"val": "val", **{name: f"robotcar/{name}" for name in ("rain", "snow", "sun", "night")}}
    assert shown == {short: [untrained[name], shipped[name]] for short, name in names.items()}


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as the web sites that show Markdown make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_official_pages_and_the_reference_code_are_linked():
    text = (DOCS / "datasets.md").read_text()
    for address in ("https://idda-dataset.github.io", "https://robotcar-dataset.robots.ox.ac.uk"):
        assert f"]({address})" in text
    assert "](https://github.com/valeriopaolicelli/SegVPR)" in text
