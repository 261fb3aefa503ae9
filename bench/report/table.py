"""The elements of a report. They contain all numbers; renderers only escape and lay out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = float | int | str | None


@dataclass(frozen=True)
class Cell:
    """One cell: the text that readers see, and all its numbers at full precision.

    Parameters
    ----------
    text : str
        One line, not escaped.
    values : mapping
        Named numbers of the cell for CSV and JSON; NaN if undefined.
    bold : bool
        Whether it is the best of its column.
    tied : bool
        Whether it is not significantly different from the best of its column.
    untested : bool
        Whether it could not be tested against the best of its column.
    """

    text: str
    values: Mapping[str, Number] = field(default_factory=dict)
    bold: bool = False
    tied: bool = False
    untested: bool = False


@dataclass(frozen=True)
class Column:
    """One column, with a `key` for CSV and JSON and a `title` for readers.

    If a terminal is too narrow for all columns, those with the largest `minor` are omitted first.
    """

    key: str
    title: str
    numeric: bool = False
    minor: int = 0


@dataclass(frozen=True)
class Table:
    """A table, whose `name` is unique within a report.

    Parameters
    ----------
    name, title : str
        The name in CSV and JSON, and the title for readers.
    columns, rows : tuple
        Each row has one cell per column.
    notes : tuple of str
        Notes below the table.
    lead : int
        The number of leading columns that identify a row.

    Raises
    ------
    ValueError
        If a row does not have one cell per column.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    lead: int = 1

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name}: a row does not have one cell per column")


@dataclass(frozen=True)
class Picture:
    """A picture with its caption and its alternative text."""

    title: str
    data: bytes
    alternative: str
    media: str = "image/png"
    """The MIME type, ``image/png`` or ``image/svg+xml``."""


@dataclass(frozen=True)
class Section:
    """The tables of one protocol with their caption, notes and methods.

    Pictures are shown in HTML only. The appendix, which is too long for a terminal or a paper, is
    included in HTML, CSV and JSON.
    """

    title: str
    tables: tuple[Table, ...]
    caption: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    appendix: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report, with one section per protocol."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of all sections in order, including those of appendices."""
        return tuple(
            table for section in self.sections for table in (*section.tables, *section.appendix)
        )
