"""The HTML page: self-contained, escaped, with real headings of rows and columns."""

from __future__ import annotations

from html.parser import HTMLParser

from bench.report.render.html import to_html
from bench.report.table import Cell, Column, Picture, Report, Section, Table

NASTY = '<script>alert("1 & 2")</script>'


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page(*sections: Section) -> Tags:
    return Tags(to_html(Report(NASTY, sections, notes=(NASTY,))))


def section() -> Section:
    table = Table(
        "scores",
        NASTY,
        (Column("model", "model"), Column("auc", "AUC", numeric=True)),
        ((Cell(NASTY), Cell("0.7", bold=True)), (Cell("b"), Cell("0.6"))),
        notes=(NASTY,),
    )
    return Section(NASTY, (table,), (NASTY,), (NASTY,), (NASTY,), (Picture(NASTY, b"png", NASTY),))


def test_names_are_shown_and_never_run() -> None:
    found = page(section(), section())
    assert "script" not in [tag for tag, _ in found.tags]
    assert found.words.count(NASTY) >= 12
    assert found.open == []


def test_nothing_is_fetched() -> None:
    found = page(section())
    places = [v for _, a in found.tags for k, v in a.items() if k in ("src", "href")]
    assert all(place.startswith(("data:image/png;base64,", "#")) for place in places)
    assert not {"link", "iframe", "script"} & {tag for tag, _ in found.tags}


def test_rows_and_columns_have_headings_and_numbers_stand_right() -> None:
    cells = [(tag, attrs) for tag, attrs in page(section()).tags if tag in ("th", "td")]
    assert [attrs.get("scope") for tag, attrs in cells if tag == "th"] == [
        "col",
        "col",
        "row",
        "row",
    ]
    assert [attrs.get("class") for tag, attrs in cells if tag == "td"] == ["number", "number"]


def test_pictures_have_words_for_those_who_do_not_see_them() -> None:
    images = [attrs for tag, attrs in page(section()).tags if tag == "img"]
    assert [image["alt"] for image in images] == [NASTY]


def test_several_sections_have_a_list_of_contents_that_leads_to_them() -> None:
    found = page(section(), section())
    ids = {attrs["id"] for tag, attrs in found.tags if tag == "section"}
    links = {attrs["href"][1:] for tag, attrs in found.tags if tag == "a"}
    assert links == ids
    assert "nav" not in [tag for tag, _ in page(section()).tags]
