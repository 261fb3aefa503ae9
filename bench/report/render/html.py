"""One self-contained HTML page: no network, no script, readable on a phone and on paper."""

from __future__ import annotations

import base64
from html import escape

from bench.report.table import Cell, Column, Picture, Report, Section, Table

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --strong: #1a7f4b; }
@media (prefers-color-scheme: dark) { :root { --strong: #5fd39a; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); }
th[scope=row] { font-weight: 500; }
td, figcaption { overflow-wrap: anywhere; }
td { min-width: 6rem; } td.number { min-width: 0; }
.number { text-align: right; white-space: nowrap; }
.best { font-weight: 700; color: var(--strong); }
ul { padding-left: 1.2rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; max-width: 100%; }
figure img { max-width: 100%; height: auto; background: #000; display: block; }
figcaption { font-size: .85rem; max-width: 24rem; }
a:focus-visible, .wide:focus-visible { outline: 2px solid currentColor; }
@media print { body { max-width: none; font-size: 10pt; } .wide { overflow: visible; }
  table, figure { break-inside: avoid; } }
"""


def to_html(report: Report) -> str:
    """Return a report as one page."""
    sections = "\n".join(_section(section, i) for i, section in enumerate(report.sections))
    title = escape(report.title)
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{_contents(report)}{sections}\n{_list(report.notes)}"
        "</main>\n</body>\n</html>\n"
    )


def _contents(report: Report) -> str:
    if len(report.sections) < 2:
        return ""
    links = "".join(
        f'<li><a href="#section-{i}">{escape(section.title)}</a></li>'
        for i, section in enumerate(report.sections)
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'


def _section(section: Section, number: int) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", *_paragraphs(section.caption)]
    for table in section.tables:
        parts += [_table(table), _list(table.notes)]
    if section.pictures:
        pictures = "\n".join(map(_picture, section.pictures))
        parts.append(f'<div class="pictures">\n{pictures}\n</div>')
    if section.notes:
        parts += ["<h3>Notes</h3>", _list(section.notes)]
    if section.methods:
        parts += ["<h3>Methods</h3>", *_paragraphs(section.methods)]
    body = "\n".join(part for part in parts if part)
    return f'<section id="section-{number}">\n{body}\n</section>'


def _paragraphs(lines: tuple[str, ...]) -> list[str]:
    return [f"<p>{escape(line)}</p>" for line in lines]


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in table.columns
    )
    rows = "\n".join(
        f"<tr>{''.join(_cell(cell, i, table) for i, cell in enumerate(row))}</tr>"
        for row in table.rows
    )
    name = escape(table.name)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.title)}">\n'
        f'<table id="{name}">\n<caption>{escape(table.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _cell(cell: Cell, number: int, table: Table) -> str:
    text = escape(cell.text)
    if cell.bold:
        text = f'<strong class="best">{text}</strong>'
    if number == 0:
        return f'<th scope="row"{_class(table.columns[0])}>{text}</th>'
    return f"<td{_class(table.columns[number])}>{text}</td>"


def _class(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.data).decode("ascii")
    source = f"data:{picture.media};base64,{data}"
    return (
        f'<figure><img alt="{escape(picture.alternative)}" src="{source}">'
        f"<figcaption>{escape(picture.title)}</figcaption></figure>"
    )


def _list(lines: tuple[str, ...]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>\n" if items else ""
