"""The page: order, links, escaping, size; what it says is in the rows it links to."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from analyzer.report.figures import draw_all
from analyzer.report.figures.style import save
from analyzer.report.page import inline, render


class Outline(HTMLParser):
    """Headings, ids, links, buttons and scripts of a page."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.ids, self.links, self.data, self.copies, self.scripts = [], [], [], [], [], []
        self.headers, self.tables, self.images = 0, 0, []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self._inside = tag
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a" and attributes.get("href", "").startswith("#"):
            self.links.append(attributes["href"][1:])
        if "data-filter" in attributes:
            self.data.append((attributes["data-table"], attributes["data-filter"]))
        if "data-copy" in attributes:
            self.copies.append(attributes["data-copy"])
        if attributes.get("role") == "img":
            self.images.append(attributes.get("aria-label", ""))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])
        if tag == "th":
            self.headers += attributes.get("scope") == "col"
        self.tables += tag == "table"
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside and re.fullmatch("h[1-6]", self._inside) and self.headings:
            self.headings[-1][1] += data
        if self._inside == "script":
            self.scripts[-1] += data


def page(analysis, folder):
    folder.mkdir(exist_ok=True)
    drawn = list(draw_all(analysis))
    return render(analysis, drawn, {one.name: save(one, folder) for one in drawn})


@pytest.fixture(scope="module")
def text(everything, tmp_path_factory):
    return page(everything, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def outline(text):
    return Outline(text)


def test_order_of_the_argument(outline):
    second = [title for level, title in outline.headings if level == 2 and title != "What limits this"]
    assert second == [
        "The story of one SYN",
        "Causes",
        "Who is hit",
        "Timeline",
        "Counters and probes",
        "What if",
        "Remedy",
        "Method and assumptions",
        "Tables",
    ]
    assert outline.headings[0] == [1, "731 of 1,265 SYNs got no SYN-ACK"]


def test_headings_skip_no_level(outline):
    levels = [level for level, _ in outline.headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_links_lead_somewhere_and_ids_are_unique(outline):
    assert len(set(outline.ids)) == len(outline.ids)
    assert set(outline.links) <= set(outline.ids)


def test_pictures_have_words_and_tables_have_headers(outline):
    assert len(outline.images) == 10
    assert all(len(words) > 60 for words in outline.images)
    assert outline.headers >= 2 * outline.tables


def _rows(text, name):
    found = re.search(rf'data-name="{name}".*?<script type="application/json">(.*?)</script>', text, re.DOTALL)
    columns = json.loads(found[1])["columns"]
    return {c["title"]: [c["words"][v] if "words" in c and v is not None else v for v in c["values"]] for c in columns}


def test_each_claim_leads_to_its_rows(text, outline, everything):
    rows = _rows(text, "syns")
    for table, words in outline.data:
        column, value = words.split(":")
        assert table == "syns"
        assert rows[column].count(value) == everything.diagnosis.summary.by_cause[value]


def test_failed_rows_come_first(text):
    causes = _rows(text, "syns")["cause"]
    failed = [cause != "answered" for cause in causes]
    assert failed == sorted(failed, reverse=True)


def test_frames_can_be_copied(outline):
    assert any(re.fullmatch(r"frame\.number in \{\d+(, \d+)+\}", words) for words in outline.copies)
    assert all(words == "" or words.startswith("frame.number") for words in outline.copies)


def test_only_its_own_script_may_run(text, outline):
    scripts = [s for s in outline.scripts if not s.startswith("{")]
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="https?:', text)


def test_it_is_small(text):
    assert len(text.encode()) < 3_000_000


def test_a_healthy_page_is_short_and_says_how_sure(healthy, tmp_path):
    text = page(healthy, tmp_path / "f")
    outline = Outline(text)
    assert outline.headings[0][1] == "Nothing is wrong: all 3 SYNs were answered"
    assert "3 of 3 answered handshakes were completed" in text
    assert "losses elsewhere on the path cannot be seen" in text
    assert not outline.images
    assert len(text) < 25_000


def test_svg_ids_are_the_figures_own():
    svg = (
        '<?xml?><svg xmlns="x"><!-- a --><defs><path id="p"/></defs>\n'
        ' <g id="g" clip-path="url(#p)"><use xlink:href="#p"/></g></svg>'
    )
    assert inline("fig", svg) == (
        '<svg aria-hidden="true" focusable="false" xmlns="x"><defs><path id="fig-p"/></defs>'
        '<g id="fig-g" clip-path="url(#fig-p)"><use xlink:href="#fig-p"/></g></svg>'
    )
