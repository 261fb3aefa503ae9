"""The terminal: rich tables as wide as the window."""

from __future__ import annotations

import io
import shutil
import sys

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.table import Cell, Report, Section, Table

BEST = " *"
"""Marks the best where nothing can be printed bold."""


def to_terminal(report: Report, console: Console | None = None) -> str:
    """Return a report for a terminal: bold and colour only where the output is one.

    Parameters
    ----------
    report : Report
        What to show.
    console : rich.console.Console, optional
        Decides width and colours; default: those of the standard output.
    """
    if console is None:
        width = shutil.get_terminal_size((120, 40)).columns
        console = Console(width=width, force_terminal=sys.stdout.isatty(), file=io.StringIO())
    with console.capture() as capture:
        console.rule(_text(report.title, "bold"))
        for section in report.sections:
            _section(section, console)
        _paragraphs(console, report.notes)
    return capture.get()


def _section(section: Section, console: Console) -> None:
    console.print()
    console.print(_text(section.title, "bold"))
    for paragraph in section.caption:
        console.print(_text(paragraph))
    for table in section.tables:
        console.print()
        console.print(_table(table, marked=not console.is_terminal))
        _paragraphs(console, table.notes)
    if section.notes:
        console.print()
        console.print(_text("Notes", "bold"))
        _paragraphs(console, section.notes)
    if section.methods:
        console.print()
        console.print(_text("Methods", "bold"))
        for paragraph in section.methods:
            console.print(_text(paragraph))


def _table(table: Table, *, marked: bool) -> RichTable:
    found = RichTable(
        title=_text(table.title, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    for column in table.columns:
        found.add_column(
            _text(column.title), justify="right" if column.numeric else "left", overflow="fold"
        )
    for row in table.rows:
        found.add_row(*[_cell(cell, marked=marked) for cell in row])
    return found


def _cell(cell: Cell, *, marked: bool) -> Text:
    if not cell.bold:
        return _text(cell.text)
    return _text(cell.text + BEST) if marked else _text(cell.text, "bold green")


def _paragraphs(console: Console, lines: tuple[str, ...]) -> None:
    for line in lines:
        console.print(_text(f"- {line}"))


def _text(words: str, style: str = "") -> Text:
    # Text, unlike a plain string, is never read as markup: names may hold square brackets.
    return Text(words, style=style)
