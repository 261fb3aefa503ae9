"""The HTML page is self-contained and escaped, and has headings for rows and columns."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import bench.report
from bench.report.render.html import to_html
from bench.report.table import Cell, Column, Picture, Report, Section, Table

NASTY = '<script>alert("1 & 2")</script>'
TEMPLATES = Path(bench.report.__file__).parent / "templates"


class Tags(HTMLParser):
    """Collects all tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        kinds = {"script": self.scripts, "style": self.styles}
        kinds.get(inside, self.words).append(data)


def page(*sections: Section) -> Tags:
    return Tags(to_html(Report(NASTY, sections, notes=(NASTY,))))


def section(name: str = "scores") -> Section:
    table = Table(
        name,
        NASTY,
        (Column("model", "model"), Column("auc", "AUC", numeric=True)),
        ((Cell(NASTY), Cell("0.7", bold=True)), (Cell("b"), Cell("0.6"))),
        notes=(NASTY,),
    )
    folded = Table(f"{name} log", NASTY, (Column("a", NASTY),), ((Cell(NASTY, tied=True),),))
    pictures = (Picture(NASTY, b"png", NASTY), Picture(NASTY, b"<svg/>", NASTY, "image/svg+xml"))
    return Section(NASTY, (table,), (NASTY,), (NASTY,), (NASTY,), pictures, (folded,))


def test_names_are_shown_and_never_executed() -> None:
    found = page(section(), section("more"))
    assert found.scripts == [(TEMPLATES / "page.js").read_text(encoding="utf-8")]
    assert found.styles == [(TEMPLATES / "page.css").read_text(encoding="utf-8")]
    assert [attrs for tag, attrs in found.tags if tag == "script"] == [{}]
    assert found.words.count(NASTY) >= 24
    assert found.open == []
    # Names must not become code: event handlers, script URLs or styles.
    names = {name for _, attrs in found.tags for name in attrs}
    assert not {name for name in names if name.startswith("on")} | names & {"style", "srcdoc"}


def test_a_malicious_name_is_escaped_everywhere() -> None:
    nasty = "</script><img src=x onerror=alert(1)>'\"&"
    table = Table(nasty, nasty, (Column(nasty, nasty, numeric=True),), ((Cell(nasty),),))
    picture = Picture(nasty, b"", nasty)
    parts = ((nasty,), (nasty,), (nasty,), (picture,), (table,))
    text = to_html(Report(nasty, (Section(nasty, (), *parts),), (nasty,)))
    assert nasty not in text
    assert "onerror=alert(1)>" not in text
    assert next(attrs for tag, attrs in Tags(text).tags if tag == "img")["alt"] == nasty


def test_nothing_is_fetched_and_no_other_script_can_run() -> None:
    found = page(section())
    places = [v for _, a in found.tags for k, v in a.items() if k in ("src", "href")]
    kinds = ("data:image/png;base64,", "data:image/svg+xml;base64,", "#")
    assert all(place.startswith(kinds) for place in places)
    assert not {"link", "iframe", "object", "form"} & {tag for tag, _ in found.tags}
    policy = next(a["content"] for _, a in found.tags if "http-equiv" in a)
    digests = {
        kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in (("style", found.styles[0]), ("script", found.scripts[0]))
    }
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digests['style']}'",
        "script-src": f"'sha256-{digests['script']}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"https?:|url\(|@import", found.styles[0] + found.scripts[0])


def test_rows_and_columns_have_headings_and_numbers_are_right_aligned() -> None:
    cells = [(tag, attrs) for tag, attrs in page(section()).tags if tag in ("th", "td")]
    assert [attrs.get("scope") for tag, attrs in cells if tag == "th"] == [
        "col",
        "col",
        "row",
        "row",
        "col",
        "row",
    ]
    assert [attrs.get("class") for tag, attrs in cells if tag == "td"] == ["number", "number"]


def sort_keys(*cells: Cell, numeric: bool = True) -> list[str | None]:
    columns = (Column("a", "A"), Column("b", "B", numeric=numeric))
    rows = tuple((Cell("name"), cell) for cell in cells)
    found = page(Section("S", (Table("t", "T", columns, rows),)))
    return [attrs.get("data-value") for tag, attrs in found.tags if tag == "td"]


def test_numbers_are_sorted_by_value_and_not_by_text() -> None:
    nan = float("nan")
    assert sort_keys(
        Cell("< 0.001", {"value": 0.00031}),
        Cell("0.70 [0.6, 0.8] n=5", {"metric": "auc", "n_train": 48, "mean": 0.7}),
        Cell("12", {"n": 12}),
        Cell("n/a", {"value": nan}),
        Cell("1 of 5 failed", {"n_train": 48, "mean": nan}),
        Cell("3.5"),
        Cell("3.5", {"note": "words"}),
    ) == ["0.00031", "0.7", "12", "", "", None, None]
    assert sort_keys(Cell("a", {"value": 1}), numeric=False) == [None]


def test_the_appendix_is_folded_under_its_title() -> None:
    found = page(section())
    assert [tag for tag, _ in found.tags if tag in ("details", "summary")] == ["details", "summary"]
    assert f"{NASTY} (1 row)" in found.words


def test_every_id_is_unique_and_every_label_refers_to_one() -> None:
    found = page(section(), section("more"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert not [each for each in ids if re.search(r"\s", each)]
    labels = {attrs["aria-labelledby"] for _, attrs in found.tags if "aria-labelledby" in attrs}
    assert labels <= set(ids)
    assert len(labels) == 4


def test_pictures_have_alternative_text() -> None:
    images = [attrs for tag, attrs in page(section()).tags if tag == "img"]
    assert [image["alt"] for image in images] == [NASTY, NASTY]


def test_the_contents_link_to_sections_tables_and_pictures() -> None:
    found = page(section(), section("more"))
    ids = {attrs["id"] for _, attrs in found.tags if "id" in attrs}
    links = {attrs["href"][1:] for tag, attrs in found.tags if tag == "a"}
    assert links <= ids
    assert links == {
        *("section-0", "scores", "scores-log", "pictures-0"),
        *("section-1", "more", "more-log", "pictures-1"),
    }
    small = Section("S", (Table("t", "T", (Column("a", "A"),), ()),))
    assert "nav" not in [tag for tag, _ in page(small).tags]
