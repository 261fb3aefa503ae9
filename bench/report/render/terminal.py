"""The terminal: rich tables as wide as the window."""

from __future__ import annotations

import io
import shutil

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.render.marks import mark
from bench.report.table import Cell, Report, Section, Table

GAP, EDGES = 2, 3
"""Characters between two columns, and outside of the first and last."""
NARROWEST = 20
"""Characters that a column of names keeps at least."""


def to_terminal(report: Report, *, styled: bool = False, width: int | None = None) -> str:
    """Return a report as lines of text, for a terminal with bold and colour.

    Parameters
    ----------
    report : Report
        What to show.
    styled : bool
        Whether a terminal shows it; a file or a pipe gets plain text.
    width : int, optional
        Characters a line; default: the terminal's.
    """
    width = width or shutil.get_terminal_size((120, 40)).columns
    console = Console(width=width, force_terminal=styled, file=io.StringIO())
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
        for grid in _tables(table, console):
            console.print()
            console.print(grid)
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


def _tables(table: Table, console: Console) -> list[RichTable]:
    """Lay out a table; what is wider than the window goes on in further blocks of columns.

    Names and messages wrap, numbers at most before a bracket: a cut number would be a wrong one.
    """
    cells = [[_cell(cell) for cell in row] for row in table.rows]
    room = console.width - EDGES
    widths = _widths(table, cells)
    if _total(widths) > room:
        cells = [
            [_broken(cell) if column.numeric else cell for column, cell in pairs]
            for pairs in (zip(table.columns, row, strict=True) for row in cells)
        ]
        widths = _widths(table, cells)
        spare = room - _total(widths[1:]) - GAP
        widths[0] = min(widths[0], spare if spare >= NARROWEST else max(room // 3, NARROWEST))
    lead = list(range(table.lead))
    blocks: list[list[int]] = [lead]
    for i in range(table.lead, len(table.columns)):
        left = room - _total([widths[k] for k in lead]) - GAP
        if not table.columns[i].numeric:
            widths[i] = min(widths[i], max(left, NARROWEST))
        if len(blocks[-1]) > len(lead) and _total([widths[k] for k in [*blocks[-1], i]]) > room:
            blocks.append(lead)
        blocks[-1] = [*blocks[-1], i]
    return [
        _grid(table, cells, widths, block, " (continued)" if number else "")
        for number, block in enumerate(blocks)
    ]


def _grid(
    table: Table, cells: list[list[Text]], widths: list[int], block: list[int], continued: str
) -> RichTable:
    grid = RichTable(
        title=_text(table.title + continued, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),
        pad_edge=False,
    )
    for i in block:
        grid.add_column(
            _text(table.columns[i].title),
            justify="right" if table.columns[i].numeric else "left",
            overflow="fold",
            width=widths[i],
        )
    for row in cells:
        grid.add_row(*[row[i] for i in block])
    return grid


def _widths(table: Table, cells: list[list[Text]]) -> list[int]:
    """Return the widest line of every column, its title included."""
    return [
        max(cell_len(line) for text in [column.title, *texts] for line in text.split("\n"))
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
    # Text, unlike a plain string, is never read as markup: names may hold square brackets.
    return Text(words, style=style)
