"""The HTML page: whole, closed to the network and to what names try to smuggle in; and as a browser shows it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from dfkd.report import report_of_sweep
from dfkd.report.content import Question, answer
from dfkd.report.output import save
from dfkd.report.page import HERE
from dfkd.report.runs import find

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;$x_1$\x00\u2028"
VOID = {"meta", "input", "img"}


class Page(HTMLParser):
    """What is on a page.

    Attributes:
        tags: (name, attributes) of every element.
        words: all text outside of style and script.
        open: elements that were not closed.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open, self.scripts, self.bad = [], "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.bad.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words += data

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


def make(folders: list[Path], to: Path, **question) -> Page:
    files = save(answer(find(folders), Question(**question)), to, ["html"])
    return Page(files["html"].read_text())


@pytest.fixture
def cells(pictured, unfinished):
    return [
        pictured("samples_all", "samples_fragile", seed=0),
        pictured("samples_all", "samples_fragile", "samples_robust", asr=9.0, fragile=0.5, defense__name="atesc"),
        pictured("samples_all", "decision_fields", asr=30.0, iacc=70.0, defense__name="ckd", warnings=["mind the gap"]),
        unfinished({"status": "failed", "error": "OSError: disk", "command": "dfkd seed=7"}, seed=7),
    ]


@pytest.fixture
def page(cells, tmp_path):
    return make(cells, tmp_path / "page")


def test_everything_is_on_it(page):
    assert page.open == [] and page.bad == []
    ids = {attributes.get("id") for attributes in page.all("section")}
    assert ids == {"results", "figures", "images", "unfinished", "warnings", "cells", "provenance"}
    for words in (
        "3 cells, 3 settings, seed 0",
        "90.0",
        "mind the gap",
        "OSError: disk",
        "dfkd seed=7",
        "a CPU",
        "2.9",
    ):
        assert words in page.words
    figures = [attributes["class"] for attributes in page.all("figure")]
    assert figures[:3] == ["trap", "bars", "curves"] and len(page.all("svg")) == 3


def test_audited_cells_show_the_verdict_beside_what_is_inherited(finished, tmp_path):
    page = make([finished(audit=0.97), finished(audit=0.03, asr=2.0, teacher__name="clean_twin")], tmp_path / "page")
    figures = [attributes["class"] for attributes in page.all("figure")]
    assert figures[:2] == ["trap", "audit"]
    assert "0.97" in page.words and "0.03" in page.words  # the column of the table


def test_fragile_beside_robust_and_fields_instead_of_grids(page):
    shown = [attributes["alt"].split(" of ")[0] for attributes in page.all("img")]
    assert shown == ["all images", "fragile images", "robust images", "decision fields"]
    for attributes in page.all("img"):
        kind, _, data = attributes["src"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            assert image.width == int(attributes["width"]) <= 1100 and image.width / image.height == pytest.approx(
                3, 0.02
            )


def test_a_projection_of_embeddings_stands_alone_too(pictured, tmp_path):
    page = make([pictured("projection")], tmp_path / "page")
    (shown,) = (attributes["alt"] for attributes in page.all("img"))
    assert shown.startswith("real and synthetic examples of ")


def test_nothing_is_fetched_and_only_its_own_script_runs(page):
    (policy,) = (a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert not re.match(r"\w+:(?!image/png;base64,)|//", attributes.get(name, ""))
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}


def test_names_and_numbers_of_a_stranger_are_text(finished, unfinished, tmp_path):
    cells = [
        finished(name="javascript:alert(1)", defense__name=EVIL, warnings=[EVIL, 3, None]),
        finished(asr=EVIL, iacc=80.0, synthesizer__name=EVIL, ntl_scenario__id={"name": EVIL}),
        unfinished({"status": "failed", "error": EVIL, "command": EVIL}, defense__name="x"),
    ]
    page = make(cells, tmp_path / "runs")
    assert page.open == [] and page.bad == [] and len(page.scripts) == 1
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert {attributes["src"] for attributes in page.all("img")} == set()
    assert page.words.count("<script>alert(1)</script>") > 5
    assert "javascript%3Aalert%281%29/" in {attributes["href"] for attributes in page.all("a")}


def test_a_damaged_picture_is_left_out(pictured, tmp_path):
    folder = pictured("samples_all", "samples_fragile", "samples_robust")
    whole = (folder / "samples_robust.png").read_bytes()
    (folder / "samples_robust.png").write_bytes(whole[: len(whole) // 2])
    (folder / "samples_fragile.png").write_bytes(b"<svg onload=alert(1)>")
    assert make([folder], tmp_path / "page").all("img") == []


@pytest.mark.parametrize(
    "cells",
    [
        [{"asr": None, "teacher_asr": None}],  # no trap
        [{"asr": None, "teacher_asr": None, "ntl_scenario__name": "none"}, {}],  # with and without, in one report
        [{"iacc": None, "asr": None}],
        [{"teacher__epochs": epochs} for epochs in range(42)],  # more than one can tell apart
    ],
    ids=["no trap", "mixed", "nothing measured", "many"],
)
def test_every_mixture_of_cells_can_be_drawn(finished, tmp_path, cells):
    page = make([finished(**cell) for cell in cells], tmp_path / "page")
    assert page.open == [] and page.all("svg")


def test_a_page_of_a_sweep_that_has_only_begun(unfinished, tmp_path):
    folder = unfinished("running")
    (folder / "metrics.jsonl").write_text('{"stage": "student", "step": 0, "val/iacc": 10.0}\n{"stage": "\xff')
    page = make([folder], tmp_path / "page")
    assert "No cell has finished." in page.words and page.all("figure")[0]["class"] == "curves"


def test_a_pivot_is_a_page_too(cells, tmp_path):
    page = make(cells, tmp_path / "page", columns=("defense",), measures=("student ID", "ASR"))
    assert "ASR; columns: defense" in page.words and len(page.all("table")) == 4


def test_the_end_of_a_sweep_says_where_everything_is(cells, listed, tmp_path):
    sweep = listed(*((cell, "done", None, []) for cell in cells[:2]), (None, "failed", "no such option", ["a=b"]))
    said = report_of_sweep(sweep, tmp_path / "reports")
    (out,) = (tmp_path / "reports").iterdir()
    assert {file.name for file in out.iterdir()} == {"table.md", "table.csv", "table.tex", "report.html", "figure.png"}
    assert said.strip().startswith("| defense") and f"open  {out / 'report.html'}" in said
    assert f"{cells[1]}/*.png" in said and f"table {out / 'table.md'}" in said
    assert "no such option" in (out / "report.html").read_text()
    assert Image.open(out / "figure.png").size[0] > 300


SORTED = """
const cell = (attributes, text) => ({dataset: attributes, textContent: text, classList: {contains: () => false}});
const row = (text, i) => ({cells: [cell({text}, `${i + 1} ${text}`)]});
const shown = [], clicks = [], texts = TEXTS;
const head = {firstChild: {addEventListener: (_, act) => clicks.push(act)}, getAttribute: () => null,
              removeAttribute: () => {}, setAttribute: () => {}};
const body = {rows: texts.map(row), append: (...rows) => shown.push(...rows.map((row) => row.cells[0].dataset.text))};
const table = {tHead: {rows: [{cells: [head]}]}, tBodies: [body]};
globalThis.document = {documentElement: {classList: {add: () => {}}}, addEventListener: () => {},
                       querySelectorAll: (what) => (what === "table[id]" ? [table] : [])};
SCRIPT
clicks[0]();
console.log(JSON.stringify(shown));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on PATH")
@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["ckd", "none", "atesc"], ["atesc", "ckd", "none"]),
        (["0.01", "1e-4", "10", "-2"], ["-2", "1e-4", "0.01", "10"]),
        (["resnet34", "resnet4", "lenet"], ["lenet", "resnet4", "resnet34"]),
    ],
)
def test_the_first_column_is_sorted_by_its_text(texts, wanted):
    script = SORTED.replace("TEXTS", json.dumps(texts)).replace("SCRIPT", (HERE / "page.js").read_text())
    done = subprocess.run(["node", "-"], input=script.replace('"use strict";', ""), capture_output=True, text=True)
    assert json.loads(done.stdout) == wanted, done.stderr


def test_a_row_has_its_text_beside_its_number(page):
    heads = [attributes for attributes in page.all("th") if "data-text" in attributes]
    assert [attributes["data-text"] for attributes in heads] == ["none", "atesc", "ckd"]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>addEventListener("load", () => {
  const table = document.getElementById("table-0");
  const rows = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const order = () => rows().map((row) => row.cells[0].textContent.split(" ").pop()).join(" ");
  const head = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === "ASR").firstChild, said = [];
  head.click(); said.push(order()); head.click(); said.push(order());
  const field = document.querySelector("input[data-filters=table-0]");
  field.value = "ATESC"; field.dispatchEvent(new Event("input")); said.push(order());
  document.title = said.join("; ");
}); </script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")
def test_a_browser_shows_sorts_and_filters_it(finished, cells, tmp_path):
    make([*cells, finished(asr=None, defense__name="abd")], tmp_path / "page")
    file = tmp_path / "page" / "report.html"

    def browse(*options: object) -> str:
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    browse(f"--screenshot={tmp_path / 'shot.png'}", file.as_uri())
    with Image.open(tmp_path / "shot.png") as shot:
        assert shot.size == (1280, 900) and len(shot.convert("RGB").getcolors(1 << 20)) > 50
    assert '<html lang="en" class="js">' in browse("--dump-dom", file.as_uri())  # its policy lets its script run
    probed = tmp_path / "probed.html"
    probed.write_text(
        re.sub("<meta [^>]*Content-Security-Policy[^>]*>", "", file.read_text()).replace("</body>", PROBE)
    )
    title, *_ = re.findall("<title>(.*?)</title>", browse("--dump-dom", probed.as_uri()))
    assert title == "atesc ckd none abd; none ckd atesc abd; atesc"  # a missing number is last both ways
