"""What a report is made of. Everything is computed before; renderers only escape and lay out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = float | int | str | None


@dataclass(frozen=True)
class Cell:
    """One cell: the words a reader sees and, behind them, every number at full precision.

    Parameters
    ----------
    text : str
        One line, not escaped.
    values : mapping
        Named numbers of the cell for csv and json; NaN where something is undefined.
    bold : bool
        Whether it is the best of its column.
    tied : bool
        Whether the test does not separate it from the best of its column.
    untested : bool
        Whether nothing could test it against the best of its column.
    """

    text: str
    values: Mapping[str, Number] = field(default_factory=dict)
    bold: bool = False
    tied: bool = False
    untested: bool = False


@dataclass(frozen=True)
class Column:
    """One column: `key` for machines, `title` for readers, numbers to the right.

    Where there is no room for all columns, those of the largest `minor` are left out first.
    """

    key: str
    title: str
    numeric: bool = False
    minor: int = 0


@dataclass(frozen=True)
class Table:
    """A table; `name` is unique within a report.

    Parameters
    ----------
    name, title : str
        For machines and for readers.
    columns, rows : tuple
        Every row has one cell a column.
    notes : tuple of str
        What belongs below it.
    lead : int
        How many of the first columns say what a row is about.

    Raises
    ------
    ValueError
        When a row does not have one cell a column.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    lead: int = 1

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name}: a row does not fit its columns")


@dataclass(frozen=True)
class Picture:
    """A picture with the words below it and for those who do not see it."""

    title: str
    data: bytes
    alternative: str
    media: str = "image/png"
    """Or ``image/svg+xml``."""


@dataclass(frozen=True)
class Section:
    """The tables of one protocol with the paragraphs that say what they mean.

    Pictures are shown by formats that can; the appendix, too long for a terminal or a paper, by
    pages and files for machines.
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
    """A whole report: one section a protocol, never two protocols in one table."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of all sections, those of appendices included, in order."""
        return tuple(
            table for section in self.sections for table in (*section.tables, *section.appendix)
        )
