"""Reports as CSV (tables in long format) and JSON (the whole report), at full precision."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from bench.report.table import Cell, Number, Report, Table


def to_csv(report: Report) -> str:
    """Return the tables as CSV with one line per number: ``table, row, column, field, value``.

    The field ``text`` is what readers see; ``bold`` is 1 for the best of a column, ``tied`` for
    cells that are not significantly different from it, and ``untested`` for cells that could not
    be tested against it. Undefined numbers are empty. Rows are numbered from 1.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "row", "column", "field", "value"])
    for table in report.tables:
        for number, row in enumerate(table.rows, 1):
            for column, cell in zip(table.columns, row, strict=True):
                marks = {"bold": int(cell.bold), "tied": int(cell.tied)}
                fields = {"text": cell.text, **marks, **_untested(cell), **cell.values}
                for field, value in fields.items():
                    known = _finite(value)
                    writer.writerow(
                        [table.name, number, column.key, field, "" if known is None else known]
                    )
    return out.getvalue()


def to_json(report: Report) -> str:
    """Return the report as JSON; undefined numbers are null, and marks are as in `to_csv`."""
    content = {
        "title": report.title,
        "sections": [
            {
                "title": section.title,
                "caption": section.caption,
                "tables": [_table(table) for table in section.tables],
                "notes": section.notes,
                "methods": section.methods,
                "appendix": [_table(table) for table in section.appendix],
            }
            for section in report.sections
        ],
        "notes": report.notes,
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "columns": [
            {"key": column.key, "title": column.title, "numeric": column.numeric}
            for column in table.columns
        ],
        "rows": [
            {column.key: _cell(cell) for column, cell in zip(table.columns, row, strict=True)}
            for row in table.rows
        ],
        "notes": table.notes,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    values = {name: _finite(value) for name, value in cell.values.items()}
    marks = {"bold": cell.bold, "tied": cell.tied, **_untested(cell)}
    return {"text": cell.text, **marks, "values": values}


def _untested(cell: Cell) -> dict[str, int]:
    """Return the field for cells that could not be tested against the best."""
    return {"untested": 1} if cell.untested else {}


def _finite(value: Number) -> Number:
    return None if isinstance(value, float) and not math.isfinite(value) else value
