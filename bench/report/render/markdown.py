"""Reports as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from bench.report.render.marks import mark
from bench.report.table import Cell, Report, Section, Table


def to_markdown(report: Report) -> str:
    """Return a report as Markdown."""
    blocks = [f"# {escape(report.title)}"]
    for section in report.sections:
        blocks += _section(section)
    blocks += [_list(report.notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    """Escape everything that could be read as Markdown, HTML or mathematics."""
    text = re.sub(r"([\\`*_|~$])", r"\\\1", text)
    # `]` starts a link only before `(`; `<` and `&` matter only before a name.
    return re.sub(r"\](?=\()|<(?=\S)|&(?=[#\w])", r"\\\g<0>", text)


def _section(section: Section) -> list[str]:
    blocks = [f"## {escape(section.title)}", *map(escape, section.caption)]
    for table in section.tables:
        blocks += [f"### {escape(table.title)}", _table(table), _list(table.notes)]
    if section.notes:
        blocks += ["### Notes", _list(section.notes)]
    if section.methods:
        blocks += ["### Methods", *map(escape, section.methods)]
    return blocks


def _table(table: Table) -> str:
    rows = [
        [escape(column.title) for column in table.columns],
        ["---:" if column.numeric else ":---" for column in table.columns],
        *[[_cell(cell) for cell in row] for row in table.rows],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    # A tilde or caret between spaces has no meaning in Markdown.
    return (f"**{text}**" if cell.bold else text) + mark(cell)


def _list(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
