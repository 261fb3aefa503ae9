"""Marks of cells, the same in all formats, which the caption of a report explains."""

from bench.report.table import Cell

BEST = " ^"
"""The best of its column. An asterisk could be mistaken for significance."""
TIED = " ~"
"""Not significantly different from the best of its column."""
UNTESTED = " ?"
"""Not tested against the best of its column."""


def mark(cell: Cell) -> str:
    """Return the mark of a cell, or an empty text."""
    if cell.bold:
        return BEST
    return TIED if cell.tied else UNTESTED if cell.untested else ""
