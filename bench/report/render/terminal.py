"""Reports for terminals, with tables that fit the width of the window."""

from __future__ import annotations

import io
import shutil
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.render.marks import mark
from bench.report.table import Cell, Report, Section, Table

GAP, EDGES = 2, 3
"""Characters between columns, and outside of the first and last column."""
NARROWEST = 20
"""Columns of text are not made narrower than this; other columns are omitted instead."""
LEAST = 8
"""The minimum width of columns of text, however narrow the window."""


def to_terminal(
    report: Report, *, styled: bool = False, width: int | None = None, wide: bool | None = None
) -> str:
    """Return a report as lines of text, for a terminal with bold and colour.

    Parameters
    ----------
    report : Report
        The report.
    styled : bool
        Whether to use bold and colour; False for files and pipes.
    width : int, optional
        Characters per line; default: the width of the terminal.
    wide : bool, optional
        Whether tables have all their columns, however long the lines; None if the command has no
        such option.
    """
    width = width or shutil.get_terminal_size((120, 40)).columns
    console = Console(width=width, force_terminal=styled, file=io.StringIO())
    with console.capture() as capture:
        console.rule(_text(report.title, "bold"))
        for section in report.sections:
            _section(section, console, wide)
        _paragraphs(console, report.notes)
    return capture.get()


def _section(section: Section, console: Console, wide: bool | None) -> None:
    console.print()
    console.print(_text(section.title, "bold"))
    for paragraph in section.caption:
        console.print(_text(paragraph))
    for table in section.tables:
        _table(table, console, wide)
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


def _table(table: Table, console: Console, wide: bool | None) -> None:
    """Print a table under its title, with as many of its columns as fit."""
    cells = [[_cell(cell) for cell in row] for row in table.rows]
    widths = _widths(table, cells)
    shown = list(range(len(table.columns)))
    room = console.width - EDGES
    if wide:
        room = max(room, _total(widths))
    elif _total(widths) > room:
        # Numbers may only be broken before a bracket, as a cut number could be misread.
        cells = [
            [_broken(cell) if column.numeric else cell for column, cell in pairs]
            for pairs in (zip(table.columns, row, strict=True) for row in cells)
        ]
        shown, widths = _fitted(table, _widths(table, cells, broken=True), room)
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False)
    for i in shown:
        column = table.columns[i]
        side: Literal["left", "right"] = "right" if column.numeric else "left"
        grid.add_column(_text(column.title), justify=side, overflow="fold", width=widths[i])
    for row in cells:
        grid.add_row(*[row[i] for i in shown])
    console.print()
    console.print(_text(table.title, "bold"))
    # rich cuts off what is wider than its console, so its width is changed for this table.
    window, console.width = console.width, room + EDGES
    console.print(grid)
    console.width = window
    hidden = [column.title for i, column in enumerate(table.columns) if i not in shown]
    if hidden:
        remedy = "" if wide is None else "; use --wide to show them"
        _paragraphs(console, (f"Columns omitted for lack of width: {', '.join(hidden)}{remedy}.",))


def _fitted(table: Table, widths: list[int], room: int) -> tuple[list[int], list[int]]:
    """Return the columns that fit, and the width of every column.

    Columns of text become narrower, down to a limit; then the least important column is omitted.
    """
    shown = list(range(len(widths)))
    while True:
        words = [i for i in shown if not table.columns[i].numeric]
        taken = sum(widths[i] for i in shown if i not in words) + GAP * (len(shown) - 1)
        shares = _shares({i: widths[i] for i in words}, max(room - taken, 0))
        fits = taken <= room and all(shares[i] >= min(widths[i], NARROWEST) for i in words)
        rest = shown[table.lead :]
        if fits or len(rest) < 2:
            least = {i: max(share, min(widths[i], LEAST)) for i, share in shares.items()}
            return shown, [least.get(i, width) for i, width in enumerate(widths)]
        shown.remove(max(rest, key=lambda i: (table.columns[i].minor, i)))


def _shares(widths: dict[int, int], room: int) -> dict[int, int]:
    """Divide the available width equally among columns, but give none more than it needs."""
    found = {}
    for place, i in enumerate(sorted(widths, key=lambda i: widths[i])):
        found[i] = min(widths[i], room // (len(widths) - place))
        room -= found[i]
    return found


def _widths(table: Table, cells: list[list[Text]], *, broken: bool = False) -> list[int]:
    """Return the width of every column; titles of numeric columns may be `broken` into words."""
    return [
        max(
            cell_len(line)
            for text in [
                *(column.title.split() if broken and column.numeric else [column.title]),
                *texts,
            ]
            for line in text.split("\n")
        )
        for column, *texts in zip(
            table.columns, *([text.plain for text in row] for row in cells), strict=True
        )
    ]


def _total(widths: list[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _broken(cell: Text) -> Text:
    return Text(cell.plain.replace(" (", "\n("), style=cell.style)


def _cell(cell: Cell) -> Text:
    return _text(cell.text + mark(cell), "bold green" if cell.bold else "")


def _paragraphs(console: Console, lines: tuple[str, ...]) -> None:
    for line in lines:
        console.print(_text(f"- {line}"))


def _text(words: str, style: str = "") -> Text:
    # Unlike a plain string, Text is not parsed as markup; names may contain square brackets.
    return Text(words, style=style)
