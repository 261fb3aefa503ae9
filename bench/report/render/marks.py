"""Signs of a cell, the same in every format; a report's caption says what they mean."""

from bench.report.table import Cell

BEST = " ^"
"""The best of its column; an asterisk would be read as significance."""
TIED = " ~"
"""Not separable from the best of its column."""
UNTESTED = " ?"
"""Not tested against the best of its column."""


def mark(cell: Cell) -> str:
    """Return the sign of a cell, empty where it has none."""
    if cell.bold:
        return BEST
    return TIED if cell.tied else UNTESTED if cell.untested else ""
