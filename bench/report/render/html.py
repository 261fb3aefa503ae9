"""Reports as a single HTML file that works offline, on phones, on paper and without scripts.

Style sheet and script are the files in ``bench/report/templates``. The script only sorts and
filters tables. It contains no data, and the page's policy does not allow any other script.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html import escape
from importlib.resources import files

from bench.report.render.marks import mark
from bench.report.table import Cell, Column, Picture, Report, Section, Table

STYLE, SCRIPT = (
    (files("bench.report") / "templates" / name).read_text(encoding="utf-8")
    for name in ("page.css", "page.js")
)
_SORTED_BY = ("value", "mean")
"""The values by which a cell with several numbers is sorted; by default its first number."""


def to_html(report: Report) -> str:
    """Return a report as one page."""
    sections = "\n".join(_section(section, i) for i, section in enumerate(report.sections))
    title = escape(report.title)
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{_contents(report)}{sections}\n{_list(report.notes)}"
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _policy() -> str:
    """Return a policy that allows this style sheet, this script and embedded pictures only."""
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (STYLE, SCRIPT)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _contents(report: Report) -> str:
    parts = [_links(section, i) for i, section in enumerate(report.sections)]
    if sum(part.count("<a ") for part in parts) < 3:
        return ""
    return f'<nav aria-label="Contents"><ul>{"".join(parts)}</ul></nav>\n'


def _links(section: Section, number: int) -> str:
    tables = [(_id(table), table.title) for table in (*section.tables, *section.appendix)]
    pictures = [(f"pictures-{number}", "Pictures")] if section.pictures else []
    inner = "".join(_link(*each) for each in [*tables, *pictures])
    return f'<li><a href="#section-{number}">{escape(section.title)}</a><ul>{inner}</ul></li>'


def _link(target: str, words: str) -> str:
    return f'<li><a href="#{escape(target)}">{escape(words)}</a></li>'


def _section(section: Section, number: int) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", *_paragraphs(section.caption)]
    for table in section.tables:
        parts.append(f'<div class="table">\n{_table(table)}\n{_list(table.notes, "notes")}</div>')
    if section.pictures:
        pictures = "\n".join(map(_picture, section.pictures))
        parts.append(f'<div class="pictures" id="pictures-{number}">\n{pictures}\n</div>')
    if section.notes:
        parts += ["<h3>Notes</h3>", _list(section.notes)]
    if section.methods:
        parts += ["<h3>Methods</h3>", *_paragraphs(section.methods)]
    if section.appendix:
        parts += ["<h3>Appendix</h3>", *map(_folded, section.appendix)]
    body = "\n".join(part for part in parts if part)
    return f'<section id="section-{number}">\n{body}\n</section>'


def _paragraphs(lines: tuple[str, ...]) -> list[str]:
    return [f"<p>{escape(line)}</p>" for line in lines]


# ---------------------------------------------------------------------------- tables


def _table(table: Table, named_by: str = "caption") -> str:
    name = escape(_id(table))
    head = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in table.columns
    )
    rows = "\n".join(
        f"<tr>{''.join(_cell(cell, i, table) for i, cell in enumerate(row))}</tr>"
        for row in table.rows
    )
    caption = ""
    if named_by == "caption":
        title = f"<span>{escape(table.title)}</span>"
        caption = f'<caption id="{name}-caption">{title}</caption>\n'
    label = f'aria-labelledby="{name}-{named_by}"'
    return (
        f'<div class="wide" tabindex="0" role="region" {label}>\n'
        f'<table id="{name}" {label}>\n{caption}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _folded(table: Table) -> str:
    """Return a table that is collapsed until its title is clicked."""
    rows = f"{len(table.rows)} row{'' if len(table.rows) == 1 else 's'}"
    return (
        f'<details class="table">\n<summary id="{escape(_id(table))}-summary">'
        f"{escape(table.title)} ({rows})</summary>\n{_table(table, 'summary')}\n"
        f"{_list(table.notes, 'notes')}</details>"
    )


def _cell(cell: Cell, number: int, table: Table) -> str:
    column = table.columns[number]
    text = escape(cell.text)
    if cell.bold:
        text = f'<strong class="best">{text}</strong>'
    if sign := mark(cell):
        text += f'<span class="mark">{sign}</span>'
    attributes = _class(column) + (_value(cell) if column.numeric else "")
    if number == 0:
        return f'<th scope="row"{attributes}>{text}</th>'
    return f"<td{attributes}>{text}</td>"


def _value(cell: Cell) -> str:
    """Return the number by which the cell is sorted; without one, it is sorted by its text."""
    keys = (*(key for key in _SORTED_BY if key in cell.values), *cell.values)
    numbers = (cell.values[key] for key in keys)
    for number in numbers:
        if isinstance(number, (int, float)):
            return f' data-value="{number if math.isfinite(number) else ""}"'
    return ""


def _class(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _id(table: Table) -> str:
    """Return the table's unique name as an id, without spaces."""
    return re.sub(r"\s+", "-", table.name)


# ---------------------------------------------------------------------------- the rest


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.data).decode("ascii")
    source = f"data:{escape(picture.media)};base64,{data}"
    return (
        f'<figure><img alt="{escape(picture.alternative)}" src="{source}">'
        f"<figcaption>{escape(picture.title)}</figcaption></figure>"
    )


def _list(lines: tuple[str, ...], kind: str = "") -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    start = f'<ul class="{kind}">' if kind else "<ul>"
    return f"{start}{items}</ul>\n" if items else ""
